//! What no single stream tells: how many rows there are, counters, the head, ids, references, and what no event accounts
//! for.

use std::collections::{BTreeMap, BTreeSet};

use cqrs_es::Aggregate as _;

use super::rows::{column_list, key_of, key_words, once, sum};
use super::{Finding, MAX_FINDINGS, Piece, Totals, VerifyError, receipts};
use crate::coupon::{Coupon, CouponEvent};
use crate::directory::seal::{self, Person, Seal};
use crate::entity::{Entity, Folded, decode, fold, for_each_aggregate, stream_of};
use crate::read_model::LIVE_TABLES;
use crate::secrets::review_hash;
use crate::store::{BUCKET, Cell, EPOCH, LiveTable, Row, Statement, Store, StoreError, StreamId};
use crate::value::MAX_ID;

/// Rows of one bounded read.
const PIECE: i64 = 5_000;

/// Rows without events are looked for in so many at a time.
const WALK: i64 = 500;

/// The last position of the log.
pub(super) async fn head(store: &Store) -> Result<i64, StoreError> {
    let sql = "SELECT position FROM log_head WHERE bucket = $1";
    let rows = store.query(Statement::new(sql, [BUCKET.into()])).await?;
    Ok(rows.first().map_or(0, |row| row.int(0)))
}

/// Whose rows a live table holds: the kind of stream, and the column of its id.
fn owner(table: &LiveTable) -> Option<(&'static str, usize)> {
    let [kind] = table.written_by else { return None };
    let id = format!("{kind}_id");
    let column = table.columns.iter().position(|column| column.name() == id)?;
    Some((kind, column))
}

/// The counters and how many rows each table has, at one instant, and the head at that instant.
struct Counted {
    position: i64,
    last_ms: i64,
    epoch: i64,
    /// The positions of the first event and the last; 1 and 0 where there is none.
    events: (i64, i64),
    /// When the head's event was recorded; None where there is no such event.
    recorded_at_ms: Option<i64>,
    /// (stock, issued) by key.
    stock: BTreeMap<i64, (i64, i64)>,
    /// By table, in the order of [`LIVE_TABLES`].
    rows: Vec<i64>,
}

async fn count(store: &Store) -> Result<Counted, StoreError> {
    let sql = once("log_head", "counts", || {
        let counts = LIVE_TABLES.iter().enumerate().map(|(place, table)| {
            format!(
                " UNION ALL SELECT CAST(2 AS BIGINT), CAST({place} AS BIGINT), (SELECT COUNT(*) FROM {} WHERE bucket = $1), CAST(0 AS BIGINT)",
                table.name
            )
        });
        "SELECT CAST(0 AS BIGINT), position, last_ms, epoch FROM log_head WHERE bucket = $1
         UNION ALL SELECT CAST(1 AS BIGINT), definition_id, stock, issued FROM stock_v1 WHERE bucket = $1
         UNION ALL SELECT CAST(3 AS BIGINT), COALESCE(MIN(position), 1), COALESCE(MAX(position), 0), CAST(0 AS BIGINT)
           FROM events WHERE bucket = $1
         UNION ALL SELECT CAST(4 AS BIGINT), e.recorded_at_ms, CAST(0 AS BIGINT), CAST(0 AS BIGINT)
           FROM log_head h JOIN events e ON e.bucket = h.bucket AND e.position = h.position WHERE h.bucket = $1"
            .to_owned()
            + &counts.collect::<String>()
    });
    let mut counted = Counted {
        position: 0,
        last_ms: 0,
        epoch: 0,
        events: (1, 0),
        recorded_at_ms: None,
        stock: BTreeMap::new(),
        rows: vec![0; LIVE_TABLES.len()],
    };
    for row in store.query(Statement::new(sql, [BUCKET.into()])).await? {
        match row.int(0) {
            0 => (counted.position, counted.last_ms, counted.epoch) = (row.int(1), row.int(2), row.int(3)),
            1 => {
                counted.stock.insert(row.int(1), (row.int(2), row.int(3)));
            }
            3 => counted.events = (row.int(1), row.int(2)),
            4 => counted.recorded_at_ms = Some(row.int(1)),
            _ => {
                if let Some(rows) = counted.rows.get_mut(row.int(1) as usize) {
                    *rows = row.int(2);
                }
            }
        }
    }
    Ok(counted)
}

