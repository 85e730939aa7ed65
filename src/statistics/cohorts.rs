//! What became of the coupons that were issued in a period: cohorts and funnels.
//!
//! A coupon is issued and opened at no shop. Asked about a shop or an employee, what was issued and opened is all of it, and
//! what was used is what was used there: that is asked of the uses themselves.

use std::collections::BTreeSet;

use super::ask::{AsOf, AskError, MAX_GROUPS, OF_ONE_SIDE, Question, look, only_sql, walked};
use super::period::{Period, days_between, values};
use super::uses;
use crate::store::{BUCKET, Cell, Look, Row, Store};

const TABLE: &str = "stats_cohorts_v1";

/// The same without the days on which something happened.
const FUNNELS: &str = "stats_funnels_v1";

/// A question.
#[derive(Clone, Debug)]
pub struct Cohorts {
    /// The periods in which coupons were issued.
    pub issued: Vec<Period>,
    /// The periods in which something happened to them.
    pub happened: Vec<Period>,
    /// Of which coupons; with a shop or an employee, of which uses.
    pub only: Only,
}

/// Only what has one of these numbers in a column.
type Only = Vec<(&'static str, Vec<i64>)>;

/// What is said of coupons, without what is said of their uses; whether something is.
fn of_coupons(only: &[(&'static str, Vec<i64>)]) -> (Only, bool) {
    let (of_uses, of_coupons): (Only, Only) =
        only.iter().cloned().partition(|(column, _)| OF_ONE_SIDE.contains(column));
    (of_coupons, !of_uses.is_empty())
}

/// How many uses of these days, of coupons of those days, stand; with columns to be told apart by.
fn used(
    only: &[(&'static str, Vec<i64>)],
    (issued, happened): (Period, Period),
    by: &str,
) -> Result<Look, AskError> {
    let question = Question { only: only.to_vec(), ..Question::default() };
    let (told, group) = if by.is_empty() {
        (String::new(), String::new())
    } else {
        (format!(", {by}"), format!("GROUP BY {by} LIMIT {}", MAX_SUMS + 1))
    };
    let sql = format!(
        "SELECT CAST(COALESCE(SUM(t.used), 0) AS BIGINT){told} FROM {} AS t
         WHERE t.bucket = $1 AND t.day >= $2 AND t.day <= $3 AND t.issue_day >= $4 AND t.issue_day <= $5{}{} {group}",
        uses::TABLE,
        only_sql(only, uses::TABLE)?,
        walked(uses::TABLE, &question),
    );
    let parameters = [BUCKET, happened.start, happened.end, issued.start, issued.end].map(Cell::from);
    Ok(Look { sql, parameters: parameters.into() })
}

/// What happened to a cohort in a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// Opened by somebody for the first time.
    pub seen: i64,
    /// Uses that stand.
    pub used: i64,
}

/// The coupons that were issued in a period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cohort {
    /// Their period's first day.
    pub start: i64,
    /// How many.
    pub issued: i64,
    /// What happened to them, by the question's periods.
    pub happened: Vec<Happened>,
}

impl Cohort {
    /// What happened in each period that was not over before the cohort began, and up to its end.
    pub fn so_far(&self, periods: &[Period]) -> impl Iterator<Item = (Period, Happened, Happened)> {
        let happened = periods.iter().zip(&self.happened).filter(move |(period, _)| period.end >= self.start);
        happened.scan(Happened::default(), |so_far, (period, now)| {
            so_far.seen += now.seen;
            so_far.used += now.used;
            Some((*period, *now, *so_far))
        })
    }
}

/// Sums of days that one question may add up.
const MAX_SUMS: usize = 400_000;

/// The last day that can be asked for.
const LAST_DAY: i64 = 99_991_231;

/// Each cohort, in the order of its periods.
pub async fn cohorts(store: &Store, question: &Cohorts) -> Result<(AsOf, Vec<Cohort>), AskError> {
    let (issued, happened) = (question.issued.len(), question.happened.len());
    let days = question.happened.first().zip(question.happened.last());
    let days = days.map_or(0, |(first, last)| days_between(first.start, last.end));
    if issued * happened > MAX_GROUPS || issued.saturating_mul(days) > MAX_SUMS {
        return Err(AskError::TooMany);
    }
    let empty = |period: &Period| Cohort {
        start: period.start,
        issued: 0,
        happened: vec![Happened::default(); question.happened.len()],
    };
    let mut cohorts: Vec<Cohort> = question.issued.iter().map(empty).collect();
    let until = question.happened.last().map_or(0, |period| period.end);
    let (of_coupons, of_uses) = of_coupons(&question.only);
    // The plus: by the days of issue, not all days for each of them. How many were issued is of all their days.
    let sql = format!(
        "WITH periods (starts, ends) AS (VALUES {})
         SELECT p.starts, t.day, CAST(SUM(t.issued) AS BIGINT), CAST(SUM(t.seen) AS BIGINT), CAST(SUM(t.used) AS BIGINT)
         FROM periods AS p CROSS JOIN {TABLE} AS t
         WHERE t.bucket = $1 AND t.issue_day >= p.starts AND t.issue_day <= p.ends AND (+t.day <= $2 OR t.issued > 0){}
         GROUP BY p.starts, t.day",
        values(question.issued.iter().map(|period| [period.start, period.end])),
        only_sql(&of_coupons, TABLE)?,
    );
    let (mut looks, mut tables) = (Vec::new(), BTreeSet::from([TABLE]));
    if let Some((first, last)) = question.issued.first().zip(question.issued.last()) {
        looks.push(Look { sql, parameters: [BUCKET, until].map(Cell::from).into() });
        if of_uses {
            let issued = Period { start: first.start, end: last.end };
            looks.push(used(
                &question.only,
                (issued, Period { start: first.start, end: until }),
                "t.issue_day, t.day",
            )?);
            tables.insert(uses::TABLE);
        }
    }
    let (as_of, rows) = look(store, &tables, looks).await?;
    let cohort_of = |day: i64| question.issued.partition_point(|period| period.end < day);
    let period_of = |day: i64| question.happened.partition_point(|period| period.end < day);
    for row in rows.first().into_iter().flatten() {
        let Some(cohort) = cohorts.get_mut(cohort_of(row.int(0))) else { continue };
        cohort.issued += row.int(2);
        if let Some(happened) = cohort.happened.get_mut(period_of(row.int(1))) {
            happened.seen += row.int(3);
            happened.used += if of_uses { 0 } else { row.int(4) };
        }
    }
    if rows.get(1).is_some_and(|rows| rows.len() > MAX_SUMS) {
        return Err(AskError::TooMany);
    }
    for row in rows.get(1).into_iter().flatten() {
        let cohort = cohorts.get_mut(cohort_of(row.int(1)));
        if let Some(happened) = cohort.and_then(|cohort| cohort.happened.get_mut(period_of(row.int(2)))) {
            happened.used += row.int(0);
        }
    }
    Ok((as_of, cohorts))
}

/// How many of the coupons of some days came how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Funnel {
    /// Issued.
    pub issued: i64,
    /// Opened by somebody.
    pub seen: i64,
    /// Used, and the use stands.
    pub used: i64,
}

/// The funnel of the coupons that were issued in a period.
pub async fn funnel(
    store: &Store,
    period: Period,
    only: &[(&'static str, Vec<i64>)],
) -> Result<(AsOf, Funnel), AskError> {
    let (of_coupons, of_uses) = of_coupons(only);
    let sql = format!(
        "SELECT CAST(COALESCE(SUM(t.issued), 0) AS BIGINT), CAST(COALESCE(SUM(t.seen), 0) AS BIGINT),
                CAST(COALESCE(SUM(t.used), 0) AS BIGINT)
         FROM {FUNNELS} AS t WHERE t.bucket = $1 AND t.issue_day >= $2 AND t.issue_day <= $3{}",
        only_sql(&of_coupons, FUNNELS)?,
    );
    let parameters = [BUCKET, period.start, period.end].map(Cell::from).into();
    let (mut looks, mut tables) = (vec![Look { sql, parameters }], BTreeSet::from([FUNNELS]));
    if of_uses {
        looks.push(used(only, (period, Period { end: LAST_DAY, ..period }), "")?);
        tables.insert(uses::TABLE);
    }
    let (as_of, rows) = look(store, &tables, looks).await?;
    let none = Row(Vec::new());
    let row = rows.first().and_then(|rows| rows.first()).unwrap_or(&none);
    let used = rows.get(1).and_then(|rows| rows.first()).map_or(row.int(2), |row| row.int(0));
    Ok((as_of, Funnel { issued: row.int(0), seen: row.int(1), used }))
}
