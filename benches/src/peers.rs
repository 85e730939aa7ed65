//! The libraries that coupon-ledger is held against, each set up as its users could do it best.
//!
//! One command everywhere: load a coupon's stream, decide, append one event under an expected version and, where the
//! library has views, update one read-model row. Durability is that of the product: fsync and synchronous_commit on,
//! SQLite's WAL with synchronous=FULL. No identity, no idempotency, no HTTP: the library alone.

mod coupon;
pub mod disintegrate;
pub mod postgres_es;
pub mod sqlite_es;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cqrs_es::EventStore as _;
use cqrs_es::persist::{GenericQuery, PersistedEventRepository, PersistedEventStore, ViewRepository};

use self::coupon::{Coupon, Event, Issue, WalletRow, member_of};
use crate::measure::Round;

/// Streams in a scattered order, each once: neighbours in time are not neighbours on disk.
pub struct Scattered {
    streams: i64,
    stride: i64,
    next: AtomicI64,
}

impl Scattered {
    /// The streams 1 to `streams`.
    pub fn new(streams: i64) -> Self {
        // The golden section spreads any number of picks evenly; a stride without a common divisor meets each once.
        let mut stride = (streams as f64 * 0.618) as i64 + 1;
        while divisor(stride, streams) != 1 {
            stride += 1;
        }
        Self { streams, stride, next: AtomicI64::new(0) }
    }

    /// How many were taken, and the next one.
    pub fn take(&self) -> (i64, i64) {
        let taken = self.next.fetch_add(1, Ordering::Relaxed);
        (taken, self.at(taken))
    }

    /// The next stream, each only once.
    pub fn take_unused(&self) -> anyhow::Result<i64> {
        let (taken, stream) = self.take();
        ensure!(taken < self.streams, "all {} streams are used up: load more", self.streams);
        Ok(stream)
    }

    /// Whose turn it is after so many.
    pub fn at(&self, taken: i64) -> i64 {
        1 + (i128::from(taken % self.streams) * i128::from(self.stride) % i128::from(self.streams)) as i64
    }
}

fn divisor(mut one: i64, mut other: i64) -> i64 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

/// A query that keeps one view, and how many of its updates failed: it reports them to a handler only, and the command
/// succeeds all the same.
fn counting_query<V: ViewRepository<WalletRow, Coupon> + 'static>(
    views: Arc<V>,
) -> (GenericQuery<V, WalletRow, Coupon>, Arc<AtomicU64>) {
    let errors = Arc::new(AtomicU64::new(0));
    let mut query = GenericQuery::new(views);
    let counted = errors.clone();
    query.use_error_handler(Box::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    (query, errors)
}

/// What was loaded is what the crate itself would have written: the last stream and its view are read through it.
async fn check_last<R: PersistedEventRepository>(
    events: R,
    views: &impl ViewRepository<WalletRow, Coupon>,
    streams: i64,
) -> anyhow::Result<()> {
    let id = streams.to_string();
    let loaded = PersistedEventStore::<R, Coupon>::new_event_store(events).load_events(&id).await?;
    ensure!(
        loaded.len() == 2 && loaded[0].payload == Event::Issued(Box::new(Issue::to(member_of(streams)))),
        "the last stream does not load: {loaded:?}"
    );
    let view = views.load(&id).await?.context("the last stream has no view")?;
    ensure!(view.member_id == member_of(streams) && view.is_read, "the last view is wrong: {view:?}");
    Ok(())
}

/// So many callers, each waiting for its answer before the next command, until the time is up. What is still under
/// way then is waited for and counted, and so is its time.
pub async fn closed_loop<C: Send + Sync + 'static, F>(
    callers: usize,
    duration: Duration,
    context: Arc<C>,
    command: impl Fn(Arc<C>, usize) -> F + Copy + Send + 'static,
) -> anyhow::Result<Round>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let started = Instant::now();
    let mut tasks = Vec::new();
    for caller in 0..callers {
        let context = context.clone();
        tasks.push(tokio::spawn(async move {
            let mut micros = Vec::new();
            while started.elapsed() < duration {
                let asked = Instant::now();
                command(context.clone(), caller).await?;
                micros.push(asked.elapsed().as_micros() as u32);
            }
            anyhow::Ok(micros)
        }));
    }
    let mut micros = Vec::new();
    for task in tasks {
        micros.extend(task.await??);
    }
    Ok(Round { done: micros.len() as u64, seconds: started.elapsed().as_secs_f64(), micros })
}
