//! What is written down of a rebuild: how far it is, and what it came to.

use serde::{Deserialize, Serialize};

use super::fold::Digests;
use super::{RebuildError, names, tables};
use crate::store::rebuild::OLD;
use crate::store::{Cell, LiveTable, Row, Statement, Store, StoreError};

/// How far a rebuild is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Streams are folded into the new tables.
    Filling,
    /// The new tables are compared with the old.
    Comparing,
    /// The new tables are live, the old ones are kept.
    Swapped,
    /// The old ones are gone too.
    Done,
    /// Begun anew, or dropped.
    GivenUp,
}

impl State {
    const ALL: [Self; 5] = [Self::Filling, Self::Comparing, Self::Swapped, Self::Done, Self::GivenUp];

    fn number(self) -> i64 {
        Self::ALL.iter().zip(0..).find(|(state, _)| **state == self).map_or(0, |(_, number)| number)
    }

    fn from_number(number: i64) -> Self {
        Self::ALL.iter().zip(0..).find(|(_, own)| *own == number).map_or(Self::GivenUp, |(state, _)| *state)
    }

    /// Whether there is something left to do.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Filling | Self::Comparing)
    }
}

/// A column whose old value was not what the log gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cells {
    /// Its name.
    pub column: String,
    /// What stood there.
    pub old: serde_json::Value,
    /// What stands there now.
    pub new: serde_json::Value,
}

/// What is wrong with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// It was not there.
    Missing,
    /// It was there, and nothing in the log gives it.
    Extra,
    /// Some of its columns were others.
    Other,
}

/// A live row that was not what the log gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// In which table.
    pub table: String,
    /// The names and numbers of its key.
    pub key: serde_json::Map<String, serde_json::Value>,
    /// What was wrong.
    pub wrong: Wrong,
    /// Which columns, where some were others.
    pub cells: Vec<Cells>,
}

impl Difference {
    /// Between an old row and a new one of the same key; None where there is none.
    pub(super) fn between(
        table: &LiveTable,
        key: &[i64],
        old: Option<&[Cell]>,
        new: Option<&[Cell]>,
    ) -> Option<Self> {
        let (wrong, cells) = match (old, new) {
            (None, Some(_)) => (Wrong::Missing, Vec::new()),
            (Some(_), None) => (Wrong::Extra, Vec::new()),
            (Some(old), Some(new)) if old != new => (Wrong::Other, differing(table, old, new)),
            _ => return None,
        };
        let names = table.columns.iter().map(|column| column.name().to_owned());
        let key = names.zip(key.iter().map(|part| (*part).into())).collect();
        Some(Self { table: table.name.to_owned(), key, wrong, cells })
    }

    /// In words, a line for each column.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let key: Vec<String> = self.key.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let place = format!("{} {}", self.table, key.join(" "));
        match self.wrong {
            Wrong::Missing => vec![format!("{place}: was missing")],
            Wrong::Extra => vec![format!("{place}: nothing in the log gives this row")],
            Wrong::Other => {
                let line = |cells: &Cells| format!("{place} {}: {} → {}", cells.column, cells.old, cells.new);
                self.cells.iter().map(line).collect()
            }
        }
    }
}

fn differing(table: &LiveTable, old: &[Cell], new: &[Cell]) -> Vec<Cells> {
    let value = |cell: &Cell| match cell {
        Cell::Int(value) => serde_json::Value::from(*value),
        Cell::Text(value) => value.as_str().into(),
    };
    let pairs = table.columns.iter().zip(old.iter().zip(new)).filter(|(_, (old, new))| old != new);
    let cells = pairs.map(|(column, (old, new))| Cells {
        column: column.name().to_owned(),
        old: value(old),
        new: value(new),
    });
    cells.collect()
}

/// A table that was made anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableReport {
    /// Its name.
    pub table: String,
    /// The digest of its rows before: the new one with the differences taken back.
    pub old_digest: String,
    /// The digest of its rows as the log gives them, at the report's position.
    pub new_digest: String,
    /// How many rows differed.
    pub differences: u64,
}

/// What a rebuild came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The tables are what the log gives up to here.
    pub position: i64,
    /// Streams that were folded.
    pub streams: i64,
    /// Their events.
    pub events: i64,
    /// From its first beginning to the swap.
    pub took_ms: i64,
    /// How long writers waited for the swap, in microseconds; 0 where that was not written down in time.
    pub held_us: u64,
    /// Table by table.
    pub tables: Vec<TableReport>,
    /// Rows that differed, in all.
    pub difference_count: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
}

/// A rebuild.
#[derive(Clone, Debug)]
pub struct Rebuild {
    /// Its number.
    pub id: i64,
    /// Which tables are made anew.
    pub tables: Vec<&'static LiveTable>,
    /// How far it is.
    pub state: State,
    /// When it was begun first, Unix milliseconds.
    pub begun_at_ms: i64,
    /// The position that the tables are filled as of.
    pub began_at: i64,
    /// The position that they have been brought up to.
    pub position: i64,
    /// Streams that are folded.
    pub streams: i64,
    /// Their events.
    pub events: i64,
    /// What it came to.
    pub report: Option<Report>,
    /// Why it stopped, where it did.
    pub failed: Option<String>,
    pub(super) made_by: String,
    pub(super) kind: usize,
    pub(super) after_id: String,
    pub(super) digests: Digests,
}

