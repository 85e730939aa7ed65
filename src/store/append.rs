//! What goes into the log, what it writes beside, and what becomes of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::{EPOCH, ReceiptKey, Statement, StoreError, StreamAppend, StreamId};
use crate::refusal::Refusal;
use crate::value::hex;

/// Whose stock it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StockOf {
    /// A definition's, by its id.
    Definition(i64),
    /// A partner's allotment's, by its id.
    Allotment(i64),
}

impl StockOf {
    /// Its key in `projections/stock.sql`: one table of counters and one code of admission serve both, and no definition
    /// has a negative id.
    #[must_use]
    pub fn key(self) -> i64 {
        match self {
            Self::Definition(id) => id,
            Self::Allotment(id) => -id,
        }
    }
}

/// What binds receipts to the log: the events of an append carry it in their metadata, because a receipt is a row beside
/// the log that no event would miss. Of each `[caller, operation, key, request_mac]`, every text behind its length, the
/// first [`RECEIPT_HASH_DIGITS`] digits of the hash, one behind the other.
#[must_use]
pub fn receipts_hash<'a>(receipts: impl Iterator<Item = [&'a str; 4]>) -> String {
    let mut hashes = String::new();
    for columns in receipts {
        let mut hash = Sha256::new();
        for text in columns {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        hashes.extend(hex(&hash.finalize()).chars().take(RECEIPT_HASH_DIGITS));
    }
    hashes
}

/// How many hexadecimal digits each receipt has in [`receipts_hash`].
pub const RECEIPT_HASH_DIGITS: usize = 32;

/// A change of a stock row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StockChange {
    /// So many more issued (or, negative, fewer); refused with 5001 above the stock.
    Issued {
        /// Whose stock.
        of: StockOf,
        /// By how many.
        by: i64,
    },
    /// A new stock; refused below what is issued.
    Set {
        /// Whose stock.
        of: StockOf,
        /// None = unlimited.
        stock: Option<i64>,
    },
}

impl StockChange {
    /// Whose stock.
    #[must_use]
    pub fn of(self) -> StockOf {
        match self {
            Self::Issued { of, .. } | Self::Set { of, .. } => of,
        }
    }
}

/// A change of how many coupons of a definition a member has been issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberCountChange {
    /// The member.
    pub member_id: i64,
    /// The definition.
    pub definition_id: i64,
    /// By how many.
    pub by: i64,
    /// Refused with 5002 above this.
    pub limit: Option<i64>,
}

/// "One at a time until its end date": refused with 5002 while an issued coupon of the definition has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneAtATime {
    /// The member.
    pub member_id: i64,
    /// The definition.
    pub definition_id: i64,
    /// The time of the command, Unix milliseconds.
    pub now_ms: i64,
    /// When the new coupon ends, for those behind it in the same batch.
    pub ends_at_ms: i64,
}

/// The guard on failed gift codes: refused with 9001 after ten within an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptGuard {
    /// The member who tries.
    pub member_id: i64,
    /// The time of the command, Unix milliseconds.
    pub now_ms: i64,
    /// Whether this try failed and is to be counted.
    pub failed: bool,
}

/// Failed gift codes that one caller has within [`ATTEMPT_WINDOW_MS`].
pub const MAX_ATTEMPTS: i64 = 10;

/// How long a failed gift code counts.
pub const ATTEMPT_WINDOW_MS: i64 = 3_600_000;

/// A review's text and salt, kept apart from the log so that they can be erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReviewText {
    /// The coupon that was reviewed.
    pub coupon_id: i64,
    /// Who wrote it: both texts are sealed under his key before they are handed to the store.
    pub member_id: i64,
    /// What the hash in the event was made with.
    pub salt: String,
    /// What the member wrote.
    pub text: String,
}

/// A live read model's table, as `projections/*.sql` makes it.
#[derive(Debug)]
pub struct LiveTable {
    /// Its name with its version.
    pub name: &'static str,
    /// The kinds of streams that write into it. Where that is one, a column is its id and named after it.
    pub written_by: &'static [&'static str],
    /// Its columns after `bucket`, the key's first.
    pub columns: &'static [Column],
    /// How many of them, with `bucket` before, are the primary key.
    pub key_columns: usize,
    /// Those of the others that an index holds or depends on.
    pub indexed: &'static [&'static str],
}

/// One column of a live table.
#[derive(Clone, Copy, Debug)]
pub enum Column {
    /// A BIGINT.
    Int(&'static str),
    /// A TEXT.
    Text(&'static str),
}

impl Column {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Int(name) | Self::Text(name) => name,
        }
    }
}

/// A value in a row: read models and the directory know no others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cell {
    /// A BIGINT.
    Int(i64),
    /// A TEXT.
    Text(String),
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Int(i64::from(value))
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

/// A row that is upserted whole into a live table.
#[derive(Clone, Debug)]
pub struct LiveRow {
    /// Where it belongs.
    pub table: &'static LiveTable,
    /// One cell per column of the table.
    pub cells: Vec<Cell>,
}

