//! The writer: the only way into the log.
//!
//! It takes all that is waiting (no timer: while one batch commits, the next gathers) and commits it in one
//! transaction. Every append has its own outcome. A batch that the database rejects is retried in halves, so that one
//! bad append does not fail the others; a commit whose answer was lost is resolved from the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::store::{Append, AppendError, Appended, Appender, Entry, Outcome, Resolved, Store, StoreError};

/// Batches beyond this only add latency.
const MAX_BATCH: usize = 500;

/// How often an unanswered commit is looked for in the log; each look waits for the head lock.
const RESOLVE_TRIES: u32 = 3;

/// Why an append has no outcome.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// The database is away, slow or off the clock; nothing was written.
    #[error("the ledger cannot be written now: {0}")]
    Unavailable(AppendError),
    /// The commit was not answered, and the log could not be asked: neither success nor failure.
    #[error("the outcome is unknown: {0}")]
    Unknown(Arc<StoreError>),
    /// The database refused this very append.
    #[error("the database refused the append: {0}")]
    Rejected(Arc<StoreError>),
    /// The writer has ended.
    #[error("the ledger is shutting down")]
    Closed,
}

struct Waiting {
    append: Append,
    since: Instant,
    answer: oneshot::Sender<Result<Vec<Outcome>, WriteError>>,
}

/// The writer's front. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    waiting: mpsc::Sender<Waiting>,
    background: mpsc::Sender<Waiting>,
    stopped: watch::Receiver<Option<String>>,
}

impl Writer {
    /// Starts the writer; `capacity` appends may wait.
    #[must_use]
    pub fn start(store: Store, clock: Clock, metrics: Arc<Metrics>, capacity: usize) -> Self {
        let (waiting, urgent) = mpsc::channel(capacity);
        let (background, patient) = mpsc::channel(1);
        let (stop, stopped) = watch::channel(None);
        let inbox = Inbox { urgent, patient, taken: Vec::new() };
        let work = Worker { store, clock, metrics, stop }.run(inbox);
        // A thread of its own: among all the requests the next batch would wait for its turn, and they for it.
        let thread = std::thread::Builder::new().name("ledger-batches".to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let spawned = runtime.and_then(|runtime| thread.spawn(move || runtime.block_on(work)));
        if let Err(error) = spawned {
            tracing::error!(%error, "the writer cannot start: nothing will be written");
        }
        Self { waiting, background, stopped }
    }

    /// Hands an append over and waits for the outcome of its one entry. Once handed over it goes on, whoever waits.
    pub async fn submit(&self, append: Append) -> Result<Outcome, WriteError> {
        // An append without entries has nothing to say: whoever made it decides again.
        Ok(hand_over(&self.waiting, append).await?.pop().unwrap_or(Outcome::Conflict))
    }

    /// Hands over an append that nobody waits for at a screen: at most one of them joins each batch, behind all others.
    /// Returns the outcome of each entry.
    pub async fn submit_background(&self, append: Append) -> Result<Vec<Outcome>, WriteError> {
        hand_over(&self.background, append).await
    }

    /// Waits until this process must not write any more, and says why.
    pub async fn stopped(&self) -> String {
        let mut stopped = self.stopped.clone();
        match stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The writer ended with the ledger: nothing is wrong, and nothing more will be.
            Err(_) => std::future::pending().await,
        }
    }
}

async fn hand_over(to: &mpsc::Sender<Waiting>, append: Append) -> Result<Vec<Outcome>, WriteError> {
    let (answer, answered) = oneshot::channel();
    let waiting = Waiting { append, since: Instant::now(), answer };
    to.send(waiting).await.map_err(|_| WriteError::Closed)?;
    answered.await.map_err(|_| WriteError::Closed)?
}

/// What waits to be written.
struct Inbox {
    urgent: mpsc::Receiver<Waiting>,
    patient: mpsc::Receiver<Waiting>,
    taken: Vec<Waiting>,
}

impl Inbox {
    /// Waits until something is there; false once all senders are gone.
    async fn wait(&mut self) -> bool {
        if self.taken.is_empty() {
            tokio::select! {
                biased;
                count = self.urgent.recv_many(&mut self.taken, MAX_BATCH) => if count == 0 {
                    self.taken.extend(self.patient.recv().await);
                },
                Some(first) = self.patient.recv() => self.taken.push(first),
            }
        }
        !self.taken.is_empty()
    }

    /// Takes what may go into one batch: all that members ask for, and at most one background append.
    fn take(&mut self) -> Vec<Waiting> {
        let mut batch = std::mem::take(&mut self.taken);
        while batch.len() < MAX_BATCH
            && let Ok(next) = self.urgent.try_recv()
        {
            batch.push(next);
        }
        batch.extend(self.patient.try_recv().ok());
        batch
    }
}

struct Worker {
    store: Store,
    clock: Clock,
    metrics: Arc<Metrics>,
    stop: watch::Sender<Option<String>>,
}

