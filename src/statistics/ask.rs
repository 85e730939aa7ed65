//! What is asked of the statistics, and what is answered: sums by what the caller chooses, for periods of local days.
//!
//! Everything of one answer is read at one instant and is as of one position. Which table is asked follows from what is
//! asked: the one with the fewest columns that has them all. Nothing of a request is ever part of a statement's text but
//! numbers, and names that a file under `projections/` has.

use std::collections::{BTreeMap, BTreeSet};

use super::members::{Members, are_counted_by_uses};
use super::period::{Period, Split, values};
use crate::store::statistics::{Statistic, statistics};
use crate::store::{BUCKET, Cell, Look, Row, Store, StoreError};

/// Groups of one answer: beyond, whoever asks must ask for less.
pub const MAX_GROUPS: usize = 100_000;

/// A question.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// What is measured.
    pub measures: Vec<Measure>,
    /// What it is told apart by: columns that some statistic has.
    pub by: Vec<&'static str>,
    /// Of what: only rows with one of these numbers in a column.
    pub only: Vec<(&'static str, Vec<i64>)>,
    /// The periods, one after the other without gaps.
    pub periods: Vec<Period>,
}

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// What a column of a statistic comes to in the period.
    Sum(&'static str),
    /// What it comes to from the ledger's beginning to the period's end.
    Level(&'static str),
    /// Uses that stand: redeemed less reversed.
    Used,
    /// Their deductions.
    UsedCents,
    /// The mean of the reviews' scores.
    AverageScore,
    /// Of those issued in the period, how many uses there were in it.
    RedemptionRate,
    /// The median of the days from the issue to the use, of the period's uses that stand.
    MedianDays,
    /// Members who used one.
    Members,
    /// Members who used one, and had used one on an earlier day.
    ReturningMembers,
}

/// Measures that are no column's sum.
const DERIVED: [(&str, Measure); 7] = [
    ("average_score", Measure::AverageScore),
    ("median_days", Measure::MedianDays),
    ("members", Measure::Members),
    ("redemption_rate", Measure::RedemptionRate),
    ("returning_members", Measure::ReturningMembers),
    ("used", Measure::Used),
    ("used_cents", Measure::UsedCents),
];

/// Sums that say how much there is, not what happened.
const LEVELS: [&str; 2] = ["outstanding", "outstanding_cents"];

/// What an issue and a use are not both told apart by: shares and what there is have no meaning there.
pub(super) const OF_ONE_SIDE: [&str; 2] = ["shop_id", "employee_id"];

/// Columns that nothing is told apart by: there are as many as there are uses, or they are days.
const NO_DIMENSIONS: [&str; 8] =
    ["day", "month", "issue_day", "redemption_id", "coupon_id", "used_at_ms", "value_cents", "member_id"];

impl Measure {
    /// The one with a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let derived = DERIVED.iter().find(|(derived, _)| *derived == name);
        derived.map(|(_, measure)| *measure).or_else(|| {
            let column = sums().find(|column| *column == name)?;
            Some(if LEVELS.contains(&column) { Self::Level(column) } else { Self::Sum(column) })
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sum(column) | Self::Level(column) => column,
            derived => DERIVED.iter().find(|(_, measure)| *measure == derived).map_or("", |(name, _)| name),
        }
    }

    /// Every name, in order.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        let derived = DERIVED.iter().map(|(name, _)| *name);
        derived.chain(sums()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The sums of the period that it is computed from. No reversal is kept by the age of its use: told apart by it, a use that
    /// was taken back is none on its own day.
    fn sums(self, by_age: bool) -> &'static [&'static str] {
        match self {
            Self::Used if by_age => &["used"],
            Self::UsedCents if by_age => &["used_cents"],
            Self::Used => &["redeemed", "reversed"],
            Self::UsedCents => &["redeemed_cents", "reversed_cents"],
            Self::AverageScore => &["score", "reviewed"],
            Self::RedemptionRate => &["redeemed", "reversed", "issued"],
            _ => &[],
        }
    }
}

fn all() -> &'static [Statistic] {
    // A file that makes no statistic keeps the ledger from being opened at all.
    statistics().unwrap_or_default()
}

/// Those that are asked by their columns.
fn summed() -> impl Iterator<Item = &'static Statistic> {
    all().iter().filter(|statistic| statistic.is_summed())
}

