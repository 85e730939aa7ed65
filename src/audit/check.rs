//! The offline verifier: whether an export or a receipt is what was signed, and whether what it tells follows the rules.
//!
//! It has no database and no server, and believes nothing but the keys and checkpoints it is given. The rules are replayed
//! by code of its own that shares nothing with the aggregates' `decide`: whoever checks must not repeat the mistake that
//! he is looking for. What it does not check is told in docs/audit.md.

mod coupon;
mod export;
mod proof;
mod receipts;
pub(crate) mod rules;

use std::fmt;

use serde::Serialize;
use tlog_tiles::Hash;

pub use export::{check_export, check_files};
pub use proof::{check_proof, is_proof};

use super::checkpoint::{BadKey, Opened, Trust, Untrusted};
use super::export::{Damage, ReadError};

/// So many findings are told one by one; the others are counted. Where everything is wrong, that is enough to see why.
const MAX_FINDINGS: usize = 1_000;

/// So many characters of what an event says of itself are told.
const MAX_TOLD: usize = 1_000;

/// What is believed, and what a log is held against.
#[derive(Clone, Debug, Default)]
pub struct Trusted {
    trust: Option<Trust>,
    /// The same without witnesses: what someone has kept need not have been cosigned by then.
    log: Option<Trust>,
    older: Vec<Older>,
}

/// A checkpoint that someone has kept.
#[derive(Clone, Debug)]
struct Older {
    name: String,
    note: String,
}

impl Trusted {
    /// Keys of the log, any of which may have signed, and witnesses, all of whom must have. Without keys nothing is held
    /// against a signature.
    pub fn new(keys: &[String], witnesses: &[String]) -> Result<Self, BadKey> {
        if keys.is_empty() {
            return Ok(Self::default());
        }
        let trust = Trust::new(keys, witnesses, 0)?.needing_all();
        let log = Trust::new(keys, &[], 0)?;
        Ok(Self { trust: Some(trust), log: Some(log), older: Vec::new() })
    }

    /// Holds the log against a checkpoint that someone has kept: a name for people, and the signed note.
    #[must_use]
    pub fn and_checkpoint(mut self, name: &str, note: &str) -> Self {
        self.older.push(Older { name: name.to_owned(), note: note.to_owned() });
        self
    }

    /// The signed checkpoint of an export or a receipt, as far as anything is trusted.
    fn open(&self, note: &str, found: &mut Findings) -> Option<Opened> {
        let trust = self.trust.as_ref()?;
        match trust.open(note) {
            Ok(opened) => Some(opened),
            Err(error @ Untrusted::TooFewWitnesses { .. }) => {
                found.add(Finding::of("witnesses", format!("the checkpoint: {error}")));
                None
            }
            Err(error) => {
                found.add(Finding::of("signature", format!("the checkpoint: {error}")));
                None
            }
        }
    }
}

/// A kept checkpoint that was opened.
struct Kept {
    name: String,
    size: u64,
    root: Hash,
}

impl Older {
    fn incomparable(&self, what: &str) -> CheckError {
        CheckError::Incomparable { name: self.name.clone(), what: printable(what) }
    }

    /// What it says of a log; None where it is not signed, which is a finding.
    fn open(
        &self,
        trusted: &Trusted,
        origin: &str,
        found: &mut Findings,
    ) -> Result<Option<Kept>, CheckError> {
        let Some(trust) = &trusted.log else {
            return Err(self.incomparable("says nothing without a trusted key"));
        };
        let opened = match trust.open(&self.note) {
            Ok(opened) => opened,
            Err(error @ (Untrusted::Malformed | Untrusted::OtherLog { .. })) => {
                return Err(self.incomparable(&format!("cannot be used: {error}")));
            }
            Err(error) => {
                found.add(Finding::of("signature", format!("{}: {error}", self.name)));
                return Ok(None);
            }
        };
        if opened.origin != origin {
            let what = format!("is a checkpoint of {}, not of {origin}", opened.origin);
            return Err(self.incomparable(&what));
        }
        Ok(Some(Kept { name: self.name.clone(), size: opened.size, root: opened.root }))
    }
}

impl Kept {
    fn fork(&self) -> Finding {
        let what = format!(
            "{} vouches for other events up to here: the log was forked, rolled back or written anew",
            self.name
        );
        Finding::at("consistency", self.size as i64, what)
    }
}