impl Worker {
    /// Batch after batch, gathered when the store is ready for it.
    async fn run(self, mut inbox: Inbox) {
        let mut appender = self.store.appender();
        while inbox.wait().await {
            let (gathered, batch) = oneshot::channel();
            let gather = move || {
                let waiting = inbox.take();
                let first = waiting.first().map(|waiting| waiting.since.elapsed());
                let (appends, answers): (Vec<Append>, Vec<_>) =
                    waiting.into_iter().map(|waiting| (waiting.append, waiting.answer)).unzip();
                let batch: Arc<[Append]> = appends.into();
                let _ = gathered.send((batch.clone(), answers, first, inbox));
                batch
            };
            let started = Instant::now();
            let appended = appender.append(gather, &self.clock).await;
            // A store that has ended gathers nothing, and whoever waits is told so by the end of the inbox.
            let Ok((batch, answers, first, left)) = batch.await else { break };
            inbox = left;
            self.metrics.queue_depth.set((inbox.urgent.len() + inbox.patient.len()) as i64);
            if let Some(waited) = first {
                self.metrics.writer_phases.gathered(waited);
            }
            let entries: usize = batch.iter().map(|append| append.entries.len()).sum();
            self.metrics.batch_size.observe(f64::from(u32::try_from(entries).unwrap_or(u32::MAX)));
            let outcomes = self.outcomes(&mut appender, batch, appended).await;
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                // The caller may have gone away; what was written stays written.
                let _ = answer.send(outcome);
            }
            self.metrics.batch_seconds.observe(started.elapsed().as_secs_f64());
        }
        appender.close().await;
    }

    /// The outcomes of each append's entries. Halves are taken from the front, so positions keep the batch's order.
    async fn outcomes(
        &self,
        appender: &mut Appender,
        batch: Arc<[Append]>,
        appended: Result<Appended, AppendError>,
    ) -> Vec<Result<Vec<Outcome>, WriteError>> {
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut parts = vec![batch];
        let mut first = Some(appended);
        while let Some(part) = parts.pop() {
            let appended = if let Some(appended) = first.take() {
                appended
            } else {
                let part = part.clone();
                appender.append(move || part, &self.clock).await
            };
            match appended {
                Ok(appended) => {
                    self.metrics.writer_phases.committed(&appended.phases);
                    let mut answered = appended.outcomes.into_iter();
                    let one_each =
                        |append: &Append| Ok(answered.by_ref().take(append.entries.len()).collect());
                    outcomes.extend(part.iter().map(one_each));
                }
                Err(AppendError::Rejected(error)) if part.len() == 1 => {
                    tracing::error!(%error, append_id = ?part.first().map(|append| &append.append_id), "append rejected");
                    outcomes.push(Err(WriteError::Rejected(error)));
                }
                Err(AppendError::Rejected(_)) => {
                    self.metrics.halved_batches.inc();
                    let (front, back) = part.split_at(part.len() / 2);
                    parts.push(back.into());
                    parts.push(front.into());
                }
                Err(AppendError::Unknown { head, source }) => {
                    outcomes.extend(self.resolve(&part, head, source).await);
                }
                Err(error) => {
                    if let AppendError::OldEpoch { .. } = error {
                        // Another program has switched the read models: what this one writes would be wrong.
                        let _ = self.stop.send(Some(error.to_string()));
                    }
                    tracing::warn!(%error, appends = part.len(), "batch not committed");
                    outcomes.extend(part.iter().map(|_| Err(WriteError::Unavailable(error.clone()))));
                }
            }
        }
        outcomes
    }

    /// Asks the log what became of a batch. What is not there was not committed, and may be decided again.
    async fn resolve(
        &self,
        batch: &[Append],
        head: i64,
        source: Arc<StoreError>,
    ) -> Vec<Result<Vec<Outcome>, WriteError>> {
        self.metrics.unknown_commits.inc();
        tracing::warn!(error = %source, appends = batch.len(), "commit not answered; asking the log");
        let ids: Vec<String> = batch.iter().map(|append| append.append_id.clone()).collect();
        for attempt in 1..=RESOLVE_TRIES {
            match self.store.resolve(&ids, head).await {
                Ok(found) => return batch.iter().map(|append| Ok(outcomes_found(append, &found))).collect(),
                Err(error) => tracing::warn!(%error, attempt, "the log cannot be asked yet"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        batch.iter().map(|_| Err(WriteError::Unknown(source.clone()))).collect()
    }
}

/// The outcome of each entry, told by what the log has of it.
fn outcomes_found(append: &Append, found: &[Resolved]) -> Vec<Outcome> {
    let of_entry = |entry: &Entry| {
        let stream = entry.streams.first().map(|part| part.stream)?;
        let id = stream.id.to_string();
        found.iter().find(|events| {
            events.append_id == append.append_id && events.kind == stream.kind && events.aggregate_id == id
        })
    };
    let outcome = |entry| match of_entry(entry) {
        Some(events) => {
            Outcome::Committed { position: events.position, recorded_at_ms: events.recorded_at_ms }
        }
        None => Outcome::Conflict,
    };
    append.entries.iter().map(outcome).collect()
}
