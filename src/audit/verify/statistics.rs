//! The statistics: counted anew from the events, in a scratch ledger, and every row of theirs held against what that gives.
//!
//! The follower goes on meanwhile. So some rows are read together with the position that their table is at, at one instant;
//! the scratch is counted up to there, and the same part of the key is read from it.

use std::collections::BTreeMap;

use super::{Finding, Totals, VerifyError};
use crate::statistics::{Statistics, StatisticsError, zone_counted};
use crate::store::statistics::{Statistic, statistics};
use crate::store::{BUCKET, Cell, Look, OpenError, Row, Scratch, Store, StoreError};

/// Rows of one read, and of one that has texts, which may be long.
const ROWS: usize = 2_000;
const ROWS_WITH_TEXTS: usize = 100;

/// How often a table may go back to an earlier position while it is looked at: each time is a beginning.
const BEGINNINGS: usize = 3;

/// Rows by their keys.
type Rows = BTreeMap<Vec<i64>, Vec<Cell>>;

fn rows_of_one_read(statistic: &Statistic) -> usize {
    if statistic.columns.iter().any(|column| column.is_text) { ROWS_WITH_TEXTS } else { ROWS }
}

/// Holds every statistic against the events.
pub(super) async fn check(store: &Store, totals: &mut Totals) -> Result<(), VerifyError> {
    for beginning in 1..=BEGINNINGS {
        let scratch = Scratch::temporary().await.map_err(no_scratch)?;
        let mut found = Totals::default();
        let looked = check_with(&scratch, store, &mut found).await;
        scratch.close().await;
        match looked {
            Ok(true) => {
                totals.add(found);
                return Ok(());
            }
            // What is counted anew meanwhile is looked at once more; one that never stands is a finding.
            Ok(false) if beginning < BEGINNINGS => {}
            Ok(false) => totals.find(wrong("its position goes back again and again".to_owned())),
            Err(CheckError::Verify(error)) => return Err(error),
            Err(CheckError::Count(StatisticsError::Store(error))) => return Err(error.into()),
            Err(CheckError::Count(error)) => {
                totals.find(wrong(format!("they cannot be counted anew: {error}")));
                return Ok(());
            }
        }
    }
    Ok(())
}

enum CheckError {
    Verify(VerifyError),
    Count(StatisticsError),
}

impl From<StoreError> for CheckError {
    fn from(error: StoreError) -> Self {
        Self::Verify(error.into())
    }
}

impl From<StatisticsError> for CheckError {
    fn from(error: StatisticsError) -> Self {
        Self::Count(error)
    }
}

fn wrong(what: String) -> Finding {
    Finding::new(0, "statistics", "all rows", what)
}

fn no_scratch(error: OpenError) -> VerifyError {
    let what = error.to_string();
    let corrupt = StoreError::Corrupt { table: "a scratch ledger".to_owned(), column: String::new(), what };
    VerifyError::Store(if let OpenError::Store(error) = error { error } else { corrupt })
}

/// Whether it came to an end: not where a table is at an earlier position than one that was looked at.
async fn check_with(scratch: &Scratch, store: &Store, totals: &mut Totals) -> Result<bool, CheckError> {
    // Those that are behind come first: the scratch is only counted on.
    let mut at = Vec::new();
    for statistic in statistics().map_err(StatisticsError::from)? {
        let (position, rows) = part(store, statistic, None).await?;
        at.push((position.unwrap_or_default(), rows.is_empty(), statistic));
    }
    at.sort_by_key(|(position, ..)| *position);
    let Some(zone) = zone_counted(store).await? else {
        // Where no day was counted there is nothing to count.
        if at.iter().any(|(position, is_empty, _)| *position > 0 || !is_empty) {
            totals.find(wrong("it does not say in which time zone days were counted".to_owned()));
        }
        return Ok(true);
    };
    let again = scratch.store();
    let mut counting = Statistics::new(zone).map_err(StatisticsError::from)?;
    let mut counted = 0;
    for (_, _, statistic) in at {
        let mut behind = None;
        loop {
            let (position, theirs) = part(store, statistic, behind.as_deref()).await?;
            // It is about to begin anew.
            let Some(position) = position else { break };
            let head = store.head().await?;
            if position > head {
                let what = format!("it is as of position {position}, and the log ends at {head}");
                totals.find(Finding::new(0, statistic.table, "all rows", what));
                break;
            }
            if position < counted {
                return Ok(false);
            }
            counting.count_until(store, &again, position).await?;
            counted = position;
            let (_, ours) = part(&again, statistic, behind.as_deref()).await?;
            let many = rows_of_one_read(statistic);
            let last = |rows| last_of_many(rows, many);
            let end = [&theirs, &ours].into_iter().filter_map(last).min().cloned();
            compare(statistic, position, (&theirs, &ours), end.as_deref(), totals);
            if end.is_none() {
                break;
            }
            behind = end;
        }
    }
    Ok(true)
}

