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
use crate::store::{Append, AppendError, Outcome, Store, StoreError};

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
    answer: oneshot::Sender<Result<Outcome, WriteError>>,
}

/// The writer's front. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    waiting: mpsc::Sender<Waiting>,
    stopped: watch::Receiver<Option<String>>,
}

impl Writer {
    /// Starts the writer; `capacity` appends may wait.
    #[must_use]
    pub fn start(store: Store, clock: Clock, metrics: Arc<Metrics>, capacity: usize) -> Self {
        let (waiting, gathered) = mpsc::channel(capacity);
        let (stop, stopped) = watch::channel(None);
        tokio::spawn(Worker { store, clock, metrics, stop }.run(gathered));
        Self { waiting, stopped }
    }

    /// Hands an append over and waits for its outcome. Once handed over it goes on, whoever waits.
    pub async fn submit(&self, append: Append) -> Result<Outcome, WriteError> {
        let (answer, answered) = oneshot::channel();
        self.waiting.send(Waiting { append, answer }).await.map_err(|_| WriteError::Closed)?;
        answered.await.map_err(|_| WriteError::Closed)?
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

struct Worker {
    store: Store,
    clock: Clock,
    metrics: Arc<Metrics>,
    stop: watch::Sender<Option<String>>,
}

impl Worker {
    async fn run(self, mut gathered: mpsc::Receiver<Waiting>) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while gathered.recv_many(&mut batch, MAX_BATCH).await > 0 {
            self.metrics.queue_depth.set(gathered.len() as i64);
            self.metrics.batch_size.observe(f64::from(u32::try_from(batch.len()).unwrap_or(u32::MAX)));
            let started = Instant::now();
            self.commit(std::mem::take(&mut batch)).await;
            self.metrics.batch_seconds.observe(started.elapsed().as_secs_f64());
        }
    }

    async fn commit(&self, batch: Vec<Waiting>) {
        let (appends, answers): (Vec<Append>, Vec<_>) =
            batch.into_iter().map(|waiting| (waiting.append, waiting.answer)).unzip();
        let outcomes = self.outcomes(appends.into()).await;
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // The caller may have gone away; what was written stays written.
            let _ = answer.send(outcome);
        }
    }

    /// An outcome for each append, in order. Halves are taken from the front, so positions keep the batch's order.
    async fn outcomes(&self, batch: Arc<[Append]>) -> Vec<Result<Outcome, WriteError>> {
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            match self.store.append(part.clone(), &self.clock).await {
                Ok(answered) => outcomes.extend(answered.into_iter().map(Ok)),
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
    ) -> Vec<Result<Outcome, WriteError>> {
        self.metrics.unknown_commits.inc();
        tracing::warn!(error = %source, appends = batch.len(), "commit not answered; asking the log");
        let ids: Vec<String> = batch.iter().map(|append| append.append_id.clone()).collect();
        for attempt in 1..=RESOLVE_TRIES {
            match self.store.resolve(&ids, head).await {
                Ok(found) => {
                    return batch
                        .iter()
                        .map(|append| match found.get(&append.append_id) {
                            Some((position, recorded_at_ms)) => Ok(Outcome::Committed {
                                position: *position,
                                recorded_at_ms: *recorded_at_ms,
                            }),
                            None => Ok(Outcome::Conflict),
                        })
                        .collect();
                }
                Err(error) => tracing::warn!(%error, attempt, "the log cannot be asked yet"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        batch.iter().map(|_| Err(WriteError::Unknown(source.clone()))).collect()
    }
}
