//! Parquet, column by column: amounts are decimals, days dates, instants timestamps in UTC. Every column may be null.

use std::io::Write;
use std::sync::Arc;

use chrono::{Datelike as _, NaiveDate};
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use super::file::WriteError;
use super::{Kind, Value};

/// Rows of one row group: what is held in memory before it is written.
const GROUP: usize = 50_000;

/// How many digits an amount may have: all that fit into 64 bits.
const DIGITS: i32 = 18;

/// A Parquet file on its way.
pub struct ParquetFile<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    columns: Vec<Column>,
    rows: usize,
}

impl<W: Write + Send> ParquetFile<W> {
    pub(super) fn begin(
        columns: &[(&str, Kind)],
        facts: impl IntoIterator<Item = (String, String)>,
        into: W,
    ) -> Result<Self, WriteError> {
        let fields: Result<Vec<_>, _> =
            columns.iter().map(|(name, kind)| field(name, *kind).map(Arc::new)).collect();
        let schema =
            Type::group_type_builder("row").with_fields(fields.map_err(failed)?).build().map_err(failed)?;
        let facts =
            facts.into_iter().map(|(name, fact)| KeyValue::new(format!("coupon-ledger.{name}"), fact));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).map_err(failed)?))
            .set_created_by(concat!("coupon-ledger version ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_key_value_metadata(Some(facts.collect()))
            .build();
        let writer =
            SerializedFileWriter::new(into, Arc::new(schema), Arc::new(properties)).map_err(failed)?;
        Ok(Self { writer, columns: columns.iter().map(|(_, kind)| Column::new(*kind)).collect(), rows: 0 })
    }

    pub(super) fn put(&mut self, line: &[Value]) -> Result<(), WriteError> {
        for (column, value) in self.columns.iter_mut().zip(line) {
            column.put(value);
        }
        self.rows += 1;
        if self.rows < GROUP { Ok(()) } else { self.write_group() }
    }

    pub(super) fn finish(mut self) -> Result<W, WriteError> {
        if self.rows > 0 {
            self.write_group()?;
        }
        self.writer.into_inner().map_err(failed)
    }

    fn write_group(&mut self) -> Result<(), WriteError> {
        let mut group = self.writer.next_row_group().map_err(failed)?;
        let mut columns = self.columns.iter_mut();
        while let (Some(mut into), Some(column)) = (group.next_column().map_err(failed)?, columns.next()) {
            let levels = Some(column.levels.as_slice());
            match &column.values {
                Values::Longs(values) => into.typed::<Int64Type>().write_batch(values, levels, None),
                Values::Days(values) => into.typed::<Int32Type>().write_batch(values, levels, None),
                Values::Flags(values) => into.typed::<BoolType>().write_batch(values, levels, None),
                Values::Texts(values) => into.typed::<ByteArrayType>().write_batch(values, levels, None),
            }
            .map_err(failed)?;
            into.close().map_err(failed)?;
            column.clear();
        }
        group.close().map_err(failed)?;
        self.rows = 0;
        Ok(())
    }
}

fn failed(error: ParquetError) -> WriteError {
    match error {
        ParquetError::External(error) => match error.downcast::<std::io::Error>() {
            Ok(error) => WriteError::Io(*error),
            Err(error) => WriteError::Other(error.to_string()),
        },
        error => WriteError::Other(error.to_string()),
    }
}

fn field(name: &str, kind: Kind) -> Result<Type, ParquetError> {
    let (physical, logical) = match kind {
        Kind::Id | Kind::Int => (Physical::INT64, None),
        Kind::Hundredths => (Physical::INT64, Some(LogicalType::decimal(2, DIGITS))),
        Kind::Share => (Physical::INT64, Some(LogicalType::decimal(4, DIGITS))),
        Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        Kind::Day => (Physical::INT32, Some(LogicalType::Date)),
        Kind::Instant => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MILLIS))),
        Kind::Flag => (Physical::BOOLEAN, None),
    };
    let field = Type::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL);
    let field = field.with_logical_type(logical);
    match kind {
        Kind::Hundredths => field.with_precision(DIGITS).with_scale(2).build(),
        Kind::Share => field.with_precision(DIGITS).with_scale(4).build(),
        _ => field.build(),
    }
}

