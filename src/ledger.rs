//! Commands: the one loop that turns a command into events, and the only way into the log.
//!
//! `execute` loads the stream, reads the facts the command needs, asks the pure `decide`, and hands the append to the
//! [`writer`]. Promises: an answered command is on disk; a key used twice is answered once; an outcome that appends
//! nothing is given only from state read after the command arrived. Must never read a clock or a random source for a
//! decision: both come in with [`Meta`] and the command.

mod event_store;
mod grounds;
pub mod keys;
mod many;
mod turns;
pub mod unit;
pub mod writer;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use cqrs_es::Aggregate as _;
pub use many::Many;
use tokio::sync::Semaphore;

use crate::clock::{Clock, Moment, Zone};
use crate::coupon::Coupon;
use crate::directory::seal::{self, Seal};
use crate::entity::{CorruptEvent, Entity, decode, effects, encode, fold, stream_of};
use crate::facts::Facts;
use crate::identity::Caller;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::secrets::Secrets;
use crate::store::{
    Append, AttemptGuard, EPOCH, Effects, Entry, Outcome, ReceiptKey, ReviewText, Store, StoreError,
    StoredEvent, StreamAppend, StreamId, receipts_hash,
};
use crate::value::{hex, random};
use grounds::{Grounds, Memory};
use turns::Turns;
use writer::{WriteError, Writer};

/// How often a command is decided again after its stream moved under it.
const MAX_CONFLICTS: u32 = 3;

/// How many ids are reserved at a time.
const ID_BLOCK: i64 = 1_000;

/// Who asks, when, and under which key.
#[derive(Clone, Debug)]
pub struct Meta {
    /// Who.
    pub caller: Caller,
    /// When.
    pub at: Moment,
    /// Names the request in logs and in the events it causes.
    pub request_id: String,
    /// The idempotency key with the operation and the fingerprint of the request.
    pub receipt: Option<(ReceiptKey, String)>,
    /// The job that causes it, where it is no request: it must be running when the events are written.
    pub job_id: Option<i64>,
}

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// A business answer.
    #[error(transparent)]
    Refused(Refusal),
    /// The stream moved under the command again and again.
    #[error("changed meanwhile")]
    Conflict,
    /// Too many commands are under way.
    #[error("too many commands are waiting")]
    Busy,
    /// The writer could not commit it.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The database could not be read.
    #[error("the ledger cannot be read: {0}")]
    Read(Arc<StoreError>),
    /// An event of the stream cannot be understood.
    #[error("corrupt event: {0}")]
    Corrupt(#[from] Box<CorruptEvent>),
    /// An event cannot be serialised.
    #[error("event not serialisable: {0}")]
    Encode(#[from] serde_json::Error),
    /// The ledger is closing.
    #[error("the ledger is shutting down")]
    ShuttingDown,
}

impl From<Refusal> for ExecuteError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            // Nothing that the caller asked for was wrong: with the next id it goes through.
            Refusal::IdTaken => Self::Conflict,
            refusal => Self::Refused(refusal),
        }
    }
}

impl From<StoreError> for ExecuteError {
    fn from(error: StoreError) -> Self {
        Self::Read(Arc::new(error))
    }
}

/// What a command did.
#[derive(Clone, Debug)]
pub struct Executed<A: Entity> {
    /// The stream's id; of the first call's stream where the answer is a replay.
    pub id: i64,
    /// The state right after these events: answers are rendered from it, and only from it.
    pub state: A,
    /// The events; empty where all was as asked already.
    pub events: Vec<A::Event>,
    /// Whether the key had been used, and this is what it did then.
    pub replayed: bool,
}

/// The ledger. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    writer: Writer,
    turns: Turns,
    in_flight: Semaphore,
    capacity: usize,
    secrets: Secrets,
    seal: Seal,
    zone: Zone,
    clock: Clock,
    metrics: Arc<Metrics>,
    memory: Memory,
    ids: tokio::sync::Mutex<HashMap<&'static str, VecDeque<i64>>>,
}

/// What the ledger is built from.
pub struct LedgerOptions {
    /// The log.
    pub store: Store,
    /// The keys.
    pub secrets: Secrets,
    /// What seals and opens personal texts.
    pub seal: Seal,
    /// The merchant's calendar.
    pub zone: Zone,
    /// The time.
    pub clock: Clock,
    /// How many commands may be under way.
    pub capacity: usize,
}

impl Ledger {
    /// Starts a ledger on a store.
    #[must_use]
    pub fn start(options: LedgerOptions) -> Self {
        let LedgerOptions { store, secrets, seal, zone, clock, capacity } = options;
        let metrics = Arc::new(Metrics::default());
        let inner = Inner {
            writer: Writer::start(store.clone(), clock.clone(), metrics.clone(), capacity),
            turns: Turns::default(),
            in_flight: Semaphore::new(capacity),
            capacity,
            store,
            secrets,
            seal,
            zone,
            clock,
            metrics,
            memory: Memory::default(),
            ids: tokio::sync::Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The log.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The keys.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.inner.secrets
    }

    /// What seals and opens personal texts.
    #[must_use]
    pub fn seal(&self) -> &Seal {
        &self.inner.seal
    }

    /// The merchant's calendar.
    #[must_use]
    pub fn zone(&self) -> Zone {
        self.inner.zone
    }

    /// The time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// What is measured.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    /// Now, in the merchant's calendar.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.inner.zone.moment(self.inner.clock.now_ms())
    }

