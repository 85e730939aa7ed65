//! Verify: what is stored is held against the events, and the events against what was signed.
//!
//! It reads beside a running server, in bounded pieces on several workers: the log up to a position that is fixed at the
//! start, and each stream's rows against all of its events, once more where it moved meanwhile. What is wrong is named by
//! position, table and row, and nothing is stopped by it. It must never change anything, and never take for sound what it
//! could not read.

mod log;
mod receipts;
mod reviews;
mod rows;
mod run;
mod schema;
mod statistics;
mod tables;
mod tree;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cqrs_es::Aggregate as _;
use futures::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::kinds::made_by;
use crate::audit::check::printable;
use crate::directory::Seal;
use crate::entity::{KINDS, fold, for_each_aggregate, stream_of};
use crate::provenance::{LEDGER_ID, Provenance};
use crate::store::{IdRange, SCHEMA_VERSION, Store, StoreError};
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
        write!(f, "{}, {}: {}", self.table, printable(&self.row), printable(&self.what))
    }
}

/// What was found so far, and the sums that are held against the counters in the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Events read by position.
    pub events: u64,
    /// Of these, held against the hashes of the transparency log.
    pub hashed: u64,
    /// How many the largest tree has that is there and that a trusted key has signed; 0 = nothing is signed.
    pub signed: u64,
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
        self.hashed += part.hashed;
        self.signed = self.signed.max(part.signed);
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
    /// Counters and references of members from one to another.
    Members { from: i64, until: i64 },
    /// Review texts of coupons from one to another.
    Reviews { from: i64, until: i64 },
}

impl Piece {
    /// The table that it reads, and which part of it.
    fn place(&self) -> (&'static str, String) {
        match self {
            Self::Log { after, until } => ("events", format!("position {} to {until}", after + 1)),
            Self::Streams { kind, from, until } => ("events", format!("{kind} {from} to {until}")),
            Self::Receipts { after, until } => {
                ("receipts", format!("behind {} up to {}", after.join(" "), until.join(" ")))
            }
            Self::Members { from, until } => ("member_counts_v1", format!("member_id {from} to {until}")),
            Self::Reviews { from, until } => ("reviews", format!("coupon_id {from} to {until}")),
        }
    }
}

/// What is looked at last, once the pieces have been added up; in this order.
#[derive(Clone, Copy, Debug)]
enum Last {
    Schema,
    Counts,
    Stock,
    Receipts,
    Strays,
    Ids,
    Tiles,
    Checkpoints,
    Statistics,
}

impl Last {
    const ALL: [Self; 9] = [
        Self::Schema,
        Self::Counts,
        Self::Stock,
        Self::Receipts,
        Self::Strays,
        Self::Ids,
        Self::Tiles,
        Self::Checkpoints,
        Self::Statistics,
    ];

    /// The table that it reads first.
    fn table(self) -> &'static str {
        match self {
            Self::Schema => "the schema",
            Self::Counts => "log_head",
            Self::Stock => "stock_v1",
            Self::Receipts => "receipts",
            Self::Strays => "other buckets",
            Self::Ids => "id_blocks",
            Self::Tiles => "tlog_tiles",
            Self::Checkpoints => "tlog_checkpoints",
            Self::Statistics => "statistics",
        }
    }

    async fn look(
        self,
        store: &Store,
        trusted: &Trusted,
        state: &State,
        at: &mut i64,
        totals: &mut Totals,
    ) -> Result<(), VerifyError> {
        match self {
            Self::Schema => schema::check(store, totals).await,
            Self::Counts => tables::check_counts(store, at, totals).await,
            Self::Stock => tables::check_stock(store, at, totals).await,
            Self::Receipts => receipts::check_numbers(store, state.position, totals).await,
            Self::Strays => tables::check_strays(store, totals).await,
            Self::Ids => tables::check_ids(store, totals).await,
            Self::Tiles => tree::check_tiles(store, state.tiled as u64, totals).await,
            Self::Checkpoints => tree::check_signed(store, trusted, state.position, totals).await,
            Self::Statistics => statistics::check(store, totals).await,
        }
    }
}

/// How far a verification has come: what a later run goes on from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The last event that is looked at.
    pub position: i64,
    /// By which program, and whether with the person keys: another one would look at other things.
    made_by: String,
    /// How many leaves the transparency log had at the start.
    tiled: i64,
    /// How many pieces there were.
    pub pieces: usize,
    left: Vec<Piece>,
    /// How much of what is looked at last is done: that is done in one go.
    #[serde(skip)]
    ended: usize,
    /// What was found.
    pub totals: Totals,
}

impl State {
    /// How many pieces are done.
    #[must_use]
    pub fn done(&self) -> usize {
        self.pieces.saturating_sub(self.left.len() + Last::ALL.len()) + self.ended
    }

    /// Whether this program, with what is known of the log, goes on from it.
    #[must_use]
    pub fn is_of(&self, trusted: &Trusted) -> bool {
        self.made_by == by(trusted)
    }
}

fn by(trusted: &Trusted) -> String {
    let keys = if trusted.seal.is_some() { "with" } else { "without" };
    format!("{} {keys} person keys", made_by())
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
    /// Tables of another version.
    #[error(
        "this ledger has the schema {found}, and this program knows {SCHEMA_VERSION}: start its server once, or run its version"
    )]
    OtherSchema {
        /// The ledger's.
        found: i64,
    },
    /// The follower that hashes the log was told to begin anew.
    #[error("the transparency log is being hashed anew: verify again when it is done")]
    HashedAnew,
}