/// Holds the sums against the counters, and looks for what no event accounts for.
pub(super) async fn check(store: &Store, position: i64, totals: &mut Totals) -> Result<(), VerifyError> {
    let counted = count(store).await?;
    catch_up(store, position, counted.position, totals).await?;
    check_head(&counted, totals);
    check_stock(&counted, totals);
    for (table, rows) in LIVE_TABLES.iter().zip(&counted.rows) {
        let expected = totals.rows_at.get(table.name).copied().unwrap_or_default();
        if *rows != expected {
            let what = format!("it has {rows} rows, the events give {expected}");
            totals.find(Finding::new(0, table.name, "all rows", what));
        }
        // One that is missing must not make up for one that was slipped in, as where a row was moved.
        let missing = totals.missing_at.get(table.name).copied().unwrap_or_default();
        if *rows != expected - missing {
            find_orphans(store, table, totals).await?;
        }
    }
    receipts::check_numbers(store, position, totals).await?;
    check_strays(store, totals).await?;
    check_ids(store, totals).await
}

/// Brings the sums from one position to another: what the streams gave that were touched between, and what they give.
async fn catch_up(store: &Store, from: i64, to: i64, totals: &mut Totals) -> Result<(), VerifyError> {
    let mut touched = BTreeSet::new();
    let mut after = from;
    while after < to {
        let events = store.events_after(after, (to - after).min(PIECE)).await?;
        let Some(last) = events.last() else { break };
        after = last.position;
        touched.extend(events.into_iter().map(|event| (event.aggregate_type, event.aggregate_id)));
    }
    for (kind, id) in touched {
        let id = id.parse().unwrap_or_default();
        macro_rules! move_sums {
            ($($aggregate:ty),*) => {
                $(
                if kind == <$aggregate>::TYPE {
                    move_sums::<$aggregate>(store, id, (from, to), totals).await?;
                }
                )*
            };
        }
        for_each_aggregate!(move_sums);
    }
    Ok(())
}

async fn move_sums<A: Entity>(
    store: &Store,
    id: i64,
    (from, to): (i64, i64),
    totals: &mut Totals,
) -> Result<(), VerifyError> {
    let mut folded = Folded::<A>::default();
    let mut before = None;
    for event in store.load_one(stream_of::<A>(id)).await?.iter().filter(|event| event.position <= to) {
        if event.position > from && before.is_none() {
            before = Some((folded.state.clone(), folded.version));
        }
        if let Err(corrupt) = folded.take(event.as_ref()) {
            totals.find(Finding::new(
                corrupt.position,
                "events",
                format!("{} {id}", A::TYPE),
                corrupt.what.clone(),
            ));
            return Ok(());
        }
    }
    if let Some((state, 1..)) = &before {
        sum(id, state, -1, totals);
    }
    if before.is_some() {
        sum(id, &folded.state, 1, totals);
    }
    Ok(())
}

fn check_head(counted: &Counted, totals: &mut Totals) {
    let Counted { position, last_ms, epoch, events: (first, last), .. } = *counted;
    let mut wrong = |what: String| totals.find(Finding::new(position, "log_head", "bucket 0", what));
    if last < position {
        wrong("it stands behind the last event".to_owned());
    }
    if counted.recorded_at_ms.is_some_and(|recorded_at_ms| recorded_at_ms != last_ms) {
        wrong(format!("last_ms is {last_ms}, which is not when its event was recorded"));
    }
    if epoch != EPOCH {
        wrong(format!("epoch is {epoch}, this program writes {EPOCH}"));
    }
    // Nobody who reads by position would ever meet these. That the first one is missing tells the walk of the log.
    if first < 1 {
        let what = "there is nothing in front of position 1";
        totals.find(Finding::new(first, "events", format!("position {first}"), what));
    }
    if last > position {
        let what = format!("the head stands at {position}");
        totals.find(Finding::new(last, "events", format!("position {last}"), what));
    }
}

