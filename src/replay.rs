//! Replay: the log read stream by stream and folded, on all cores.
//!
//! Memory stays flat: a stream's state is let go when its last event is folded. Nothing is decided here; what a
//! stream's rows are is what [`Entity::rows`] says, live and here.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

use crate::entity::{CorruptEvent, Entity, Folded};
use crate::store::{EventRef, IdRange, Store, StoreError, Visitor};

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
