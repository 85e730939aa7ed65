//! One coupon's rows, made anew.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::fold::kind_of;
use super::{Difference, RebuildError};
use crate::audit::kinds::Written;
use crate::entity::stream_of;
use crate::read_model::{PARTNER_COUPONS, REDEMPTIONS, WALLET};
use crate::store::rebuild::{Change, RowKey, key_of};
use crate::store::{BUCKET, Cell, LiveRow, LiveTable, Statement, Store, StoredEvent};

/// How often a coupon that moves meanwhile is looked at again.
const TRIES: u32 = 5;

/// Rows of a table that are looked through at a time.
const PART: i64 = 20_000;

/// What was wrong with a coupon's rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CouponReport {
    /// Which coupon.
    pub coupon_id: i64,
    /// How many rows it has.
    pub rows: u64,
    /// Those that were not what its stream gives; they are now.
    pub differences: Vec<Difference>,
}

/// Folds a coupon's stream, compares its rows in every table, and writes those that differ, under the head's lock. Counters
/// are sums over many coupons: they are left alone.
pub async fn repair_coupon(store: &Store, coupon_id: i64) -> Result<CouponReport, RebuildError> {
    repair_coupon_reading(store, coupon_id, PART).await
}

/// The same, reading so many rows of a table at a time.
pub async fn repair_coupon_reading(
    store: &Store,
    coupon_id: i64,
    part: i64,
) -> Result<CouponReport, RebuildError> {
    let stream = stream_of::<crate::coupon::Coupon>(coupon_id);
    for _ in 0..TRIES {
        let expected = written(&store.load_one(stream).await?)?;
        let Some(expected) = expected else { return Err(RebuildError::NoSuchCoupon(coupon_id)) };
        let mut keys: Vec<RowKey> = expected.rows.iter().map(RowKey::of).collect();
        for found in stored(store, coupon_id, part).await? {
            let same = |key: &RowKey| std::ptr::eq(key.table, found.table) && key.key == found.key;
            if !keys.iter().any(same) {
                keys.push(found);
            }
        }
        let outcome = Arc::new(Mutex::new(None));
        let decide = {
            let (keys, outcome) = (keys.clone(), outcome.clone());
            move |events: Vec<StoredEvent>, found: Vec<Option<Vec<Cell>>>| {
                let rows = written(&events)?.map(|written| written.rows).unwrap_or_default();
                let (change, decided) = compare(&keys, &rows, &found);
                *outcome.lock().unwrap_or_else(PoisonError::into_inner) = decided;
                Ok::<_, RebuildError>(change)
            }
        };
        store.repair(stream, keys, decide).await?;
        let decided = outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((rows, differences)) = decided {
            return Ok(CouponReport { coupon_id, rows, differences });
        }
    }
    Err(RebuildError::NeverStill(coupon_id))
}

fn written(events: &[StoredEvent]) -> Result<Option<Written>, RebuildError> {
    let Some(first) = events.first() else { return Ok(None) };
    Ok(Some((kind_of(first)?.fold)(events, i64::MAX)?))
}

/// A table with rows of coupons: the last key of a part of it behind one, and the keys in a part that are a coupon's.
struct Walk {
    table: &'static LiveTable,
    part: &'static str,
    own: &'static str,
}

static WALKS: [Walk; 3] = [
    Walk {
        table: &WALLET,
        part: "SELECT member_id, coupon_id FROM wallet_v1 WHERE bucket = $1 AND (member_id, coupon_id) > ($3, $4)
               ORDER BY bucket, member_id, coupon_id LIMIT 1 OFFSET $2",
        own: "SELECT member_id, coupon_id FROM wallet_v1 WHERE bucket = $1 AND coupon_id = $2
                AND (member_id, coupon_id) > ($3, $4) AND (member_id, coupon_id) <= ($5, $6)",
    },
    Walk {
        table: &REDEMPTIONS,
        part: "SELECT redemption_id FROM redemptions_v1 WHERE bucket = $1 AND redemption_id > $3
               ORDER BY bucket, redemption_id LIMIT 1 OFFSET $2",
        own: "SELECT redemption_id FROM redemptions_v1 WHERE bucket = $1 AND coupon_id = $2
                AND redemption_id > $3 AND redemption_id <= $4",
    },
    Walk {
        table: &PARTNER_COUPONS,
        part: "SELECT coupon_id FROM partner_coupons_v1 WHERE bucket = $1 AND coupon_id > $3
               ORDER BY bucket, coupon_id LIMIT 1 OFFSET $2",
        own: "SELECT coupon_id FROM partner_coupons_v1 WHERE bucket = $1 AND coupon_id = $2
                AND coupon_id > $3 AND coupon_id <= $4",
    },
];

/// The keys of the coupon's rows as they are stored. No index finds them all: whole tables are read, in bounded parts, and
/// nobody is held up.
async fn stored(store: &Store, coupon_id: i64, part: i64) -> Result<Vec<RowKey>, RebuildError> {
    let mut keys = Vec::new();
    for Walk { table, part: sql, own } in &WALKS {
        let mut after = Some(vec![i64::MIN; table.key_columns]);
        while let Some(from) = after {
            let asked = [BUCKET, part].into_iter().chain(from.iter().copied()).map(Cell::from);
            let last = store.query(Statement::new(sql, asked)).await?;
            after = last.first().map(|row| key_of(table, &row.0));
            let until = after.clone().unwrap_or_else(|| vec![i64::MAX; table.key_columns]);
            let asked = [BUCKET, coupon_id].into_iter().chain(from).chain(until).map(Cell::from);
            let rows = store.query(Statement::new(own, asked)).await?;
            keys.extend(rows.into_iter().map(|row| RowKey { table, key: key_of(table, &row.0) }));
        }
    }
    Ok(keys)
}

/// What is to be written, how many rows there are, and what differs; nothing where the stream has rows that were not looked at.
fn compare(
    keys: &[RowKey],
    rows: &[LiveRow],
    found: &[Option<Vec<Cell>>],
) -> (Change, Option<(u64, Vec<Difference>)>) {
    let of = |key: &RowKey| {
        rows.iter().find(|row| std::ptr::eq(row.table, key.table) && RowKey::of(row).key == key.key)
    };
    let looked_at = keys.iter().filter(|key| of(key).is_some()).count();
    let mut change = Change::default();
    if looked_at < rows.len() {
        return (change, None);
    }
    let mut differences = Vec::new();
    for (key, old) in keys.iter().zip(found) {
        let new = of(key);
        let cells = new.map(|row| row.cells.as_slice());
        if let Some(difference) = Difference::between(key.table, &key.key, old.as_deref(), cells) {
            differences.push(difference);
            change.gone.push(key.clone());
            change.rows.extend(new.cloned());
        }
    }
    (change, Some((rows.len() as u64, differences)))
}
