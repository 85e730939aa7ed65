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

/// Whoever is shown the streams of a kind, each once it is whole.
pub trait See<A>: Send + 'static {
    /// The next one: its id as the log has it, its state and how many events made it.
    fn see(&mut self, id: &str, folded: Folded<A>);
}

impl<A, F: FnMut(i64, A) + Send + 'static> See<A> for F {
    fn see(&mut self, id: &str, folded: Folded<A>) {
        // Folding it has told that it is one.
        self(id.parse().unwrap_or_default(), folded.state);
    }
}

/// Folds events as they come, stream by stream; events behind a position are as if they had not happened yet.
pub struct Folding<A, S> {
    see: S,
    until: i64,
    stream: String,
    folded: Folded<A>,
    failed: Option<Box<CorruptEvent>>,
}

impl<A: Entity, S: See<A>> Folding<A, S> {
    /// Shows streams as of a position.
    pub fn new(see: S, until: i64) -> Self {
        Self { see, until, stream: String::new(), folded: Folded::default(), failed: None }
    }

    fn end_stream(&mut self) {
        if self.folded.version > 0 {
            self.see.see(&self.stream, std::mem::take(&mut self.folded));
        }
    }

    /// Who was shown them, the last one as well; an error where one could not be folded.
    pub fn end(mut self) -> Result<S, Box<CorruptEvent>> {
        if let Some(corrupt) = self.failed.take() {
            return Err(corrupt);
        }
        self.end_stream();
        Ok(self.see)
    }
}

impl<A: Entity, S: See<A>> Visitor for Folding<A, S> {
    fn meet(&mut self, event: EventRef<'_>) {
        if self.failed.is_some() || event.position > self.until {
            return;
        }
        if event.aggregate_id != self.stream {
            self.end_stream();
            event.aggregate_id.clone_into(&mut self.stream);
        }
        self.failed = self.folded.take(event).err();
    }
}

/// Counts what it lets through.
struct Counting<F> {
    see: F,
    replayed: Replayed,
}

impl<A, F: FnMut(i64, A) + Send + 'static> See<A> for Counting<F> {
    fn see(&mut self, id: &str, folded: Folded<A>) {
        self.replayed.events += folded.version as u64;
        self.replayed.streams += 1;
        self.see.see(id, folded);
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
        let mut counting = Counting { see: seeing(), replayed: Replayed::default() };
        workers.spawn(async move {
            loop {
                let range = ranges.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some(range) = range else { return Ok::<_, ReplayError>(counting.replayed) };
                let folding = Folding::<A, _>::new(counting, i64::MAX);
                counting = store.scan(A::TYPE, range, folding).await?.end()?;
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