fn check_stock(counted: &Counted, totals: &mut Totals) {
    let keys: BTreeSet<i64> = totals.stock_at.keys().chain(counted.stock.keys()).copied().collect();
    for key in keys {
        let row = if key < 0 { format!("allotment {}", -key) } else { format!("definition {key}") };
        let issued = totals.issued_at.get(&key).copied().unwrap_or_default();
        let expected = totals.stock_at.get(&key).map(|stock| (*stock, issued));
        let found = counted.stock.get(&key).copied();
        let what = match (found, expected) {
            (found, expected) if found == expected => continue,
            (None, _) => "the row is missing".to_owned(),
            (Some(_), None) => "no event accounts for it".to_owned(),
            (Some((stock, issued)), Some((own_stock, own_issued))) => {
                format!("stock is {stock} and issued {issued}, the events give {own_stock} and {own_issued}")
            }
        };
        totals.find(Finding::new(0, "stock_v1", row, what));
    }
}

/// Names the rows of a table that their streams do not give.
async fn find_orphans(
    store: &Store,
    table: &'static LiveTable,
    totals: &mut Totals,
) -> Result<(), VerifyError> {
    let Some((kind, column)) = owner(table) else { return Ok(()) };
    let sql = once(table.name, "walk", || {
        let columns = column_list(table);
        let keys = |from: usize| {
            let keys = table.columns.iter().take(table.key_columns).zip(from..);
            let (names, places): (Vec<_>, Vec<_>) =
                keys.map(|(column, place)| (column.name(), format!("${place}"))).unzip();
            (names.join(", "), places.join(", "))
        };
        let (names, places) = keys(3);
        format!(
            "SELECT {columns} FROM {} WHERE bucket = $1 AND ({names}) > ({places}) ORDER BY bucket, {names} LIMIT $2",
            table.name
        )
    });
    let mut after = vec![Cell::Int(i64::MIN); table.key_columns];
    loop {
        let parameters = [BUCKET.into(), WALK.into()].into_iter().chain(after.iter().cloned());
        let rows = store.query(Statement::new(sql, parameters)).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = key_of(table, &last.0).to_vec();
        macro_rules! orphans {
            ($($aggregate:ty),*) => {
                $(
                if kind == <$aggregate>::TYPE {
                    orphans_of::<$aggregate>(store, table, column, &rows, totals).await?;
                }
                )*
            };
        }
        for_each_aggregate!(orphans);
    }
}

async fn orphans_of<A: Entity>(
    store: &Store,
    table: &'static LiveTable,
    column: usize,
    rows: &[Row],
    totals: &mut Totals,
) -> Result<(), VerifyError> {
    let ids: Vec<i64> = rows.iter().map(|row| row.int(column)).collect();
    let streams: Vec<StreamId> = ids.iter().map(|id| stream_of::<A>(*id)).collect();
    for ((row, id), events) in rows.iter().zip(ids).zip(store.load(&streams).await?) {
        let Ok((state, _)) = fold::<A>(&events) else { continue };
        let own = state.rows(id);
        let given = own
            .iter()
            .any(|own| std::ptr::eq(own.table, table) && key_of(table, &own.cells) == key_of(table, &row.0));
        if !given {
            let position = events.last().map_or(0, |event| event.position);
            let what = "no event accounts for it";
            totals.find(Finding::new(position, table.name, key_words(table, &row.0), what));
        }
    }
    Ok(())
}

/// Rows in a bucket that is none.
async fn check_strays(store: &Store, totals: &mut Totals) -> Result<(), VerifyError> {
    let tables = ["events", "receipts", "log_head", "stock_v1", "member_counts_v1"];
    for table in tables.into_iter().chain(LIVE_TABLES.iter().map(|table| table.name)) {
        let sql = once(table, "strays", || {
            format!(
                "SELECT COUNT(*) FROM (SELECT 1 FROM {table} WHERE bucket < $1 UNION ALL
                                       SELECT 1 FROM {table} WHERE bucket > $1) AS strays"
            )
        });
        let rows = store.query(Statement::new(sql, [BUCKET.into()])).await?;
        let strays = rows.first().map_or(0, |row| row.int(0));
        if strays > 0 {
            let what = format!("{strays} rows lie in a bucket that this ledger does not have");
            totals.find(Finding::new(0, table, "other buckets", what));
        }
        if strays > 0 && table == "events" {
            name_stray_events(store, totals).await?;
        }
    }
    Ok(())
}

