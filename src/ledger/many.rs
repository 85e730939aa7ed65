//! Many commands as one background append: one read of all their streams, one decision each, one transaction.
//!
//! Bulk jobs and sweeps stand on it. Each command is admitted or refused by itself, under the same rules as when it
//! comes alone; a key, where there is one, stands for all of them.

use std::collections::{HashMap, HashSet};

use super::grounds::Grounds;
use super::{ExecuteError, Executed, Ledger, MAX_CONFLICTS, Meta, new_append};
use crate::entity::{Entity, fold, stream_of};
use crate::facts::Facts;
use crate::job::Job;
use crate::refusal::Refusal;
use crate::store::{AttemptGuard, Entry, Outcome, Receipt, StreamId};

/// What became of many commands.
#[derive(Debug)]
pub enum Many<A: Entity> {
    /// The outcome of each, in their order.
    Done(Vec<Result<Executed<A>, ExecuteError>>),
    /// The key had been used: this is what it left then, and nothing was done now.
    Replayed(Receipt),
}

impl Ledger {
    /// Runs commands on different streams in one transaction, behind whatever members ask for meanwhile. Waits, rather
    /// than refusing, where too much is under way. Those whose stream moved are decided again.
    pub async fn execute_many<A: Entity>(
        &self,
        commands: Vec<(i64, A::Command)>,
        meta: &Meta,
    ) -> Result<Many<A>, ExecuteError> {
        let _permit = self.inner.in_flight.acquire().await.map_err(|_| ExecuteError::ShuttingDown)?;
        if let Some(receipt) = self.used_key(meta).await? {
            return Ok(Many::Replayed(receipt));
        }
        let mut meta = meta.clone();
        let mut seen = HashSet::new();
        // A second command on one stream cannot stand on what the first one saw.
        let repeated = |id| (!seen.insert(id)).then_some(Err(ExecuteError::Conflict));
        let mut outcomes: Vec<Option<Result<Executed<A>, ExecuteError>>> =
            commands.iter().map(|one| one.0).map(repeated).collect();
        for round in 0..=MAX_CONFLICTS {
            let open: Vec<usize> =
                (0..).zip(&outcomes).filter(|(_, o)| o.is_none()).map(|(at, _)| at).collect();
            let decided = self.decide_many::<A>(&commands, &open, &meta, round == 0).await?;
            for guard in decided.attempts {
                self.count_attempt(guard).await?;
            }
            let (mut entries, mut executed) = (Vec::new(), Vec::new());
            for (place, decision) in open.into_iter().zip(decided.decisions) {
                match decision {
                    Ok((Some(entry), done)) => {
                        entries.push(entry);
                        executed.push((place, done));
                    }
                    Ok((None, done)) => put(&mut outcomes, place, Ok(done)),
                    Err(error) => put(&mut outcomes, place, Err(error)),
                }
            }
            if entries.is_empty() {
                break;
            }
            let append = new_append(entries, decided.unchanged, &meta, None);
            for ((place, done), outcome) in
                executed.into_iter().zip(self.inner.writer.submit_background(append).await?)
            {
                match outcome {
                    Outcome::Committed { .. } => {
                        self.inner.metrics.count_events::<A>(&done.events);
                        put(&mut outcomes, place, Ok(done));
                        // The key is used up now; what is decided again goes on without it.
                        meta.receipt = None;
                    }
                    Outcome::Refused(refusal) => put(&mut outcomes, place, Err(refusal.into())),
                    Outcome::ReceiptExists => {
                        let receipt = self.used_key(&meta).await?.ok_or(ExecuteError::Conflict)?;
                        return Ok(Many::Replayed(receipt));
                    }
                    Outcome::Conflict => {
                        self.inner.metrics.conflicts.inc();
                    }
                }
            }
        }
        let conflict = || Err(ExecuteError::Conflict);
        Ok(Many::Done(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(conflict)).collect()))
    }

    /// The receipt of the key, if it was used for this very request.
    async fn used_key(&self, meta: &Meta) -> Result<Option<Receipt>, ExecuteError> {
        let Some((key, request_mac)) = &meta.receipt else {
            return Ok(None);
        };
        match self.inner.store.receipt(key).await? {
            Some(receipt) if receipt.request_mac != *request_mac => Err(Refusal::KeyReused.into()),
            receipt => Ok(receipt),
        }
    }

    /// What commands on different streams would come to now. Writes nothing, so what only the writer can know is not among
    /// it: counters, and what others do meanwhile.
    pub async fn foresee_many<A: Entity>(
        &self,
        commands: &[(i64, A::Command)],
        meta: &Meta,
    ) -> Result<Vec<Result<Executed<A>, ExecuteError>>, ExecuteError> {
        let all: Vec<usize> = (0..commands.len()).collect();
        let decided = self.decide_many::<A>(commands, &all, meta, false).await?;
        Ok(decided.decisions.into_iter().map(|decision| decision.map(|(_, done)| done)).collect())
    }

    /// Decides those that are open. Whether what begins a stream may take for granted that there is none is told, too.
    async fn decide_many<A: Entity>(
        &self,
        commands: &[(i64, A::Command)],
        open: &[usize],
        meta: &Meta,
        may_assume: bool,
    ) -> Result<Decided<A>, ExecuteError> {
        let open: Vec<&(i64, A::Command)> = open.iter().filter_map(|place| commands.get(*place)).collect();
        let mut grounds = Grounds::default();
        self.read_grounds(&mut grounds, open.iter().map(|one| A::needs(&one.1)), false).await?;
        if let Some(job_id) = meta.job_id {
            // A job that is paused or cancelled meanwhile moves its stream, and with it these appends are refused.
            let (job, version) = self.load::<Job>(job_id).await?;
            if !job.is_running() {
                return Err(ExecuteError::Conflict);
            }
            grounds.unchanged.push((stream_of::<Job>(job_id), version));
        }
        let decide = |(id, command): &(i64, A::Command), state: (A, i64)| {
            let facts = Facts { version: state.1, ..self.facts(*id, A::needs(command), meta, &grounds) };
            let decided = state.0.decide(command, &facts);
            (state, facts, decided)
        };
        // A new stream need not be read to be begun: the writer checks that it is one. What appends nothing must not
        // rest on that, though.
        let mut begun = HashMap::new();
        for one in open.iter().filter(|one| may_assume && A::begins(&one.1)) {
            let (state, facts, decided) = decide(one, (A::default(), 0));
            if matches!(&decided, Ok(events) if !events.is_empty()) {
                begun.insert(one.0, (state, facts, decided));
            }
        }
        let read: Vec<StreamId> =
            open.iter().filter(|one| !begun.contains_key(&one.0)).map(|one| stream_of::<A>(one.0)).collect();
        let mut loaded = self.inner.store.load(&read).await?.into_iter();
        let mut decisions = Vec::with_capacity(open.len());
        let mut attempts = Vec::new();
        for one @ (id, command) in open {
            let ((before, version), facts, decided) = match begun.remove(id) {
                Some(decided) => decided,
                None => match fold::<A>(&loaded.next().unwrap_or_default()) {
                    Ok(state) => decide(one, state),
                    Err(corrupt) => {
                        decisions.push(Err(corrupt.into()));
                        continue;
                    }
                },
            };
            let appends = matches!(&decided, Ok(events) if !events.is_empty());
            let guard = if appends { None } else { before.attempt(command, &facts, decided.is_err()) };
            decisions.push(match decided {
                Ok(events) if appends => self
                    .prepare::<A>(*id, (before, version), command, &facts, events)
                    .map(|(entry, done)| (Some(entry), done)),
                Ok(events) => Ok((None, Executed { id: *id, state: before, events, replayed: false })),
                Err(refusal) => Err(refusal.into()),
            });
            attempts.extend(guard);
        }
        Ok(Decided { decisions, unchanged: grounds.unchanged, attempts })
    }
}

/// What is to be written for a command, if anything, and what it comes to then.
type Decision<A> = Result<(Option<Entry>, Executed<A>), ExecuteError>;

/// What many commands come to before they are written.
struct Decided<A: Entity> {
    decisions: Vec<Decision<A>>,
    unchanged: Vec<(StreamId, i64)>,
    /// What is counted although it writes no event.
    attempts: Vec<AttemptGuard>,
}

fn put<T>(places: &mut [Option<T>], place: usize, value: T) {
    if let Some(slot) = places.get_mut(place) {
        *slot = Some(value);
    }
}
