//! The two statements of a batch that carry data: what must be known, and everything that is written.

use std::fmt::Write as _;

use sqlx::{PgConnection, Row as _};

use super::super::admission::{Known, Plan, PlannedEvent, PlannedReceipt, Questions};
use super::super::{BUCKET, Cell, Column, EPOCH, LiveRow, LiveTable, ReviewText, StoreError, StreamId};

/// `what` says which question, `place` which of its keys.
///
/// Scalar or fenced (OFFSET 0) subqueries throughout: in a join the planner, who sees one bucket in every key, would
/// rather read the whole bucket once than probe the index for each key.
const KNOW: &str = "
        SELECT 1::bigint AS what, q.place, COALESCE((
                 SELECT e.sequence FROM events e
                 WHERE e.aggregate_type = q.kind AND e.aggregate_id = q.id AND e.bucket = $1
                 ORDER BY e.sequence DESC LIMIT 1), 0) AS a, 0::bigint AS b
        FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS q (kind, id, place)
        UNION ALL
        SELECT 2, q.place, COALESCE((
                 SELECT 1 FROM receipts r
                 WHERE r.bucket = $1 AND r.caller = q.caller AND r.operation = q.operation AND r.key = q.key
                 LIMIT 1), 0), 0
        FROM unnest($4::text[], $5::text[], $6::text[]) WITH ORDINALITY AS q (caller, operation, key, place)
        UNION ALL
        SELECT 3, q.place, s.stock, s.issued
        FROM unnest($7::bigint[]) WITH ORDINALITY AS q (definition_id, place)
        CROSS JOIN LATERAL (
          SELECT * FROM stock_v1 WHERE bucket = $1 AND definition_id = q.definition_id OFFSET 0) AS s
        UNION ALL
        SELECT 4, q.place, COALESCE((
                 SELECT c.issued FROM member_counts_v1 c
                 WHERE c.bucket = $1 AND c.member_id = q.member_id AND c.definition_id = q.definition_id), 0), 0
        FROM unnest($8::bigint[], $9::bigint[]) WITH ORDINALITY AS q (member_id, definition_id, place)
        UNION ALL
        SELECT 5, q.place, COALESCE((
                 SELECT max(+w.ends_at_ms) FROM wallet_v1 w
                 WHERE w.bucket = $1 AND w.member_id = q.member_id AND w.definition_id = q.definition_id
                   AND w.issued_to = q.member_id AND w.voided = 0), 0), 0
        FROM unnest($10::bigint[], $11::bigint[]) WITH ORDINALITY AS q (member_id, definition_id, place)
        UNION ALL
        SELECT 6, q.place, g.at_ms, 0
        FROM unnest($12::bigint[], $13::bigint[]) WITH ORDINALITY AS q (member_id, since, place)
        CROSS JOIN LATERAL (
          SELECT at_ms FROM gift_attempts WHERE bucket = $1 AND member_id = q.member_id AND at_ms > q.since OFFSET 0
        ) AS g";

/// One statement answers every question of the batch.
pub(super) async fn know(connection: &mut PgConnection, questions: &Questions) -> Result<Known, StoreError> {
    let streams: Vec<StreamId> = questions.streams.iter().copied().collect();
    let stock: Vec<i64> = questions.stock.iter().copied().collect();
    let counts: Vec<(i64, i64)> = questions.member_counts.iter().copied().collect();
    let ends: Vec<(i64, i64)> = questions.latest_ends.iter().copied().collect();
    let attempts: Vec<(i64, i64)> =
        questions.attempts.iter().map(|(member, since)| (*member, *since)).collect();
    let column = |pairs: &[(i64, i64)], second: bool| -> Vec<i64> {
        pairs.iter().map(|pair| if second { pair.1 } else { pair.0 }).collect()
    };
    let rows = sqlx::query(KNOW)
        .bind(BUCKET)
        .bind(streams.iter().map(|stream| stream.kind).collect::<Vec<_>>())
        .bind(streams.iter().map(|stream| stream.id.to_string()).collect::<Vec<_>>())
        .bind(questions.receipts.iter().map(|key| key.caller.as_str()).collect::<Vec<_>>())
        .bind(questions.receipts.iter().map(|key| key.operation).collect::<Vec<_>>())
        .bind(questions.receipts.iter().map(|key| key.key.as_str()).collect::<Vec<_>>())
        .bind(&stock)
        .bind(column(&counts, false))
        .bind(column(&counts, true))
        .bind(column(&ends, false))
        .bind(column(&ends, true))
        .bind(column(&attempts, false))
        .bind(column(&attempts, true))
        .fetch_all(connection)
        .await?;
    let mut known = Known::default();
    for row in rows {
        let (what, place): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let (a, b): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
        let place = usize::try_from(place - 1).unwrap_or(usize::MAX);
        match what {
            1 => known.versions.extend(streams.get(place).map(|stream| (*stream, a))),
            2 => known.receipts.extend(questions.receipts.get(place).filter(|_| a == 1).cloned()),
            3 => known.stock.extend(stock.get(place).map(|id| (*id, (a, b)))),
            4 => known.member_counts.extend(counts.get(place).map(|key| (*key, a))),
            5 => known.latest_ends.extend(ends.get(place).map(|key| (*key, a))),
            _ => {
                if let Some((member_id, _)) = attempts.get(place) {
                    known.attempts.entry(*member_id).or_default().push(a);
                }
            }
        }
    }
    Ok(known)
}