async fn name_stray_events(store: &Store, totals: &mut Totals) -> Result<(), VerifyError> {
    let sql = "SELECT bucket, position, aggregate_type, aggregate_id, sequence FROM events WHERE bucket < $1
               UNION ALL
               SELECT bucket, position, aggregate_type, aggregate_id, sequence FROM events WHERE bucket > $1
               ORDER BY 1, 2 LIMIT $2";
    let parameters = [BUCKET.into(), (MAX_FINDINGS as i64).into()];
    for row in store.query(Statement::new(sql, parameters)).await? {
        let (bucket, position) = (row.int(0), row.int(1));
        let what =
            format!("{} {} event {} lies in no bucket of this ledger", row.text(2), row.text(3), row.int(4));
        let row = format!("bucket {bucket}, position {position}");
        totals.find(Finding::new(position, "events", row, what));
    }
    Ok(())
}

/// No stream has an id that was never handed out: the next one could be handed out again.
async fn check_ids(store: &Store, totals: &mut Totals) -> Result<(), VerifyError> {
    let sql = "SELECT kind, next_id FROM id_blocks WHERE bucket = $1";
    let mut next: BTreeMap<String, i64> = BTreeMap::new();
    for row in store.query(Statement::new(sql, [BUCKET.into()])).await? {
        let kind = row.text(0).strip_prefix("imported ").unwrap_or(row.text(0)).to_owned();
        let known = next.entry(kind).or_default();
        *known = row.int(1).max(*known);
    }
    for (kind, highest) in totals.highest.clone() {
        // Kinds whose ids this ledger does not hand out by itself have no row.
        if let Some(next) = next.get(&kind)
            && *next <= highest
        {
            let what = format!("next_id is {next}, and {kind} {highest} is there");
            totals.find(Finding::new(0, "id_blocks", format!("kind {kind}"), what));
        }
    }
    Ok(())
}

/// Cuts what is ordered by a number into pieces.
async fn cut(store: &Store, sql: &'static str) -> Result<Vec<(i64, i64)>, StoreError> {
    let mut pieces = Vec::new();
    let mut after = 0;
    loop {
        let parameters = [BUCKET, after, PIECE].map(Cell::from);
        let found = store.query(Statement::new(sql, parameters)).await?;
        let until = found.first().map_or(MAX_ID, |row| row.int(0).max(after + 1));
        pieces.push((after, until));
        if until == MAX_ID {
            return Ok(pieces);
        }
        after = until;
    }
}

pub(super) async fn member_pieces(store: &Store) -> Result<Vec<Piece>, StoreError> {
    let sql = "SELECT member_id FROM wallet_v1 WHERE bucket = $1 AND member_id > $2
               ORDER BY bucket, member_id LIMIT 1 OFFSET $3";
    let pieces = cut(store, sql).await?;
    Ok(pieces.into_iter().map(|(after, until)| Piece::Members { after, until }).collect())
}

