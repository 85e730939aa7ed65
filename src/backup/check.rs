//! Live rows against replay, table by table: as many rows, and the same ones by the sum of their digests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::BackupError;
use crate::allotment::Allotment;
use crate::coupon::Coupon;
use crate::definition::Definition;
use crate::entity::Entity;
use crate::grant::Grant;
use crate::job::Job;
use crate::member::Member;
use crate::order::Order;
use crate::read_model::LIVE_TABLES;
use crate::replay::{ReplayError, replay};
use crate::rule::{GoodsGroup, OrderAmount};
use crate::shop::Shop;
use crate::store::{BUCKET, Cell, Column, LiveTable, Statement, Store, StoreError};

/// Rows of one read.
const PAGE: usize = 2_000;

/// Some rows, in whatever order they were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    rows: u64,
    sum: u128,
}

impl Tally {
    fn add(&mut self, cells: &[Cell]) {
        let mut hash = Sha256::new();
        for cell in cells {
            match cell {
                Cell::Int(value) => hash.update(value.to_be_bytes()),
                Cell::Text(text) => {
                    hash.update((text.len() as u64).to_be_bytes());
                    hash.update(text);
                }
            }
        }
        let digest = hash.finalize();
        let number = digest.iter().take(16).fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
        self.rows += 1;
        self.sum = self.sum.wrapping_add(number);
    }
}

type Tallies = Arc<Mutex<HashMap<&'static str, Tally>>>;

async fn tally_replayed<A: Entity>(store: &Store, tallies: &Tallies) -> Result<u64, ReplayError> {
    let look = || {
        let tallies = tallies.clone();
        move |id: i64, state: A| {
            let rows = state.rows(id);
            let mut tallies = tallies.lock().unwrap_or_else(PoisonError::into_inner);
            for row in rows {
                tallies.entry(row.table.name).or_default().add(&row.cells);
            }
        }
    };
    Ok(replay::<A, _>(store, look).await?.events)
}

async fn tally_stored(store: &Store, table: &'static LiveTable) -> Result<Tally, StoreError> {
    let names: Vec<&str> = table.columns.iter().copied().map(Column::name).collect();
    let keys = names.iter().take(table.key_columns).copied().collect::<Vec<_>>().join(", ");
    let behind: Vec<String> = (0..table.key_columns).map(|number| format!("${}", number + 2)).collect();
    let (names, behind) = (names.join(", "), behind.join(", "));
    let from = format!("SELECT {names} FROM {} WHERE bucket = $1", table.name);
    let order = format!("ORDER BY {keys} LIMIT {PAGE}");
    // The program's statements are fixed texts. These few are made once, for a command that then ends.
    let first: &str = Box::leak(format!("{from} {order}").into_boxed_str());
    let next: &str = Box::leak(format!("{from} AND ({keys}) > ({behind}) {order}").into_boxed_str());
    let mut tally = Tally::default();
    let mut statement = Statement::new(first, [BUCKET.into()]);
    loop {
        let rows = store.query(statement).await?;
        for row in &rows {
            tally.add(&row.0);
        }
        let Some(last) = rows.last().filter(|_| rows.len() == PAGE) else { return Ok(tally) };
        let key = last.0.iter().take(table.key_columns).cloned();
        statement = Statement::new(next, std::iter::once(Cell::from(BUCKET)).chain(key));
    }
}

/// How many events were replayed, and what is not as they say.
pub(super) async fn rows_against_replay(store: &Store) -> Result<(u64, Vec<String>), BackupError> {
    let replayed = Tallies::default();
    let mut events = 0;
    events += tally_replayed::<Coupon>(store, &replayed).await?;
    events += tally_replayed::<Definition>(store, &replayed).await?;
    events += tally_replayed::<Shop>(store, &replayed).await?;
    events += tally_replayed::<Allotment>(store, &replayed).await?;
    events += tally_replayed::<Job>(store, &replayed).await?;
    events += tally_replayed::<Order>(store, &replayed).await?;
    events += tally_replayed::<Grant>(store, &replayed).await?;
    events += tally_replayed::<OrderAmount>(store, &replayed).await?;
    events += tally_replayed::<GoodsGroup>(store, &replayed).await?;
    events += tally_replayed::<Member>(store, &replayed).await?;
    let mut findings = Vec::new();
    let sql =
        "SELECT position, (SELECT COUNT(*) FROM events WHERE bucket = $1) FROM log_head WHERE bucket = $1";
    let heads = store.query(Statement::new(sql, [BUCKET.into()])).await?;
    let (head, stored) = heads.first().map_or((0, 0), |row| (row.int(0), row.int(1)));
    if head != stored || events as i64 != stored {
        findings.push(format!("the head is at {head}, {stored} events are stored, {events} were replayed"));
    }
    let replayed = replayed.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for table in LIVE_TABLES {
        let stored = tally_stored(store, table).await?;
        let expected = replayed.get(table.name).copied().unwrap_or_default();
        if stored.rows != expected.rows {
            findings.push(format!("{} has {} rows, replay gives {}", table.name, stored.rows, expected.rows));
        } else if stored != expected {
            findings.push(format!("{} has rows that are not what replay gives", table.name));
        }
    }
    Ok((events, findings))
}