/// One statement for the whole plan, whatever tables it touches.
///
/// Its parts are data-modifying CTEs: each runs once and to completion, and none reads what another writes. All of them
/// hang on the first, which takes the expected turn of the head: has it passed, nothing is written.
#[derive(Default)]
struct WideWrite {
    sql: String,
    columns: Vec<Values>,
}

enum Values {
    Ints(Vec<i64>),
    Texts(Vec<String>),
}

/// How many parameters [`WideWrite::run`] binds before the columns.
const HEAD_PARAMETERS: usize = 5;

impl WideWrite {
    /// Adds `INSERT INTO table (bucket, columns) SELECT … FROM head, unnest(arrays)` and whatever follows it.
    fn insert(&mut self, table: &str, columns: Vec<(&str, &str, Values)>, then: &str) {
        self.insert_into(&format!("{table} (bucket, "), &format!("{BUCKET}, "), columns, then);
    }

    /// The same of a table without buckets.
    fn insert_into(&mut self, table: &str, first: &str, columns: Vec<(&str, &str, Values)>, then: &str) {
        let name = self.columns.len();
        let names: Vec<&str> = columns.iter().map(|(name, _, _)| *name).collect();
        let mut arrays = Vec::new();
        let mut picks = Vec::new();
        for (place, (_, cast, values)) in columns.into_iter().enumerate() {
            self.columns.push(values);
            let number = HEAD_PARAMETERS + self.columns.len();
            let array = if cast == "bigint" { "bigint[]" } else { "text[]" };
            arrays.push(format!("${number}::{array}"));
            picks.push(if cast == "json" { format!("c{place}::json") } else { format!("c{place}") });
        }
        let aliases: Vec<String> = (0..picks.len()).map(|place| format!("c{place}")).collect();
        let _ = write!(
            self.sql,
            ", w{name} AS (INSERT INTO {table}{}) SELECT {first}{} FROM head, unnest({}) AS q ({}) {then})",
            names.join(", "),
            picks.join(", "),
            arrays.join(", "),
            aliases.join(", "),
        );
    }

    /// Runs it all, if it is the expected turn; whether it was.
    async fn run(
        mut self,
        connection: &mut PgConnection,
        plan: &Plan<'_>,
        expected: Expected,
    ) -> Result<bool, sqlx::Error> {
        let sql = format!(
            "WITH head AS (
               UPDATE log_head SET position = $1, last_ms = $2, turn = turn + 1
               WHERE bucket = {BUCKET} AND turn = $3 AND epoch = {EPOCH}
                 AND abs((extract(epoch FROM clock_timestamp()) * 1000)::bigint - $4) <= $5
               RETURNING 1)
             {} SELECT count(*) FROM head",
            self.sql,
        );
        let columns = std::mem::take(&mut self.columns);
        let query = sqlx::query_scalar(&sql)
            .bind(plan.head)
            .bind(plan.recorded_at_ms)
            .bind(expected.turn)
            .bind(expected.now_ms)
            .bind(expected.max_skew_ms);
        let query = columns.into_iter().fold(query, |query, values| match values {
            Values::Ints(values) => query.bind(values),
            Values::Texts(values) => query.bind(values),
        });
        // To the end of the answer: outside a transaction the commit comes after the row.
        let taken: Vec<i64> = query.fetch_all(connection).await?;
        Ok(taken.first() == Some(&1))
    }
}

/// Whose turn it must be for a plan to be written, and what this process's clock says.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    pub(super) turn: i64,
    pub(super) now_ms: i64,
    pub(super) max_skew_ms: i64,
}