#[derive(Serialize, Deserialize)]
struct Failed {
    failed: String,
}

/// Every column, with what follows.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT rebuild_id, models, made_by, state, begun_at_ms, began_at, position, kind, after_id, streams,
                    events, digests, report FROM rebuilds ",
            $rest
        )
    };
}

impl Rebuild {
    /// The one with a number, or the last.
    pub(super) async fn read(store: &Store, id: Option<i64>) -> Result<Option<Self>, RebuildError> {
        let statement = match id {
            Some(id) => Statement::new(select!("WHERE rebuild_id = $1"), [id.into()]),
            None => Statement::new(select!("ORDER BY rebuild_id DESC LIMIT 1"), []),
        };
        let rows = store.query(statement).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let corrupt = |column: &str| StoreError::Corrupt {
            table: "rebuilds".to_owned(),
            column: column.to_owned(),
            what: format!("rebuild {} has what no program wrote", row.int(0)),
        };
        Ok(Some(Self {
            id: row.int(0),
            tables: tables(row.text(1)).map_err(|_| corrupt("models"))?,
            made_by: row.text(2).to_owned(),
            state: State::from_number(row.int(3)),
            begun_at_ms: row.int(4),
            began_at: row.int(5),
            position: row.int(6),
            kind: usize::try_from(row.int(7)).map_err(|_| corrupt("kind"))?,
            after_id: row.text(8).to_owned(),
            streams: row.int(9),
            events: row.int(10),
            digests: Digests::from_json(row.text(11)).ok_or_else(|| corrupt("digests"))?,
            report: serde_json::from_str(row.text(12)).ok(),
            failed: serde_json::from_str(row.text(12)).ok().map(|Failed { failed }| failed),
        }))
    }

    pub(super) fn insert(&self) -> Statement {
        let sql = "INSERT INTO rebuilds (rebuild_id, models, made_by, state, begun_at_ms, ended_at_ms, began_at, position,
                                         kind, after_id, streams, events, digests, report)
                   VALUES ($1, $2, $3, $4, $5, 0, $6, $7, 0, '', 0, 0, '{}', '')";
        let Self { id, state, begun_at_ms, began_at, position, .. } = self;
        let cells: [Cell; 7] = [
            (*id).into(),
            names(&self.tables).into(),
            self.made_by.as_str().into(),
            state.number().into(),
            (*begun_at_ms).into(),
            (*began_at).into(),
            (*position).into(),
        ];
        Statement::new(sql, cells)
    }

    /// How far it is now.
    pub(super) fn progress(&self) -> Statement {
        let sql = "UPDATE rebuilds SET state = $2, position = $3, kind = $4, after_id = $5, streams = $6, events = $7,
                                       digests = $8, report = '' WHERE rebuild_id = $1";
        let cells: [Cell; 8] = [
            self.id.into(),
            self.state.number().into(),
            self.position.into(),
            (self.kind as i64).into(),
            self.after_id.as_str().into(),
            self.streams.into(),
            self.events.into(),
            self.digests.to_json().into(),
        ];
        Statement::new(sql, cells)
    }

    /// What it came to.
    pub(super) fn end(&self, report: &Report, ended_at_ms: i64) -> Statement {
        let sql = "UPDATE rebuilds SET ended_at_ms = $2, report = $3 WHERE rebuild_id = $1";
        let report = serde_json::to_string(report).unwrap_or_default();
        Statement::new(sql, [self.id.into(), ended_at_ms.into(), report.into()])
    }

    /// Why it stopped. Never over a report.
    pub(super) fn fail(&self, error: &RebuildError) -> Statement {
        let failed = serde_json::to_string(&Failed { failed: error.to_string() }).unwrap_or_default();
        let sql = "UPDATE rebuilds SET report = $2 WHERE rebuild_id = $1 AND ended_at_ms = 0";
        Statement::new(sql, [self.id.into(), failed.into()])
    }

    /// Ends those of whose old tables nothing is kept any more; of the others something is.
    pub(super) async fn without_old(store: &Store, kept: &[String]) -> Result<Vec<Statement>, StoreError> {
        let sql = "SELECT rebuild_id, models FROM rebuilds WHERE state = $1";
        let swapped = store.query(Statement::new(sql, [State::Swapped.number().into()])).await?;
        let is_kept = |row: &Row| {
            row.text(1).split(',').any(|table| kept.iter().any(|kept| *kept == format!("{table}{OLD}")))
        };
        let done = swapped.iter().filter(|row| !is_kept(row)).map(|row| {
            let sql = "UPDATE rebuilds SET state = $2 WHERE rebuild_id = $1";
            Statement::new(sql, [row.int(0).into(), State::Done.number().into()])
        });
        Ok(done.collect())
    }

    /// Moves all from one state to another.
    pub(super) fn move_all(from: State, to: State) -> Statement {
        let sql = "UPDATE rebuilds SET state = $2 WHERE state = $1";
        Statement::new(sql, [from.number().into(), to.number().into()])
    }
}
