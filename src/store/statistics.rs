//! Statistics: tables that are sums over the log, each made and folded by one file under `projections/`.
//!
//! A file makes its table, and behind the line `-- fold:` says in one SELECT what some facts add to it. The facts of a range
//! are put into a table in memory and the SELECT is asked there, in SQLite's words on both engines; what it answers is added
//! to the table, row by row of its key. What is a coarser sum of another statistic reads what the range adds to that one. So a range of thousands of events costs the database as many rows as it touches, and
//! live, catching up and made anew are the same statement over other ranges.
//!
//! A column with `DEFAULT 0` is a sum, to which is added; the others say of what. Whoever changes what a statistic means
//! gives its table a new version: it is then made from the log's beginning, beside the old one.
//!
//! What no sum can say, which members came, a program folds: behind `-- fold:` such a file names it instead.

use std::sync::LazyLock;

use rusqlite::{Connection, OpenFlags};

use super::{BUCKET, Cell, Row, Statement, StoreError};

/// The files, by name.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/statistics.rs"));

/// Rows of one statement: many where there are many, so that PostgreSQL is not asked once for each.
const ROWS_AT_A_TIME: [usize; 3] = [64, 8, 1];

/// The follower that folds them, by the name of its checkpoint.
pub const FOLLOWER: &str = "statistics";

/// Behind this line a file says what is added.
const FOLD: &str = "\n-- fold:\n";

/// A statistic.
#[derive(Debug)]
pub struct Statistic {
    /// Its name, and that of its view: `stats_days`.
    pub name: &'static str,
    /// Its table, and the name of its checkpoint: `stats_days_v1`.
    pub table: &'static str,
    /// Its columns behind `bucket`.
    pub columns: Vec<StatisticColumn>,
    /// Those of them that name a row.
    pub key: Vec<&'static str>,
    /// What makes it, for both engines.
    create: &'static str,
    /// What some facts add to it; None = a program says what its rows become.
    fold: Option<&'static str>,
    /// How rows are added, or put in the place of what they were, so many at a time.
    add: [&'static str; ROWS_AT_A_TIME.len()],
    /// How some of its rows are removed, as long as it has not begun.
    pub(crate) clear: &'static str,
}

/// A column of a statistic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatisticColumn {
    /// Its name.
    pub name: &'static str,
    /// Whether it is added to; the others name the row.
    pub is_sum: bool,
    /// Whether it is a text, as only what a program folds may have.
    pub is_text: bool,
}

/// Why a file makes no statistic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("projections/{name}.sql: {what}")]
pub struct BadStatistic {
    name: String,
    what: String,
}

/// Every statistic there is.
pub fn statistics() -> Result<&'static [Statistic], BadStatistic> {
    static ALL: LazyLock<Result<Vec<Statistic>, BadStatistic>> =
        LazyLock::new(|| FILES.iter().map(|(name, file)| Statistic::parse(name, file)).collect());
    ALL.as_ref().map(Vec::as_slice).map_err(Clone::clone)
}

