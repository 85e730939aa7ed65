//! Reads, in groups: while some are under way, the next gather, and one statement answers all that ask the same thing
//! of different rows. What a statement costs before it touches a row is then paid once, not once a request.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use sqlx::postgres::{PgArguments, PgPool, PgRow};
use sqlx::query::Query;
use sqlx::{Column as _, Decode, Postgres, Row as _, TypeInfo as _, ValueRef as _};
use tokio::sync::{Notify, oneshot};

use super::super::{Cell, Row, Statement, StoreError};
use super::on_live_connection;

/// The most requests that one statement answers.
const MAX_GROUP: usize = 64;

/// A statement, and which of its parameters are integers.
type Question = (&'static str, Vec<bool>);

type Answer = Result<Vec<Row>, Arc<StoreError>>;

struct Waiting {
    statement: Statement,
    answer: oneshot::Sender<Answer>,
}

/// Reads that wait, and those who work on them.
pub(super) struct Reads {
    pool: PgPool,
    /// None = nobody works on them any more.
    waiting: Mutex<Option<VecDeque<Waiting>>>,
    arrived: Arc<Notify>,
    /// The text that asks a question of many rows.
    texts: Mutex<HashMap<Question, Arc<str>>>,
}

impl Reads {
    /// Starts reading with so many statements at a time; ends when the last handle is dropped.
    pub(super) fn start(pool: PgPool, at_a_time: u32) -> Arc<Self> {
        let arrived = Arc::new(Notify::new());
        let reads = Arc::new(Self {
            pool,
            waiting: Mutex::new(Some(VecDeque::new())),
            arrived: arrived.clone(),
            texts: Mutex::default(),
        });
        for _ in 0..at_a_time {
            tokio::spawn(work(Worker(Arc::downgrade(&reads)), arrived.clone()));
        }
        reads
    }

    /// The rows of one statement.
    pub(super) async fn query(&self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { statement, answer };
        match &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(queue) => queue.push_back(waiting),
            None => return Err(StoreError::Closed),
        }
        self.arrived.notify_one();
        answered.await.map_err(|_| StoreError::Closed)?.map_err(StoreError::Shared)
    }

    /// What waits longest, and whatever asks the same.
    fn next_group(&self) -> Option<Vec<Waiting>> {
        let mut queue = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = queue.as_mut()?;
        let first = waiting.pop_front()?;
        let sql = first.statement.sql;
        let mut group = vec![first];
        let mut others = VecDeque::new();
        while let Some(next) = waiting.pop_front() {
            if group.len() < MAX_GROUP && std::ptr::eq(next.statement.sql, sql) {
                group.push(next);
            } else {
                others.push_back(next);
            }
        }
        *waiting = others;
        Some(group)
    }

    async fn answer(&self, group: Vec<Waiting>) {
        let (mut sets, mut answers) = (Vec::new(), Vec::new());
        let mut sql = "";
        for Waiting { statement, answer } in group {
            sql = statement.sql;
            sets.push(statement.parameters);
            answers.push(answer);
        }
        match self.query_each(sql, sets).await {
            Ok(found) => {
                for (answer, rows) in answers.into_iter().zip(found) {
                    let _ = answer.send(Ok(rows));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    /// The rows of one statement for each of these sets of parameters.
    pub(super) async fn query_each(
        &self,
        sql: &'static str,
        sets: Vec<Vec<Cell>>,
    ) -> Result<Vec<Vec<Row>>, StoreError> {
        let Some(first) = sets.first() else {
            return Ok(Vec::new());
        };
        // One is asked as it stands, and so are many that cannot differ.
        if sets.len() == 1 || first.is_empty() {
            let rows =
                on_live_connection(&self.pool, || async { bound(sql, first).fetch_all(&self.pool).await })
                    .await?;
            let rows = rows.iter().map(|row| read_row(row, 0)).collect::<Result<_, _>>()?;
            return Ok(vec![rows; sets.len()]);
        }
        let text = self.text_for_many(sql, first);
        let columns: Vec<Column> = (0..first.len()).map(|place| Column::of(&sets, place)).collect();
        let rows = on_live_connection(&self.pool, || async {
            let query = columns.iter().fold(sqlx::query(&text), |query, column| match column {
                Column::Ints(values) => query.bind(values),
                Column::Texts(values) => query.bind(values),
            });
            query.fetch_all(&self.pool).await
        })
        .await?;
        let mut found = vec![Vec::new(); sets.len()];
        for row in rows {
            let place: i64 = row.try_get(0)?;
            if let Some(rows) = usize::try_from(place - 1).ok().and_then(|place| found.get_mut(place)) {
                rows.push(read_row(&row, 1)?);
            }
        }
        Ok(found)
    }

    /// A walk over the sets, and for each of them the statement itself, so that each set's rows come in the statement's own
    /// order. OFFSET 0 keeps it so: a simple statement would be joined with the sets in whatever way looks cheap, and on a
    /// table that was empty when it was planned that is to read all of it for each.
    fn text_for_many(&self, sql: &'static str, parameters: &[Cell]) -> Arc<str> {
        let types: Vec<bool> = parameters.iter().map(|cell| matches!(cell, Cell::Int(_))).collect();
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let text = texts.entry((sql, types)).or_insert_with_key(|(sql, types)| {
            let mut arrays = Vec::new();
            let mut names = Vec::new();
            for (place, is_int) in (1..).zip(types) {
                arrays.push(format!("${place}::{}[]", if *is_int { "bigint" } else { "text" }));
                names.push(format!("p{place}"));
            }
            let body = with_names(sql);
            let (arrays, names) = (arrays.join(", "), names.join(", "));
            format!(
                "SELECT q.place, r.* FROM unnest({arrays}) WITH ORDINALITY AS q ({names}, place)
                 CROSS JOIN LATERAL (SELECT * FROM ({body}) AS b OFFSET 0) AS r"
            )
            .into()
        });
        text.clone()
    }
}

impl Drop for Reads {
    fn drop(&mut self) {
        self.arrived.notify_waiters();
    }
}

/// One who works on reads. Where its runtime ends, whoever waits for it on a thread of his own is told so: he would wait for
/// ever, and the runtime for him.
struct Worker(Weak<Reads>);

impl Drop for Worker {
    fn drop(&mut self) {
        // Where one panics the others go on.
        if let Some(reads) = self.0.upgrade().filter(|_| !std::thread::panicking()) {
            *reads.waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

async fn work(worker: Worker, arrived: Arc<Notify>) {
    loop {
        let next = arrived.notified();
        let Some(reads) = worker.0.upgrade() else { return };
        if let Some(group) = reads.next_group() {
            reads.answer(group).await;
        } else {
            // Nobody who waits here may keep the reads alive.
            drop(reads);
            next.await;
        }
    }
}

enum Column {
    Ints(Vec<i64>),
    Texts(Vec<String>),
}

impl Column {
    /// One parameter of all sets.
    fn of(sets: &[Vec<Cell>], place: usize) -> Self {
        let cells = sets.iter().map(|set| set.get(place));
        match sets.first().and_then(|set| set.get(place)) {
            Some(Cell::Text(_)) => Self::Texts(
                cells
                    .map(|cell| if let Some(Cell::Text(text)) = cell { text.clone() } else { String::new() })
                    .collect(),
            ),
            _ => Self::Ints(
                cells.map(|cell| if let Some(Cell::Int(value)) = cell { *value } else { 0 }).collect(),
            ),
        }
    }
}

/// A statement's text with `q.p1` for `$1`.
fn with_names(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len() + 32);
    let mut rest = sql.chars().peekable();
    while let Some(letter) = rest.next() {
        if letter == '$' && rest.peek().is_some_and(char::is_ascii_digit) {
            let _ = write!(text, "q.p");
        } else {
            text.push(letter);
        }
    }
    text
}

pub(super) fn bound<'q>(sql: &'q str, parameters: &'q [Cell]) -> Query<'q, Postgres, PgArguments> {
    parameters.iter().fold(sqlx::query(sql), |query, cell| match cell {
        Cell::Int(value) => query.bind(value),
        Cell::Text(value) => query.bind(value),
    })
}

pub(super) fn read_row(row: &PgRow, from: usize) -> Result<Row, StoreError> {
    let cell = |column: usize| -> Result<Cell, StoreError> {
        let value = row.try_get_raw(column)?;
        if value.is_null() {
            return Ok(Cell::Text(String::new()));
        }
        let wrong = |source| sqlx::Error::ColumnDecode { index: column.to_string(), source };
        match row.column(column).type_info().name() {
            "INT8" => Ok(Cell::Int(Decode::<Postgres>::decode(value).map_err(wrong)?)),
            "TEXT" => Ok(Cell::Text(Decode::<Postgres>::decode(value).map_err(wrong)?)),
            other => Err(StoreError::Corrupt {
                table: "a page".to_owned(),
                column: column.to_string(),
                what: format!("{other} is neither BIGINT nor TEXT"),
            }),
        }
    };
    Ok(Row((from..row.len()).map(cell).collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_beside_a_runtime_that_ends_is_told_so() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let reads = runtime.block_on(async {
            let nobody = PgPool::connect_lazy("postgres://127.0.0.1:1/nobody").unwrap();
            Reads::start(nobody, 2)
        });
        drop(runtime);
        let beside = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let answer = beside.block_on(reads.query(Statement::new("SELECT 1", [])));
        assert!(matches!(answer, Err(StoreError::Closed)), "{answer:?}");
    }

    #[test]
    fn parameters_become_columns_of_the_sets() {
        assert_eq!(with_names("a = $1 AND b = $12 LIMIT $3"), "a = q.p1 AND b = q.p12 LIMIT q.p3");
        assert_eq!(with_names("price $ 5"), "price $ 5");
    }
}
