//! What differs between the rows in use and those made anew, told apart from what events have moved between the two.

use std::collections::{BTreeMap, HashMap};

use super::LISTED;
use super::fold::digest_of;
use super::record::Difference;
use crate::store::rebuild::{Comparison, MEMBER_COUNTS, STOCK, is_counter};
use crate::store::{Cell, LiveTable};

/// How rows have moved between two positions: as they are then, or gone; counters by how much.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub(super) rows: HashMap<Vec<i64>, Option<Vec<Cell>>>,
    pub(super) stock: BTreeMap<i64, i64>,
    pub(super) issued: HashMap<Vec<i64>, i64>,
}

/// Differences of a part, with how the old digest differs by them.
pub(super) type PartFound = (Vec<Difference>, u128);

/// What differs between the old rows of a part and what the log gives at the same position; None where that cannot be told
/// from what was read.
pub(super) fn settle(
    table: &'static LiveTable,
    after: Option<&[i64]>,
    part: &Comparison,
    moved: &Moved,
) -> Option<PartFound> {
    let within = |key: &[i64]| {
        after.is_none_or(|after| key > after) && part.until.as_deref().is_none_or(|until| key <= until)
    };
    let has_moved = moved.rows.keys().chain(moved.issued.keys()).cloned();
    let mut has_moved = has_moved.chain(moved.stock.keys().map(|key| vec![*key]));
    if has_moved.any(|key| within(&key) && !part.differences.contains_key(&key)) {
        return None;
    }
    let mut found = (Vec::new(), 0_u128);
    for (key, (old, new)) in &part.differences {
        let moved_row = moved.rows.get(key);
        let new = match moved_row {
            Some(moved) => moved.clone(),
            None if is_counter(table) => moved_counter(table, key, new.clone(), moved),
            None => new.clone(),
        };
        if let Some(difference) = Difference::between(table, key, old.as_deref(), new.as_deref()) {
            let digest =
                |cells: &Option<Vec<Cell>>| cells.as_ref().map_or(0, |cells| digest_of(table, cells));
            found.1 = found.1.wrapping_add(digest(old)).wrapping_sub(digest(&new));
            found.0.push(difference);
        }
    }
    Some(found)
}

/// A counter as it is after it has moved.
fn moved_counter(table: &LiveTable, key: &[i64], new: Option<Vec<Cell>>, moved: &Moved) -> Option<Vec<Cell>> {
    let by = moved.issued.get(key).copied();
    let stock =
        key.first().and_then(|key| moved.stock.get(key)).filter(|_| std::ptr::eq(table, &raw const STOCK));
    if by.is_none() && stock.is_none() {
        return new;
    }
    let mut cells = new.unwrap_or_else(|| {
        let zeros = table.columns.len() - table.key_columns;
        key.iter().copied().chain(std::iter::repeat_n(0, zeros)).map(Cell::Int).collect()
    });
    if let (Some(Cell::Int(issued)), Some(by)) = (cells.last_mut(), by) {
        *issued += by;
    }
    if let (Some(Cell::Int(own)), Some(stock)) = (cells.get_mut(1), stock) {
        *own = *stock;
    }
    // A member's count of 0 may be written down or not.
    let counts_nothing = std::ptr::eq(table, &raw const MEMBER_COUNTS) && cells.last() == Some(&Cell::Int(0));
    (!counts_nothing).then_some(cells)
}

/// What differs in all.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) listed: Vec<Difference>,
    /// How many rows of each table, and how the old digest differs by them.
    pub(super) by_table: HashMap<&'static str, (u64, u128)>,
}

impl Found {
    pub(super) fn add(&mut self, table: &'static LiveTable, (differences, digest): PartFound) {
        let own = self.by_table.entry(table.name).or_default();
        own.0 += differences.len() as u64;
        own.1 = own.1.wrapping_add(digest);
        let room = LISTED.saturating_sub(self.listed.len());
        self.listed.extend(differences.into_iter().take(room));
    }
}
