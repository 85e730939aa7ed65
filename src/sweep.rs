//! The sweep: writes down what time alone has done, passed end dates, lapsed gifts, proposals that nobody approved. It changes no answer, because
//! dates decide everywhere; it makes history and statistics complete.
//!
//! Exactly once per coupon, whatever the number of processes: the coupon's own version sees to that. A lease only
//! keeps several processes from doing the same work.

use std::collections::HashSet;

use futures::StreamExt as _;

use crate::approving;
use crate::coupon::{Coupon, CouponCommand};
use crate::followers::{self, EXPIRY};
use crate::identity::Caller;
use crate::lease;
use crate::ledger::{ExecuteError, Executed, Ledger, Many, Meta};
use crate::metrics::FollowerLabels;
use crate::read_model::pages::{self, Due};
use crate::store::StoreError;
use crate::value::{hex, random};

/// A coupon's end is swept this long after it: by then no command that was given before it can still be under way.
pub const SETTLED_AFTER_MS: i64 = 120_000;

/// Coupons per page.
const PAGE: i64 = 1_000;

/// Coupons per transaction while nobody else writes: enough to make it cheap …
const CHUNK_ALONE: usize = 400;

/// … and while members do: few enough that they hardly notice.
const CHUNK_BESIDE_MEMBERS: usize = 20;

/// Chunks under way at a time: one is written while the next is read and decided.
const AT_A_TIME: usize = 2;

/// Which process sweeps.
const LEASE: &str = "sweep lease";

/// How long a process may work without renewing its lease.
const LEASE_MS: i64 = 60_000;

/// Sweeps everything that is due and returns how many coupons it wrote something about. 0 also when another process
/// is at it, or it is paused.
pub async fn sweep(ledger: &Ledger) -> Result<usize, ExecuteError> {
    if !take_lease(ledger).await? {
        return Ok(0);
    }
    let swept = sweep_gifts(ledger).await?;
    let swept = swept + sweep_ends(ledger).await? + approving::sweep_lapsed(ledger).await?;
    release_lease(ledger).await?;
    Ok(swept)
}

async fn sweep_gifts(ledger: &Ledger) -> Result<usize, ExecuteError> {
    let mut swept = 0;
    loop {
        let now_ms = ledger.clock().now_ms();
        let lapsed = pages::lapsed(ledger.store(), now_ms, PAGE).await?;
        let (settled, _) = settle(ledger, lapsed).await;
        swept += settled;
        // Nothing came of a whole page: what is left cannot be settled now, and has been logged.
        if settled == 0 || !take_lease(ledger).await? {
            return Ok(swept);
        }
    }
}

async fn sweep_ends(ledger: &Ledger) -> Result<usize, ExecuteError> {
    let until_ms = ledger.clock().now_ms() - SETTLED_AFTER_MS;
    let done_ms = followers::checkpoint(ledger.store(), &EXPIRY).await?;
    let mut from = Due { at_ms: done_ms, coupon_id: i64::MAX };
    let mut swept = 0;
    // What could not be settled is looked at again: the checkpoint stays before the first of it.
    let mut settled_until_ms = until_ms;
    loop {
        let page = pages::ended(ledger.store(), from, until_ms, PAGE).await?;
        let Some(last) = page.last().copied() else { break };
        let (settled, failed) = settle(ledger, page.iter().map(|due| due.coupon_id).collect()).await;
        swept += settled;
        let first_failed = page.iter().find(|due| failed.contains(&due.coupon_id));
        settled_until_ms = settled_until_ms.min(first_failed.map_or(until_ms, |due| due.at_ms - 1));
        show_lag(ledger, last.at_ms);
        if !take_lease(ledger).await? {
            return Ok(swept);
        }
        from = last;
    }
    if settled_until_ms > done_ms {
        followers::move_checkpoint(ledger, &EXPIRY, done_ms, settled_until_ms).await?;
    }
    show_lag(ledger, settled_until_ms.max(done_ms));
    Ok(swept)
}

/// How long ago the ends were that are written down.
fn show_lag(ledger: &Ledger, until_ms: i64) {
    let lag_ms = (ledger.clock().now_ms() - until_ms).max(0);
    let follower = FollowerLabels { follower: EXPIRY.name };
    ledger.metrics().follower_lag.get_or_create(&follower).set(lag_ms / 1_000);
}

/// Settles coupons chunk by chunk; returns how many had something to write, and which failed.
async fn settle(ledger: &Ledger, coupons: Vec<i64>) -> (usize, HashSet<i64>) {
    let at = ledger.now();
    let request_id = format!("sweep-{}", hex(&random::<6>()));
    let meta = Meta { caller: Caller::System, at, request_id, receipt: None, job_id: None };
    let chunk = if ledger.in_flight() == 0 { CHUNK_ALONE } else { CHUNK_BESIDE_MEMBERS };
    let chunks: Vec<Vec<i64>> = coupons.chunks(chunk).map(<[i64]>::to_vec).collect();
    let chunks = chunks.into_iter().map(|chunk| settle_chunk(ledger, chunk, &meta));
    let outcomes: Vec<(i64, Option<bool>)> = futures::stream::iter(chunks)
        .buffered(AT_A_TIME)
        .map(futures::stream::iter)
        .flatten()
        .collect()
        .await;
    let wrote = outcomes.iter().filter(|(_, wrote)| *wrote == Some(true)).count();
    (wrote, outcomes.into_iter().filter(|(_, wrote)| wrote.is_none()).map(|(id, _)| id).collect())
}

/// For each coupon, whether there was something to write; None when it could not be settled.
async fn settle_chunk(ledger: &Ledger, coupons: Vec<i64>, meta: &Meta) -> Vec<(i64, Option<bool>)> {
    let commands = coupons.iter().map(|id| (*id, CouponCommand::Settle)).collect();
    if let Ok(Many::Done(outcomes)) = ledger.execute_many::<Coupon>(commands, meta).await {
        let settled = |(id, outcome): (i64, Result<Executed<Coupon>, ExecuteError>)| match outcome {
            Ok(done) => (id, Some(!done.events.is_empty())),
            Err(error) => {
                tracing::warn!(coupon_id = id, %error, "coupon not swept");
                (id, None)
            }
        };
        return coupons.into_iter().zip(outcomes).map(settled).collect();
    }
    // One that the database rejects would keep its whole chunk back: each by itself then.
    let each = coupons.into_iter().map(async |id| (id, settle_one(ledger, id, meta).await));
    futures::future::join_all(each).await
}

/// Whether there was something to write; None when it could not be settled.
async fn settle_one(ledger: &Ledger, id: i64, meta: &Meta) -> Option<bool> {
    loop {
        match ledger.execute::<Coupon>(id, &CouponCommand::Settle, meta).await {
            Ok(done) => return Some(!done.events.is_empty()),
            // Members first: the sweep has time.
            Err(ExecuteError::Busy) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            Err(error) => {
                tracing::warn!(coupon_id = id, %error, "coupon not swept");
                return None;
            }
        }
    }
}

/// Takes or renews the lease; false while another process has it, and while the sweep is paused.
async fn take_lease(ledger: &Ledger) -> Result<bool, StoreError> {
    if followers::is_paused(ledger, &EXPIRY).await? {
        return Ok(false);
    }
    lease::take(ledger, LEASE, LEASE_MS).await
}

/// Lets others sweep at once, where this process held the lease and ends.
pub async fn release_lease(ledger: &Ledger) -> Result<(), StoreError> {
    lease::release(ledger, LEASE).await
}
