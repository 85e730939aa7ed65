//! Where the rows of a sheet come from: the log as of a position, or pages of what is not in the log.

use std::collections::HashMap;
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use super::{Column, ExportError, From, Line, Selection, Source, Value};
use crate::audit::at::AsOf;
use crate::audit::rows::{RowsOfRange, count_streams, rows_at};
use crate::clock::Zone;
use crate::ledger::Ledger;
use crate::read_model::{PARTNERS, SHOPS};
use crate::store::{Cell, LiveTable};

/// Some rows, and how to go on behind them.
#[derive(Debug, Default)]
pub struct Batch {
    /// Those that are wanted.
    pub lines: Vec<Line>,
    /// Where the source goes on; None at its end.
    pub next: Option<String>,
    /// How many streams, or rows, were looked at.
    pub seen: i64,
}

/// A sheet that is being read as of a position.
#[derive(Clone)]
pub struct Reading {
    /// From which ledger.
    pub ledger: Ledger,
    /// What is wanted.
    pub selection: Selection,
    /// As of when. What is not in the log is read as it is.
    pub as_of: AsOf,
    /// The names of shops and partners then.
    shops: Arc<HashMap<i64, String>>,
}

/// A live row, as of an instant.
pub struct Seen<'a> {
    table: &'static LiveTable,
    cells: &'a [Cell],
    /// The stock of its stream, where it has one.
    pub(super) stock: Option<i64>,
    /// The instant, Unix milliseconds.
    pub(super) at_ms: i64,
}

impl Seen<'_> {
    /// A number of the row.
    pub(super) fn int(&self, column: &str) -> i64 {
        match place(self.table, column).and_then(|place| self.cells.get(place)) {
            Some(Cell::Int(number)) => *number,
            _ => 0,
        }
    }

    /// A text of the row.
    pub(super) fn text(&self, column: &str) -> &str {
        match place(self.table, column).and_then(|place| self.cells.get(place)) {
            Some(Cell::Text(text)) => text,
            _ => "",
        }
    }
}

fn place(table: &LiveTable, column: &str) -> Option<usize> {
    table.columns.iter().position(|other| other.name() == column)
}

impl Reading {
    /// Begins to read.
    pub async fn begin(ledger: &Ledger, selection: Selection, as_of: AsOf) -> Result<Self, ExportError> {
        let by_name = |column: &Column| matches!(column.from, From::ShopName(_));
        let mut shops = HashMap::new();
        if selection.sheet.columns.iter().any(by_name) {
            let mut ranges = Box::pin(rows_at(ledger.store(), "shop", "", as_of.position));
            while let Some(range) = ranges.try_next().await? {
                shops.extend(range.rows.iter().map(|row| {
                    let seen = Seen { table: row.table, cells: &row.cells, stock: None, at_ms: as_of.at_ms };
                    debug_assert!([SHOPS.name, PARTNERS.name].contains(&row.table.name));
                    (seen.int("shop_id"), name_of(row.table, &row.cells))
                }));
            }
        }
        Ok(Self { ledger: ledger.clone(), selection, as_of, shops: Arc::new(shops) })
    }

    /// The merchant's zone.
    #[must_use]
    pub fn zone(&self) -> Zone {
        self.ledger.zone()
    }

    /// About how much there is to look at, in the measure of [`Batch::seen`].
    pub(super) async fn size(&self) -> Result<i64, ExportError> {
        let store = self.ledger.store();
        Ok(match self.selection.sheet.source {
            Source::Log { kind, .. } => count_streams(store, kind, self.as_of.position).await?,
            Source::Pages(_) => 0,
        })
    }

    /// Its rows that are wanted, from where an earlier batch says ("" = the first), each batch a bounded read.
    #[must_use]
    pub fn batches(&self, from: &str) -> BoxStream<'static, Result<Batch, ExportError>> {
        let this = self.clone();
        match self.selection.sheet.source {
            Source::Log { kind, table } => {
                let plan = Plan::of(self.selection.sheet.columns, table);
                let ranges = rows_at(self.ledger.store(), kind, from, self.as_of.position);
                ranges.map(move |range| Ok(this.batch(range?, table, &plan))).boxed()
            }
            Source::Pages(page) => {
                let pages = futures::stream::try_unfold(Some(from.to_owned()), move |from| {
                    let this = this.clone();
                    async move {
                        let Some(from) = from else { return Ok(None) };
                        let mut batch = page(&this, from).await?;
                        batch.lines.retain(|line| this.selection.wants(line));
                        let next = batch.next.clone();
                        Ok(Some((batch, next)))
                    }
                });
                pages.boxed()
            }
        }
    }

    fn batch(&self, range: RowsOfRange, table: &'static LiveTable, plan: &Plan) -> Batch {
        let stock: HashMap<i64, Option<i64>> = range.stock.into_iter().collect();
        let rows = range.rows.iter().filter(|row| std::ptr::eq(row.table, table));
        let lines = rows.map(|row| {
            let stock = match row.cells.first() {
                Some(Cell::Int(id)) => stock.get(id).copied().flatten(),
                _ => None,
            };
            plan.line(&Seen { table, cells: &row.cells, stock, at_ms: self.as_of.at_ms }, &self.shops)
        });
        let lines = lines.filter(|line| self.selection.wants(line)).collect();
        Batch { lines, next: Some(range.until), seen: range.streams }
    }
}

fn name_of(table: &'static LiveTable, cells: &[Cell]) -> String {
    match place(table, "name").and_then(|place| cells.get(place)) {
        Some(Cell::Text(name)) => name.clone(),
        _ => String::new(),
    }
}

/// Where each column of a sheet lies in the live row, looked up once.
struct Plan(Vec<(&'static Column, Option<usize>)>);

impl Plan {
    fn of(columns: &'static [Column], table: &LiveTable) -> Self {
        let find = |column: &'static Column| {
            let cell = match column.from {
                From::Cell(cell) | From::Word(cell, _) | From::ShopName(cell) => place(table, cell),
                From::Computed(_) | From::Source => None,
            };
            (column, cell)
        };
        Self(columns.iter().map(find).collect())
    }

    fn line(&self, seen: &Seen<'_>, shops: &HashMap<i64, String>) -> Line {
        let value = |(column, place): &(&'static Column, Option<usize>)| {
            let cell = place.and_then(|place| seen.cells.get(place));
            match (column.from, cell) {
                (From::Computed(compute), _) => compute(seen),
                (From::Cell(_), Some(cell)) => Value::of(column.kind, cell),
                (From::Word(_, words), Some(Cell::Int(number))) => {
                    let word = words.iter().find(|(of, _)| of == number);
                    Value::Text(word.map_or_else(|| number.to_string(), |(_, word)| (*word).to_owned()))
                }
                (From::ShopName(_), Some(Cell::Int(id))) => {
                    shops.get(id).map_or(Value::Null, |name| Value::Text(name.clone()))
                }
                _ => Value::Null,
            }
        };
        self.0.iter().map(value).collect()
    }
}

/// Whether every column of a sheet is where it says it is.
#[cfg(test)]
pub(super) fn fits(columns: &'static [Column], table: Option<&'static LiveTable>) -> bool {
    columns.iter().all(|column| match (column.from, table) {
        (From::Cell(cell) | From::Word(cell, _) | From::ShopName(cell), Some(table)) => {
            place(table, cell).is_some()
        }
        (From::Computed(_), Some(_)) | (From::Source, None) => true,
        _ => false,
    })
}