/// Writes a plan, if it is the expected turn; whether it was.
pub(super) async fn write_plan(
    connection: &mut PgConnection,
    plan: &Plan<'_>,
    expected: Expected,
) -> Result<bool, sqlx::Error> {
    let mut write = WideWrite::default();
    if !plan.receipts.is_empty() {
        let texts = |of: for<'a> fn(&'a PlannedReceipt<'a>) -> &'a str| {
            Values::Texts(plan.receipts.iter().map(|receipt| of(receipt).to_owned()).collect())
        };
        write.insert(
            "receipts",
            vec![
                ("caller", "text", texts(|receipt| &receipt.key.caller)),
                ("operation", "text", texts(|receipt| receipt.key.operation)),
                ("key", "text", texts(|receipt| &receipt.key.key)),
                ("request_mac", "text", texts(|receipt| receipt.request_mac)),
                ("position", "bigint", ints(&plan.receipts, |receipt| receipt.position)),
                ("event_count", "bigint", ints(&plan.receipts, |receipt| receipt.event_count)),
            ],
            "",
        );
    }
    if !plan.events.is_empty() {
        insert_events(&mut write, plan);
    }
    if !plan.stock.is_empty() {
        write.insert(
            "stock_v1",
            vec![
                ("definition_id", "bigint", ints(&plan.stock, |row| row.0)),
                ("stock", "bigint", ints(&plan.stock, |row| row.1)),
                ("issued", "bigint", ints(&plan.stock, |row| row.2)),
            ],
            "ON CONFLICT (bucket, definition_id) DO UPDATE SET stock = excluded.stock, issued = excluded.issued",
        );
    }
    if !plan.member_counts.is_empty() {
        write.insert(
            "member_counts_v1",
            vec![
                ("member_id", "bigint", ints(&plan.member_counts, |row| row.0)),
                ("definition_id", "bigint", ints(&plan.member_counts, |row| row.1)),
                ("issued", "bigint", ints(&plan.member_counts, |row| row.2)),
            ],
            "ON CONFLICT (bucket, member_id, definition_id) DO UPDATE SET issued = excluded.issued",
        );
    }
    for (table, rows) in &plan.rows {
        upsert_rows(&mut write, table, rows);
    }
    if !plan.attempts.is_empty() {
        write.insert(
            "gift_attempts",
            vec![
                ("member_id", "bigint", ints(&plan.attempts, |row| row.0)),
                ("at_ms", "bigint", ints(&plan.attempts, |row| row.1)),
            ],
            "",
        );
    }
    if !plan.reviews.is_empty() {
        let texts = |of: fn(&ReviewText) -> &String| {
            Values::Texts(plan.reviews.iter().map(|review| of(review).clone()).collect())
        };
        let columns = vec![
            ("coupon_id", "bigint", ints(&plan.reviews, |review| review.coupon_id)),
            ("salt", "text", texts(|review| &review.salt)),
            ("text", "text", texts(|review| &review.text)),
        ];
        write.insert_into("reviews (", "", columns, "");
    }
    write.run(connection, plan, expected).await
}

fn ints<T>(rows: &[T], of: impl Fn(&T) -> i64) -> Values {
    Values::Ints(rows.iter().map(of).collect())
}

fn insert_events(write: &mut WideWrite, plan: &Plan<'_>) {
    let events = &plan.events;
    let texts = |of: fn(&PlannedEvent<'_>) -> String| Values::Texts(events.iter().map(of).collect());
    write.insert(
        "events",
        vec![
            ("position", "bigint", ints(events, |planned| planned.position)),
            ("aggregate_type", "text", texts(|planned| planned.stream.kind.to_owned())),
            ("aggregate_id", "text", texts(|planned| planned.stream.id.to_string())),
            ("sequence", "bigint", ints(events, |planned| planned.sequence)),
            ("event_type", "text", texts(|planned| planned.event.event_type.clone())),
            ("event_version", "text", texts(|planned| planned.event.event_version.clone())),
            // Bound as text and cast: sqlx would send a JSON value as jsonb, which reorders keys.
            ("payload", "json", texts(|planned| planned.event.payload.clone())),
            ("metadata", "json", texts(|planned| planned.append.metadata.to_string())),
            ("recorded_at_ms", "bigint", ints(events, |_| plan.recorded_at_ms)),
        ],
        "",
    );
}

fn upsert_rows(write: &mut WideWrite, table: &LiveTable, rows: &[&LiveRow]) {
    let column = |place: usize, column: Column| match column {
        Column::Int(name) => {
            let cells = rows.iter().map(|row| match row.cells.get(place) {
                Some(Cell::Int(value)) => *value,
                _ => 0,
            });
            (name, "bigint", Values::Ints(cells.collect()))
        }
        Column::Text(name) => {
            let cells = rows.iter().map(|row| match row.cells.get(place) {
                Some(Cell::Text(value)) => value.clone(),
                _ => String::new(),
            });
            (name, "text", Values::Texts(cells.collect()))
        }
    };
    let columns: Vec<_> = table.columns.iter().enumerate().map(|(place, c)| column(place, *c)).collect();
    let names: Vec<&str> = table.columns.iter().copied().map(Column::name).collect();
    let (keys, rest) = names.split_at(table.key_columns.min(names.len()));
    let updates: Vec<String> = rest.iter().map(|name| format!("{name} = excluded.{name}")).collect();
    let then = format!("ON CONFLICT (bucket, {}) DO UPDATE SET {}", keys.join(", "), updates.join(", "));
    write.insert(table.name, columns, &then);
}