/// Each member's counters are what his own rows of the wallet come to, which are held against their streams elsewhere; and
/// the directory has him.
pub(super) async fn check_members(store: &Store, after: i64, until: i64) -> Result<Totals, VerifyError> {
    // One statement is one instant.
    let sql = "SELECT CAST(0 AS BIGINT), member_id, definition_id, issued FROM member_counts_v1
               WHERE bucket = $1 AND member_id > $2 AND member_id <= $3
               UNION ALL
               SELECT CAST(1 AS BIGINT), issued_to, definition_id, COUNT(*) FROM wallet_v1
               WHERE bucket = $1 AND member_id > $2 AND member_id <= $3 AND member_id = issued_to AND voided = 0
               GROUP BY issued_to, definition_id";
    let range = [BUCKET, after, until].map(Cell::from);
    let mut counts: BTreeMap<(i64, i64), [i64; 2]> = BTreeMap::new();
    for row in store.query(Statement::new(sql, range.clone())).await? {
        let both = counts.entry((row.int(1), row.int(2))).or_default();
        if let Some(count) = both.get_mut(row.int(0) as usize) {
            *count = row.int(3);
        }
    }
    let mut totals = Totals::default();
    for ((member_id, definition_id), [counter, own]) in counts {
        if counter != own {
            let row = format!("member_id {member_id}, definition_id {definition_id}");
            let what = format!("issued is {counter}, his coupons come to {own}");
            totals.find(Finding::new(0, "member_counts_v1", row, what));
        }
    }
    let sql = "SELECT DISTINCT w.member_id FROM wallet_v1 w
               WHERE w.bucket = $1 AND w.member_id > $2 AND w.member_id <= $3 AND w.issued_to = w.member_id
                 AND NOT EXISTS (SELECT 1 FROM members m WHERE m.member_id = w.member_id)
               ORDER BY w.member_id LIMIT 100";
    for row in store.query(Statement::new(sql, range)).await? {
        let what = "coupons were issued to him, and the directory does not have him";
        totals.find(Finding::new(0, "members", format!("member_id {}", row.int(0)), what));
    }
    Ok(totals)
}

pub(super) async fn review_pieces(store: &Store) -> Result<Vec<Piece>, StoreError> {
    let sql =
        "SELECT coupon_id FROM reviews WHERE $1 = 0 AND coupon_id > $2 ORDER BY coupon_id LIMIT 1 OFFSET $3";
    let pieces = cut(store, sql).await?;
    Ok(pieces.into_iter().map(|(after, until)| Piece::Reviews { after, until }).collect())
}

/// A review's text is the one whose hash its event has. That one is gone may be an erasure; that one is another may not.
/// Without the person keys no text can be read, and only that there is an event is asked.
pub(super) async fn check_reviews(
    store: &Store,
    seal: Option<&Seal>,
    after: i64,
    until: i64,
) -> Result<Totals, VerifyError> {
    let sql = "SELECT coupon_id, salt, text FROM reviews WHERE coupon_id > $1 AND coupon_id <= $2 ORDER BY coupon_id";
    let rows = store.query(Statement::new(sql, [after.into(), until.into()])).await?;
    let streams: Vec<StreamId> = rows.iter().map(|row| stream_of::<Coupon>(row.int(0))).collect();
    let mut totals = Totals::default();
    for (row, events) in rows.iter().zip(store.load(&streams).await?) {
        let mut named = events.iter().rev().filter_map(|event| match decode::<Coupon>(event) {
            Ok(CouponEvent::Evaluated { text_hash, member_id, .. }) => {
                Some((event.position, text_hash, member_id))
            }
            _ => None,
        });
        let named = named.next();
        let is_named = named.as_ref().is_some_and(|(_, hash, member_id)| {
            seal.is_none_or(|seal| is_the_review(&seal.person(*member_id), row, hash))
        });
        if !is_named {
            let position = named.map_or(0, |(position, ..)| position);
            let what = "it is not the review whose hash the event has";
            totals.find(Finding::new(position, "reviews", format!("coupon_id {}", row.int(0)), what));
        }
    }
    Ok(totals)
}

/// Of whom was erased nothing can be read, and a review that came while he was may be left.
fn is_the_review(person: &Person, row: &Row, hash: &str) -> bool {
    let salt = person.open(seal::REVIEW_SALT, row.text(1));
    let text = person.open(seal::REVIEW_TEXT, row.text(2));
    person.is_erased() || matches!((salt, text), (Ok(salt), Ok(text)) if review_hash(&salt, &text) == hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::KINDS;

    #[test]
    fn every_live_table_has_an_owner_among_the_kinds_of_streams() {
        for table in LIVE_TABLES {
            let owner = owner(table);
            assert!(owner.is_some_and(|(kind, _)| KINDS.contains(&kind)), "{}: {owner:?}", table.name);
        }
    }
}