/// The values of a column that are not written yet.
enum Values {
    Longs(Vec<i64>),
    Days(Vec<i32>),
    Flags(Vec<bool>),
    Texts(Vec<ByteArray>),
}

struct Column {
    values: Values,
    /// 1 where there is a value, 0 where there is none.
    levels: Vec<i16>,
}

impl Column {
    fn new(kind: Kind) -> Self {
        let values = match kind {
            Kind::Id | Kind::Int | Kind::Hundredths | Kind::Share | Kind::Instant => {
                Values::Longs(Vec::new())
            }
            Kind::Day => Values::Days(Vec::new()),
            Kind::Flag => Values::Flags(Vec::new()),
            Kind::Text => Values::Texts(Vec::new()),
        };
        Self { values, levels: Vec::new() }
    }

    fn put(&mut self, value: &Value) {
        let is_there = match (&mut self.values, value) {
            (Values::Longs(values), Value::Int(number)) => {
                values.push(*number);
                true
            }
            // A day that is none is nothing: no row of the ledger has one.
            (Values::Days(values), Value::Int(number)) => match days_since_1970(*number) {
                Some(days) => {
                    values.push(days);
                    true
                }
                None => false,
            },
            (Values::Flags(values), Value::Int(number)) => {
                values.push(*number != 0);
                true
            }
            (Values::Texts(values), Value::Text(text)) => {
                values.push(ByteArray::from(text.as_str()));
                true
            }
            _ => false,
        };
        self.levels.push(i16::from(is_there));
    }

    fn clear(&mut self) {
        self.levels.clear();
        match &mut self.values {
            Values::Longs(values) => values.clear(),
            Values::Days(values) => values.clear(),
            Values::Flags(values) => values.clear(),
            Values::Texts(values) => values.clear(),
        }
    }
}

/// The day 20261129 as Parquet counts days.
pub(super) fn days_since_1970(day: i64) -> Option<i32> {
    let [year, month, day] = [day / 10_000, day / 100 % 100, day % 100];
    let day = NaiveDate::from_ymd_opt(
        i32::try_from(year).ok()?,
        u32::try_from(month).ok()?,
        u32::try_from(day).ok()?,
    )?;
    let of_1970 = NaiveDate::from_ymd_opt(1970, 1, 1)?;
    Some(day.num_days_from_ce() - of_1970.num_days_from_ce())
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use parquet::record::RowAccessor as _;

    use super::*;

    #[test]
    fn rows_that_are_too_many_for_one_group_go_on_in_the_next() {
        let columns = [("id", Kind::Id), ("text", Kind::Text), ("day", Kind::Day), ("is", Kind::Flag)];
        let mut file = ParquetFile::begin(&columns, [], Vec::new()).unwrap();
        for row in 0..(GROUP + 5) as i64 {
            let text = if row % 2 == 0 { Value::Null } else { Value::Text(row.to_string()) };
            file.put(&[Value::Int(row), text, Value::Int(20_261_129), Value::Int(1)]).unwrap();
        }
        let file = SerializedFileReader::new(bytes::Bytes::from(file.finish().unwrap())).unwrap();
        assert_eq!(file.num_row_groups(), 2);
        let rows = file.get_row_iter(None).unwrap().map(Result::unwrap);
        let ids: Vec<i64> = rows
            .inspect(|row| assert!(row.get_bool(3).unwrap()))
            .map(|row| row.get_long(0).unwrap())
            .collect();
        assert!(ids.iter().copied().eq(0..(GROUP + 5) as i64), "{} rows", ids.len());
    }

    #[test]
    fn days_are_counted_from_1970() {
        assert_eq!(days_since_1970(19_700_101), Some(0));
        assert_eq!(days_since_1970(20_261_129), Some(20_786));
        assert_eq!(days_since_1970(19_691_231), Some(-1));
        assert_eq!(days_since_1970(20_260_230), None);
    }
}