/// Why it could not be said whether something is sound.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A file.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A kept checkpoint that says nothing about this log.
    #[error("{name} {what}")]
    Incomparable {
        /// Which.
        name: String,
        /// Why.
        what: String,
    },
    /// It is no receipt.
    #[error("{0}")]
    NoProof(String),
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which rule it breaks, in a word; docs/audit.md has them all.
    pub rule: &'static str,
    /// Where in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<i64>,
    /// Of which stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// In which file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What is wrong, in a sentence.
    pub what: String,
}

impl Finding {
    fn of(rule: &'static str, what: String) -> Self {
        Self { rule, position: None, stream: None, file: None, what }
    }

    fn at(rule: &'static str, position: i64, what: String) -> Self {
        Self { position: Some(position), ..Self::of(rule, what) }
    }
}

impl From<Damage> for Finding {
    fn from(damage: Damage) -> Self {
        let Damage { file, position, what } = damage;
        Self { rule: "file", position, stream: None, file: Some(file), what }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut place = Vec::new();
        place.extend(self.file.clone());
        place.extend(self.position.map(|position| format!("position {position}")));
        place.extend(self.stream.clone());
        if !place.is_empty() {
            write!(f, "{}: ", printable(&place.join(", ")))?;
        }
        write!(f, "{} ({})", printable(&self.what), self.rule)
    }
}

/// A text for a terminal: what somebody may have forged moves no cursor, begins no line and turns no text around.
#[must_use]
pub fn printable(text: &str) -> String {
    let turns = |character: char| {
        // Ends of lines and paragraphs, and what sets the direction of writing.
        matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || turns(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The beginning of a text of any length.
fn short(text: &str) -> String {
    text.chars().take(MAX_TOLD).collect()
}

/// Findings as they come.
#[derive(Debug, Default)]
struct Findings {
    list: Vec<Finding>,
    left_out: u64,
}

impl Findings {
    fn add(&mut self, finding: Finding) {
        if self.list.len() < MAX_FINDINGS {
            let (stream, what) = (finding.stream.as_deref().map(short), short(&finding.what));
            self.list.push(Finding { stream, what, ..finding });
        } else {
            self.left_out += 1;
        }
    }
}

/// What was checked and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The ledger's name, as far as it is told.
    pub origin: String,
    /// The first position.
    pub from: i64,
    /// The last position.
    pub to: i64,
    /// Events read.
    pub events: i64,
    /// Receipts of idempotency keys read.
    pub receipts: i64,
    /// The root of the tree of all events up to the last one, as base64; none where what lies before is not told.
    pub root: Option<String>,
    /// The size of the signed tree it was held against; 0 = none.
    pub signed_size: u64,
    /// The witnesses who have cosigned that.
    pub witnesses: Vec<String>,
    /// What is to be known beside: what could not be checked, and what a receipt's event says.
    pub notes: Vec<String>,
    /// What is wrong: by position, then what has none.
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub findings_left_out: u64,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_moves_no_cursor_begins_no_line_and_turns_no_text_around() {
        let stream = Some("shop/\r1".to_owned());
        let what = "x\u{1b}[2J\nsound: \u{9b}y\u{202e}z\u{2028}電子券".to_owned();
        let finding = Finding { stream, ..Finding::at("event", 3, what) };
        assert_eq!(
            finding.to_string(),
            "position 3, shop/\\r1: x\\u{1b}[2J\\nsound: \\u{9b}y\\u{202e}z\\u{2028}電子券 (event)"
        );
    }

    #[test]
    fn of_findings_so_many_are_kept_and_of_each_so_much() {
        let mut found = Findings::default();
        for _ in 0..=MAX_FINDINGS {
            let stream = Some("s".repeat(MAX_TOLD + 1));
            found.add(Finding { stream, ..Finding::of("event", "w".repeat(MAX_TOLD + 1)) });
        }
        assert_eq!((found.list.len(), found.left_out), (MAX_FINDINGS, 1));
        let longest = |text: &str| text.len() == MAX_TOLD;
        assert!(
            found.list.iter().all(|one| longest(&one.what) && one.stream.as_deref().is_some_and(longest))
        );
    }
}
