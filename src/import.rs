//! Import: coupons and members of another system, from CSV.
//!
//! A file is taken chunk by chunk, each a transaction under a key of its own, so that an import which was killed is asked for
//! again and goes on: nothing is taken twice, and a line that is bad stops nothing else. A dry run makes every check that
//! can be made without writing, and writes nothing. Beyond the file itself memory holds its ids and the first errors.
//! What may be imported is decided where everything is: by the coupon.

mod coupons;
mod members;
mod table;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::identity::Caller;
use crate::ledger::{ExecuteError, Ledger};
use crate::refusal::{Language, Refusal, Wrong};
use crate::store::ReceiptKey;
use table::{Row, Table};

/// The largest file.
pub const MAX_FILE_BYTES: usize = 32 << 20;

/// The most errors that are told; all are counted.
pub const MAX_ERRORS: usize = 1_000;

/// What is imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Coupons, each an Imported event.
    Coupons,
    /// Members, into the directory.
    Members,
}

impl What {
    /// The route, and so the operation under which its keys are used up: the same, whichever way a file comes.
    #[must_use]
    pub fn operation(self) -> &'static str {
        match self {
            Self::Coupons => "/elecoupons/import",
            Self::Members => "/member/import",
        }
    }

    fn columns(self) -> &'static [table::Column] {
        match self {
            Self::Coupons => coupons::COLUMNS,
            Self::Members => members::COLUMNS,
        }
    }

    /// How many rows a chunk has. The chunks of a file are the same for ever.
    fn chunk(self) -> usize {
        match self {
            Self::Coupons => coupons::CHUNK,
            Self::Members => members::CHUNK,
        }
    }
}

/// Who asks for an import, and how.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who.
    pub caller: Caller,
    /// Stands for the whole import: a chunk's key is this, `/`, and the chunk's number.
    pub key: String,
    /// The fingerprint of the request, file included.
    pub request_mac: String,
    /// Names the request.
    pub request_id: String,
    /// Whether to check only.
    pub dry_run: bool,
}

/// A line that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number in the file; the header's is 1.
    pub line: u64,
    /// Why.
    pub refusal: Refusal,
}

impl BadLine {
    /// The column that is to blame.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match &self.refusal {
            Refusal::Field { field, .. } => field,
            Refusal::NoSuchDefinition | Refusal::SoldOut => "coupon_id",
            Refusal::NoSuchMember => "member_id",
            Refusal::NoSuchShop => "shop_id",
            _ => "id",
        }
    }

    /// Why, in words.
    #[must_use]
    pub fn why(&self, language: Language) -> String {
        match &self.refusal {
            Refusal::Field { field, why } => why.text(field, language),
            other => other.wording().text(language).to_owned(),
        }
    }
}

/// What an import came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows in the file.
    pub rows: u64,
    /// Rows that were taken, now or earlier under the same key; in a dry run, that would be.
    pub ok: u64,
    /// Rows that were not.
    pub bad: u64,
    /// The first [`MAX_ERRORS`] of those.
    pub errors: Vec<BadLine>,
    /// Whether all that was taken had been taken earlier.
    pub replayed: bool,
}

/// A file as text, or 401 where it is none.
pub fn read(file: &[u8]) -> Result<Cow<'_, str>, Refusal> {
    table::decode(file).ok_or(Refusal::field("csv", Wrong::NotText))
}

/// How many rows a file has, good and bad.
///
/// # Errors
/// 401 on `csv` where it cannot be read as such a table.
pub async fn count_rows(what: What, file: &[u8]) -> Result<i64, Refusal> {
    let text = read(file)?;
    let table = Table::open(&text, what.columns()).map_err(|why| Refusal::field("csv", why))?;
    Ok(table.count_rows().await)
}

/// Imports a file.
///
/// # Errors
/// 401 on `csv` where the file cannot be read as such a table, 6001 where the key was used with another file, and whatever
/// keeps a command from having an outcome: asked for again under the same key it goes on.
pub async fn run(ledger: &Ledger, what: What, file: &[u8], asked: &Asked) -> Result<Report, ExecuteError> {
    let text = read(file)?;
    let mut import = Import::begin(ledger, what, &text, asked).await?;
    while import.step().await? {}
    Ok(import.finish())
}

/// An import under way.
pub struct Import<'a> {
    ledger: &'a Ledger,
    what: What,
    asked: &'a Asked,
    table: Table<'a>,
    /// The number of the next chunk.
    number: usize,
    /// Ids that the file has had.
    seen: HashSet<i64>,
    /// What a dry run has left of each definition's stock; −1 = unlimited.
    left: HashMap<i64, i64>,
    report: Report,
    took_earlier: bool,
    took_now: bool,
}

impl<'a> Import<'a> {
    /// Reads the header, and sees to it that the key stands for this file and no other.
    pub async fn begin(
        ledger: &'a Ledger,
        what: What,
        text: &'a str,
        asked: &'a Asked,
    ) -> Result<Self, ExecuteError> {
        let open = || Table::open(text, what.columns()).map_err(|why| Refusal::field("csv", why));
        let import = Self {
            ledger,
            what,
            asked,
            table: open()?,
            number: 0,
            seen: HashSet::new(),
            left: HashMap::new(),
            report: Report::default(),
            took_earlier: false,
            took_now: false,
        };
        match what {
            What::Coupons => {
                if ledger.store().is_used_for_another(&import.key(None), &asked.request_mac).await? {
                    return Err(Refusal::KeyReused.into());
                }
            }
            What::Members => members::refuse_other_file(&import).await?,
        }
        match what {
            _ if asked.dry_run => {}
            What::Coupons => coupons::claim_ids(ledger, open()?).await?,
            What::Members => members::claim_ids(ledger, open()?).await?,
        }
        Ok(import)
    }

    /// Takes the next chunk; false where there is none.
    pub async fn step(&mut self) -> Result<bool, ExecuteError> {
        let rows: Vec<Row> = self.table.by_ref().take(self.what.chunk()).collect();
        if rows.is_empty() {
            return Ok(false);
        }
        self.report.rows += rows.len() as u64;
        let mut bad = match self.what {
            What::Coupons => coupons::step(self, &rows).await?,
            What::Members => members::step(self, &rows).await?,
        };
        self.report.ok += (rows.len() - bad.len()) as u64;
        self.report.bad += bad.len() as u64;
        bad.sort_by_key(|bad| bad.line);
        let room = MAX_ERRORS - self.report.errors.len();
        self.report.errors.extend(bad.into_iter().take(room));
        self.number += 1;
        Ok(true)
    }

    /// What it came to.
    #[must_use]
    pub fn finish(self) -> Report {
        Report { replayed: self.took_earlier && !self.took_now, ..self.report }
    }

    /// The key of the next chunk, or that of the whole import. No key that a caller chooses has a `/` in it.
    fn key(&self, chunk: Option<usize>) -> ReceiptKey {
        let whole = &self.asked.key;
        let key = chunk.map_or_else(|| whole.clone(), |number| format!("{whole}/{number}"));
        ReceiptKey { caller: self.asked.caller.to_string(), operation: self.what.operation(), key }
    }

    /// Whether the file has had this id already.
    fn refuse_second(&mut self, id: i64) -> Result<(), Refusal> {
        if self.seen.insert(id) { Ok(()) } else { Err(Refusal::field("id", Wrong::TwiceInFile)) }
    }
}