    /// How many commands are under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inner.capacity - self.inner.in_flight.available_permits()
    }

    /// Waits until this process must not write any more, and says why.
    pub async fn stopped(&self) -> String {
        self.inner.writer.stopped().await
    }

    /// A new id of a kind; `tidy` kinds (few and read by people) are reserved one by one.
    pub async fn next_id(&self, kind: &'static str, tidy: bool) -> Result<i64, ExecuteError> {
        if tidy {
            return Ok(self.inner.store.reserve_ids(kind, 1).await?);
        }
        let mut blocks = self.inner.ids.lock().await;
        let block = blocks.entry(kind).or_default();
        loop {
            if let Some(next) = block.pop_front() {
                return Ok(next);
            }
            let store = &self.inner.store;
            let first = store.reserve_ids(kind, ID_BLOCK).await?;
            let ids: Vec<i64> = (first..first + ID_BLOCK).collect();
            let imported_below = if kind == Coupon::TYPE { store.imported_ids(kind).await?.below } else { 0 };
            if first < imported_below {
                // Imports bring ids of their own: what they took of this block is passed over.
                let taken = store.begun(kind, &ids).await?;
                block.extend(ids.into_iter().filter(|id| !taken.contains(id)));
            } else {
                block.extend(ids);
            }
        }
    }

    /// The state of a stream and its version, read after this call.
    pub async fn load<A: Entity>(&self, id: i64) -> Result<(A, i64), ExecuteError> {
        Ok(fold::<A>(&self.inner.store.load_one(stream_of::<A>(id)).await?)?)
    }

    /// Runs a command on a stream: load, decide, append, and again when the stream moved.
    pub async fn execute<A: Entity>(
        &self,
        id: i64,
        command: &A::Command,
        meta: &Meta,
    ) -> Result<Executed<A>, ExecuteError> {
        let Ok(_permit) = self.inner.in_flight.try_acquire() else {
            self.inner.metrics.busy.inc();
            return Err(ExecuteError::Busy);
        };
        let stream = stream_of::<A>(id);
        let _turn = self.inner.turns.wait(stream).await;
        let mut conflicts = 0;
        let mut may_remember = true;
        loop {
            // A new stream need not be read to be begun: the writer checks that it is one.
            let assumed_new = may_remember && A::begins(command);
            let (before, version) = if assumed_new { (A::default(), 0) } else { self.load::<A>(id).await? };
            let mut grounds = Grounds::default();
            let needs = A::needs(command);
            self.read_grounds(&mut grounds, std::iter::once(needs), may_remember).await?;
            let facts = Facts { version, ..self.facts(id, needs, meta, &grounds) };
            let decided = before.decide(command, &facts);
            let events = match decided {
                Ok(events) if !events.is_empty() => events,
                // A refusal must not rest on what was remembered or assumed: read it and ask again.
                _ if grounds.remembered || assumed_new => {
                    may_remember = false;
                    continue;
                }
                unchanging => {
                    if let Some(replayed) = self.replay::<A>(meta).await? {
                        return Ok(replayed);
                    }
                    let refused = unchanging.is_err();
                    if let Some(guard) = before.attempt(command, &facts, refused) {
                        self.count_attempt(guard).await?;
                    }
                    unchanging?;
                    return Ok(Executed { id, state: before, events: Vec::new(), replayed: false });
                }
            };
            let (entry, executed) = self.prepare::<A>(id, (before, version), command, &facts, events)?;
            let append = new_append(vec![entry], grounds.unchanged, meta, None);
            match self.inner.writer.submit(append).await? {
                Outcome::Committed { .. } => {
                    self.inner.metrics.count_events::<A>(&executed.events);
                    return Ok(executed);
                }
                Outcome::Refused(refusal) => return Err(refusal.into()),
                Outcome::ReceiptExists => {
                    // A receipt is never deleted, so it is there; should it not be, another try will tell.
                    return self.replay::<A>(meta).await?.ok_or(ExecuteError::Conflict);
                }
                Outcome::Conflict => {
                    self.inner.metrics.conflicts.inc();
                    conflicts += 1;
                    if conflicts > MAX_CONFLICTS {
                        return Err(ExecuteError::Conflict);
                    }
                    may_remember = false;
                }
            }
        }
    }

    /// What this key did when it was used, if it was: the same events, the state right after them.
    pub async fn replay<A: Entity>(&self, meta: &Meta) -> Result<Option<Executed<A>>, ExecuteError> {
        match &meta.receipt {
            Some((key, request_mac)) => self.replay_key(key, request_mac).await,
            None => Ok(None),
        }
    }

    /// The same of any receipt.
    async fn replay_key<A: Entity>(
        &self,
        key: &ReceiptKey,
        request_mac: &str,
    ) -> Result<Option<Executed<A>>, ExecuteError> {
        let Some(receipt) = self.inner.store.receipt(key).await? else {
            return Ok(None);
        };
        if receipt.request_mac != request_mac {
            return Err(Refusal::KeyReused.into());
        }
        let caused = self.inner.store.events_after(receipt.position - 1, receipt.event_count).await?;
        let ours: Vec<&StoredEvent> = caused.iter().filter(|event| event.aggregate_type == A::TYPE).collect();
        let Some(last) = ours.last() else { return Ok(None) };
        let id = last.aggregate_id.parse().unwrap_or_default();
        let mut stream = self.inner.store.load_one(stream_of::<A>(id)).await?;
        stream.retain(|event| event.sequence <= last.sequence);
        let (state, _) = fold::<A>(&stream)?;
        let events = ours.iter().map(|event| decode::<A>(event)).collect::<Result<_, _>>()?;
        Ok(Some(Executed { id, state, events, replayed: true }))
    }

    /// Counts a try at a gift code that wrote no event, or refuses it.
    async fn count_attempt(&self, guard: AttemptGuard) -> Result<(), ExecuteError> {
        let append = Append {
            append_id: hex(&random::<16>()),
            epoch: EPOCH,
            entries: vec![Entry {
                streams: Vec::new(),
                effects: Effects { attempts: Some(guard), ..Effects::default() },
            }],
            unchanged: Vec::new(),
            receipts: Vec::new(),
            metadata: "{}".into(),
        };
        for _ in 0..=MAX_CONFLICTS {
            match self.inner.writer.submit(append.clone()).await? {
                Outcome::Refused(refusal) => return Err(refusal.into()),
                Outcome::Committed { .. } => return Ok(()),
                // Its commit was lost. No event tells whether it arrived, so it counts again: never too few.
                Outcome::Conflict | Outcome::ReceiptExists => self.inner.metrics.conflicts.inc(),
            };
        }
        Err(ExecuteError::Conflict)
    }

    /// What a decision writes, and what it comes to once it is written.
    fn prepare<A: Entity>(
        &self,
        id: i64,
        (before, version): (A, i64),
        command: &A::Command,
        facts: &Facts,
        events: Vec<A::Event>,
    ) -> Result<(Entry, Executed<A>), ExecuteError> {
        let mut after = before.clone();
        for event in &events {
            after.evolve(event);
        }
        let mut effects = effects(id, &before, &after);
        A::guard(command, &events, facts, &mut effects);
        if let Some(review) = effects.review.take() {
            effects.review = self.sealed(&review);
        }
        let part = StreamAppend {
            stream: stream_of::<A>(id),
            expected_version: version,
            events: events.iter().map(encode::<A>).collect::<Result<_, _>>()?,
        };
        let entry = Entry { streams: vec![part], effects };
        Ok((entry, Executed { id, state: after, events, replayed: false }))
    }

    /// A review's texts as they may be stored; none of whom was erased, whose texts are not kept.
    fn sealed(&self, review: &ReviewText) -> Option<ReviewText> {
        let person = self.inner.seal.person(review.member_id);
        let salt = person.seal(seal::REVIEW_SALT, &review.salt);
        let text = person.seal(seal::REVIEW_TEXT, &review.text);
        (!person.is_erased()).then_some(ReviewText { salt, text, ..*review })
    }
}