fn columns(sum: bool) -> impl Iterator<Item = &'static str> {
    let columns = summed().flat_map(|statistic| &statistic.columns);
    columns.filter(move |column| column.is_sum == sum).map(|column| column.name)
}

fn sums() -> impl Iterator<Item = &'static str> {
    columns(true).filter(|name| *name != "reversed_at_ms")
}

/// What figures can be told apart by, in order.
#[must_use]
pub fn dimensions() -> Vec<&'static str> {
    let named = columns(false).filter(|name| !NO_DIMENSIONS.contains(name));
    named.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The dimension with a name.
#[must_use]
pub fn dimension(name: &str) -> Option<&'static str> {
    dimensions().into_iter().find(|known| *known == name)
}

/// The point of the log that an answer is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct AsOf {
    /// The last event that is counted.
    pub position: i64,
    /// When it was recorded, Unix milliseconds; 0 = nothing is counted yet.
    pub recorded_at_ms: i64,
}

/// A figure's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A number of things, cents or days.
    Whole(i64),
    /// A share or a mean.
    Part(f64),
    /// There is nothing that it could be of.
    None,
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The place of its period among those that were asked for.
    pub period: usize,
    /// What it is of, in the order of `by`.
    pub key: Vec<i64>,
    /// Its figures, in the order of `measures`.
    pub values: Vec<Value>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The point of the log that it is of.
    pub as_of: AsOf,
    /// Its lines, by period and key. What nothing happened to has none.
    pub lines: Vec<Line>,
}

/// Why a question is not answered.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No statistic keeps this together.
    #[error("{0}")]
    NotKept(String),
    /// There would be too many lines.
    #[error("more than {MAX_GROUPS} lines: ask for fewer periods, or for less to be told apart")]
    TooMany,
    /// A statistic is being counted from the log's beginning.
    #[error("{0} is being counted: try again later")]
    BeingCounted(&'static str),
}

/// The statistic with the fewest columns that has all of these, and what happened in a time: `day` or `month`.
fn with_columns(needed: &BTreeSet<&str>, time: &str) -> Option<&'static Statistic> {
    let names = |statistic: &'static Statistic| statistic.columns.iter().map(|column| column.name);
    let names_rows =
        |statistic: &&Statistic| statistic.columns.iter().filter(|column| !column.is_sum).count();
    let fits = |statistic: &&'static Statistic| {
        let names: BTreeSet<&str> = names(statistic).collect();
        names.contains(time) && needed.is_subset(&names)
    };
    summed().filter(fits).min_by_key(names_rows)
}

/// The parts of one answer, and which of the statements' rows is whose.
struct Plan<'a> {
    question: &'a Question,
    looks: Vec<Look>,
    tables: BTreeSet<&'static str>,
}

/// Where the rows of one part are.
type Place = usize;

/// The tables that have what is needed.
#[derive(Clone, Copy)]
struct Tables {
    /// By day.
    days: &'static str,
    /// By month; None = months are the sums of their days.
    months: Option<&'static str>,
}

impl Plan<'_> {
    fn tables(&self, needed: &[&'static str]) -> Result<Tables, AskError> {
        let columns: BTreeSet<&str> = needed.iter().chain(self.question.told_apart()).copied().collect();
        let days = with_columns(&columns, "day").ok_or_else(|| {
            AskError::NotKept(format!(
                "no statistic has {} together",
                columns.iter().copied().collect::<Vec<_>>().join(", ")
            ))
        })?;
        let months = with_columns(&columns, "month").map(|statistic| statistic.table);
        Ok(Tables { days: days.table, months })
    }

    /// Statements over the rows of each period, its whole months and its other days: its start, the columns of `by`, and what
    /// is selected besides.
    fn of_periods(&mut self, tables: Tables, what: (&str, &str, &str)) -> Vec<Place> {
        let (mut days, mut months) = (Vec::new(), Vec::new());
        for period in &self.question.periods {
            let split = match tables.months {
                Some(_) => period.split(),
                None => Split { days: vec![(period.start, period.end)], months: None },
            };
            days.extend(split.days.into_iter().map(|(first, last)| [period.start, first, last]));
            months.extend(split.months.map(|(first, last)| [period.start, first, last]));
        }
        self.of_times(tables, (days, months), what)
    }

    /// Statements over rows of some days and months, each with what it is told as.
    fn of_times(
        &mut self,
        tables: Tables,
        (days, months): (Vec<[i64; 3]>, Vec<[i64; 3]>),
        (select, besides, group): (&str, &str, &str),
    ) -> Vec<Place> {
        let by = self.by();
        let mut places = Vec::new();
        for (table, time, times) in [(Some(tables.days), "day", days), (tables.months, "month", months)] {
            let Some(table) = table.filter(|_| !times.is_empty()) else { continue };
            self.tables.insert(table);
            let walked = walked(table, self.question);
            let sql = format!(
                "WITH times (starts, first, last) AS (VALUES {})
                 SELECT p.starts{by}{select} FROM times AS p CROSS JOIN {table} AS t
                 WHERE t.bucket = $1 AND t.{time} >= p.first AND t.{time} <= p.last{}{walked}{besides}
                 GROUP BY p.starts{by}{group} LIMIT {}",
                values(times),
                only_text(&self.question.only),
                MAX_GROUPS + 1,
            );
            places.push(self.look(sql));
        }
        places
    }

    fn by(&self) -> String {
        self.question.by.iter().fold(String::new(), |by, column| by + ", t." + column)
    }

    fn look(&mut self, sql: String) -> Place {
        self.looks.push(Look { sql, parameters: vec![BUCKET.into()] });
        self.looks.len() - 1
    }
}

