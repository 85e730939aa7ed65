//! Which appends of a batch may be committed together: the rules under the head lock, shared by both engines.
//!
//! Pure: an engine reads [`Known`] in the statement after it has locked the head, asks [`admit`], and writes the
//! [`Plan`]. Appends are taken in their order; each sees what those before it in the batch will have written. Only
//! what really conflicts is refused, the rest of the batch goes through.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    ATTEMPT_WINDOW_MS, Append, LiveRow, LiveTable, MAX_ATTEMPTS, Outcome, ReceiptKey, ReviewText,
    StockChange, StreamId,
};
use crate::refusal::{Refusal, Wrong};

/// Everything that a batch's checks need to know; each key once, in order.
#[derive(Debug, Default)]
pub struct Questions {
    /// Streams whose version is asked.
    pub streams: BTreeSet<StreamId>,
    /// Keys that may have a receipt.
    pub receipts: Vec<ReceiptKey>,
    /// Definitions whose stock moves.
    pub stock: BTreeSet<i64>,
    /// (member, definition) whose count moves.
    pub member_counts: BTreeSet<(i64, i64)>,
    /// (member, definition) of which only one at a time may run.
    pub latest_ends: BTreeSet<(i64, i64)>,
    /// Members whose failed gift codes count, with the start of their hour.
    pub attempts: BTreeMap<i64, i64>,
}

impl Questions {
    /// What must be known to admit this batch.
    #[must_use]
    pub fn of(batch: &[Append]) -> Self {
        let mut questions = Self::default();
        let mut receipts = BTreeMap::new();
        for append in batch {
            let effects = &append.effects;
            questions.streams.extend(append.streams.iter().map(|part| part.stream));
            questions.streams.extend(append.unchanged.iter().map(|(stream, _)| *stream));
            if let Some((key, _)) = &append.receipt {
                receipts.insert((&key.caller, key.operation, &key.key), key);
            }
            questions.stock.extend(effects.stock.iter().map(|change| match change {
                StockChange::Issued { definition_id, .. } | StockChange::Set { definition_id, .. } => {
                    *definition_id
                }
            }));
            let counted = effects.member_counts.iter();
            questions.member_counts.extend(counted.map(|change| (change.member_id, change.definition_id)));
            let one = effects.one_at_a_time.iter();
            questions.latest_ends.extend(one.map(|one| (one.member_id, one.definition_id)));
            if let Some(guard) = effects.attempts {
                let since = guard.now_ms - ATTEMPT_WINDOW_MS;
                let asked = questions.attempts.entry(guard.member_id).or_insert(since);
                *asked = since.min(*asked);
            }
        }
        questions.receipts = receipts.into_values().cloned().collect();
        questions
    }
}

/// What the database answered under the head lock.
#[derive(Debug, Default)]
pub struct Known {
    /// Versions of streams; missing = 0.
    pub versions: HashMap<StreamId, i64>,
    /// Keys that have a receipt.
    pub receipts: HashSet<ReceiptKey>,
    /// (stock or −1 = unlimited, issued) by definition.
    pub stock: HashMap<i64, (i64, i64)>,
    /// Issued by (member, definition).
    pub member_counts: HashMap<(i64, i64), i64>,
    /// When the last coupon ends that was issued, by (member, definition).
    pub latest_ends: HashMap<(i64, i64), i64>,
    /// When each member's failed gift codes were.
    pub attempts: HashMap<i64, Vec<i64>>,
}

/// An event with its place, ready to be written.
#[derive(Debug)]
pub struct PlannedEvent<'a> {
    /// The append it belongs to.
    pub append: &'a Append,
    /// Its stream.
    pub stream: StreamId,
    /// Its place in the stream.
    pub sequence: i64,
    /// Its place in the log.
    pub position: i64,
    /// What it is.
    pub event: &'a super::NewEvent,
}

/// A receipt ready to be written.
#[derive(Debug)]
pub struct PlannedReceipt<'a> {
    /// The key.
    pub key: &'a ReceiptKey,
    /// The request's fingerprint.
    pub request_mac: &'a str,
    /// The first event.
    pub position: i64,
    /// How many.
    pub event_count: i64,
}

