//! Lists and statistics as files: CSV, XLSX and Parquet, of any size, each as of one position of the log.
//!
//! A [`Sheet`] says what a file holds: its name and its typed columns in three languages, what it can be filtered by, and
//! where its rows come from. Whoever adds one to [`SHEETS`] gets it in every format, at once and as a job. Rows are folded
//! from the log up to one position, so that what is written meanwhile changes none of them and a job that was cut off goes
//! on with the same rows; only what the directory keeps, which is not in the log, is read as it is. Must never hold all rows of a job in
//! memory, keep a read transaction open between two batches, nor leave half a file under its name.

mod csv_file;
mod file;
mod log_files;
mod parquet_file;
mod parts;
mod record;
mod rows;
mod run;
mod select;
mod sheets;
pub mod statistics;
mod xlsx_file;

use std::path::PathBuf;

use crate::audit::at::AtError;
use crate::ledger::ExecuteError;
use crate::reading::Person;
use crate::refusal::Language;
use crate::replay::ReplayError;
use crate::store::{Cell, StoreError};

pub use file::{FileWriter, Format, Head, write_all};
pub use log_files::{LogFiles, write_log_files};
pub use record::{
    Asked, Begun, Export, MAX_OPEN, State, begin, cancel, export, exports, note_answered, resume,
};
pub use rows::{Batch, Reading};
pub use run::{Answered, ExportPlace, answer, run_exports, tick};
pub use select::{Accepts, BEGIN, END, Filter, Selection};
pub use sheets::SHEETS;

/// How many rows are answered at once unless a server is told otherwise; more are a job.
pub const ROWS_AT_ONCE: usize = 20_000;

/// How long a download link holds.
pub const LINK_MS: i64 = 3_600_000;

/// A name in Traditional Chinese, Simplified Chinese and English.
pub type Words = [&'static str; 3];

/// The one of three words that is in a language.
#[must_use]
pub fn in_language(words: Words, language: Language) -> &'static str {
    let [traditional, simplified, english] = words;
    match language {
        Language::Traditional => traditional,
        Language::Simplified => simplified,
        Language::English => english,
    }
}

/// What a column holds, whatever the format makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An id; none where it is 0.
    Id,
    /// A whole number.
    Int,
    /// A number with two decimals, as a whole number of hundredths: cents, and means of scores.
    Hundredths,
    /// A part of a whole, as a whole number of ten-thousandths.
    Share,
    /// A text.
    Text,
    /// A local day as 20181101; none where it is 0.
    Day,
    /// Unix milliseconds; none where it is 0.
    Instant,
    /// 0 or 1.
    Flag,
}

/// One cell, as its column's kind reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Null,
    /// Whatever is a number.
    Int(i64),
    /// A text.
    Text(String),
}

impl Value {
    /// The cell of a row of the ledger in a column of this kind.
    #[must_use]
    pub fn of(kind: Kind, cell: &Cell) -> Self {
        match (kind, cell) {
            (Kind::Id | Kind::Day | Kind::Instant, Cell::Int(0)) => Self::Null,
            (_, Cell::Int(number)) => Self::Int(*number),
            (_, Cell::Text(text)) => Self::Text(text.clone()),
        }
    }
}

impl std::convert::From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

/// One row: a cell for each column of its sheet.
pub type Line = Vec<Value>;

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name in Parquet, in filters and in this program.
    pub name: &'static str,
    /// Its head in CSV and XLSX.
    pub words: Words,
    /// What it holds.
    pub kind: Kind,
    /// Where it comes from.
    pub from: From,
}