/// Kept for good: there are as many as there are files.
fn kept(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

impl Statistic {
    /// What a file makes. Its texts are kept for as long as the program runs.
    pub fn parse(name: &'static str, file: &'static str) -> Result<Self, BadStatistic> {
        let bad = |what: &str| BadStatistic { name: name.to_owned(), what: what.to_owned() };
        let (create, fold) = file.split_once(FOLD).ok_or_else(|| bad("no line `-- fold:`"))?;
        let bare: String = create
            .lines()
            .map(|line| line.split("--").next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n");
        let made = bare.split_once("CREATE TABLE ").and_then(|(_, rest)| rest.split_once('('));
        let (table, body) = made.ok_or_else(|| bad("no CREATE TABLE"))?;
        let table = table.trim();
        let version = table.strip_prefix(name).and_then(|rest| rest.strip_prefix("_v"));
        if !version
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return Err(bad(&format!("its table must be named {name}_v1, or a later version")));
        }
        let (columns, key) = body.split_once("PRIMARY KEY (").ok_or_else(|| bad("no PRIMARY KEY"))?;
        let key = key.split_once(')').map(|(key, _)| key).unwrap_or_default();
        let key: Vec<&str> = key.split(',').map(str::trim).collect();
        let fold = Some(fold).filter(|fold| !fold.starts_with("--"));
        let mut found = Vec::new();
        for column in columns.split(',').map(str::trim).filter(|column| !column.is_empty()) {
            let words: Vec<&str> = column.split_whitespace().collect();
            let (column, is_sum, is_text) = match words.as_slice() {
                [column, "BIGINT", "NOT", "NULL"] => (*column, false, false),
                [column, "BIGINT", "NOT", "NULL", "DEFAULT", "0"] => (*column, true, false),
                [column, "TEXT", "NOT", "NULL", "DEFAULT", "''"] if fold.is_none() => (*column, false, true),
                _ => return Err(bad(&format!("every column is BIGINT NOT NULL, a sum DEFAULT 0: {column}"))),
            };
            found.push(StatisticColumn { name: kept(column.to_owned()), is_sum, is_text });
        }
        if found.first().is_none_or(|column| column.name != "bucket") || key.first() != Some(&"bucket") {
            return Err(bad("its first column, and the first of its key, is bucket"));
        }
        let columns = found.split_off(1);
        let key = key.get(1..).unwrap_or_default();
        let names_a_row =
            |name: &&str| columns.iter().any(|one| one.name == *name && !one.is_sum && !one.is_text);
        if key.is_empty() || !key.iter().all(names_a_row) {
            return Err(bad("its key must be of columns that are no sums"));
        }
        let add = ROWS_AT_A_TIME.map(|rows| kept(add_rows(table, &columns, key, (rows, fold.is_some()))));
        let key_text = key.join(", ");
        let clear = format!(
            "DELETE FROM {table} WHERE bucket = $1 AND ({key_text}) IN
               (SELECT {key_text} FROM {table} WHERE bucket = $1 LIMIT $2)
             AND NOT EXISTS (SELECT 1 FROM checkpoints WHERE bucket = $1 AND name = '{table}') RETURNING bucket"
        );
        let key = key.iter().map(|name| kept((*name).to_owned())).collect();
        Ok(Self { name, table: kept(table.to_owned()), columns, key, create, fold, add, clear: kept(clear) })
    }

    /// Whether its fold adds up what a range adds to another one.
    fn reads(&self, other: &Self) -> bool {
        let fold = self.fold.unwrap_or_default();
        fold.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
            .any(|word| word == other.name)
    }

    /// Whether its file says in SQL what facts add to it, so that it can be asked by its columns.
    #[must_use]
    pub fn is_summed(&self) -> bool {
        self.fold.is_some()
    }

    /// What makes the table and the view over it, before either engine's words are chosen. Empty it is as of position 0.
    pub(super) fn definition(&self) -> String {
        let columns: Vec<&str> = self.columns.iter().map(|column| column.name).collect();
        let (name, table, columns) = (self.name, self.table, columns.join(", "));
        format!(
            "{};
             DROP VIEW IF EXISTS {name};
             CREATE VIEW {name} AS SELECT {columns} FROM {table} WHERE bucket = {BUCKET};
             INSERT INTO checkpoints (bucket, name, value) VALUES ({BUCKET}, '{table}', 0), ({BUCKET}, '{FOLLOWER}', 0)
               ON CONFLICT (bucket, name) DO NOTHING;",
            self.create
        )
    }

    /// The statements that add some rows, each with its columns in order; of what a program folds, that put them.
    #[must_use]
    pub fn add(&self, rows: &[Row]) -> Vec<Statement> {
        let mut statements = Vec::new();
        let mut rest = rows;
        for (at_a_time, sql) in ROWS_AT_A_TIME.into_iter().zip(self.add) {
            while rest.len() >= at_a_time {
                let (now, later) = rest.split_at(at_a_time);
                let cells = now.iter().flat_map(|row| row.0.iter().cloned());
                statements.push(Statement::new(sql, std::iter::once(BUCKET.into()).chain(cells)));
                rest = later;
            }
        }
        statements
    }
}

fn add_rows(
    table: &str,
    columns: &[StatisticColumn],
    key: &[&str],
    (rows, is_summed): (usize, bool),
) -> String {
    let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
    let row = |row: usize| {
        let places = (0..columns.len()).map(|column| format!("${}", 2 + row * columns.len() + column));
        format!("($1, {})", places.collect::<Vec<_>>().join(", "))
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    let sums = columns.iter().filter(|column| column.is_sum || column.is_text).map(|column| column.name);
    let sum = |name: &str| {
        let before = if is_summed { format!("{table}.{name} + ") } else { String::new() };
        format!("{name} = {before}excluded.{name}")
    };
    let sums: Vec<String> = sums.map(sum).collect();
    let then = if sums.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", sums.join(", ")) };
    format!(
        "INSERT INTO {table} (bucket, {}) VALUES {} ON CONFLICT (bucket, {}) DO {then}",
        names.join(", "),
        rows.join(", "),
        key.join(", "),
    )
}

/// What facts add to each of these statistics. `columns` are the facts' names, in the order of their cells.
pub fn fold(
    statistics: &[&Statistic],
    columns: &[&str],
    facts: &[Vec<Cell>],
) -> Result<Vec<Vec<Row>>, StoreError> {
    if facts.is_empty() {
        return Ok(vec![Vec::new(); statistics.len()]);
    }
    let alone = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let memory = Connection::open_in_memory_with_flags(alone)?;
    memory.execute_batch(&format!("CREATE TABLE facts ({})", columns.join(", ")))?;
    let places = vec!["?"; columns.len()].join(", ");
    {
        let transaction = memory.unchecked_transaction()?;
        let mut insert = memory.prepare(&format!("INSERT INTO facts VALUES ({places})"))?;
        for fact in facts {
            for (place, cell) in (1..).zip(fact) {
                match cell {
                    Cell::Int(value) => insert.raw_bind_parameter(place, value)?,
                    Cell::Text(value) => insert.raw_bind_parameter(place, value)?,
                }
            }
            insert.raw_execute()?;
        }
        drop(insert);
        transaction.commit()?;
    }
    let known = self::statistics().unwrap_or_default();
    let lent = known.iter().filter(|one| statistics.iter().any(|other| other.reads(one)));
    let mut made = Vec::new();
    for (one, fold) in lent.filter_map(|one| Some(one).zip(one.fold)) {
        memory.execute_batch(&format!("CREATE TABLE {} AS {fold}", one.name))?;
        made.push(one.name);
    }
    let rows = |statistic: &&Statistic| match statistic.fold {
        Some(_) if made.contains(&statistic.name) => {
            added(&memory, statistic, &format!("SELECT * FROM {}", statistic.name))
        }
        Some(fold) => added(&memory, statistic, fold),
        None => Ok(Vec::new()),
    };
    statistics.iter().map(rows).collect()
}

fn added(memory: &Connection, statistic: &Statistic, fold: &str) -> Result<Vec<Row>, StoreError> {
    let corrupt = |what: String| StoreError::Corrupt {
        table: format!("projections/{}.sql", statistic.name),
        column: "fold".to_owned(),
        what,
    };
    let mut select = memory.prepare(fold)?;
    let given: Vec<String> = select.column_names().into_iter().map(str::to_owned).collect();
    let place = |column: &StatisticColumn| {
        let place = given.iter().position(|name| name == column.name);
        place.ok_or_else(|| corrupt(format!("no column {}", column.name)))
    };
    let places: Vec<usize> = statistic.columns.iter().map(place).collect::<Result<_, _>>()?;
    if places.len() != given.len() {
        return Err(corrupt(format!("{} columns, and {} are the table's", given.len(), places.len())));
    }
    let mut found = select.query([])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let cells = places.iter().map(|place| row.get::<_, i64>(*place).map(Cell::Int));
        rows.push(Row(cells.collect::<Result<_, _>>()?));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VISITS: &str = "-- Visits.
CREATE TABLE stats_visits_v2 (
  bucket BIGINT NOT NULL,
  day    BIGINT NOT NULL, -- local
  visits BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (bucket, day)
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- fold:
SELECT COUNT(*) AS visits, day FROM facts GROUP BY day
";

    fn day(day: i64) -> Vec<Cell> {
        vec![day.into()]
    }

    #[test]
    fn every_file_is_a_statistic() {
        let names: Vec<&str> = statistics().unwrap().iter().map(|statistic| statistic.name).collect();
        assert!(names.contains(&"stats_days"), "{names:?}");
    }

    #[test]
    fn a_file_says_what_facts_add_to_its_table() {
        let visits = Statistic::parse("stats_visits", VISITS).unwrap();
        assert_eq!(visits.table, "stats_visits_v2");
        let rows = fold(&[&visits], &["day"], &[day(3), day(4), day(3)]).unwrap();
        assert_eq!(rows, [[Row(vec![3.into(), 2.into()]), Row(vec![4.into(), 1.into()])]]);
        let [statement] = &visits.add(&rows[0][..1])[..] else { panic!("one row, one statement") };
        assert_eq!(
            statement.sql,
            "INSERT INTO stats_visits_v2 (bucket, day, visits) VALUES ($1, $2, $3) ON CONFLICT (bucket, day) \
             DO UPDATE SET visits = stats_visits_v2.visits + excluded.visits"
        );
        assert_eq!(statement.parameters, [0, 3, 2].map(Cell::Int));
        let many: Vec<Row> = (0..75).map(|day| Row(vec![day.into(), 1.into()])).collect();
        let lengths: Vec<usize> = visits.add(&many).iter().map(|one| one.parameters.len()).collect();
        assert_eq!(lengths, [1 + 64 * 2, 1 + 8 * 2, 3, 3, 3]);
    }

    #[test]
    fn a_coarser_statistic_adds_up_what_a_finer_one_is_added() {
        let known = statistics().unwrap();
        let named = |name: &str| known.iter().find(|statistic| statistic.name == name).unwrap();
        let (days, definitions) = (named("stats_days"), named("stats_definitions"));
        assert!(definitions.reads(days) && !days.reads(definitions));
        let columns = [
            "event",
            "day",
            "definition_id",
            "kind",
            "source",
            "partner_id",
            "shop_id",
            "employee_id",
            "score",
        ];
        let more = ["value_cents", "expired", "outstanding"];
        let issued = |source: i64| {
            let told_apart = [20_261_130, 7, 1, source, 0, 0, 0, 0].map(Cell::Int);
            [Cell::from("issued")].into_iter().chain(told_apart).chain([500, 0, 1].map(Cell::Int)).collect()
        };
        let facts: Vec<Vec<Cell>> = vec![issued(1), issued(8), issued(8)];
        let columns: Vec<&str> = columns.into_iter().chain(more).collect();
        let both = fold(&[days, definitions], &columns, &facts).unwrap();
        assert_eq!([both[0].len(), both[1].len()], [2, 1]);
        let place = |name: &str| definitions.columns.iter().position(|column| column.name == name).unwrap();
        let of = |name: &str| both[1][0].int(place(name));
        assert_eq!(["issued", "claimed", "outstanding_cents"].map(of), [3, 2, 1_500]);
        // It needs no other that is counted with it, and the finer one needs none to read it.
        assert_eq!(fold(&[definitions], &columns, &facts).unwrap(), both[1..]);
        assert_eq!(fold(&[days], &columns, &facts).unwrap(), both[..1]);
    }

    #[test]
    fn a_file_that_makes_no_statistic_is_told_from_one_that_does() {
        for (without, what) in [
            ("-- fold:", "no line `-- fold:`"),
            ("stats_visits_v2", "its table must be named stats_visits_v1, or a later version"),
            ("PRIMARY KEY", "no PRIMARY KEY"),
            ("bucket BIGINT NOT NULL,", "its first column, and the first of its key, is bucket"),
            (" BIGINT NOT NULL, -- local", "every column is BIGINT NOT NULL, a sum DEFAULT 0: day"),
        ] {
            let file = VISITS.replacen(without, if without.ends_with('2') { "visits" } else { "," }, 1);
            let error = Statistic::parse("stats_visits", kept(file)).unwrap_err();
            assert!(error.to_string().contains(what), "{without}: {error}");
        }
        for fold_of in
            ["SELECT day FROM facts", "SELECT day, 1 AS visits, 2 AS more FROM facts", "SELECT x FROM facts"]
        {
            let file = VISITS.replace("SELECT COUNT(*) AS visits, day FROM facts GROUP BY day", fold_of);
            let visits = Statistic::parse("stats_visits", kept(file)).unwrap();
            assert!(fold(&[&visits], &["day"], &[day(3)]).is_err(), "{fold_of}");
        }
    }
}