/// An append of these entries. It leaves the receipt of the request's key, and `once`: that of what can be done once only.
fn new_append(
    entries: Vec<Entry>,
    unchanged: Vec<(StreamId, i64)>,
    meta: &Meta,
    once: Option<(ReceiptKey, String)>,
) -> Append {
    let receipts: Vec<(ReceiptKey, String)> = meta.receipt.iter().cloned().chain(once).collect();
    let append_id = hex(&random::<16>());
    let caller = meta.caller.to_string();
    let mut metadata = serde_json::Map::new();
    let mut put = |name: &str, value: &str| metadata.insert(name.to_owned(), value.into());
    put("append_id", &append_id);
    put("caller", &caller);
    put("caller_kind", meta.caller.kind());
    put("request_id", &meta.request_id);
    // A request is its own cause, unless a job made it.
    let cause = meta.job_id.map_or_else(|| meta.request_id.clone(), |job_id| format!("job-{job_id}"));
    put("causation_id", &cause);
    put("correlation_id", &cause);
    if let Some((key, _)) = &meta.receipt {
        put("idempotency_key", &key.key);
    }
    if !receipts.is_empty() {
        let columns = receipts.iter().map(|(key, mac)| [key.caller.as_str(), key.operation, &key.key, mac]);
        put("receipts_hash", &receipts_hash(columns));
    }
    let metadata = serde_json::Value::Object(metadata).to_string().into();
    Append { append_id, epoch: EPOCH, entries, unchanged, receipts, metadata }
}