/// Everything a batch writes.
#[derive(Debug, Default)]
pub struct Plan<'a> {
    /// Events in the order of their positions.
    pub events: Vec<PlannedEvent<'a>>,
    /// Receipts.
    pub receipts: Vec<PlannedReceipt<'a>>,
    /// Rows by table; a row appears once, as its last writer left it.
    pub rows: Vec<(&'static LiveTable, Vec<&'a LiveRow>)>,
    /// (definition, stock or −1, issued) as they are to be.
    pub stock: Vec<(i64, i64, i64)>,
    /// (member, definition, issued) as they are to be.
    pub member_counts: Vec<(i64, i64, i64)>,
    /// Failed gift codes: (member, when).
    pub attempts: Vec<(i64, i64)>,
    /// Reviews.
    pub reviews: Vec<&'a ReviewText>,
    /// The head's position after the batch.
    pub head: i64,
    /// When the batch was recorded.
    pub recorded_at_ms: i64,
}

impl Plan<'_> {
    /// Whether nothing is to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.attempts.is_empty()
    }
}

/// Decides each append of a batch against what is known and against those admitted before it.
#[must_use]
pub fn admit(batch: &[Append], mut known: Known, head: i64, recorded_at_ms: i64) -> (Plan<'_>, Vec<Outcome>) {
    let mut plan = Plan { head, recorded_at_ms, ..Plan::default() };
    let mut touched_stock = BTreeSet::new();
    let mut touched_counts = BTreeSet::new();
    let mut outcomes = Vec::with_capacity(batch.len());
    for append in batch {
        if let Some(outcome) = known.objection(append) {
            outcomes.push(outcome);
            continue;
        }
        let position = plan.head + 1;
        for part in &append.streams {
            let version = known.versions.entry(part.stream).or_default();
            for event in &part.events {
                *version += 1;
                plan.head += 1;
                plan.events.push(PlannedEvent {
                    append,
                    stream: part.stream,
                    sequence: *version,
                    position: plan.head,
                    event,
                });
            }
        }
        if let Some((key, request_mac)) = &append.receipt {
            known.receipts.insert(key.clone());
            let event_count = plan.head + 1 - position;
            plan.receipts.push(PlannedReceipt { key, request_mac, position, event_count });
        }
        known.take_effects(append, &mut plan, &mut touched_stock, &mut touched_counts);
        outcomes.push(Outcome::Committed { position, recorded_at_ms });
    }
    plan.rows = last_rows(batch, &outcomes);
    let stock = touched_stock.into_iter();
    plan.stock =
        stock.filter_map(|id| known.stock.get(&id).map(|(stock, issued)| (id, *stock, *issued))).collect();
    let counts = touched_counts.into_iter();
    plan.member_counts = counts
        .filter_map(|key| known.member_counts.get(&key).map(|issued| (key.0, key.1, *issued)))
        .collect();
    (plan, outcomes)
}

impl Known {
    /// Why an append cannot be admitted: receipt, versions, then the guards in the contract's order (5002 before 5001).
    fn objection(&self, append: &Append) -> Option<Outcome> {
        if append.receipt.as_ref().is_some_and(|(key, _)| self.receipts.contains(key)) {
            return Some(Outcome::ReceiptExists);
        }
        let version = |stream| self.versions.get(&stream).copied().unwrap_or_default();
        let moved = append.streams.iter().any(|part| version(part.stream) != part.expected_version)
            || append.unchanged.iter().any(|(stream, expected)| version(*stream) != *expected);
        if moved {
            return Some(Outcome::Conflict);
        }
        let effects = &append.effects;
        if let Some(guard) = effects.attempts {
            let since = guard.now_ms - ATTEMPT_WINDOW_MS;
            let recent = self.attempts.get(&guard.member_id);
            let recent = recent.map_or(0, |tries| tries.iter().filter(|at_ms| **at_ms > since).count());
            if recent as i64 >= MAX_ATTEMPTS {
                return Some(Outcome::Refused(Refusal::TooManyAttempts));
            }
        }
        for change in effects.member_counts.iter().filter(|change| change.by > 0) {
            let issued = self
                .member_counts
                .get(&(change.member_id, change.definition_id))
                .copied()
                .unwrap_or_default();
            if change.limit.is_some_and(|limit| issued + change.by > limit) {
                return Some(Outcome::Refused(Refusal::LimitReached));
            }
        }
        if let Some(one) = effects.one_at_a_time {
            let latest = self.latest_ends.get(&(one.member_id, one.definition_id));
            if latest.is_some_and(|ends_at_ms| *ends_at_ms > one.now_ms) {
                return Some(Outcome::Refused(Refusal::LimitReached));
            }
        }
        effects.stock.iter().find_map(|change| self.stock_objection(*change))
    }

