use std::collections::{BTreeMap, HashMap};

use super::fold::digest_of;
use super::*;
use crate::read_model::WALLET;
use crate::store::Cell;
use crate::store::rebuild::Comparison;

#[test]
fn a_read_model_is_meant_with_or_without_its_version() {
    assert_eq!(names(&tables("wallet").unwrap()), "wallet_v1");
    assert_eq!(names(&tables("stock_v1,wallet,wallet_v1").unwrap()), "stock_v1,wallet_v1");
    assert_eq!(tables("all").unwrap().len(), LIVE_TABLES.len() + 2);
    let wrong = tables("wallet,walet").unwrap_err().to_string();
    assert!(
        wrong.starts_with("there is no read model walet: all, or one of wallet_v1,redemptions_v1,"),
        "{wrong}"
    );
}

#[test]
fn every_live_table_has_a_kind_of_streams_that_writes_it_and_a_key_of_numbers() {
    for table in everything() {
        assert!(KINDS.iter().any(|kind| kind.writes(&[table])), "{}", table.name);
        let key = table.columns.iter().take(table.key_columns);
        assert!(key.clone().all(|column| matches!(column, crate::store::Column::Int(_))), "{}", table.name);
    }
}

fn cells(values: &[i64]) -> Vec<Cell> {
    values.iter().copied().map(Cell::Int).collect()
}

/// A key, and the old and the new row of it.
type Rows<'a> = (&'a [i64], Option<&'a [i64]>, Option<&'a [i64]>);

fn part(differences: &[Rows<'_>]) -> Comparison {
    let both = |(key, old, new): &Rows<'_>| (key.to_vec(), (old.map(cells), new.map(cells)));
    let differences = differences.iter().map(both).collect();
    Comparison { differences, until: Some(vec![9, 9]), head: 7 }
}

#[test]
fn a_row_that_has_moved_meanwhile_is_held_against_what_it_has_become() {
    let part = part(&[(&[1, 1], Some(&[1, 1, 5]), Some(&[1, 1, 4])), (&[2, 1], Some(&[2, 1, 5]), None)]);
    let rows = HashMap::from([(vec![1, 1], Some(cells(&[1, 1, 5])))]);
    let moved = Moved { rows, ..Moved::default() };
    let (found, _) = settle(&WALLET, None, &part, &moved).unwrap();
    let found: Vec<_> = found.iter().flat_map(Difference::lines).collect();
    assert_eq!(found, ["wallet_v1 member_id=2 coupon_id=1: nothing in the log gives this row"]);
}

#[test]
fn a_row_that_should_have_moved_and_shows_no_difference_is_looked_at_again() {
    let moved = |key: Vec<i64>| Moved { rows: HashMap::from([(key, None)]), ..Moved::default() };
    assert!(settle(&WALLET, None, &part(&[]), &moved(vec![3, 3])).is_none());
    // Of another part, it says nothing of this one.
    assert!(settle(&WALLET, None, &part(&[]), &moved(vec![10, 1])).is_some());
    assert!(settle(&WALLET, Some(&[3, 3]), &part(&[]), &moved(vec![3, 3])).is_some());
}

#[test]
fn a_counter_that_has_moved_keeps_its_difference() {
    let part = part(&[(&[1], Some(&[1, 10, 8]), Some(&[1, 10, 5])), (&[2], Some(&[2, 9, 1]), None)]);
    let issued = HashMap::from([(vec![1], 2), (vec![2], 1)]);
    let moved = Moved { issued, stock: BTreeMap::from([(2, 9)]), ..Moved::default() };
    let (found, digest) = settle(&STOCK, None, &part, &moved).unwrap();
    let found: Vec<_> = found.iter().flat_map(Difference::lines).collect();
    assert_eq!(found, ["stock_v1 definition_id=1 issued: 8 → 7"]);
    let expected =
        digest_of(&STOCK, &cells(&[1, 10, 8])).wrapping_sub(digest_of(&STOCK, &cells(&[1, 10, 7])));
    assert_eq!(digest, expected);
}

#[test]
fn a_report_counts_all_and_lists_the_first() {
    let mut found = Found::default();
    for id in 0..LISTED as i64 + 5 {
        let difference = Difference::between(&WALLET, &[id, 1], None, Some(&[])).unwrap();
        found.add(&WALLET, (vec![difference], 1));
    }
    assert_eq!(found.listed.len(), LISTED);
    assert_eq!(found.by_table["wallet_v1"], (LISTED as u64 + 5, LISTED as u128 + 5));
}
