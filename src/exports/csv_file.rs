//! CSV as RFC 4180 has it, in UTF-8: numbers stay numbers, and no text is a formula to whoever opens it.

use std::io::Write;

use super::file::{Head, WriteError};
use super::{Kind, Value};
use crate::clock::{Zone, day_text};
use crate::value::{decimal_text, money_text};

/// What a spreadsheet takes for the beginning of a formula, in full width too, as Chinese ones do.
const FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// The byte order mark.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// A CSV on its way.
pub struct CsvFile<W: Write> {
    writer: csv::Writer<W>,
    kinds: Vec<Kind>,
    zone: Zone,
}

impl<W: Write> CsvFile<W> {
    pub(super) fn begin(head: &Head, mut into: W) -> Result<Self, WriteError> {
        if head.bom {
            into.write_all(BOM)?;
        }
        let mut writer = csv::WriterBuilder::new()
            .terminator(csv::Terminator::CRLF)
            .buffer_capacity(1 << 16)
            .from_writer(into);
        writer.write_record(head.column_words()).map_err(failed)?;
        let kinds = head.columns.iter().map(|column| column.kind).collect();
        Ok(Self { writer, kinds, zone: head.zone })
    }

    pub(super) fn put(&mut self, line: &[Value]) -> Result<(), WriteError> {
        for (kind, value) in self.kinds.iter().zip(line) {
            match value {
                Value::Text(text) => self.writer.write_field(harmless(text).as_ref()),
                Value::Null => self.writer.write_field(""),
                Value::Int(number) => self.writer.write_field(number_text(*kind, *number, self.zone)),
            }
            .map_err(failed)?;
        }
        self.writer.write_record(None::<&[u8]>).map_err(failed)
    }

    pub(super) fn finish(self) -> Result<W, WriteError> {
        self.writer.into_inner().map_err(|error| WriteError::Io(error.into_error()))
    }
}

fn failed(error: csv::Error) -> WriteError {
    let said = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(error) => WriteError::Io(error),
        _ => WriteError::Other(said),
    }
}

/// A number as people read it.
fn number_text(kind: Kind, number: i64, zone: Zone) -> String {
    match kind {
        Kind::Hundredths => money_text(number),
        Kind::Share => decimal_text(number, 4),
        Kind::Day => day_text(number),
        Kind::Instant => zone.date_time(number),
        Kind::Id | Kind::Int | Kind::Text | Kind::Flag => number.to_string(),
    }
}

/// A text that no spreadsheet takes for a formula: behind an apostrophe where it would.
fn harmless(text: &str) -> std::borrow::Cow<'_, str> {
    if text.starts_with(FORMULA) { format!("'{text}").into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_begins_like_a_formula_stands_behind_an_apostrophe() {
        for (text, written) in [
            ("=1+1", "'=1+1"),
            ("+886912", "'+886912"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "'\r=1"),
            ("\n=1", "'\n=1"),
            ("＝1+1", "'＝1+1"),
            ("＋1", "'＋1"),
            ("－1", "'－1"),
            ("＠SUM(A1)", "'＠SUM(A1)"),
            ("1=1", "1=1"),
            ("十元券", "十元券"),
            ("", ""),
        ] {
            assert_eq!(harmless(text), written);
        }
    }

    #[test]
    fn numbers_stay_numbers() {
        let text = |kind, number| number_text(kind, number, Zone::default());
        assert_eq!(text(Kind::Hundredths, -500), "-5.00");
        assert_eq!(text(Kind::Share, 333), "0.0333");
        assert_eq!(text(Kind::Int, -5), "-5");
        assert_eq!(text(Kind::Day, 20_261_129), "2026-11-29");
        assert_eq!(text(Kind::Instant, 1_543_026_701_000), "2018-11-24 10:31:41");
    }
}
