//! Live rows: each is what its stream's events give.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use super::{Finding, Totals, VerifyError, Worker};
use crate::audit::kinds::{Written, written};
use crate::entity::{Entity, Folded, fold, stream_of};
use crate::read_model::REDEMPTIONS;
use crate::store::{
    BUCKET, Cell, Column, EventRef, IdRange, LiveRow, LiveTable, Row, Statement, StockOf, Store, StoreError,
    Visitor,
};

/// Rows that are asked for in one read.
const LOOKUPS: usize = 500;

/// How often a stream is looked at again that moves all the time.
const TRIES: u32 = 50;

/// What one stream gives.
struct Expected {
    id: i64,
    row: LiveRow,
}

/// Folds the streams of a piece, and keeps what they give.
struct Visiting<A> {
    /// Sums are as of this position.
    until: i64,
    stream: String,
    folded: Folded<A>,
    /// The position of the stream's last event.
    position: i64,
    summed: bool,
    failed: bool,
    expected: Vec<Expected>,
    totals: Totals,
}

impl<A: Entity> Visiting<A> {
    fn new(until: i64) -> Self {
        Self {
            until,
            stream: String::new(),
            folded: Folded::default(),
            position: 0,
            summed: false,
            failed: false,
            expected: Vec::new(),
            totals: Totals::default(),
        }
    }

    fn sum_up(&mut self) {
        if !std::mem::replace(&mut self.summed, true) {
            self.totals.sum(&written(&self.stream, &self.folded.state), 1);
        }
    }

    fn end_stream(&mut self) {
        if self.folded.version > 0 && !self.failed {
            self.totals.streams += 1;
            // Folding it has told that it is one.
            let id = self.stream.parse().unwrap_or_default();
            self.totals.raise(A::TYPE, id);
            let written = written(&self.stream, &self.folded.state);
            if !self.summed {
                self.totals.sum(&written, 1);
            }
            for row in written.rows {
                if std::ptr::eq(row.table, &raw const REDEMPTIONS)
                    && let Some(Cell::Int(id)) = row.cells.first()
                {
                    self.totals.raise("redemption", *id);
                }
                self.expected.push(Expected { id, row });
            }
        }
        self.folded = Folded::default();
        (self.position, self.summed, self.failed) = (0, false, false);
    }
}

impl<A: Entity> Visitor for Visiting<A> {
    fn meet(&mut self, event: EventRef<'_>) {
        if event.aggregate_id != self.stream {
            self.end_stream();
            event.aggregate_id.clone_into(&mut self.stream);
        }
        if self.failed {
            return;
        }
        if event.position <= self.position {
            let row = format!("{} {} event {}", A::TYPE, event.aggregate_id, event.sequence);
            let what = format!("its position is not behind {}, where its stream was before", self.position);
            self.totals.find(Finding::new(event.position, "events", row, what));
        }
        self.position = event.position;
        if event.position > self.until && self.folded.version > 0 {
            self.sum_up();
        } else if event.position > self.until {
            // A stream that began later adds nothing to the sums.
            self.summed = true;
        }
        if let Err(corrupt) = self.folded.take(event) {
            let row = format!("{} {} event {}", corrupt.stream, corrupt.aggregate_id, corrupt.sequence);
            self.totals.find(Finding::new(corrupt.position, "events", row, corrupt.what.clone()));
            self.failed = true;
        }
    }
}

impl Totals {
    /// Adds what a stream in this state gives to the sums, or takes it from them.
    pub(super) fn sum(&mut self, written: &Written, sign: i64) {
        for row in &written.rows {
            *self.rows_at.entry(row.table.name.to_owned()).or_default() += sign;
        }
        if let Some(counts) = &written.counts {
            let keys =
                [Some(counts.definition_id), counts.allotment_id.map(|id| StockOf::Allotment(id).key())];
            for key in keys.into_iter().flatten() {
                *self.issued_at.entry(key).or_default() += sign * counts.issued;
            }
        }
        if let Some((of, stock)) = written.stock.filter(|_| sign > 0) {
            self.stock_at.insert(of.key(), stock.unwrap_or(-1));
        }
    }