/// What a change of a stream writes beside its events, in the same transaction.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// Rows of live read models.
    pub rows: Vec<LiveRow>,
    /// Stock that moves.
    pub stock: Vec<StockChange>,
    /// Member counts that move.
    pub member_counts: Vec<MemberCountChange>,
    /// The guards of "one at a time".
    pub one_at_a_time: Vec<OneAtATime>,
    /// The guard on failed gift codes.
    pub attempts: Option<AttemptGuard>,
    /// A review's text.
    pub review: Option<ReviewText>,
    /// Statements on the directory that belong to the events: what no event may hold, such as a password's hash. The versions
    /// of the streams guard them.
    pub beside: Vec<Statement>,
}

impl Effects {
    /// Adds what another stream's change writes, so that both are admitted or refused as one: counters that both move are
    /// moved by the sum, under the tighter limit.
    pub fn join(&mut self, other: Self) {
        self.rows.extend(other.rows);
        for change in other.stock {
            match (change, self.stock.iter_mut().find(|own| own.of() == change.of())) {
                (StockChange::Issued { by, .. }, Some(StockChange::Issued { by: own, .. })) => *own += by,
                _ => self.stock.push(change),
            }
        }
        for change in other.member_counts {
            let same = |own: &&mut MemberCountChange| {
                (own.member_id, own.definition_id) == (change.member_id, change.definition_id)
            };
            match self.member_counts.iter_mut().find(same) {
                Some(own) => {
                    own.by += change.by;
                    own.limit = [own.limit, change.limit].into_iter().flatten().min();
                }
                None => self.member_counts.push(change),
            }
        }
        self.one_at_a_time.extend(other.one_at_a_time);
        self.attempts = self.attempts.or(other.attempts);
        self.review = self.review.take().or(other.review);
        self.beside.extend(other.beside);
    }
}

/// What one command asks the log to take, all or nothing: its events and what they write beside.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// The streams it appends to. Empty only for one that counts a failed attempt.
    pub streams: Vec<StreamAppend>,
    /// Everything else.
    pub effects: Effects,
}

/// One or several entries under one id and the same receipts. Each entry is admitted or refused by itself; those that
/// are admitted are committed together, at neighbouring positions.
#[derive(Clone, Debug)]
pub struct Append {
    /// 128 random bits in hexadecimal, also in the events' metadata: by it an unknown outcome is resolved.
    pub append_id: String,
    /// The epoch of the live tables it writes for.
    pub epoch: i64,
    /// What is to be taken, in this order.
    pub entries: Vec<Entry>,
    /// Streams the decisions read but do not append to, with the versions they saw.
    pub unchanged: Vec<(StreamId, i64)>,
    /// The receipts to leave where an entry is admitted, each with the fingerprint of the request: of the idempotency key,
    /// and of whatever else may be used once only.
    pub receipts: Vec<(ReceiptKey, String)>,
    /// The events' metadata: a flat map of strings as JSON.
    pub metadata: Arc<str>,
}

impl Append {
    /// Whether it writes into the directory as well.
    #[must_use]
    pub fn writes_beside(&self) -> bool {
        self.entries.iter().any(|entry| !entry.effects.beside.is_empty())
    }
}

/// What became of one entry of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is on disk.
    Committed {
        /// The first event's position; the next one's where it had no events.
        position: i64,
        /// Unix milliseconds.
        recorded_at_ms: i64,
    },
    /// A stream has moved: load again and decide again.
    Conflict,
    /// The idempotency key has a receipt already.
    ReceiptExists,
    /// A guard said no.
    Refused(Refusal),
}

/// Events that were found in the log after a commit was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The append they came from.
    pub append_id: String,
    /// Their stream's type.
    pub kind: String,
    /// Their stream's id.
    pub aggregate_id: String,
    /// The first one's position.
    pub position: i64,
    /// When they were recorded.
    pub recorded_at_ms: i64,
}

/// What a committed batch came to.
#[derive(Clone, Debug)]
pub struct Appended {
    /// One for each entry, in the batch's order.
    pub outcomes: Vec<Outcome>,
    /// How long it took.
    pub phases: Phases,
}

/// Where a batch's time went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phases {
    /// Until the head was locked.
    pub lock: Duration,
    /// Reading what the rules need, and applying them.
    pub check: Duration,
    /// Events, rows, counters and receipts.
    pub write: Duration,
    /// Until it was on disk.
    pub commit: Duration,
}

impl Phases {
    /// The time since `since`, which starts anew.
    pub(super) fn lap(since: &mut Instant) -> Duration {
        let lap = since.elapsed();
        *since = Instant::now();
        lap
    }
}

/// What a batch that could not be committed means for its appends.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The database refused a statement, and nothing was written.
    #[error("the database refused the batch: {0}")]
    Rejected(Arc<StoreError>),
    /// The database could not be reached or locked in time, and nothing was written.
    #[error("the database is not available: {0}")]
    Unavailable(Arc<StoreError>),
    /// The connection died in commit. Neither success nor failure: ask the log.
    #[error("the outcome of a commit is unknown: {source}")]
    Unknown {
        /// The head's position before the batch.
        head: i64,
        /// What happened to the connection.
        source: Arc<StoreError>,
    },
    /// This process's clock is too far off the database's.
    #[error("this server's clock is {0} ms off the database's")]
    ClockSkew(i64),
    /// The live tables have moved on to a newer epoch: this process must stop writing.
    #[error("the ledger is at epoch {found}, this program writes epoch {EPOCH}")]
    OldEpoch {
        /// What the head says.
        found: i64,
    },
}
