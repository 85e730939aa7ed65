//! A file of rows in one of the formats. It is written from front to back, so it can go anywhere; memory does not grow with it.

use std::io::Write;
use std::path::Path;

use super::csv_file::CsvFile;
use super::parquet_file::ParquetFile;
use super::xlsx_file::XlsxFile;
use super::{Column, ExportError, Kind, Line, Value, Words, in_language};
use crate::audit::at::AsOf;
use crate::clock::Zone;
use crate::refusal::Language;

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text for every program.
    Csv,
    /// A workbook for people.
    Xlsx,
    /// Columns for programs that reckon.
    Parquet,
}

impl Format {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Csv, Self::Xlsx, Self::Parquet];

    /// Every one's name.
    pub const NAMES: &'static [&'static str] = &["csv", "xlsx", "parquet"];

    /// Its name, and what its files' names end with.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Xlsx => "xlsx",
            Self::Parquet => "parquet",
        }
    }

    /// The format of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Its media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            Self::Xlsx => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// What a file is of, which it says of itself where its format has a place for that.
#[derive(Clone, Debug)]
pub struct Head {
    /// What it is, for programs.
    pub name: &'static str,
    /// The same for people.
    pub words: Words,
    /// Its columns.
    pub columns: Vec<Column>,
    /// What its rows are filtered by.
    pub told: Vec<(String, String)>,
    /// In which language its columns are named.
    pub language: Language,
    /// Whether a CSV begins with a byte order mark.
    pub bom: bool,
    /// As of when.
    pub as_of: AsOf,
    /// The merchant's zone, in which days and times are written.
    pub zone: Zone,
    /// The ledger's name in all the world.
    pub origin: String,
}

impl Head {
    /// What the file says of itself: a name for programs, one for people, and what it is.
    pub(super) fn facts(&self) -> Vec<(&'static str, Words, String)> {
        vec![
            ("sheet", ["報表", "报表", "Sheet"], self.name.to_owned()),
            ("position", ["日誌位置", "日志位置", "Position of the log"], self.as_of.position.to_string()),
            ("as_of", ["截至時間", "截至时间", "As of"], self.zone.date_time(self.as_of.at_ms)),
            ("timezone", ["時區", "时区", "Time zone"], self.zone.0.name().to_owned()),
            ("filter", ["篩選條件", "筛选条件", "Filter"], self.filter()),
            ("ledger", ["帳本", "账本", "Ledger"], self.origin.clone()),
        ]
    }

    /// What the columns are called in its language.
    pub(super) fn column_words(&self) -> Vec<&'static str> {
        let words = self.columns.iter();
        words.map(|column| in_language(column.words, self.language)).collect()
    }

    /// What its rows are filtered by, in one line; empty where they are all.
    #[must_use]
    pub fn filter(&self) -> String {
        filter_text(self.told.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// A name for the file: what it is, as of which position, and by what it is filtered, as far as that is a name's.
    #[must_use]
    pub fn file_name(&self, format: Format) -> String {
        let mut name = format!("{}-{}", self.name, self.as_of.position);
        let is_short = |value: &str| {
            value.len() <= 20
                && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        for (field, value) in self.told.iter().filter(|(_, value)| is_short(value)) {
            name = format!("{name}-{field}-{value}");
        }
        format!("{name}.{}", format.name())
    }
}

/// `begin=2026-11-01&member_id=439`
pub(super) fn filter_text<'a>(told: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    told.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Why something could not be written.
#[derive(Debug)]
pub enum WriteError {
    /// The file.
    Io(std::io::Error),
    /// What a library says.
    Other(String),
}

impl WriteError {
    /// The same of a file.
    pub(super) fn at(self, path: &Path) -> ExportError {
        match self {
            Self::Io(source) => ExportError::Io { path: path.to_owned(), source },
            Self::Other(why) => ExportError::Format { path: path.to_owned(), why },
        }
    }
}

impl From<std::io::Error> for WriteError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// A file of a format on its way.
pub enum FileWriter<W: Write + Send> {
    /// See [`Format::Csv`].
    Csv(Box<CsvFile<W>>),
    /// See [`Format::Xlsx`].
    Xlsx(Box<XlsxFile<W>>),
    /// See [`Format::Parquet`].
    Parquet(Box<ParquetFile<W>>),
}

/// A file of few rows, in memory.
pub fn write_all(format: Format, head: &Head, lines: &[Line]) -> Result<Vec<u8>, ExportError> {
    let write = || {
        let mut file = FileWriter::begin(format, head, Vec::new())?;
        lines.iter().try_for_each(|line| file.put(line))?;
        file.finish()
    };
    write().map_err(|error: WriteError| error.at(Path::new(format.name())))
}

impl<W: Write + Send> FileWriter<W> {
    /// Begins a file: its head is written.
    pub fn begin(format: Format, head: &Head, into: W) -> Result<Self, WriteError> {
        Ok(match format {
            Format::Csv => Self::Csv(Box::new(CsvFile::begin(head, into)?)),
            Format::Xlsx => Self::Xlsx(Box::new(XlsxFile::begin(head, into)?)),
            Format::Parquet => {
                let columns: Vec<(&str, Kind)> =
                    head.columns.iter().map(|column| (column.name, column.kind)).collect();
                let facts = head.facts().into_iter().map(|(name, _, fact)| (name.to_owned(), fact));
                let words = head
                    .columns
                    .iter()
                    .map(|column| (format!("column.{}", column.name), column.words.join(" / ")));
                Self::Parquet(Box::new(ParquetFile::begin(&columns, facts.chain(words), into)?))
            }
        })
    }

    /// One more row.
    pub fn put(&mut self, line: &[Value]) -> Result<(), WriteError> {
        match self {
            Self::Csv(file) => file.put(line),
            Self::Xlsx(file) => file.put(line),
            Self::Parquet(file) => file.put(line),
        }
    }

    /// Ends it.
    pub fn finish(self) -> Result<W, WriteError> {
        match self {
            Self::Csv(file) => file.finish(),
            Self::Xlsx(file) => file.finish(),
            Self::Parquet(file) => file.finish(),
        }
    }
}