    fn raise(&mut self, kind: &str, id: i64) {
        match self.highest.get_mut(kind) {
            Some(highest) => *highest = id.max(*highest),
            None => drop(self.highest.insert(kind.to_owned(), id)),
        }
    }
}

/// Folds the streams of one kind in a range of ids, and holds their rows against what they give.
pub(super) async fn check<A: Entity>(worker: &Worker, range: IdRange) -> Result<Totals, VerifyError> {
    let mut visiting = Visiting::<A>::new(worker.position);
    match worker.store.scan(A::TYPE, range.clone(), visiting).await {
        Ok(visited) => visiting = visited,
        Err(error) if error.is_about_data() => visiting = one_by_one(worker, range).await?,
        Err(error) => return Err(error.into()),
    }
    visiting.end_stream();
    let Visiting { expected, mut totals, .. } = visiting;
    let mut suspects = BTreeSet::new();
    for (table, expected) in by_table(&expected) {
        for chunk in expected.chunks(LOOKUPS) {
            let keys: Vec<&[Cell]> = chunk.iter().map(|one| key_of(table, &one.row.cells)).collect();
            let found = match look_up(&worker.store, table, &keys).await {
                Ok(found) => found,
                Err(error) if error.is_about_data() => {
                    let place =
                        chunk.first().map_or_else(String::new, |one| key_words(table, &one.row.cells));
                    let row = format!("from {place} on, {} rows", chunk.len());
                    totals.find(Finding::new(0, table.name, row, error.to_string()));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            totals.rows += chunk.len() as u64;
            let differ = |one: &Expected, found: &Vec<Row>| {
                found.first().is_none_or(|row| !differences(&one.row, &row.0).is_empty())
            };
            let wrong = chunk.iter().zip(&found).filter(|(one, found)| differ(one, found));
            suspects.extend(wrong.map(|(one, _)| one.id));
        }
    }
    for id in suspects {
        totals.add(look_again::<A>(&worker.store, id).await?);
    }
    Ok(totals)
}

/// The streams of a range in which one cannot be read: that one is told, and the others are looked at all the same.
async fn one_by_one<A: Entity>(worker: &Worker, range: IdRange) -> Result<Visiting<A>, VerifyError> {
    let sql = "SELECT aggregate_id FROM events
               WHERE aggregate_type = $1 AND aggregate_id >= $2 AND aggregate_id < $3 AND bucket = $4
               GROUP BY aggregate_id ORDER BY aggregate_id";
    let cells = [A::TYPE.into(), range.from.into(), range.until.into(), BUCKET.into()];
    let mut all = Visiting::<A>::new(worker.position);
    for row in worker.store.query(Statement::new(sql, cells)).await? {
        let visiting = Visiting::<A>::new(worker.position);
        match worker.store.scan(A::TYPE, IdRange::of(row.text(0)), visiting).await {
            Ok(mut visited) => {
                visited.end_stream();
                all.totals.add(visited.totals);
                all.expected.extend(visited.expected);
            }
            // The walk by position names the event.
            Err(error) if error.is_about_data() => {
                let stream = format!("{} {}", A::TYPE, row.text(0));
                all.totals.find(Finding::new(0, "events", stream, error.to_string()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(all)
}

fn by_table(expected: &[Expected]) -> Vec<(&'static LiveTable, Vec<&Expected>)> {
    let mut tables: BTreeMap<&str, (&'static LiveTable, Vec<&Expected>)> = BTreeMap::new();
    for one in expected {
        tables.entry(one.row.table.name).or_insert_with(|| (one.row.table, Vec::new())).1.push(one);
    }
    tables.into_values().collect()
}

/// The cells of a row's key, without the bucket.
pub(super) fn key_of<'a>(table: &LiveTable, cells: &'a [Cell]) -> &'a [Cell] {
    cells.get(..table.key_columns).unwrap_or(cells)
}

/// A row's key in words.
pub(super) fn key_words(table: &LiveTable, cells: &[Cell]) -> String {
    let word = |(column, cell): (&Column, &Cell)| format!("{} {}", column.name(), cell_text(cell));
    table.columns.iter().zip(key_of(table, cells)).map(word).collect::<Vec<_>>().join(", ")
}

fn cell_text(cell: &Cell) -> String {
    match cell {
        Cell::Int(value) => value.to_string(),
        Cell::Text(value) => format!("{value:?}"),
    }
}

/// The rows with these keys.
async fn look_up(
    store: &Store,
    table: &'static LiveTable,
    keys: &[&[Cell]],
) -> Result<Vec<Vec<Row>>, StoreError> {
    let sets = keys.iter().map(|key| std::iter::once(BUCKET.into()).chain(key.iter().cloned()).collect());
    store.query_each(lookup_sql(table), sets.collect()).await
}

/// `SELECT` of every column by the whole key; made once per table, because statements are known by their place.
fn lookup_sql(table: &'static LiveTable) -> &'static str {
    let columns = column_list(table);
    let keys = table.columns.iter().take(table.key_columns).zip(2..);
    let keys: Vec<_> = keys.map(|(column, place)| format!("{} = ${place}", column.name())).collect();
    let keys = keys.join(" AND ");
    // A NULL reads as an empty text, which another program would take for something else. None can be there while the
    // columns are NOT NULL; whether they are is a question of its own.
    let texts = table.columns.iter().filter(|column| matches!(column, Column::Text(_)));
    let null: Vec<_> = texts.map(|column| format!("{} IS NULL", column.name())).collect();
    let null = if null.is_empty() { "1 = 0".to_owned() } else { null.join(" OR ") };
    once(table.name, "by key", || {
        format!(
            "SELECT {columns}, CAST(CASE WHEN {null} THEN 1 ELSE 0 END AS BIGINT) FROM {} WHERE bucket = $1 AND {keys}",
            table.name
        )
    })
}

/// The columns of a table as a `SELECT` names them.
pub(super) fn column_list(table: &LiveTable) -> String {
    table.columns.iter().copied().map(Column::name).collect::<Vec<_>>().join(", ")
}

/// A statement's text that is made at run time, once for the life of the program.
pub(super) fn once(table: &'static str, what: &'static str, make: impl FnOnce() -> String) -> &'static str {
    static TEXTS: Mutex<Option<HashMap<(&str, &str), &str>>> = Mutex::new(None);
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    texts.get_or_insert_default().entry((table, what)).or_insert_with(|| Box::leak(make().into_boxed_str()))
}

/// What is wrong with a stream's rows, looked at while the stream stands still.
async fn look_again<A: Entity>(store: &Store, id: i64) -> Result<Totals, VerifyError> {
    let stream = stream_of::<A>(id);
    for _ in 0..TRIES {
        let events = store.load_one(stream).await?;
        let mut totals = Totals::default();
        let Ok((state, _)) = fold::<A>(&events) else { return Ok(totals) };
        let position = events.last().map_or(0, |event| event.position);
        for row in state.rows(id) {
            let found = look_up(store, row.table, &[key_of(row.table, &row.cells)]).await?;
            let found = found.first().and_then(|rows| rows.first());
            let key = || key_words(row.table, &row.cells);
            match found {
                None => {
                    totals.find(Finding::new(position, row.table.name, key(), "the row is missing"));
                    *totals.missing_at.entry(row.table.name.to_owned()).or_default() += 1;
                }
                Some(found) => {
                    let differences = differences(&row, &found.0);
                    if !differences.is_empty() {
                        totals.find(Finding::new(position, row.table.name, key(), differences));
                    }
                }
            }
        }
        if store.load_one(stream).await?.len() == events.len() {
            return Ok(totals);
        }
    }
    Err(VerifyError::CutShort)
}

/// How a row differs from what is expected, in words; nothing where it does not. Behind its columns it says whether a text
/// of it is NULL.
fn differences(expected: &LiveRow, found: &[Cell]) -> String {
    let columns = expected.table.columns.iter().zip(expected.cells.iter().zip(found));
    let differ = columns.filter(|(_, (expected, found))| expected != found);
    let word = |(column, (expected, found)): (&Column, (&Cell, &Cell))| {
        format!("{} is {}, the events give {}", column.name(), cell_text(found), cell_text(expected))
    };
    let null = found.get(expected.cells.len()) == Some(&Cell::Int(1));
    let null = null.then(|| "a text is NULL, which none ever is".to_owned());
    differ.map(word).chain(null).collect::<Vec<_>>().join("; ")
}
