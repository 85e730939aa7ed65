//! Which appends of a batch may be committed together: the rules under the head lock, shared by both engines.
//!
//! Pure: an engine reads [`Known`] in the statement after it has locked the head, asks [`admit`], and writes the
//! [`Plan`]. Appends are taken in their order; each sees what those before it in the batch will have written. Only
//! what really conflicts is refused, the rest of the batch goes through.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map};

use super::{
    ATTEMPT_WINDOW_MS, Append, Entry, LiveRow, LiveTable, MAX_ATTEMPTS, Outcome, ReceiptKey, ReviewText,
    Statement, StockChange, StreamId,
};
use crate::refusal::{Refusal, Wrong};

/// Everything that a batch's checks need to know; each key once, in order.
#[derive(Debug, Default)]
pub struct Questions {
    /// Streams whose version is asked.
    pub streams: BTreeSet<StreamId>,
    /// Keys that may have a receipt.
    pub receipts: Vec<ReceiptKey>,
    /// Keys of the stock that moves, see [`StockOf::key`](super::StockOf::key).
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
            questions.streams.extend(append.unchanged.iter().map(|(stream, _)| *stream));
            let keys = append.receipts.iter().map(|(key, _)| ((&key.caller, key.operation, &key.key), key));
            receipts.extend(keys);
        }
        for entry in batch.iter().flat_map(|append| &append.entries) {
            let effects = &entry.effects;
            questions.streams.extend(entry.streams.iter().map(|part| part.stream));
            questions.stock.extend(effects.stock.iter().map(|change| change.of().key()));
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

impl Questions {
    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
            && self.receipts.is_empty()
            && self.stock.is_empty()
            && self.member_counts.is_empty()
            && self.latest_ends.is_empty()
            && self.attempts.is_empty()
    }
}

/// Takes for granted what the log's own keys guard, as the batch has it: the versions of the streams that it appends to,
/// and that its idempotency keys are new. Where that is wrong, writing it is a unique violation, and the batch is to be
/// admitted again with everything asked. Returns what is left to ask.
#[must_use]
pub fn take_for_granted(batch: &[Append]) -> (Known, Questions) {
    let mut known = Known::default();
    for part in batch.iter().flat_map(|append| &append.entries).flat_map(|entry| &entry.streams) {
        known.versions.entry(part.stream).or_insert(part.expected_version);
    }
    let mut questions = Questions::of(batch);
    questions.receipts.clear();
    questions.streams.retain(|stream| !known.versions.contains_key(stream));
    (known, questions)
}

