//! Verify: what is stored is held against the events, and the events against what was signed.
//!
//! It reads beside a running server, in bounded pieces on several workers: the log up to a position that is fixed at the
//! start, and each stream's rows against all of its events, once more where it moved meanwhile. What is wrong is named by
//! position, table and row, and nothing is stopped by it. It must never change anything, and never take for sound what it
//! could not read.

mod log;
mod receipts;
mod rows;
mod run;
mod tables;
mod tree;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cqrs_es::Aggregate as _;
use futures::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::directory::Seal;
use crate::entity::{KINDS, for_each_aggregate};
use crate::store::{IdRange, Store, StoreError};
pub use run::run_verify;
pub use tree::Trusted;

/// Positions of one piece of the log: whole tiles.
const LOG_PIECE: i64 = 20 * tree::TILE_WIDTH;

/// The most findings that are told; all are counted.
pub const MAX_FINDINGS: usize = 1_000;

/// Something that is not as it must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// The event that tells, or the last one of the stream that does; 0 where none does.
    pub position: i64,
    /// Which table.
    pub table: String,
    /// Which row, by its key in words.
    pub row: String,
    /// What is wrong with it.
    pub what: String,
}

impl Finding {
    fn new(position: i64, table: &str, row: impl Into<String>, what: impl Into<String>) -> Self {
        Self { position, table: table.to_owned(), row: row.into(), what: what.into() }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.position > 0 {
            write!(f, "position {}: ", self.position)?;
        }
        write!(f, "{}, {}: {}", self.table, self.row, self.what)
    }
}

/// What was found so far, and the sums that are held against the counters in the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Events read by position.
    pub events: u64,
    /// Streams folded.
    pub streams: u64,
    /// Live rows held against what their streams give.
    pub rows: u64,
    /// Receipts held against their events.
    pub receipts: u64,
    /// How many things are wrong.
    pub wrong: u64,
    /// The first [`MAX_FINDINGS`] of them.
    pub findings: Vec<Finding>,
    /// Receipts that the events name, by the piece of the log where they begin.
    receipts_named: BTreeMap<i64, i64>,
    /// Receipts that were found where the events name them, likewise.
    receipts_met: BTreeMap<i64, i64>,
    /// Live rows by table, as of the fixed position.
    rows_at: BTreeMap<String, i64>,
    /// Live rows that are missing, by table.
    missing_at: BTreeMap<String, i64>,
    /// Coupons that count, by the key of the stock, likewise.
    issued_at: BTreeMap<i64, i64>,
    /// The stock that is set, by its key; −1 = unlimited.
    stock_at: BTreeMap<i64, i64>,
    /// The highest id of each kind of stream.
    highest: BTreeMap<String, i64>,
}

impl Totals {
    fn find(&mut self, finding: Finding) {
        self.wrong += 1;
        self.findings.push(finding);
        if self.findings.len() > 2 * MAX_FINDINGS {
            self.trim();
        }
    }

    /// The first by position: what no event tells comes behind what one does.
    fn trim(&mut self) {
        self.findings.sort_by_key(|finding| (finding.position == 0, finding.clone()));
        self.findings.truncate(MAX_FINDINGS);
    }

    fn add(&mut self, part: Self) {
        self.events += part.events;
        self.streams += part.streams;
        self.rows += part.rows;
        self.receipts += part.receipts;
        self.wrong += part.wrong;
        self.findings.extend(part.findings);
        self.trim();
        add_up(&mut self.receipts_named, part.receipts_named);
        add_up(&mut self.receipts_met, part.receipts_met);
        add_up(&mut self.rows_at, part.rows_at);
        add_up(&mut self.missing_at, part.missing_at);
        add_up(&mut self.issued_at, part.issued_at);
        self.stock_at.extend(part.stock_at);
        for (kind, id) in part.highest {
            let highest = self.highest.entry(kind).or_default();
            *highest = id.max(*highest);
        }
    }
}

fn add_up<K: Ord>(sums: &mut BTreeMap<K, i64>, part: BTreeMap<K, i64>) {
    for (key, number) in part {
        *sums.entry(key).or_default() += number;
    }
}

/// The piece of the log in which a position lies.
fn piece_of(position: i64) -> i64 {
    (position - 1) / LOG_PIECE
}

/// A part of the work that is done by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Piece {
    /// Events behind one position, up to another.
    Log { after: i64, until: i64 },
    /// Streams of a kind, by their ids as texts: from one, without the other.
    Streams { kind: String, from: String, until: String },
    /// Receipts behind one key, up to another.
    Receipts { after: receipts::Key, until: receipts::Key },
    /// Counters and references of members behind one, up to another.
    Members { after: i64, until: i64 },
    /// Review texts of coupons behind one, up to another.
    Reviews { after: i64, until: i64 },
}

