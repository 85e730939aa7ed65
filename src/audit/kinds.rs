//! The kinds of streams that there are, each with what can be asked of its events without knowing which it is.

use futures::future::BoxFuture;
use serde_json::Value;

use super::words::Told;
use crate::clock::Zone;
use crate::entity::{CorruptEvent, Counts, Entity, Folded, decode, effects, for_each_aggregate};
use crate::replay::{Folding, ReplayError, See};
use crate::store::{Effects, IdRange, LiveRow, LiveTable, SCHEMA_VERSION, StockOf, Store, StoredEvent};

/// A kind of stream.
pub struct Kind {
    /// As the log names it.
    pub name: &'static str,
    /// Tells the wanted events of a stream, which is given from its first event on.
    pub(super) tell: Tell,
    /// What a stream, given from its first event on, has in the live tables right after a position.
    pub(super) fold: fn(&[StoredEvent], i64) -> Result<Written, Box<CorruptEvent>>,
    /// What further events of a stream write beside, where it is given up to them.
    pub(super) further: Further,
    /// What every stream in a range of ids has in the live tables right after a position.
    pub(super) scan: fn(Store, IdRange, i64) -> Scanned,
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

/// What a stream's state writes into the live tables and counters.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    pub(super) rows: Vec<LiveRow>,
    pub(super) counts: Option<Counts>,
    pub(super) stock: Option<(StockOf, Option<i64>)>,
}

/// A stream, folded.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: String,
    pub(super) events: i64,
    pub(super) written: Written,
}

type Scanned = BoxFuture<'static, Result<Vec<Stream>, ReplayError>>;

macro_rules! kinds {
    ($($aggregate:ty),* $(,)?) => {
        /// Every kind of stream.
        pub static KINDS: &[Kind] = &[$(kind::<$aggregate>()),*];
    };
}

for_each_aggregate!(kinds);

/// The program that folds streams, in words: another one might make other rows of the same events, or knows other kinds
/// or the same in another order. What it has begun is not gone on with.
#[must_use]
pub fn made_by() -> String {
    let kinds: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    format!("{} schema {SCHEMA_VERSION} {}", env!("CARGO_PKG_VERSION"), kinds.join(","))
}

impl Kind {
    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// Whether its streams write into one of these tables.
    pub(super) fn writes(&self, tables: &[&LiveTable]) -> bool {
        tables.iter().any(|table| table.written_by.contains(&self.name))
    }
}

const fn kind<A: Told>() -> Kind {
    Kind { name: A::TYPE, tell: tell::<A>, fold: fold::<A>, further: further::<A>, scan: scan::<A> }
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

/// What a stream in this state writes. Folding it has told that its id is one.
pub(super) fn written<A: Entity>(id: &str, state: &A) -> Written {
    let id = id.parse().unwrap_or_default();
    let rows = state.rows(id);
    debug_assert!(
        rows.iter().all(|row| row.table.written_by.contains(&A::TYPE)),
        "a {} writes into a table that does not say so",
        A::TYPE
    );
    Written { rows, counts: state.counts(), stock: state.stock(id) }
}

fn fold<A: Entity>(events: &[StoredEvent], until: i64) -> Result<Written, Box<CorruptEvent>> {
    let mut folded = Folded::<A>::default();
    let mut id = "";
    for event in events.iter().filter(|event| event.position <= until) {
        id = &event.aggregate_id;
        folded.take(event.as_ref())?;
    }
    if folded.version == 0 { Ok(Written::default()) } else { Ok(written(id, &folded.state)) }
}

fn further<A: Entity>(
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

fn scan<A: Entity>(store: Store, range: IdRange, until: i64) -> Scanned {
    Box::pin(async move {
        let folding = Folding::<A, _>::new(Streams(Vec::new()), until);
        Ok(store.scan(A::TYPE, range, folding).await?.end()?.0)
    })
}

/// Keeps of each stream what it writes.
struct Streams(Vec<Stream>);

impl<A: Entity> See<A> for Streams {
    fn see(&mut self, id: &str, Folded { state, version }: Folded<A>) {
        self.0.push(Stream { id: id.to_owned(), events: version, written: written(id, &state) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_other_kinds_or_another_order_of_them_is_another_one() {
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        assert!(made_by().ends_with(&format!(" {}", names.join(","))), "{}", made_by());
    }
}
