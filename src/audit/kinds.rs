//! The kinds of streams that there are, each with what can be asked of its events without knowing which it is.

use cqrs_es::Aggregate;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::mpsc;

use super::words::Told;
use crate::clock::Zone;
use crate::entity::{CorruptEvent, Folded, decode, effects, fold, for_each_aggregate};
use crate::replay::{Look, ReplayError, replay};
use crate::store::{Effects, LiveRow, Store, StoredEvent};

/// A kind of stream.
pub struct Kind {
    /// As the log names it.
    pub name: &'static str,
    /// Tells the wanted events of a stream, which is given from its first event on.
    pub(super) tell: Tell,
    /// What a stream, given from its first event on, has in the live tables.
    pub(super) live: fn(i64, &[StoredEvent]) -> Result<Live, Box<CorruptEvent>>,
    /// What further events of a stream write beside, where it is given up to them.
    pub(super) further: Further,
    /// What every stream of this kind that a ledger holds has in the live tables, part by part.
    pub(super) replay: fn(Store, mpsc::Sender<Live>) -> BoxFuture<'static, Result<(), ReplayError>>,
}

type Tell = fn(&[StoredEvent], Zone, Wanted<'_>) -> Result<Vec<Telling>, Box<CorruptEvent>>;

type Further = fn(i64, &[StoredEvent], &[StoredEvent]) -> Result<Effects, Box<CorruptEvent>>;

/// Whether an event is wanted.
pub(super) type Wanted<'a> = &'a (dyn Fn(&StoredEvent) -> bool + Sync);

/// What one event was, beside the columns of its row.
#[derive(Clone, Debug)]
pub(super) struct Telling {
    /// Its place in its stream.
    pub(super) sequence: i64,
    /// In words.
    pub(super) words: String,
    /// The state of its stream before it; null before the first.
    pub(super) before: Value,
    /// And after it.
    pub(super) after: Value,
}

/// What streams have in the live tables.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// Their rows.
    pub(super) rows: Vec<LiveRow>,
    /// The stock they set, by its key; None = unlimited.
    pub(super) stock: Vec<(i64, Option<i64>)>,
}

macro_rules! kinds {
    ($($aggregate:ty),* $(,)?) => {
        /// Every kind of stream.
        pub static KINDS: &[Kind] = &[$(kind::<$aggregate>()),*];
        /// Their names.
        pub const NAMES: &[&str] = &[$(<$aggregate as Aggregate>::TYPE),*];
    };
}

for_each_aggregate!(kinds);

impl Kind {
    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }
}

const fn kind<A: Told>() -> Kind {
    Kind {
        name: A::TYPE,
        tell: tell::<A>,
        live: live::<A>,
        further: further::<A>,
        replay: |store, to| Box::pin(replay_into::<A>(store, to)),
    }
}

fn tell<A: Told>(
    stream: &[StoredEvent],
    zone: Zone,
    wanted: Wanted<'_>,
) -> Result<Vec<Telling>, Box<CorruptEvent>> {
    let mut folded = Folded::<A>::default();
    let mut told = Vec::new();
    for event in stream {
        let before = if folded.version > 0 && wanted(event) { value(&folded.state) } else { Value::Null };
        folded.take(event.as_ref())?;
        if wanted(event) {
            let words = A::words(&decode::<A>(event)?, zone);
            told.push(Telling { sequence: event.sequence, words, before, after: value(&folded.state) });
        }
    }
    Ok(told)
}

/// A state as JSON; every aggregate's can be written, its keys being texts and numbers.
fn value(state: &impl serde::Serialize) -> Value {
    serde_json::to_value(state).unwrap_or_default()
}

fn live<A: Told>(id: i64, stream: &[StoredEvent]) -> Result<Live, Box<CorruptEvent>> {
    let mut live = Live::default();
    live.see(id, &fold::<A>(stream)?.0);
    Ok(live)
}

fn further<A: Told>(
    id: i64,
    before: &[StoredEvent],
    next: &[StoredEvent],
) -> Result<Effects, Box<CorruptEvent>> {
    let mut folded = Folded::<A>::default();
    before.iter().try_for_each(|event| folded.take(event.as_ref()))?;
    let then = folded.state.clone();
    next.iter().try_for_each(|event| folded.take(event.as_ref()))?;
    Ok(effects(id, &then, &folded.state))
}

impl Live {
    fn see<A: Told>(&mut self, id: i64, state: &A) {
        self.rows.append(&mut state.rows(id));
        self.stock.extend(state.stock(id).map(|(of, stock)| (of.key(), stock)));
    }
}

/// Hands on what streams have, a part of the log at a time.
struct HandOn {
    live: Live,
    to: mpsc::Sender<Live>,
}

impl<A: Told> Look<A> for HandOn {
    fn see(&mut self, id: i64, state: A) {
        self.live.see(id, &state);
    }

    async fn rest(&mut self) -> Result<(), ReplayError> {
        let live = std::mem::take(&mut self.live);
        if live.rows.is_empty() {
            return Ok(());
        }
        self.to.send(live).await.map_err(|_| ReplayError::CutShort)
    }
}

async fn replay_into<A: Told>(store: Store, to: mpsc::Sender<Live>) -> Result<(), ReplayError> {
    replay::<A, _>(&store, || HandOn { live: Live::default(), to: to.clone() }).await.map(drop)
}