impl VerifyError {
    /// What cannot be read as this program wrote it is a finding like any other, and hides no other.
    fn told(self, table: &str, row: String) -> Result<Finding, Self> {
        match self {
            Self::Store(error) if error.is_about_data() => Ok(Finding::new(0, table, row, error.to_string())),
            error => Err(error),
        }
    }
}

/// Looks at everything, with so many workers. `state` is what an earlier run left, None = from the start, as where another
/// program left it; `keep` is shown how far it has come.
pub async fn verify(
    store: &Store,
    trusted: &Trusted,
    workers_num: usize,
    state: Option<State>,
    mut keep: impl FnMut(&State),
) -> Result<Totals, VerifyError> {
    schema::refuse_other(store).await?;
    let head = store.head().await?;
    let mut state = match state.filter(|state| state.is_of(trusted)) {
        Some(state) if state.position > head => {
            return Err(VerifyError::Ahead { position: state.position, head });
        }
        Some(state) => state,
        None => begin(store, by(trusted), head).await?,
    };
    keep(&state);
    let worker = Worker {
        store: store.clone(),
        position: state.position,
        tiled: state.tiled,
        imported: imported(store).await?,
        seal: trusted.seal.clone(),
    };
    let queue = Arc::new(Mutex::new(state.left.clone()));
    let (done, mut finished) = mpsc::channel(8);
    let mut workers = JoinSet::new();
    for _ in 0..workers_num.max(1) {
        workers.spawn(work(worker.clone(), queue.clone(), done.clone()));
    }
    drop(done);
    while let Some((piece, totals)) = finished.recv().await {
        state.totals.add(totals?);
        // They come about as they were taken, from the end.
        if let Some(place) = state.left.iter().rposition(|left| *left == piece) {
            state.left.remove(place);
        }
        keep(&state);
    }
    while let Some(worked) = workers.join_next().await {
        worked.map_err(|_| VerifyError::CutShort)?;
    }
    if !state.left.is_empty() {
        return Err(VerifyError::CutShort);
    }
    let (mut totals, mut at) = (state.totals.clone(), state.position);
    for last in Last::ALL {
        if let Err(error) = last.look(store, trusted, &state, &mut at, &mut totals).await {
            totals.find(error.told(last.table(), "all rows".to_owned())?);
        }
        state.ended += 1;
        keep(&state);
    }
    totals.trim();
    Ok(totals)
}

/// Up to which position the events were taken over from another ledger: what does not go with an export is not here.
async fn imported(store: &Store) -> Result<i64, VerifyError> {
    let events = store.load_one(stream_of::<Provenance>(LEDGER_ID)).await?;
    let from = fold::<Provenance>(&events).ok().and_then(|(ledger, _)| ledger.imported_from);
    // The first event of all says so, and stands before them.
    Ok(from.map_or(0, |from| from.size.saturating_add(1)))
}

/// What every worker knows.
#[derive(Clone)]
struct Worker {
    store: Store,
    position: i64,
    tiled: i64,
    /// Events up to here were taken over from another ledger.
    imported: i64,
    seal: Option<Seal>,
}

type Done = (Piece, Result<Totals, VerifyError>);

async fn work(worker: Worker, queue: Arc<Mutex<Vec<Piece>>>, done: mpsc::Sender<Done>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(piece) = next else { return };
        let looked = match worker.look(&piece).await {
            Err(error) => {
                let (table, row) = piece.place();
                error.told(table, row).map(|finding| {
                    let mut totals = Totals::default();
                    totals.find(finding);
                    totals
                })
            }
            looked => looked,
        };
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
            Piece::Members { from, until } => tables::check_members(&self.store, *from, *until).await,
            Piece::Reviews { from, until } => reviews::check(self, *from, *until).await,
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

/// What cannot be cut is one piece.
fn cut_or(cut: Result<Vec<Piece>, StoreError>, whole: Piece) -> Result<Vec<Piece>, StoreError> {
    match cut {
        Err(error) if error.is_about_data() => Ok(vec![whole]),
        cut => cut,
    }
}

/// Fixes the position and cuts the work into pieces. A table that cannot even be cut is one piece, which tells why.
async fn begin(store: &Store, made_by: String, position: i64) -> Result<State, VerifyError> {
    let mut left = Vec::new();
    let log = (0..position).step_by(LOG_PIECE as usize);
    left.extend(log.map(|after| Piece::Log { after, until: (after + LOG_PIECE).min(position) }));
    for kind in KINDS.iter().copied() {
        let ranges: Vec<IdRange> = store.ranges(kind, "").try_collect().await?;
        let piece =
            |range: IdRange| Piece::Streams { kind: kind.to_owned(), from: range.from, until: range.until };
        left.extend(ranges.into_iter().map(piece));
    }
    let (from, until) = (i64::MIN, i64::MAX);
    left.extend(cut_or(receipts::pieces(store).await, receipts::whole())?);
    left.extend(cut_or(tables::member_pieces(store).await, Piece::Members { from, until })?);
    left.extend(cut_or(reviews::pieces(store).await, Piece::Reviews { from, until })?);
    // Workers take from the end: the long walks first.
    left.reverse();
    let tiled = tree::tiled(store).await?.min(position);
    let pieces = left.len() + Last::ALL.len();
    Ok(State { position, made_by, tiled, pieces, left, ended: 0, totals: Totals::default() })
}