/// What the database answered under the head lock.
#[derive(Debug, Default)]
pub struct Known {
    /// Versions of streams; missing = 0.
    pub versions: HashMap<StreamId, i64>,
    /// Keys that have a receipt.
    pub receipts: HashSet<ReceiptKey>,
    /// (stock or −1 = unlimited, issued) by the stock's key.
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
    /// (key, stock or −1, issued) as they are to be.
    pub stock: Vec<(i64, i64, i64)>,
    /// (member, definition, issued) as they are to be.
    pub member_counts: Vec<(i64, i64, i64)>,
    /// Failed gift codes: (member, when).
    pub attempts: Vec<(i64, i64)>,
    /// Reviews.
    pub reviews: Vec<&'a ReviewText>,
    /// What is written into the directory beside.
    pub beside: Vec<&'a Statement>,
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

/// Decides each entry of a batch against what is known and against those admitted before it.
#[must_use]
pub fn admit(batch: &[Append], mut known: Known, head: i64, recorded_at_ms: i64) -> (Plan<'_>, Vec<Outcome>) {
    let mut plan = Plan { head, recorded_at_ms, ..Plan::default() };
    let mut touched_stock = BTreeSet::new();
    let mut touched_counts = BTreeSet::new();
    let mut outcomes = Vec::with_capacity(batch.iter().map(|append| append.entries.len()).sum());
    for append in batch {
        if let Some(outcome) = known.objection(append) {
            outcomes.extend(append.entries.iter().map(|_| outcome.clone()));
            continue;
        }
        let first = plan.head + 1;
        let mut admitted = false;
        for entry in &append.entries {
            if let Some(outcome) = known.objection_to(entry) {
                outcomes.push(outcome);
                continue;
            }
            admitted = true;
            outcomes.push(Outcome::Committed { position: plan.head + 1, recorded_at_ms });
            known.take_events(append, entry, &mut plan);
            known.take_effects(entry, &mut plan, &mut touched_stock, &mut touched_counts);
        }
        let event_count = plan.head + 1 - first;
        for (key, request_mac) in append.receipts.iter().filter(|_| admitted) {
            known.receipts.insert(key.clone());
            plan.receipts.push(PlannedReceipt { key, request_mac, position: first, event_count });
        }
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
    /// Adds what was asked.
    pub fn extend(&mut self, answers: Self) {
        self.versions.extend(answers.versions);
        self.receipts.extend(answers.receipts);
        self.stock.extend(answers.stock);
        self.member_counts.extend(answers.member_counts);
        self.latest_ends.extend(answers.latest_ends);
        self.attempts.extend(answers.attempts);
    }

    fn version(&self, stream: StreamId) -> i64 {
        self.versions.get(&stream).copied().unwrap_or_default()
    }

    /// Why nothing of an append can be admitted: its receipts, then what it only read.
    fn objection(&self, append: &Append) -> Option<Outcome> {
        if append.receipts.iter().any(|(key, _)| self.receipts.contains(key)) {
            return Some(Outcome::ReceiptExists);
        }
        let moved = append.unchanged.iter().any(|(stream, expected)| self.version(*stream) != *expected);
        moved.then_some(Outcome::Conflict)
    }

    /// Why an entry cannot be admitted: versions, then the guards in the contract's order (5002 before 5001).
    fn objection_to(&self, entry: &Entry) -> Option<Outcome> {
        if entry.streams.iter().any(|part| self.version(part.stream) != part.expected_version) {
            return Some(Outcome::Conflict);
        }
        let effects = &entry.effects;
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
        let mut given = HashSet::new();
        for one in &effects.one_at_a_time {
            let key = (one.member_id, one.definition_id);
            let runs = self.latest_ends.get(&key).is_some_and(|ends_at_ms| *ends_at_ms > one.now_ms);
            if runs || !given.insert(key) {
                return Some(Outcome::Refused(Refusal::LimitReached));
            }
        }
        effects.stock.iter().find_map(|change| self.stock_objection(*change))
    }

    fn stock_objection(&self, change: StockChange) -> Option<Outcome> {
        match change {
            StockChange::Issued { of, by } if by > 0 => {
                // A definition without a stock row has never been defined here: it has nothing to give.
                let (stock, issued) = self.stock.get(&of.key()).copied().unwrap_or((0, 0));
                (stock >= 0 && issued + by > stock).then_some(Outcome::Refused(Refusal::SoldOut))
            }
            StockChange::Issued { .. } => None,
            StockChange::Set { of, stock } => {
                let issued = self.stock.get(&of.key()).map_or(0, |(_, issued)| *issued);
                let below = stock.is_some_and(|stock| stock < issued);
                below.then(|| Outcome::Refused(Refusal::field("num", Wrong::StockBelowIssued { issued })))
            }
        }
    }

    fn take_events<'a>(&mut self, append: &'a Append, entry: &'a Entry, plan: &mut Plan<'a>) {
        for part in &entry.streams {
            let version = self.versions.entry(part.stream).or_default();
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
    }

    fn take_effects<'a>(
        &mut self,
        entry: &'a Entry,
        plan: &mut Plan<'a>,
        touched_stock: &mut BTreeSet<i64>,
        touched_counts: &mut BTreeSet<(i64, i64)>,
    ) {
        let effects = &entry.effects;
        for change in &effects.stock {
            let key = change.of().key();
            let own = self.stock.entry(key).or_default();
            match *change {
                StockChange::Issued { by, .. } => own.1 += by,
                StockChange::Set { stock, .. } => own.0 = stock.unwrap_or(-1),
            }
            touched_stock.insert(key);
        }
        for change in &effects.member_counts {
            let key = (change.member_id, change.definition_id);
            *self.member_counts.entry(key).or_default() += change.by;
            touched_counts.insert(key);
        }
        for one in &effects.one_at_a_time {
            let latest = self.latest_ends.entry((one.member_id, one.definition_id)).or_default();
            *latest = one.ends_at_ms.max(*latest);
        }
        if let Some(guard) = effects.attempts.filter(|guard| guard.failed) {
            self.attempts.entry(guard.member_id).or_default().push(guard.now_ms);
            plan.attempts.push((guard.member_id, guard.now_ms));
        }
        plan.reviews.extend(effects.review.iter());
        plan.beside.extend(&effects.beside);
    }
}

/// The rows of the admitted entries by table, each key once: the last writer's row stands.
fn last_rows<'a>(batch: &'a [Append], outcomes: &[Outcome]) -> Vec<(&'static LiveTable, Vec<&'a LiveRow>)> {
    let mut tables: Vec<(&'static LiveTable, Vec<&'a LiveRow>)> = Vec::new();
    let mut places = HashMap::new();
    let entries = batch.iter().flat_map(|append| &append.entries).zip(outcomes);
    let admitted = entries.filter(|(_, outcome)| matches!(outcome, Outcome::Committed { .. }));
    for row in admitted.flat_map(|(entry, _)| &entry.effects.rows) {
        let at = tables.iter().position(|(table, _)| std::ptr::eq(*table, row.table)).unwrap_or_else(|| {
            tables.push((row.table, Vec::new()));
            tables.len() - 1
        });
        let Some((table, rows)) = tables.get_mut(at) else {
            continue;
        };
        let key = row.cells.get(..table.key_columns).unwrap_or_default();
        match places.entry((at, key)) {
            hash_map::Entry::Occupied(place) => {
                if let Some(slot) = rows.get_mut(*place.get()) {
                    *slot = row;
                }
            }
            hash_map::Entry::Vacant(place) => {
                place.insert(rows.len());
                rows.push(row);
            }
        }
    }
    // Lock order everywhere: rows by table, then by key.
    tables.sort_by_key(|(table, _)| table.name);
    tables
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{
        AttemptGuard, Cell, Column, EPOCH, Effects, MemberCountChange, NewEvent, OneAtATime, StockOf,
        StreamAppend,
    };
    use super::*;

    const NOW: i64 = 1_795_406_400_000;
    const HEAD: i64 = 100;
    /// Member, definition.
    const KEY: (i64, i64) = (439, 1);

    static TABLE: LiveTable = LiveTable {
        name: "b_rows",
        written_by: &["a"],
        columns: &[Column::Int("id"), Column::Text("text")],
        key_columns: 1,
        indexed: &[],
    };
    static EARLIER_TABLE: LiveTable = LiveTable {
        name: "a_rows",
        written_by: &["a"],
        columns: &[Column::Int("id"), Column::Text("text")],
        key_columns: 1,
        indexed: &[],
    };

    fn coupon(id: i64) -> StreamId {
        StreamId { kind: "coupon", id }
    }

    /// Nothing but effects and guards.
    fn bare(effects: Effects) -> Append {
        Append {
            append_id: "a".to_owned(),
            epoch: EPOCH,
            entries: vec![Entry { streams: Vec::new(), effects }],
            unchanged: Vec::new(),
            receipts: Vec::new(),
            metadata: Arc::from("{}"),
        }
    }

    /// So many events on one coupon that was seen at a version.
    fn on(id: i64, expected_version: i64, count: usize) -> Append {
        let event = NewEvent {
            event_type: "Viewed".to_owned(),
            event_version: "1.0".to_owned(),
            payload: "{}".to_owned(),
        };
        let part = StreamAppend { stream: coupon(id), expected_version, events: vec![event; count] };
        let mut append = bare(Effects::default());
        append.entries[0].streams.push(part);
        append
    }

    fn with(id: i64, effects: Effects) -> Append {
        having(effects, on(id, 0, 1))
    }

    fn having(effects: Effects, mut append: Append) -> Append {
        append.entries[0].effects = effects;
        append
    }

    /// Several entries under one id and one receipt.
    fn together(appends: Vec<Append>, key: &str) -> Append {
        let entries = appends.into_iter().flat_map(|append| append.entries).collect();
        Append { entries, ..keyed(0, key) }
    }

    fn keyed(id: i64, key: &str) -> Append {
        Append { receipts: vec![(receipt_key(key), format!("mac of {key}"))], ..on(id, 0, 1) }
    }

    fn receipt_key(key: &str) -> ReceiptKey {
        ReceiptKey { caller: "member:439".to_owned(), operation: "/client/auditcoupon", key: key.to_owned() }
    }

    fn issued(by: i64) -> StockChange {
        StockChange::Issued { of: StockOf::Definition(1), by }
    }

    fn stock(change: StockChange) -> Effects {
        Effects { stock: vec![change], ..Effects::default() }
    }

    fn counted(by: i64, limit: Option<i64>) -> Effects {
        let (member_id, definition_id) = KEY;
        let change = MemberCountChange { member_id, definition_id, by, limit };
        Effects { member_counts: vec![change], ..Effects::default() }
    }

    fn one_at_a_time(now_ms: i64, ends_at_ms: i64) -> Effects {
        let (member_id, definition_id) = KEY;
        let one_at_a_time = vec![OneAtATime { member_id, definition_id, now_ms, ends_at_ms }];
        Effects { one_at_a_time, ..Effects::default() }
    }

    fn attempt(failed: bool) -> Effects {
        Effects { attempts: Some(AttemptGuard { member_id: 439, now_ms: NOW, failed }), ..Effects::default() }
    }

    fn committed(position: i64) -> Outcome {
        Outcome::Committed { position, recorded_at_ms: NOW }
    }

    fn refused(why: Refusal) -> Outcome {
        Outcome::Refused(why)
    }

    fn outcomes(batch: &[Append], known: Known) -> Vec<Outcome> {
        admit(batch, known, HEAD, NOW).1
    }

    /// (stream, sequence, position) of every planned event.
    fn places(plan: &Plan<'_>) -> Vec<(i64, i64, i64)> {
        plan.events.iter().map(|event| (event.stream.id, event.sequence, event.position)).collect()
    }

    fn versions(known: &[(i64, i64)]) -> Known {
        Known {
            versions: known.iter().map(|(id, version)| (coupon(*id), *version)).collect(),
            ..Known::default()
        }
    }

    fn in_stock(stock: i64, issued: i64) -> Known {
        Known { stock: HashMap::from([(1, (stock, issued))]), ..Known::default() }
    }

    fn tried(times: &[i64]) -> Known {
        Known { attempts: HashMap::from([(439, times.to_vec())]), ..Known::default() }
    }

    #[test]
    fn an_empty_batch_writes_nothing_and_leaves_the_head() {
        let (plan, outcomes) = admit(&[], Known::default(), HEAD, NOW);
        assert_eq!((plan.is_empty(), plan.head, outcomes), (true, HEAD, vec![]));
    }

    #[test]
    fn admitted_events_take_the_next_positions_without_gaps() {
        let batch = [on(1, 0, 2), on(2, 4, 1), on(3, 9, 1), on(4, 0, 1)];
        let (plan, outcomes) = admit(&batch, versions(&[(2, 4), (3, 8)]), HEAD, NOW);
        assert_eq!(outcomes, [committed(101), committed(103), Outcome::Conflict, committed(104)]);
        assert_eq!(places(&plan), [(1, 1, 101), (1, 2, 102), (2, 5, 103), (4, 1, 104)]);
        assert_eq!((plan.head, plan.recorded_at_ms), (104, NOW));
    }

    #[test]
    fn a_stream_that_has_moved_is_a_conflict_in_either_direction() {
        for expected in [0, 1, 3] {
            assert_eq!(
                outcomes(&[on(1, expected, 1)], versions(&[(1, 2)])),
                [Outcome::Conflict],
                "{expected}"
            );
        }
        assert_eq!(outcomes(&[on(1, 2, 1)], versions(&[(1, 2)])), [committed(101)]);
    }

    #[test]
    fn the_second_append_of_a_batch_on_one_version_is_a_conflict() {
        let batch = [on(1, 0, 1), on(1, 0, 1), on(1, 1, 1)];
        let (plan, outcomes) = admit(&batch, Known::default(), HEAD, NOW);
        assert_eq!(outcomes, [committed(101), Outcome::Conflict, committed(102)]);
        assert_eq!(places(&plan), [(1, 1, 101), (1, 2, 102)]);
    }

    #[test]
    fn an_append_to_several_streams_is_all_or_nothing() {
        let mut both = on(1, 0, 1);
        both.entries[0].streams.append(&mut on(2, 3, 2).entries[0].streams);
        let batch = [both];
        let (plan, admitted) = admit(&batch, versions(&[(2, 3)]), HEAD, NOW);
        assert_eq!(
            (admitted, places(&plan)),
            (vec![committed(101)], vec![(1, 1, 101), (2, 4, 102), (2, 5, 103)])
        );
        let (plan, conflicting) = admit(&batch, versions(&[(2, 4)]), HEAD, NOW);
        assert_eq!((conflicting, plan.is_empty(), plan.head), (vec![Outcome::Conflict], true, HEAD));
    }

    #[test]
    fn a_stream_that_was_only_read_must_not_have_moved_either() {
        let read = |version| Append { unchanged: vec![(coupon(9), version)], ..on(1, 0, 1) };
        assert_eq!(outcomes(&[read(5)], versions(&[(9, 5)])), [committed(101)]);
        assert_eq!(outcomes(&[read(4)], versions(&[(9, 5)])), [Outcome::Conflict]);
        // An append before it in the same batch moves it as well.
        assert_eq!(
            outcomes(&[on(9, 5, 1), read(5)], versions(&[(9, 5)])),
            [committed(101), Outcome::Conflict]
        );
    }

    #[test]
    fn a_key_with_a_receipt_is_not_used_again() {
        let known = Known { receipts: HashSet::from([receipt_key("old key")]), ..Known::default() };
        let batch = [keyed(1, "old key"), keyed(2, "new key"), keyed(3, "new key")];
        let (plan, outcomes) = admit(&batch, known, HEAD, NOW);
        assert_eq!(outcomes, [Outcome::ReceiptExists, committed(101), Outcome::ReceiptExists]);
        let left: Vec<_> = plan
            .receipts
            .iter()
            .map(|receipt| (receipt.key.clone(), receipt.request_mac, receipt.position, receipt.event_count))
            .collect();
        assert_eq!(left, [(receipt_key("new key"), "mac of new key", 101, 1)]);
    }

    #[test]
    fn a_receipt_spans_all_events_of_its_append() {
        let mut append = Append { receipts: keyed(1, "some key").receipts, ..on(1, 0, 2) };
        append.entries[0].streams.append(&mut on(2, 0, 1).entries[0].streams);
        let batch = [on(3, 0, 1), append];
        let (plan, _) = admit(&batch, Known::default(), HEAD, NOW);
        let spans: Vec<_> =
            plan.receipts.iter().map(|receipt| (receipt.position, receipt.event_count)).collect();
        assert_eq!(spans, [(102, 3)]);
    }

    #[test]
    fn an_append_with_two_receipts_leaves_both_or_neither() {
        let mut append = keyed(1, "first key");
        append.receipts.extend(keyed(1, "second key").receipts);
        let batch = std::slice::from_ref(&append);
        let (plan, outcomes) = admit(batch, Known::default(), HEAD, NOW);
        assert_eq!((plan.receipts.len(), outcomes), (2, vec![committed(101)]));
        let known = Known { receipts: HashSet::from([receipt_key("second key")]), ..Known::default() };
        let (plan, outcomes) = admit(batch, known, HEAD, NOW);
        assert_eq!((plan.receipts.len(), outcomes), (0, vec![Outcome::ReceiptExists]));
    }

    #[test]
    fn joined_effects_are_bound_by_their_sum() {
        let mut effects = counted(1, Some(2));
        effects.join(stock(issued(1)));
        effects.join(counted(1, None));
        effects.join(stock(issued(1)));
        let batch = [with(1, effects)];
        let limited = |count| {
            let member_counts = HashMap::from([(KEY, count)]);
            Known { member_counts, ..in_stock(10, 8) }
        };
        assert_eq!(outcomes(&batch, limited(1)), [refused(Refusal::LimitReached)]);
        let (plan, found) = admit(&batch, limited(0), HEAD, NOW);
        assert_eq!(
            (found, plan.stock, plan.member_counts),
            (vec![committed(101)], vec![(1, 10, 10)], vec![(439, 1, 2)])
        );
        assert_eq!(outcomes(&batch, Known { ..in_stock(10, 9) }), [refused(Refusal::SoldOut)]);
        let mut twice = one_at_a_time(NOW, NOW + 10);
        twice.join(one_at_a_time(NOW, NOW + 10));
        assert_eq!(outcomes(&[with(1, twice)], Known::default()), [refused(Refusal::LimitReached)]);
    }

    #[test]
    fn entries_of_one_append_are_admitted_one_by_one_under_one_receipt() {
        let mut entries =
            vec![on(1, 0, 2), on(2, 7, 1), with(3, stock(issued(1))), with(4, stock(issued(1)))];
        entries.push(on(5, 0, 1));
        let batch = [on(9, 0, 1), together(entries, "some key"), keyed(6, "some key")];
        let (plan, outcomes) = admit(&batch, in_stock(1, 0), HEAD, NOW);
        let expected = [
            committed(101),
            committed(102),
            Outcome::Conflict,
            committed(104),
            refused(Refusal::SoldOut),
            committed(105),
            Outcome::ReceiptExists,
        ];
        assert_eq!(outcomes, expected);
        assert_eq!(places(&plan), [(9, 1, 101), (1, 1, 102), (1, 2, 103), (3, 1, 104), (5, 1, 105)]);
        let left: Vec<_> = plan.receipts.iter().map(|left| (left.position, left.event_count)).collect();
        assert_eq!(left, [(102, 4)]);
    }

    #[test]
    fn what_an_append_read_binds_all_its_entries() {
        let mut append = together(vec![on(1, 0, 1), on(2, 0, 1)], "some key");
        append.unchanged = vec![(coupon(9), 4)];
        let (plan, outcomes) = admit(std::slice::from_ref(&append), versions(&[(9, 5)]), HEAD, NOW);
        assert_eq!((outcomes, plan.is_empty()), (vec![Outcome::Conflict, Outcome::Conflict], true));
    }

    #[test]
    fn a_key_stays_unused_where_every_entry_is_refused() {
        let append = together(vec![with(1, stock(issued(1))), with(2, stock(issued(1)))], "some key");
        let (plan, outcomes) = admit(std::slice::from_ref(&append), in_stock(0, 0), HEAD, NOW);
        assert_eq!(outcomes, [refused(Refusal::SoldOut), refused(Refusal::SoldOut)]);
        assert_eq!((plan.receipts.len(), plan.head), (0, HEAD));
    }

    #[test]
    fn a_refused_append_leaves_its_key_unused() {
        let sold_out = having(stock(issued(1)), keyed(1, "same key"));
        let batch = [sold_out, keyed(2, "same key")];
        let (plan, outcomes) = admit(&batch, in_stock(0, 0), HEAD, NOW);
        assert_eq!(outcomes, [refused(Refusal::SoldOut), committed(101)]);
        assert_eq!(plan.receipts.len(), 1);
    }

    #[test]
    fn a_batch_never_issues_more_than_the_stock() {
        let batch: Vec<Append> = (1..=4).map(|id| with(id, stock(issued(1)))).collect();
        let (plan, outcomes) = admit(&batch, in_stock(10, 8), HEAD, NOW);
        let sold_out = || refused(Refusal::SoldOut);
        assert_eq!(outcomes, [committed(101), committed(102), sold_out(), sold_out()]);
        assert_eq!(plan.stock, [(1, 10, 10)]);
    }

    #[test]
    fn an_unlimited_stock_never_ends_and_an_unknown_definition_has_none() {
        let batch = [with(1, stock(issued(1_000_000)))];
        let (plan, outcomes) = admit(&batch, in_stock(-1, 5), HEAD, NOW);
        assert_eq!((outcomes, plan.stock), (vec![committed(101)], vec![(1, -1, 1_000_005)]));
        let (plan, outcomes) = admit(&batch, Known::default(), HEAD, NOW);
        assert_eq!((outcomes, plan.stock), (vec![refused(Refusal::SoldOut)], vec![]));
    }

    #[test]
    fn a_voided_coupon_goes_back_to_the_stock_within_the_batch() {
        let batch = [with(1, stock(issued(-1))), with(2, stock(issued(1))), with(3, stock(issued(1)))];
        let (plan, outcomes) = admit(&batch, in_stock(10, 10), HEAD, NOW);
        assert_eq!(outcomes, [committed(101), committed(102), refused(Refusal::SoldOut)]);
        assert_eq!(plan.stock, [(1, 10, 10)]);
    }

    #[test]
    fn stock_is_set_down_to_what_is_issued_but_not_below() {
        let set = |stock| {
            with(
                1,
                Effects {
                    stock: vec![StockChange::Set { of: StockOf::Definition(1), stock }],
                    ..Effects::default()
                },
            )
        };
        let below = refused(Refusal::field("num", Wrong::StockBelowIssued { issued: 8 }));
        assert_eq!(outcomes(&[set(Some(7))], in_stock(10, 8)), [below]);
        let to_issued = [set(Some(8))];
        let (plan, outcomes) = admit(&to_issued, in_stock(10, 8), HEAD, NOW);
        assert_eq!((outcomes, plan.stock), (vec![committed(101)], vec![(1, 8, 8)]));
        let unlimited = [set(None)];
        let (plan, _) = admit(&unlimited, in_stock(10, 8), HEAD, NOW);
        assert_eq!(plan.stock, [(1, -1, 8)]);
    }

    #[test]
    fn a_new_stock_binds_the_appends_behind_it() {
        let set = with(1, stock(StockChange::Set { of: StockOf::Definition(1), stock: Some(1) }));
        let batch = [set, with(2, stock(issued(1))), with(3, stock(issued(1)))];
        let (plan, outcomes) = admit(&batch, Known::default(), HEAD, NOW);
        assert_eq!(outcomes, [committed(101), committed(102), refused(Refusal::SoldOut)]);
        assert_eq!(plan.stock, [(1, 1, 1)]);
    }

    #[test]
    fn a_batch_never_passes_a_members_limit() {
        let known = Known { member_counts: HashMap::from([(KEY, 1)]), ..Known::default() };
        let batch: Vec<Append> = (1..=2).map(|id| with(id, counted(1, Some(2)))).collect();
        let (plan, outcomes) = admit(&batch, known, HEAD, NOW);
        assert_eq!(outcomes, [committed(101), refused(Refusal::LimitReached)]);
        assert_eq!(plan.member_counts, [(439, 1, 2)]);
    }

    #[test]
    fn without_a_limit_members_are_only_counted_and_going_down_is_never_refused() {
        let known = Known { member_counts: HashMap::from([(KEY, 5)]), ..Known::default() };
        let batch = [with(1, counted(1, None)), with(2, counted(-1, Some(2)))];
        let (plan, outcomes) = admit(&batch, known, HEAD, NOW);
        assert_eq!((outcomes, plan.member_counts), (vec![committed(101), committed(102)], vec![(439, 1, 5)]));
    }

    #[test]
    fn one_at_a_time_waits_for_the_end_of_the_last() {
        let ends_at =
            |ends_at_ms| Known { latest_ends: HashMap::from([(KEY, ends_at_ms)]), ..Known::default() };
        let batch = [with(1, one_at_a_time(NOW, NOW + 10))];
        assert_eq!(outcomes(&batch, ends_at(NOW + 1)), [refused(Refusal::LimitReached)]);
        assert_eq!(outcomes(&batch, ends_at(NOW)), [committed(101)]);
        assert_eq!(outcomes(&batch, Known::default()), [committed(101)]);
    }

    #[test]
    fn one_at_a_time_holds_within_a_batch() {
        let batch = [
            with(1, one_at_a_time(NOW, NOW + 10)),
            with(2, one_at_a_time(NOW, NOW + 10)),
            with(3, one_at_a_time(NOW + 10, NOW + 20)),
        ];
        let expected = [committed(101), refused(Refusal::LimitReached), committed(102)];
        assert_eq!(outcomes(&batch, Known::default()), expected);
    }

    #[test]
    fn a_member_fails_ten_codes_an_hour_and_then_may_not_try_even_the_right_one() {
        let batch = [with(1, attempt(true)), with(2, attempt(false))];
        let too_many = || refused(Refusal::TooManyAttempts);
        assert_eq!(outcomes(&batch, tried(&[NOW - 1; 10])), [too_many(), too_many()]);
        assert_eq!(outcomes(&batch, tried(&[NOW - 1; 9])), [committed(101), too_many()]);
    }

    #[test]
    fn a_failed_code_counts_for_an_hour() {
        let with_one_at = |at_ms| {
            let mut ten = vec![NOW - 1; 9];
            ten.push(at_ms);
            outcomes(&[with(1, attempt(false))], tried(&ten))
        };
        assert_eq!(with_one_at(NOW - ATTEMPT_WINDOW_MS + 1), [refused(Refusal::TooManyAttempts)]);
        assert_eq!(with_one_at(NOW - ATTEMPT_WINDOW_MS), [committed(101)]);
    }

    #[test]
    fn a_failed_try_without_events_is_written_and_a_good_one_is_not() {
        let failed = [bare(attempt(true))];
        let (plan, outcomes) = admit(&failed, Known::default(), HEAD, NOW);
        assert_eq!((plan.is_empty(), plan.attempts, plan.head), (false, vec![(439, NOW)], HEAD));
        assert_eq!(outcomes.len(), 1);
        let good = [bare(attempt(false))];
        let (plan, _) = admit(&good, Known::default(), HEAD, NOW);
        assert_eq!((plan.is_empty(), plan.attempts), (true, vec![]));
    }

    #[test]
    fn what_the_keys_of_the_log_guard_is_granted_and_the_rest_is_asked() {
        let mut first = keyed(1, "a key 1");
        first.unchanged.push((coupon(9), 5));
        let twice = having(stock(issued(1)), on(7, 3, 2));
        let batch = [first, twice, on(7, 5, 1)];
        let (known, questions) = take_for_granted(&batch);
        assert_eq!(known.versions, HashMap::from([(coupon(1), 0), (coupon(7), 3)]));
        assert!(known.receipts.is_empty() && questions.receipts.is_empty());
        assert_eq!(questions.streams, BTreeSet::from([coupon(9)]));
        assert_eq!(questions.stock, BTreeSet::from([1]));
        assert!(!questions.is_empty() && take_for_granted(&batch[2..]).1.is_empty());
    }

    #[test]
    fn a_stream_that_is_read_and_appended_to_is_granted_as_the_append_saw_it() {
        let mut reading = on(1, 0, 1);
        reading.unchanged.push((coupon(2), 4));
        let batch = [reading, on(2, 6, 1)];
        let (known, questions) = take_for_granted(&batch);
        assert!(questions.is_empty());
        let (_, outcomes) = admit(&batch, known, HEAD, NOW);
        assert_eq!(outcomes, [Outcome::Conflict, committed(101)]);
    }

    #[test]
    fn objections_come_in_the_documented_order() {
        let (member_id, definition_id) = KEY;
        let everything = Effects {
            stock: vec![issued(1)],
            member_counts: vec![MemberCountChange { member_id, definition_id, by: 1, limit: Some(1) }],
            attempts: Some(AttemptGuard { member_id, now_ms: NOW, failed: true }),
            ..Effects::default()
        };
        let append = having(everything, keyed(1, "used key"));
        // Each step takes away what the step before ran into.
        let known = |step: usize| {
            let mut known = Known { stock: HashMap::from([(1, (5, 5))]), ..Known::default() };
            if step < 1 {
                known.receipts.insert(receipt_key("used key"));
            }
            if step < 2 {
                known.versions.insert(coupon(1), 1);
            }
            if step < 3 {
                known.attempts.insert(member_id, vec![NOW; 10]);
            }
            if step < 4 {
                known.member_counts.insert(KEY, 1);
            }
            if step == 5 {
                known.stock.insert(1, (6, 5));
            }
            known
        };
        let walked: Vec<Outcome> =
            (0..=5).flat_map(|step| outcomes(std::slice::from_ref(&append), known(step))).collect();
        let expected = [
            Outcome::ReceiptExists,
            Outcome::Conflict,
            refused(Refusal::TooManyAttempts),
            refused(Refusal::LimitReached),
            refused(Refusal::SoldOut),
            committed(101),
        ];
        assert_eq!(walked, expected);
    }

    #[test]
    fn of_a_row_written_twice_the_last_stands_and_refused_rows_are_not_written() {
        let row = |table, id: i64, text: &str| LiveRow { table, cells: vec![id.into(), text.into()] };
        let rows = |rows| Effects { rows, ..Effects::default() };
        let batch = [
            with(1, rows(vec![row(&TABLE, 1, "first"), row(&TABLE, 2, "stays")])),
            having(rows(vec![row(&TABLE, 2, "of a conflict")]), on(2, 7, 1)),
            having(rows(vec![row(&TABLE, 1, "last"), row(&EARLIER_TABLE, 1, "other")]), on(1, 1, 1)),
        ];
        let (plan, outcomes) = admit(&batch, Known::default(), HEAD, NOW);
        assert_eq!(outcomes, [committed(101), Outcome::Conflict, committed(102)]);
        let cells = |id: i64, text: &str| vec![Cell::from(id), Cell::from(text)];
        let written: Vec<_> = plan
            .rows
            .iter()
            .map(|(table, rows)| (table.name, rows.iter().map(|row| row.cells.clone()).collect::<Vec<_>>()))
            .collect();
        let expected =
            vec![("a_rows", vec![cells(1, "other")]), ("b_rows", vec![cells(1, "last"), cells(2, "stays")])];
        assert_eq!(written, expected);
    }

    #[test]
    fn the_questions_name_everything_once_in_lock_order() {
        let mut reading = on(5, 0, 1);
        reading.unchanged.push((StreamId { kind: "definition", id: 1 }, 3));
        reading.receipts = keyed(5, "b key 1").receipts;
        let mut effects = counted(1, Some(1));
        effects.stock.push(issued(1));
        effects.one_at_a_time = one_at_a_time(NOW, NOW + 1).one_at_a_time;
        let later = Effects {
            attempts: Some(AttemptGuard { member_id: 439, now_ms: NOW + 5, failed: true }),
            ..Effects::default()
        };
        let batch = [reading, keyed(2, "a key 1"), with(2, effects), with(6, later), with(7, attempt(false))];
        let asked = Questions::of(&batch);
        let streams = [coupon(2), coupon(5), coupon(6), coupon(7), StreamId { kind: "definition", id: 1 }];
        assert_eq!(asked.streams.into_iter().collect::<Vec<_>>(), streams);
        assert_eq!(asked.receipts, [receipt_key("a key 1"), receipt_key("b key 1")]);
        assert_eq!(asked.stock.into_iter().collect::<Vec<_>>(), [1]);
        assert_eq!(asked.member_counts.into_iter().collect::<Vec<_>>(), [KEY]);
        assert_eq!(asked.latest_ends.into_iter().collect::<Vec<_>>(), [KEY]);
        assert_eq!(asked.attempts.into_iter().collect::<Vec<_>>(), [(439, NOW - ATTEMPT_WINDOW_MS)]);
    }
}
