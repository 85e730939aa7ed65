//! Replay: the log read stream by stream and folded, on all cores; and every live table written anew from it.
//!
//! Memory stays flat: a stream's state is let go when its last event is folded. Nothing is decided here; what a
//! stream's rows are is what [`Entity::rows`] says, live and here.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::allotment::Allotment;
use crate::coupon::Coupon;
use crate::definition::Definition;
use crate::entity::{CorruptEvent, Entity, Folded};
use crate::grant::Grant;
use crate::job::Job;
use crate::member::Member;
use crate::order::Order;
use crate::read_model::LIVE_TABLES;
use crate::rule::{GoodsGroup, OrderAmount};
use crate::shop::Shop;
use crate::store::{EventRef, IdRange, LiveRow, Rebuilding, Store, StoreError, Visitor};

/// Why the log could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An event that cannot be understood; it is never skipped.
    #[error("corrupt event: {0}")]
    Corrupt(#[from] Box<CorruptEvent>),
    /// A part of the work ended without saying why.
    #[error("the replay was cut short")]
    CutShort,
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Events.
    pub events: u64,
    /// Streams.
    pub streams: u64,
}

/// Whoever looks at the state of each stream.
pub trait Look<A>: Send + 'static {
    /// The next one.
    fn see(&mut self, id: i64, state: A);

    /// Between two parts of the log.
    fn rest(&mut self) -> impl Future<Output = Result<(), ReplayError>> + Send {
        std::future::ready(Ok(()))
    }
}

impl<A, F: FnMut(i64, A) + Send + 'static> Look<A> for F {
    fn see(&mut self, id: i64, state: A) {
        self(id, state);
    }
}

/// Folds events as they come, stream by stream.
struct Folding<A, L> {
    look: L,
    stream: String,
    folded: Folded<A>,
    replayed: Replayed,
    failed: Option<Box<CorruptEvent>>,
}

impl<A: Entity, L: Look<A>> Folding<A, L> {
    fn new(look: L) -> Self {
        let (stream, folded) = (String::new(), Folded::default());
        Self { look, stream, folded, replayed: Replayed::default(), failed: None }
    }

    fn end_stream(&mut self) {
        if self.folded.version > 0 {
            self.replayed.streams += 1;
            let folded = std::mem::take(&mut self.folded);
            self.look.see(self.stream.parse().unwrap_or_default(), folded.state);
        }
    }
}

impl<A: Entity, L: Look<A>> Visitor for Folding<A, L> {
    fn meet(&mut self, event: EventRef<'_>) {
        if self.failed.is_some() {
            return;
        }
        if event.aggregate_id != self.stream {
            self.end_stream();
            event.aggregate_id.clone_into(&mut self.stream);
        }
        self.replayed.events += 1;
        self.failed = self.folded.take(event).err();
    }
}

/// Folds every stream of one kind and shows each one's id and state; the parts of the log are folded side by side, each
/// worker with a look of its own.
pub async fn replay<A: Entity, L: Look<A>>(
    store: &Store,
    look: impl Fn() -> L,
) -> Result<Replayed, ReplayError> {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let ranges = Arc::new(Mutex::new(IdRange::all()));
    let mut workers = JoinSet::new();
    for _ in 0..cores {
        let (store, ranges) = (store.clone(), ranges.clone());
        let mut folding = Folding::<A, L>::new(look());
        workers.spawn(async move {
            loop {
                let range = ranges.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some(range) = range else { return Ok(folding.replayed) };
                folding = store.scan(A::TYPE, range, folding).await?;
                if let Some(corrupt) = folding.failed.take() {
                    return Err(ReplayError::Corrupt(corrupt));
                }
                folding.end_stream();
                folding.look.rest().await?;
            }
        });
    }
    let mut all = Replayed::default();
    while let Some(worked) = workers.join_next().await {
        all.add(worked.map_err(|_| ReplayError::CutShort)??);
    }
    Ok(all)
}

impl Replayed {
    fn add(&mut self, part: Self) {
        self.events += part.events;
        self.streams += part.streams;
    }
}

/// The stock that definitions and allotments set, by its keys.
type Stock = Arc<Mutex<Vec<(i64, Option<i64>)>>>;

/// Makes rows of states, and hands them to the one who writes.
struct RowMaker {
    rows: Vec<LiveRow>,
    to: mpsc::Sender<Vec<LiveRow>>,
    stock: Stock,
}

impl<A: Entity> Look<A> for RowMaker {
    fn see(&mut self, id: i64, state: A) {
        self.rows.append(&mut state.rows(id));
        if let Some((of, stock)) = state.stock(id) {
            self.stock.lock().unwrap_or_else(PoisonError::into_inner).push((of.key(), stock));
        }
    }

    async fn rest(&mut self) -> Result<(), ReplayError> {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(());
        }
        self.to.send(rows).await.map_err(|_| ReplayError::CutShort)
    }
}

/// Writes every live table and counter anew from the log, in one transaction that holds the head: nobody else writes
/// meanwhile, and a failure leaves everything as it was.
pub async fn rebuild(store: &Store) -> Result<Replayed, ReplayError> {
    let tables = LIVE_TABLES.map(|table| table.name);
    let mut rebuilding = store.rebuild(&tables).await?;
    match fill(store, &mut rebuilding).await {
        Ok((all, stock)) => {
            rebuilding.finish(stock).await?;
            Ok(all)
        }
        Err(error) => {
            rebuilding.abandon().await?;
            Err(error)
        }
    }
}

async fn fill(
    store: &Store,
    rebuilding: &mut Rebuilding,
) -> Result<(Replayed, Vec<(i64, Option<i64>)>), ReplayError> {
    let (to, mut made) = mpsc::channel(2);
    let stock = Stock::default();
    let reading = tokio::spawn({
        let (store, stock) = (store.clone(), stock.clone());
        async move {
            let maker = || RowMaker { rows: Vec::new(), to: to.clone(), stock: stock.clone() };
            let mut all = replay::<Coupon, _>(&store, maker).await?;
            all.add(replay::<Definition, _>(&store, maker).await?);
            all.add(replay::<Shop, _>(&store, maker).await?);
            all.add(replay::<Allotment, _>(&store, maker).await?);
            all.add(replay::<Job, _>(&store, maker).await?);
            all.add(replay::<Order, _>(&store, maker).await?);
            all.add(replay::<Grant, _>(&store, maker).await?);
            all.add(replay::<OrderAmount, _>(&store, maker).await?);
            all.add(replay::<GoodsGroup, _>(&store, maker).await?);
            all.add(replay::<Member, _>(&store, maker).await?);
            Ok::<_, ReplayError>(all)
        }
    });
    while let Some(rows) = made.recv().await {
        rebuilding.insert(rows).await?;
    }
    let all = reading.await.map_err(|_| ReplayError::CutShort)??;
    let stock = std::mem::take(&mut *stock.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((all, stock))
}
