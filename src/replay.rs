//! Replay: the log read stream by stream and folded, on all cores.
//!
//! Memory stays flat: a stream's state is let go when its last event is folded. Nothing is decided here; what a
//! stream's rows are is what [`Entity::rows`] says, live and here.

use std::sync::{Arc, Mutex, PoisonError};

use futures::TryStreamExt as _;
use tokio::task::JoinSet;

use crate::entity::{CorruptEvent, Entity, Folded};
use crate::store::{EventRef, Store, StoreError, Visitor};

/// Why the log could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An event that cannot be understood; it is never skipped.
    #[error("corrupt event: {0}")]
    Corrupt(#[from] Box<CorruptEvent>),
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Events.
    pub events: u64,
    /// Streams.
    pub streams: u64,
}

/// Folds events as they come, stream by stream.
struct Folding<A, F> {
    see: F,
    stream: String,
    folded: Folded<A>,
    replayed: Replayed,
    failed: Option<Box<CorruptEvent>>,
}

impl<A: Entity, F: FnMut(i64, A)> Folding<A, F> {
    fn new(see: F) -> Self {
        let (stream, folded) = (String::new(), Folded::default());
        Self { see, stream, folded, replayed: Replayed::default(), failed: None }
    }

    fn end_stream(&mut self) {
        if self.folded.version > 0 {
            self.replayed.streams += 1;
            let folded = std::mem::take(&mut self.folded);
            (self.see)(self.stream.parse().unwrap_or_default(), folded.state);
        }
    }
}

impl<A: Entity, F: FnMut(i64, A) + Send + 'static> Visitor for Folding<A, F> {
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
/// worker with a closure of its own.
pub async fn replay<A: Entity, F: FnMut(i64, A) + Send + 'static>(
    store: &Store,
    seeing: impl Fn() -> F,
) -> Result<Replayed, ReplayError> {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let ranges: Vec<_> = store.ranges(A::TYPE, "").try_collect().await?;
    let ranges = Arc::new(Mutex::new(ranges));
    let mut workers = JoinSet::new();
    for _ in 0..cores {
        let (store, ranges) = (store.clone(), ranges.clone());
        let mut folding = Folding::<A, F>::new(seeing());
        workers.spawn(async move {
            loop {
                let range = ranges.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some(range) = range else { return Ok(folding.replayed) };
                folding = store.scan(A::TYPE, range, folding).await?;
                if let Some(corrupt) = folding.failed.take() {
                    return Err(ReplayError::Corrupt(corrupt));
                }
                folding.end_stream();
            }
        });
    }
    let mut all = Replayed::default();
    while let Some(worked) = workers.join_next().await {
        match worked {
            Ok(part) => all.add(part?),
            Err(ended) => std::panic::resume_unwind(ended.into_panic()),
        }
    }
    Ok(all)
}

impl Replayed {
    fn add(&mut self, part: Self) {
        self.events += part.events;
        self.streams += part.streams;
    }
}