    fn stock_objection(&self, change: StockChange) -> Option<Outcome> {
        match change {
            StockChange::Issued { definition_id, by } if by > 0 => {
                // A definition without a stock row has never been defined here: it has nothing to give.
                let (stock, issued) = self.stock.get(&definition_id).copied().unwrap_or((0, 0));
                (stock >= 0 && issued + by > stock).then_some(Outcome::Refused(Refusal::SoldOut))
            }
            StockChange::Issued { .. } => None,
            StockChange::Set { definition_id, stock } => {
                let issued = self.stock.get(&definition_id).map_or(0, |(_, issued)| *issued);
                let below = stock.is_some_and(|stock| stock < issued);
                below.then(|| Outcome::Refused(Refusal::field("num", Wrong::StockBelowIssued { issued })))
            }
        }
    }

    fn take_effects<'a>(
        &mut self,
        append: &'a Append,
        plan: &mut Plan<'a>,
        touched_stock: &mut BTreeSet<i64>,
        touched_counts: &mut BTreeSet<(i64, i64)>,
    ) {
        let effects = &append.effects;
        for change in &effects.stock {
            let (definition_id, by) = match *change {
                StockChange::Issued { definition_id, by } => (definition_id, by),
                StockChange::Set { definition_id, stock } => {
                    self.stock.entry(definition_id).or_default().0 = stock.unwrap_or(-1);
                    (definition_id, 0)
                }
            };
            self.stock.entry(definition_id).or_default().1 += by;
            touched_stock.insert(definition_id);
        }
        for change in &effects.member_counts {
            let key = (change.member_id, change.definition_id);
            *self.member_counts.entry(key).or_default() += change.by;
            touched_counts.insert(key);
        }
        if let Some(one) = effects.one_at_a_time {
            let latest = self.latest_ends.entry((one.member_id, one.definition_id)).or_default();
            *latest = one.ends_at_ms.max(*latest);
        }
        if let Some(guard) = effects.attempts.filter(|guard| guard.failed) {
            self.attempts.entry(guard.member_id).or_default().push(guard.now_ms);
            plan.attempts.push((guard.member_id, guard.now_ms));
        }
        plan.reviews.extend(effects.review.iter());
    }
}

/// The rows of the admitted appends by table, each key once: the last writer's row stands.
fn last_rows<'a>(batch: &'a [Append], outcomes: &[Outcome]) -> Vec<(&'static LiveTable, Vec<&'a LiveRow>)> {
    let mut tables: Vec<(&'static LiveTable, Vec<&'a LiveRow>)> = Vec::new();
    let mut places = HashMap::new();
    let admitted =
        batch.iter().zip(outcomes).filter(|(_, outcome)| matches!(outcome, Outcome::Committed { .. }));
    for row in admitted.flat_map(|(append, _)| &append.effects.rows) {
        let at = tables.iter().position(|(table, _)| std::ptr::eq(*table, row.table)).unwrap_or_else(|| {
            tables.push((row.table, Vec::new()));
            tables.len() - 1
        });
        let Some((table, rows)) = tables.get_mut(at) else {
            continue;
        };
        let key = row.cells.get(..table.key_columns).unwrap_or_default();
        match places.entry((at, key)) {
            Entry::Occupied(place) => {
                if let Some(slot) = rows.get_mut(*place.get()) {
                    *slot = row;
                }
            }
            Entry::Vacant(place) => {
                place.insert(rows.len());
                rows.push(row);
            }
        }
    }
    // Lock order everywhere: rows by table, then by key.
    tables.sort_by_key(|(table, _)| table.name);
    tables
}