/// What lets a table whose key begins with the definition be walked by days where all definitions are meant.
pub(super) fn walked(table: &str, question: &Question) -> &'static str {
    let begins_with_it =
        summed().any(|statistic| statistic.table == table && statistic.key.first() == Some(&"definition_id"));
    if begins_with_it && !question.only.iter().any(|(column, _)| *column == "definition_id") {
        " AND t.definition_id IN (SELECT definition_id FROM definitions_v1 WHERE bucket = $1)"
    } else {
        ""
    }
}

/// Sums as they are selected.
fn added(sums: &[&str]) -> String {
    sums.iter().fold(String::new(), |select, name| select + ", CAST(SUM(t." + name + ") AS BIGINT)")
}

pub(super) fn only_text(only: &[(&'static str, Vec<i64>)]) -> String {
    let one = |(column, numbers): &(&str, Vec<i64>)| {
        let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
        let list = if numbers.is_empty() { "NULL".to_owned() } else { numbers.join(", ") };
        format!(" AND t.{column} IN ({list})")
    };
    only.iter().map(one).collect()
}

/// The same for one table; an error where it has not the columns.
pub(super) fn only_sql(only: &[(&'static str, Vec<i64>)], table: &str) -> Result<String, AskError> {
    let statistic = all().iter().find(|statistic| statistic.table == table);
    let has =
        |column: &str| statistic.is_some_and(|one| one.columns.iter().any(|known| known.name == column));
    match only.iter().find(|(column, _)| !has(column)) {
        Some((column, _)) => {
            Err(AskError::NotKept(format!("{table} does not tell coupons apart by {column}")))
        }
        None => Ok(only_text(only)),
    }
}

/// A table of statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name, which is its view's.
    pub name: &'static str,
    /// How far it is; None = it has not begun.
    pub position: Option<i64>,
    /// The columns of its view.
    pub columns: Vec<&'static str>,
}

/// Every table of statistics, and the point of the log that all of them have come to.
pub async fn tables(store: &Store) -> Result<(AsOf, Vec<Table>), StoreError> {
    let sql = format!("{REACHED} WHERE c.bucket = $1");
    let rows = store.look(vec![Look { sql, parameters: vec![BUCKET.into()] }]).await?;
    let rows: Vec<&Row> = rows.iter().flatten().collect();
    let reached = |table: &str| rows.iter().find(|row| row.text(0) == table);
    let table = |statistic: &Statistic| Table {
        name: statistic.name,
        position: reached(statistic.table).map(|row| row.int(1)),
        columns: statistic.columns.iter().map(|column| column.name).collect(),
    };
    let all_have =
        all().iter().map(|statistic| reached(statistic.table)).min_by_key(|row| row.map(|row| row.int(1)));
    let as_of = all_have
        .flatten()
        .map_or_else(AsOf::default, |row| AsOf { position: row.int(1), recorded_at_ms: row.int(2) });
    Ok((as_of, all().iter().map(table).collect()))
}

/// Lines in the making: their sums by name, by period and key.
#[derive(Default)]
struct Lines(BTreeMap<(usize, Vec<i64>), BTreeMap<&'static str, i64>>);

impl Lines {
    fn entry(&mut self, period: usize, key: Vec<i64>) -> &mut BTreeMap<&'static str, i64> {
        self.0.entry((period, key)).or_default()
    }

    /// Puts what a statement of each period answered.
    fn put(&mut self, rows: &[&Row], question: &Question, names: &[&'static str]) {
        for row in rows {
            let Some((period, key)) = whose(row, question) else { continue };
            let sums = self.entry(period, key);
            for (place, name) in (1 + question.by.len()..).zip(names) {
                *sums.entry(name).or_default() += row.int(place);
            }
        }
    }
}

/// Which line a row of a statement of each period belongs to.
pub(super) fn whose(row: &Row, question: &Question) -> Option<(usize, Vec<i64>)> {
    let period = question.periods.binary_search_by_key(&row.int(0), |period| period.start).ok()?;
    Some((period, (1..=question.by.len()).map(|place| row.int(place)).collect()))
}

/// What one answer is put together from: where each part's rows are.
#[derive(Default)]
struct Parts {
    /// The sums that the measures need, in the order of their columns.
    sums: Vec<&'static str>,
    /// Those of them that are levels.
    levels: Vec<&'static str>,
    summed: Vec<Place>,
    opening: Vec<Place>,
    median: Vec<Place>,
    members: Option<Members>,
}

/// Answers a question.
pub async fn ask(store: &Store, question: &Question) -> Result<Answer, AskError> {
    refuse_what_has_no_meaning(question)?;
    let mut plan = Plan { question, looks: Vec::new(), tables: BTreeSet::new() };
    let mut parts = plan.parts()?;
    let Plan { looks, tables, .. } = plan;
    let (as_of, Gathered { rows, members }) = gather(store, &tables, looks, parts.members.take()).await?;
    if rows.iter().any(|rows| rows.len() > MAX_GROUPS) {
        return Err(AskError::TooMany);
    }
    let of = |places: &[Place]| -> Vec<&Row> {
        places.iter().filter_map(|place| rows.get(*place)).flatten().collect()
    };
    let mut lines = Lines::default();
    lines.put(&of(&parts.summed), question, &parts.sums);
    raise_levels(&mut lines, &of(&parts.opening), question, &parts.levels)?;
    for ((period, key), found) in members.into_iter().flat_map(Members::found) {
        lines.entry(period, key).extend(["members", "returning_members"].into_iter().zip(found));
    }
    put_medians(&mut lines, &of(&parts.median), question);
    if lines.0.len() > MAX_GROUPS {
        return Err(AskError::TooMany);
    }
    let line = |((period, key), sums): ((usize, Vec<i64>), BTreeMap<&'static str, i64>)| Line {
        period,
        key,
        values: question.measures.iter().map(|measure| value(*measure, &sums)).collect(),
    };
    Ok(Answer { as_of, lines: lines.0.into_iter().map(line).collect() })
}

impl Question {
    /// Every column that something is told apart by, or chosen by.
    pub(super) fn told_apart(&self) -> impl Iterator<Item = &&'static str> {
        self.by.iter().chain(self.only.iter().map(|(column, _)| column))
    }

    /// Whether it asks for members of what no sets are kept of: the longest there is to an answer.
    #[must_use]
    pub fn counts_uses_one_by_one(&self) -> bool {
        let of_members = |one: &Measure| matches!(one, Measure::Members | Measure::ReturningMembers);
        self.measures.iter().any(of_members) && are_counted_by_uses(self)
    }

    /// Whether a measure can be told so. What an issue and a use go into cannot be told by what only one of them has.
    #[must_use]
    pub fn has_meaning(&self, measure: Measure) -> bool {
        let of_both = matches!(
            measure,
            Measure::Level(_) | Measure::RedemptionRate | Measure::Sum("expired" | "expired_cents")
        );
        !of_both || !self.told_apart().any(|column| OF_ONE_SIDE.contains(column))
    }
}

fn refuse_what_has_no_meaning(question: &Question) -> Result<(), AskError> {
    if question.measures.iter().all(|measure| question.has_meaning(*measure)) {
        return Ok(());
    }
    let column = question.told_apart().find(|column| OF_ONE_SIDE.contains(*column)).copied();
    Err(AskError::NotKept(format!(
        "a coupon is issued at no shop and expires at none: what is outstanding, what expired and redemption_rate are not told by {}",
        column.unwrap_or_default(),
    )))
}

impl Plan<'_> {
    /// Plans what the measures need.
    fn parts(&mut self) -> Result<Parts, AskError> {
        let measures = &self.question.measures;
        let by_age = self.question.told_apart().any(|column| *column == "age_days");
        let mut sums: BTreeSet<&'static str> =
            measures.iter().flat_map(|one| one.sums(by_age)).copied().collect();
        let mut parts = Parts::default();
        for measure in measures {
            match measure {
                Measure::Sum(column) => drop(sums.insert(column)),
                Measure::Level(column) => {
                    sums.insert(column);
                    parts.levels.push(column);
                }
                _ => {}
            }
        }
        parts.sums = sums.into_iter().collect();
        if !parts.sums.is_empty() {
            let tables = self.tables(&parts.sums)?;
            parts.summed = self.of_periods(tables, (&added(&parts.sums), "", ""));
            if !parts.levels.is_empty() {
                parts.opening = self.opening(tables, &parts.levels);
            }
        }
        if measures.contains(&Measure::MedianDays) {
            let tables = self.tables(&["age_days", "used"])?;
            let select = format!(", t.age_days{}", added(&["used"]));
            parts.median = self.of_periods(tables, (&select, " AND t.used <> 0", ", t.age_days"));
        }
        if measures.contains(&Measure::Members) || measures.contains(&Measure::ReturningMembers) {
            let uses = self.tables(&["member_id", "used", "redemption_id"])?.days;
            let members = Members::new(self.question, uses);
            self.tables.extend(members.tables());
            parts.members = Some(members);
        }
        Ok(parts)
    }

    /// What levels came to before the first period.
    fn opening(&mut self, tables: Tables, levels: &[&'static str]) -> Vec<Place> {
        let first = self.question.periods.first().map_or(0, |period| period.start);
        let (days, months) = match tables.months {
            Some(_) => ([first, first / 100 * 100, first - 1], vec![[first, 0, first / 100 - 1]]),
            None => ([first, 0, first - 1], Vec::new()),
        };
        self.of_times(tables, (vec![days], months), (&added(levels), "", ""))
    }
}

/// Makes of what each period changed what there is at its end.
fn raise_levels(
    lines: &mut Lines,
    opening: &[&Row],
    question: &Question,
    levels: &[&'static str],
) -> Result<(), AskError> {
    if levels.is_empty() {
        return Ok(());
    }
    let by = question.by.len();
    let mut reached: BTreeMap<Vec<i64>, Vec<i64>> = BTreeMap::new();
    for row in opening {
        let key = (1..=by).map(|place| row.int(place)).collect();
        let level = reached.entry(key).or_insert_with(|| vec![0; levels.len()]);
        for (level, place) in level.iter_mut().zip(by + 1..) {
            *level += row.int(place);
        }
    }
    for (_, key) in lines.0.keys() {
        reached.entry(key.clone()).or_insert_with(|| vec![0; levels.len()]);
    }
    for (key, mut level) in reached {
        for period in 0..question.periods.len() {
            let changed = lines.0.get(&(period, key.clone()));
            for (reached, name) in level.iter_mut().zip(levels) {
                *reached += changed.and_then(|sums| sums.get(name)).copied().unwrap_or_default();
            }
            if changed.is_some() || level.iter().any(|level| *level != 0) {
                let sums = lines.entry(period, key.clone());
                sums.extend(levels.iter().copied().zip(level.iter().copied()));
            }
            // What has not ended is there in every period: that may be far more than was summed.
            if lines.0.len() > MAX_GROUPS {
                return Err(AskError::TooMany);
            }
        }
    }
    Ok(())
}

/// The lower of the two in the middle, where two are.
fn put_medians(lines: &mut Lines, rows: &[&Row], question: &Question) {
    let mut ages: BTreeMap<(usize, Vec<i64>), BTreeMap<i64, i64>> = BTreeMap::new();
    let place = question.by.len() + 1;
    for row in rows {
        let Some(line) = whose(row, question) else { continue };
        *ages.entry(line).or_default().entry(row.int(place)).or_default() += row.int(place + 1);
    }
    for ((period, key), ages) in ages {
        let all: i64 = ages.values().sum();
        let mut seen = 0;
        let median = ages.iter().find(|(_, uses)| {
            seen += **uses;
            seen * 2 >= all
        });
        if let Some((median, _)) = median.filter(|_| all > 0) {
            lines.entry(period, key).insert("median_days", *median);
        }
    }
}

fn value(measure: Measure, sums: &BTreeMap<&'static str, i64>) -> Value {
    let sum = |name: &str| sums.get(name).copied().unwrap_or_default();
    let part = |of: i64, all: i64, digits: i32| {
        if all == 0 {
            return Value::None;
        }
        let scale = 10_f64.powi(digits);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a share is not exact, and says no more digits than it has"
        )]
        let share = of as f64 / all as f64;
        Value::Part((share * scale).round() / scale)
    };
    match measure {
        Measure::Sum(name) | Measure::Level(name) => Value::Whole(sum(name)),
        // Of each there is the one or the other.
        Measure::Used => Value::Whole(sum("redeemed") - sum("reversed") + sum("used")),
        Measure::UsedCents => Value::Whole(sum("redeemed_cents") - sum("reversed_cents") + sum("used_cents")),
        Measure::AverageScore => part(sum("score"), sum("reviewed"), 2),
        Measure::RedemptionRate => part(sum("redeemed") - sum("reversed"), sum("issued"), 4),
        Measure::MedianDays => sums.get("median_days").map_or(Value::None, |days| Value::Whole(*days)),
        Measure::Members => Value::Whole(sum("members")),
        Measure::ReturningMembers => Value::Whole(sum("returning_members")),
    }
}

/// How far tables are: name, position, and when the event there was recorded.
const REACHED: &str = "SELECT c.name, c.value,
    COALESCE((SELECT recorded_at_ms FROM events AS e WHERE e.bucket = c.bucket AND e.position = c.value), 0)
  FROM checkpoints AS c";

/// What these statements answer, and the position that all of their tables are at.
pub(super) async fn look(
    store: &Store,
    tables: &BTreeSet<&'static str>,
    looks: Vec<Look>,
) -> Result<(AsOf, Vec<Vec<Row>>), AskError> {
    let (as_of, gathered) = gather(store, tables, looks, None).await?;
    Ok((as_of, gathered.rows))
}

/// What an answer's rows are gathered in: each statement's own, and of members only who they are.
struct Gathered {
    rows: Vec<Vec<Row>>,
    members: Option<Members>,
}

impl Gathered {
    fn take(&mut self, place: Place, row: Row) -> Result<(), StoreError> {
        let behind = self.rows.len();
        match (self.rows.get_mut(place), &mut self.members) {
            (Some(rows), _) => rows.push(row),
            (None, Some(members)) => members.take(place - behind, &row)?,
            (None, None) => {}
        }
        Ok(())
    }
}

async fn gather(
    store: &Store,
    tables: &BTreeSet<&'static str>,
    mut looks: Vec<Look>,
    members: Option<Members>,
) -> Result<(AsOf, Gathered), AskError> {
    let places: Vec<String> = (2..2 + tables.len()).map(|place| format!("${place}")).collect();
    let names = tables.iter().map(|table| Cell::from(*table));
    looks.push(Look {
        sql: format!("{REACHED} WHERE c.bucket = $1 AND c.name IN ({})", places.join(", ")),
        parameters: std::iter::once(BUCKET.into()).chain(names).collect(),
    });
    let rows = vec![Vec::new(); looks.len()];
    let of_members = members.as_ref().map(Members::statements).unwrap_or_default();
    looks.extend(of_members.into_iter().map(|sql| Look { sql, parameters: vec![BUCKET.into()] }));
    let mut gathered = store.look_at_each(looks, Gathered { rows, members }, Gathered::take).await?;
    let reached = gathered.rows.pop().unwrap_or_default();
    let position = reached.iter().map(|row| row.int(1)).min().unwrap_or_default();
    let behind = tables.iter().find(|table| {
        !reached.iter().any(|row| row.text(0) == **table)
            || reached.iter().any(|row| row.text(0) == **table && row.int(1) != position)
            || reached.iter().any(|row| row.int(1) != position)
    });
    if let Some(table) = behind {
        return Err(AskError::BeingCounted(table));
    }
    let recorded_at_ms = reached.first().map_or(0, |row| row.int(2));
    Ok((AsOf { position, recorded_at_ms }, gathered))
}

/// The figures of what nothing happened to.
#[must_use]
pub fn nothing(question: &Question) -> Vec<Value> {
    question.measures.iter().map(|measure| value(*measure, &BTreeMap::new())).collect()
}
