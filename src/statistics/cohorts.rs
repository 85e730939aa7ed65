//! What became of the coupons that were issued in a period: cohorts and funnels.

use std::collections::BTreeSet;

use super::ask::{AsOf, AskError, MAX_GROUPS, look, only_sql};
use super::period::{Period, days_between, values};
use crate::store::{BUCKET, Cell, Look, Row, Store};

const TABLE: &str = "stats_cohorts_v1";

/// A question.
#[derive(Clone, Debug)]
pub struct Cohorts {
    /// The periods in which coupons were issued.
    pub issued: Vec<Period>,
    /// The periods in which something happened to them.
    pub happened: Vec<Period>,
    /// Of which coupons.
    pub only: Vec<(&'static str, Vec<i64>)>,
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
    // The plus: by the days of issue, not all days for each of them.
    let sql = format!(
        "WITH periods (starts, ends) AS (VALUES {})
         SELECT p.starts, t.day, CAST(SUM(t.issued) AS BIGINT), CAST(SUM(t.seen) AS BIGINT), CAST(SUM(t.used) AS BIGINT)
         FROM periods AS p CROSS JOIN {TABLE} AS t
         WHERE t.bucket = $1 AND t.issue_day >= p.starts AND t.issue_day <= p.ends AND +t.day <= $2{}
         GROUP BY p.starts, t.day",
        values(question.issued.iter().map(|period| [period.start, period.end])),
        only_sql(&question.only, TABLE)?,
    );
    let looks = if cohorts.is_empty() {
        Vec::new()
    } else {
        vec![Look { sql, parameters: [BUCKET, until].map(Cell::from).into() }]
    };
    let (as_of, rows) = look(store, &BTreeSet::from([TABLE]), looks).await?;
    for row in rows.first().into_iter().flatten() {
        let place = cohorts.partition_point(|cohort| cohort.start < row.int(0));
        let Some(cohort) = cohorts.get_mut(place) else { continue };
        cohort.issued += row.int(2);
        let day = row.int(1);
        let place = question.happened.partition_point(|period| period.end < day);
        if let Some(happened) = cohort.happened.get_mut(place) {
            happened.seen += row.int(3);
            happened.used += row.int(4);
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
    let sql = format!(
        "SELECT CAST(COALESCE(SUM(t.issued), 0) AS BIGINT), CAST(COALESCE(SUM(t.seen), 0) AS BIGINT),
                CAST(COALESCE(SUM(t.used), 0) AS BIGINT)
         FROM {TABLE} AS t WHERE t.bucket = $1 AND t.issue_day >= $2 AND t.issue_day <= $3{}",
        only_sql(only, TABLE)?,
    );
    let parameters = [BUCKET, period.start, period.end].map(Cell::from).into();
    let (as_of, rows) = look(store, &BTreeSet::from([TABLE]), vec![Look { sql, parameters }]).await?;
    let none = Row(Vec::new());
    let row = rows.first().and_then(|rows| rows.first()).unwrap_or(&none);
    Ok((as_of, Funnel { issued: row.int(0), seen: row.int(1), used: row.int(2) }))
}