/// The last key of as many rows as one read has: there may be more behind it.
fn last_of_many(rows: &Rows, many: usize) -> Option<&Vec<i64>> {
    (rows.len() >= many).then(|| rows.keys().next_back()).flatten()
}

/// The first rows of a statistic behind a key, and the position that it is as of.
async fn part(
    store: &Store,
    statistic: &Statistic,
    behind: Option<&[i64]>,
) -> Result<(Option<i64>, Rows), StoreError> {
    let key = statistic.key.join(", ");
    let names: Vec<&str> = statistic.columns.iter().map(|column| column.name).collect();
    let places = (3..).take(statistic.key.len()).map(|place| format!("${place}")).collect::<Vec<_>>();
    let from = behind.map_or(String::new(), |_| format!(" AND ({key}) > ({})", places.join(", ")));
    let rows = Look {
        sql: format!(
            "SELECT {key}, {} FROM {} WHERE bucket = $1{from} ORDER BY {key} LIMIT $2",
            names.join(", "),
            statistic.table
        ),
        parameters: [BUCKET.into(), Cell::from(rows_of_one_read(statistic) as i64)]
            .into_iter()
            .chain(behind.into_iter().flatten().map(|id| Cell::from(*id)))
            .collect(),
    };
    let position = Look {
        sql: "SELECT value FROM checkpoints WHERE bucket = $1 AND name = $2".to_owned(),
        parameters: vec![BUCKET.into(), statistic.table.into()],
    };
    let mut answers = store.look(vec![rows, position]).await?.into_iter();
    let (rows, position) = (answers.next().unwrap_or_default(), answers.next().unwrap_or_default());
    let keys = statistic.key.len();
    let row = |mut row: Row| {
        let cells = row.0.split_off(keys);
        ((0..keys).map(|place| row.int(place)).collect(), cells)
    };
    Ok((position.first().map(|row| row.int(0)), rows.into_iter().map(row).collect()))
}

/// Holds some rows against what the events give, up to a key.
fn compare(
    statistic: &Statistic,
    position: i64,
    (theirs, ours): (&Rows, &Rows),
    end: Option<&[i64]>,
    totals: &mut Totals,
) {
    let within = |key: &&Vec<i64>| end.is_none_or(|end| key.as_slice() <= end);
    let row = |key: &[i64]| {
        let named = statistic.key.iter().zip(key).map(|(name, id)| format!("{name} {id}"));
        named.collect::<Vec<_>>().join(", ")
    };
    let says_something = |cells: &[Cell]| {
        let mut sums = statistic.columns.iter().zip(cells).filter(|(column, _)| column.is_sum);
        sums.any(|(_, sum)| *sum != Cell::Int(0))
    };
    totals.rows += theirs.keys().filter(within).count() as u64;
    for (key, expected) in ours.iter().filter(|(key, _)| within(key)) {
        let Some(found) = theirs.get(key) else {
            if says_something(expected) {
                let what = format!("it is missing as of position {position}");
                totals.find(Finding::new(0, statistic.table, row(key), what));
            }
            continue;
        };
        let cells = statistic.columns.iter().zip(found.iter().zip(expected));
        for (column, (found, expected)) in cells.filter(|(_, (found, expected))| found != expected) {
            let what = match (found, expected) {
                (Cell::Int(found), Cell::Int(expected)) => format!(
                    "{} is {found}, and the events up to position {position} give {expected}",
                    column.name
                ),
                _ => format!("{} is not what the events up to position {position} give", column.name),
            };
            totals.find(Finding::new(0, statistic.table, row(key), what));
        }
    }
    // A line of nothing but noughts says nothing, and where ranges end decides whether there is one.
    let unknown =
        theirs.iter().filter(|(key, found)| within(key) && !ours.contains_key(*key) && says_something(found));
    for (key, _) in unknown {
        let what = format!("no event up to position {position} gives it");
        totals.find(Finding::new(0, statistic.table, row(key), what));
    }
}
