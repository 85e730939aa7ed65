//! Several streams changed as one, all or nothing: an order with its coupons, a rule with its rows.
//!
//! A [`Together`] says which commands follow from each other. Each is decided by its own aggregate, purely; what they all
//! write goes into one entry, so there is one transaction and one outcome. Where a stream has moved meanwhile, the plan
//! is made again from the start. Must never append for one stream what it does not append for all.

use std::collections::HashMap;

use super::grounds::Grounds;
use super::{ExecuteError, Executed, Ledger, MAX_CONFLICTS, Meta, new_append};
use crate::entity::{Entity, fold, stream_of};
use crate::facts::Facts;
use crate::metrics::Metrics;
use crate::store::{Entry, Outcome, ReceiptKey, StoredEvent, StreamId};

/// A command that changes several streams.
pub trait Together: Sync {
    /// The stream that its answer is rendered from.
    type Primary: Entity;

    /// The streams that are known beforehand: callers queue for them instead of burning retries.
    fn streams(&self) -> Vec<StreamId> {
        Vec::new()
    }

    /// What can be done once only, whatever the request's own key, with the fingerprint of what is to be done.
    fn once(&self) -> Option<(ReceiptKey, String)> {
        None
    }

    /// Runs its commands on a unit. Nothing is written before all of them have gone through.
    fn plan(
        &self,
        unit: &mut Unit<'_>,
    ) -> impl Future<Output = Result<Executed<Self::Primary>, ExecuteError>> + Send;
}

/// Counts events of one kind, once they are committed.
type Counted = Box<dyn FnOnce(&Metrics) + Send + Sync>;

/// What is being put together.
pub struct Unit<'a> {
    ledger: &'a Ledger,
    meta: &'a Meta,
    entry: Entry,
    grounds: Grounds,
    fetched: HashMap<StreamId, Vec<StoredEvent>>,
    counted: Vec<Counted>,
}

impl<'a> Unit<'a> {
    /// An empty one. On its own it writes nothing: it tells what would come of commands.
    #[must_use]
    pub fn new(ledger: &'a Ledger, meta: &'a Meta) -> Self {
        let (entry, grounds) = (Entry::default(), Grounds::default());
        Self { ledger, meta, entry, grounds, fetched: HashMap::new(), counted: Vec::new() }
    }

    /// The ledger, for what is asked and not decided: ids, pages.
    #[must_use]
    pub fn ledger(&self) -> &'a Ledger {
        self.ledger
    }

    /// Who asks, and when.
    #[must_use]
    pub fn meta(&self) -> &'a Meta {
        self.meta
    }

    /// Reads many streams at once, for the calls that follow.
    pub async fn fetch(&mut self, streams: Vec<StreamId>) -> Result<(), ExecuteError> {
        let loaded = self.ledger.store().load(&streams).await?;
        self.fetched.extend(streams.into_iter().zip(loaded));
        Ok(())
    }

    /// The state of a stream that the plan rests on: the append is refused where it has moved. None = there is none.
    pub async fn read<A: Entity>(&mut self, id: i64) -> Result<Option<A>, ExecuteError> {
        let (state, version) = self.load::<A>(id).await?;
        self.grounds.unchanged.push((stream_of::<A>(id), version));
        Ok((version > 0).then_some(state))
    }

    /// Runs a command on a stream; once per stream, because each is decided on what the log has of it.
    pub async fn run<A: Entity>(
        &mut self,
        id: i64,
        command: &A::Command,
    ) -> Result<Executed<A>, ExecuteError> {
        // The second would be decided on what the first has changed already: a coupon would be used twice.
        let stream = stream_of::<A>(id);
        if self.entry.streams.iter().any(|part| part.stream == stream) {
            return Err(ExecuteError::Conflict);
        }
        // A new stream need not be read to be begun: the writer checks that it is one.
        let (before, version) =
            if A::begins(command) { (A::default(), 0) } else { self.load::<A>(id).await? };
        let needs = A::needs(command);
        self.ledger.read_grounds(&mut self.grounds, std::iter::once(needs), false).await?;
        let facts = Facts { version, ..self.ledger.facts(id, needs, self.meta, &self.grounds) };
        let events = before.decide(command, &facts)?;
        if events.is_empty() {
            // Not appended to, but what follows rests on it.
            self.grounds.unchanged.push((stream, version));
            return Ok(Executed { id, state: before, events, replayed: false });
        }
        let (entry, executed) = self.ledger.prepare::<A>(id, (before, version), command, &facts, events)?;
        self.entry.streams.extend(entry.streams);
        self.entry.effects.join(entry.effects);
        let events = executed.events.clone();
        self.counted.push(Box::new(move |metrics| metrics.count_events::<A>(&events)));
        Ok(executed)
    }

    async fn load<A: Entity>(&self, id: i64) -> Result<(A, i64), ExecuteError> {
        match self.fetched.get(&stream_of::<A>(id)) {
            Some(stored) => Ok(fold::<A>(stored)?),
            None => self.ledger.load::<A>(id).await,
        }
    }
}

impl Ledger {
    /// Runs a command that changes several streams: all of them, or none.
    pub async fn execute_together<T: Together>(
        &self,
        together: &T,
        meta: &Meta,
    ) -> Result<Executed<T::Primary>, ExecuteError> {
        let Ok(_permit) = self.inner.in_flight.try_acquire() else {
            self.inner.metrics.busy.inc();
            return Err(ExecuteError::Busy);
        };
        // In one order everywhere, so that no two wait for each other.
        let mut streams = together.streams();
        streams.sort_unstable();
        streams.dedup();
        let mut turns = Vec::with_capacity(streams.len());
        for stream in streams {
            turns.push(self.inner.turns.wait(stream).await);
        }
        for _ in 0..=MAX_CONFLICTS {
            let mut unit = Unit::new(self, meta);
            let planned = together.plan(&mut unit).await;
            let executed = match planned {
                Ok(executed) if !unit.entry.streams.is_empty() => executed,
                unchanging @ (Ok(_) | Err(ExecuteError::Refused(_))) => {
                    return match self.replay_together(together, meta).await? {
                        Some(replayed) => Ok(replayed),
                        None => unchanging,
                    };
                }
                Err(error) => return Err(error),
            };
            let append = new_append(vec![unit.entry], unit.grounds.unchanged, meta, together.once());
            match self.inner.writer.submit(append).await? {
                Outcome::Committed { .. } => {
                    unit.counted.into_iter().for_each(|count| count(&self.inner.metrics));
                    return Ok(executed);
                }
                Outcome::Refused(refusal) => return Err(refusal.into()),
                Outcome::ReceiptExists => {
                    return self.replay_together(together, meta).await?.ok_or(ExecuteError::Conflict);
                }
                Outcome::Conflict => {
                    self.inner.metrics.conflicts.inc();
                }
            }
        }
        Err(ExecuteError::Conflict)
    }

    /// What the request's key, or what can be done once only, did when it was used.
    async fn replay_together<T: Together>(
        &self,
        together: &T,
        meta: &Meta,
    ) -> Result<Option<Executed<T::Primary>>, ExecuteError> {
        if let Some(replayed) = self.replay::<T::Primary>(meta).await? {
            return Ok(Some(replayed));
        }
        match together.once() {
            Some((key, request_mac)) => self.replay_key::<T::Primary>(&key, &request_mac).await,
            None => Ok(None),
        }
    }
}