/// Where a column of a row comes from.
#[derive(Clone, Copy, Debug)]
pub enum From {
    /// A column of the live row.
    Cell(&'static str),
    /// The word that a number in a column of the live row stands for.
    Word(&'static str, &'static [(i64, &'static str)]),
    /// The name of the shop or partner whose id is in a column of the live row.
    ShopName(&'static str),
    /// What the live row comes to at the instant as of which it is read.
    Computed(fn(&rows::Seen<'_>) -> Value),
    /// The source makes whole rows.
    Source,
}

/// A page of rows from a source, and where to go on.
pub type Page = futures::future::BoxFuture<'static, Result<rows::Batch, ExportError>>;

/// Where rows come from.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// The rows that streams of a kind have in a live table as of a position.
    Log {
        /// Which kind of streams.
        kind: &'static str,
        /// In which table.
        table: &'static crate::store::LiveTable,
    },
    /// Pages of whole rows, each in a bounded read, from behind a cursor that the page before gave; the first one is empty.
    Pages(fn(&Reading, String) -> Page),
}

/// A column with ids of people, and what kind of people they are.
pub type Whose = (&'static str, fn(i64) -> Person);

/// A list that can be taken away as a file.
#[derive(Debug)]
pub struct Sheet {
    /// Its name in paths.
    pub name: &'static str,
    /// Its name for people.
    pub words: Words,
    /// What it is, in a sentence's beginning.
    pub about: &'static str,
    /// The column with whose personal data a row holds, where rows hold any: the sheet then has a right of its own,
    /// each taking away is written down as a reading, and its files end with the next erasure.
    pub whose: Option<Whose>,
    /// Its columns.
    pub columns: &'static [Column],
    /// By how many of the first columns, all of them numbers, the rows are in order and unique.
    pub keys: usize,
    /// What it can be filtered by.
    pub filters: &'static [Filter],
    /// The column that `begin` and `end` are about, if there is one.
    pub days: Option<&'static str>,
    /// Where its rows come from.
    pub source: Source,
}

impl Sheet {
    /// The sheet of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        SHEETS.iter().copied().find(|sheet| sheet.name == name)
    }

    /// The place of a column.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// Whose personal data is in these rows.
    #[must_use]
    pub fn people(&self, lines: &[Line]) -> Vec<Person> {
        let Some((column, person)) = self.whose else { return Vec::new() };
        let column = self.column(column).unwrap_or_default();
        let ids = lines.iter().filter_map(|line| match line.get(column) {
            Some(Value::Int(id)) => Some(*id),
            _ => None,
        });
        ids.map(person).collect()
    }

    /// Whether it can be had as of any position; what is not in the log only as it is now.
    #[must_use]
    pub fn is_from_log(&self) -> bool {
        matches!(self.source, Source::Log { .. })
    }
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log cannot be folded.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// There is no such point of the log.
    #[error(transparent)]
    At(#[from] AtError),
    /// A file.
    #[error("cannot write {path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What a library of a format says where it was no file.
    #[error("cannot write {path}: {why}")]
    Format {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Too many to be answered at once.
    #[error("more than {0} rows")]
    TooMany(usize),
    /// It could not be written down whose personal data is taken away.
    #[error(transparent)]
    Untold(#[from] ExecuteError),
    /// Somebody has cancelled it.
    #[error("cancelled")]
    Cancelled,
    /// A member was erased after the rows were asked for.
    #[error("a member's data was erased meanwhile: ask again")]
    Erased,
    /// What was written down of it cannot be read.
    #[error("{0}")]
    Damaged(String),
    /// The work ended without saying why.
    #[error("the export was cut short")]
    CutShort,
}

impl ExportError {
    /// Whether it may go well a little later, where nothing is done about it.
    fn is_of_the_database(&self) -> bool {
        match self {
            Self::Store(error)
            | Self::Replay(ReplayError::Store(error))
            | Self::At(AtError::Store(error)) => !error.is_about_data(),
            Self::Untold(error) => {
                use ExecuteError::{Busy, Conflict, Read, ShuttingDown, Write};
                matches!(error, Busy | Conflict | Read(_) | ShuttingDown | Write(_))
            }
            _ => false,
        }
    }
}