/// How far a verification has come: what a later run goes on from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The last event that is looked at.
    pub position: i64,
    /// How many leaves the transparency log had at the start.
    tiled: i64,
    /// How many pieces there were.
    pub pieces: usize,
    left: Vec<Piece>,
    /// What was found.
    pub totals: Totals,
}

impl State {
    /// How many pieces are done.
    #[must_use]
    pub fn done(&self) -> usize {
        self.pieces.saturating_sub(self.left.len())
    }
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The database.
    #[error("the ledger cannot be read: {0}")]
    Store(#[from] StoreError),
    /// A part of the work ended without saying why.
    #[error("the verification was cut short")]
    CutShort,
    /// What a run is to go on from is of another ledger or of a newer state of it.
    #[error("what was done so far reaches position {position}, and the log ends at {head}")]
    Ahead {
        /// As far as was looked.
        position: i64,
        /// The log's end.
        head: i64,
    },
}

/// Looks at everything, with so many workers. `state` is what an earlier run left, None = from the start; `keep` is shown
/// how far it has come.
pub async fn verify(
    store: &Store,
    trusted: &Trusted,
    workers_num: usize,
    state: Option<State>,
    mut keep: impl FnMut(&State),
) -> Result<Totals, VerifyError> {
    let head = tables::head(store).await?;
    let mut state = match state {
        Some(state) if state.position > head => {
            return Err(VerifyError::Ahead { position: state.position, head });
        }
        Some(state) => state,
        None => begin(store, head).await?,
    };
    keep(&state);
    let queue = Arc::new(Mutex::new(state.left.clone()));
    let (done, mut finished) = mpsc::channel(8);
    let mut workers = JoinSet::new();
    for _ in 0..workers_num.max(1) {
        let (store, seal) = (store.clone(), trusted.seal.clone());
        let worker = Worker { store, position: state.position, tiled: state.tiled, seal };
        workers.spawn(work(worker, queue.clone(), done.clone()));
    }
    drop(done);
    while let Some((piece, totals)) = finished.recv().await {
        state.totals.add(totals?);
        state.left.retain(|left| *left != piece);
        keep(&state);
    }
    while let Some(worked) = workers.join_next().await {
        worked.map_err(|_| VerifyError::CutShort)?;
    }
    if !state.left.is_empty() {
        return Err(VerifyError::CutShort);
    }
    let mut totals = state.totals;
    tables::check(store, state.position, &mut totals).await?;
    tree::check(store, trusted, state.position, state.tiled, &mut totals).await?;
    totals.trim();
    Ok(totals)
}

/// What every worker knows.
#[derive(Clone)]
struct Worker {
    store: Store,
    position: i64,
    tiled: i64,
    seal: Option<Seal>,
}

type Done = (Piece, Result<Totals, VerifyError>);

async fn work(worker: Worker, queue: Arc<Mutex<Vec<Piece>>>, done: mpsc::Sender<Done>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(piece) = next else { return };
        let looked = worker.look(&piece).await;
        if done.send((piece, looked)).await.is_err() {
            return;
        }
    }
}

impl Worker {
    async fn look(&self, piece: &Piece) -> Result<Totals, VerifyError> {
        match piece {
            Piece::Log { after, until } => log::check(self, *after, *until).await,
            Piece::Receipts { after, until } => receipts::check(self, after, until).await,
            Piece::Members { after, until } => tables::check_members(&self.store, *after, *until).await,
            Piece::Reviews { after, until } => {
                tables::check_reviews(&self.store, self.seal.as_ref(), *after, *until).await
            }
            Piece::Streams { kind, from, until } => {
                let range = || IdRange { from: from.clone(), until: until.clone() };
                macro_rules! check {
                    ($($aggregate:ty),*) => {
                        $(
                        if kind == <$aggregate>::TYPE {
                            return rows::check::<$aggregate>(self, range()).await;
                        }
                        )*
                    };
                }
                for_each_aggregate!(check);
                Err(VerifyError::CutShort)
            }
        }
    }
}

/// Fixes the position and cuts the work into pieces.
async fn begin(store: &Store, position: i64) -> Result<State, VerifyError> {
    let mut left = Vec::new();
    let log = (0..position).step_by(LOG_PIECE as usize);
    left.extend(log.map(|after| Piece::Log { after, until: (after + LOG_PIECE).min(position) }));
    for kind in KINDS.iter().copied() {
        let ranges: Vec<IdRange> = store.ranges(kind, "").try_collect().await?;
        let piece =
            |range: IdRange| Piece::Streams { kind: kind.to_owned(), from: range.from, until: range.until };
        left.extend(ranges.into_iter().map(piece));
    }
    left.extend(receipts::pieces(store).await?);
    left.extend(tables::member_pieces(store).await?);
    left.extend(tables::review_pieces(store).await?);
    // Workers take from the end: the long walks first.
    left.reverse();
    let tiled = tree::tiled(store).await?.min(position);
    Ok(State { position, tiled, pieces: left.len(), left, totals: Totals::default() })
}
