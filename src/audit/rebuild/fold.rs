//! How rows and counters of tables that are made anew move with events, and their digests with them.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::RebuildError;
use crate::audit::kinds::{Kind, Written};
use crate::store::rebuild::{Change, MEMBER_COUNTS, RowKey, STOCK, is_counter, key_of};
use crate::store::{Cell, LiveRow, LiveTable, StockOf, StoredEvent};

/// The kind of a stream; an unknown one stops a rebuild, it is never skipped.
pub(super) fn kind_of(event: &StoredEvent) -> Result<&'static Kind, RebuildError> {
    Kind::named(&event.aggregate_type).ok_or_else(|| RebuildError::UnknownStream {
        position: event.position,
        kind: event.aggregate_type.clone(),
    })
}

/// Digests of tables, by their names: sums, so that what is taken away is subtracted, and the order does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Digests(BTreeMap<String, u128>);

impl Digests {
    pub(super) fn of(&self, table: &LiveTable) -> u128 {
        self.0.get(table.name).copied().unwrap_or_default()
    }

    fn add(&mut self, table: &LiveTable, by: u128) {
        let digest = self.0.entry(table.name.to_owned()).or_default();
        *digest = digest.wrapping_add(by);
    }

    /// As they are written down.
    pub(super) fn to_json(&self) -> String {
        let digests = self.0.iter().map(|(name, digest)| (name, format!("{digest:032x}")));
        serde_json::to_string(&digests.collect::<BTreeMap<_, _>>()).unwrap_or_default()
    }

    /// As they were written down; a text that is not one is nothing.
    pub(super) fn from_json(text: &str) -> Option<Self> {
        let digests: BTreeMap<String, String> = serde_json::from_str(text).ok()?;
        let digest = |(name, hex): (String, String)| Some((name, u128::from_str_radix(&hex, 16).ok()?));
        digests.into_iter().map(digest).collect::<Option<_>>().map(Self)
    }
}

/// A row's part in its table's digest. Of a counter, each number by itself: its part grows with it, so that the digest moves
/// by the same differences.
pub(super) fn digest_of(table: &LiveTable, cells: &[Cell]) -> u128 {
    if is_counter(table) {
        let key = key_of(table, cells);
        let numbers = table.columns.iter().zip(cells).skip(table.key_columns);
        let part = |(column, cell): (&crate::store::Column, &Cell)| match cell {
            Cell::Int(value) => counter_part(table, &key, column.name(), *value),
            Cell::Text(_) => 0,
        };
        return numbers.map(part).fold(0, u128::wrapping_add);
    }
    let mut hash = Sha256::new_with_prefix(table.name);
    for cell in cells {
        match cell {
            Cell::Int(value) => hash.update(value.to_be_bytes()),
            Cell::Text(value) => {
                hash.update((value.len() as u64).to_be_bytes());
                hash.update(value);
            }
        }
    }
    first_half(&hash.finalize())
}

fn counter_part(table: &LiveTable, key: &[i64], column: &str, by: i64) -> u128 {
    let mut hash = Sha256::new_with_prefix(table.name);
    for part in key {
        hash.update(part.to_be_bytes());
    }
    hash.update(column);
    first_half(&hash.finalize()).wrapping_mul(by as u128)
}

fn first_half(hash: &[u8]) -> u128 {
    hash.iter().take(16).fold(0, |digest, byte| (digest << 8) | u128::from(*byte))
}

/// A change of some streams, for the tables that are wanted, and how the digests move with it.
pub(super) struct Moves<'a> {
    wanted: &'a [&'static LiveTable],
    pub(super) change: Change,
    pub(super) digests: Digests,
}

impl<'a> Moves<'a> {
    pub(super) fn new(wanted: &'a [&'static LiveTable], digests: Digests) -> Self {
        Self { wanted, change: Change::default(), digests }
    }

    fn wants(&self, table: &LiveTable) -> bool {
        self.wanted.iter().any(|wanted| std::ptr::eq(*wanted, table))
    }

    /// Adds what one stream's change from one state to another writes.
    pub(super) fn add(&mut self, before: &Written, after: Written) {
        let same =
            |one: &LiveRow, other: &LiveRow| std::ptr::eq(one.table, other.table) && one.cells == other.cells;
        for row in &before.rows {
            if self.wants(row.table) && !after.rows.iter().any(|kept| same(kept, row)) {
                self.change.gone.push(RowKey::of(row));
                self.digests.add(row.table, digest_of(row.table, &row.cells).wrapping_neg());
            }
        }
        self.add_counters(before, &after);
        for row in after.rows {
            if self.wants(row.table) && !before.rows.iter().any(|kept| same(kept, &row)) {
                self.digests.add(row.table, digest_of(row.table, &row.cells));
                self.change.rows.push(row);
            }
        }
    }

    fn add_counters(&mut self, before: &Written, after: &Written) {
        if let Some((of, stock)) = after.stock.filter(|_| self.wants(&STOCK) && before.stock != after.stock) {
            let (key, stock) = (of.key(), stock.unwrap_or(-1));
            let was = before.stock.map_or(0, |(_, was)| was.unwrap_or(-1));
            self.digests.add(&STOCK, counter_part(&STOCK, &[key], "stock", stock - was));
            self.change.stock.insert(key, stock);
        }
        let Some(counts) = after.counts else { return };
        let by = counts.issued - before.counts.map_or(0, |before| before.issued);
        if by == 0 {
            return;
        }
        if self.wants(&STOCK) {
            let allotment = counts.allotment_id.map(StockOf::Allotment);
            for of in std::iter::once(StockOf::Definition(counts.definition_id)).chain(allotment) {
                *self.change.issued.entry(of.key()).or_default() += by;
                self.digests.add(&STOCK, counter_part(&STOCK, &[of.key()], "issued", by));
            }
        }
        if self.wants(&MEMBER_COUNTS) {
            let key = (counts.member_id, counts.definition_id);
            *self.change.member_counts.entry(key).or_default() += by;
            let part = counter_part(&MEMBER_COUNTS, &[key.0, key.1], "issued", by);
            self.digests.add(&MEMBER_COUNTS, part);
        }
    }
}

/// Adds what streams have written between two positions.
pub(super) fn add_between(
    moves: &mut Moves<'_>,
    streams: &[Vec<StoredEvent>],
    from: i64,
    until: i64,
) -> Result<(), RebuildError> {
    for events in streams {
        let Some(first) = events.first() else { continue };
        let kind = kind_of(first)?;
        if kind.writes(moves.wanted) {
            moves.add(&(kind.fold)(events, from)?, (kind.fold)(events, until)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counters_digest_moves_by_differences() {
        let row = |stock: i64, issued: i64| digest_of(&STOCK, &[7, stock, issued].map(Cell::Int));
        let moved = row(-1, 2)
            .wrapping_add(counter_part(&STOCK, &[7], "stock", 11))
            .wrapping_add(counter_part(&STOCK, &[7], "issued", -1));
        assert_eq!(moved, row(10, 1));
        assert_ne!(row(10, 1), row(1, 10));
        assert_eq!(row(0, 0), 0);
    }

    #[test]
    fn digests_come_back_as_they_were_written_down() {
        let mut digests = Digests::default();
        digests.add(&STOCK, 1);
        digests.add(&MEMBER_COUNTS, u128::MAX);
        assert_eq!(Digests::from_json(&digests.to_json()), Some(digests));
        assert_eq!(Digests::from_json("{\"stock_v1\":\"x\"}"), None);
    }
}
