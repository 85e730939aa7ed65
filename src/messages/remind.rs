//! The follower of the calendar: which coupons end soon.
//!
//! Each local day once, it looks through all that ends within so many days and is in hand, and tells whoever was not told of
//! that end yet. So a day on which no server ran is made up for, a coupon that was received or extended into that time is
//! told of on the next day, and an end that was moved is a reason of its own. In bounded transactions; the day is done with
//! once all of it is written.

use chrono::Days;

use super::{MessageKind, NewMessage, Reason, writing};
use crate::clock::{day_number, day_numbered};
use crate::followers::{self, REMINDERS};
use crate::lease;
use crate::ledger::Ledger;
use crate::read_model::pages::Due;
use crate::store::{BUCKET, Row, Statement, StoreError};

/// Coupons of one transaction.
const PAGE: i64 = 400;

/// Which process tells; named as the leases of followers are.
const LEASE: &str = "reminders lease";

/// How long a process may work without renewing its lease: it does with every page.
const LEASE_MS: i64 = 15_000;

/// Tells members which coupons end within `days` days, unless that is done for today, and returns how many that were; None
/// while another server is at it, or it is paused. 0 days tell nobody.
pub async fn remind(ledger: &Ledger, days: u32, is_handed_over: bool) -> Result<Option<usize>, StoreError> {
    let at = ledger.now();
    let done_with = followers::checkpoint(ledger.store(), &REMINDERS).await?;
    if days == 0 || day_numbered(done_with).is_some_and(|done| done >= at.day) {
        return Ok(Some(0));
    }
    let last_day = at.day.checked_add_days(Days::new(days.into())).unwrap_or(at.day);
    let until_ms = ledger.zone().day_ends_at_ms(last_day);
    let mut behind = Due { at_ms: at.ms, coupon_id: i64::MAX };
    let mut told = 0;
    loop {
        if followers::is_paused(ledger, &REMINDERS).await? || !lease::take(ledger, LEASE, LEASE_MS).await? {
            return Ok(None);
        }
        let (last, messages) = ends_soon(ledger, behind, until_ms).await?;
        let Some(last) = last else { break };
        told += messages.len();
        ledger.store().write(writing(&messages, is_handed_over)).await?;
        behind = last;
    }
    followers::move_checkpoint(ledger, &REMINDERS, done_with, day_number(at.day)).await?;
    lease::release(ledger, LEASE).await?;
    Ok(Some(told))
}

/// The next coupons in hand that end in `(behind, until]`, and the last of them; whoever was told is not among them.
async fn ends_soon(
    ledger: &Ledger,
    behind: Due,
    until_ms: i64,
) -> Result<(Option<Due>, Vec<NewMessage>), StoreError> {
    let sql = "SELECT w.ends_at_ms, w.coupon_id, w.member_id, w.end_date,
                      (SELECT COUNT(*) FROM messages m WHERE m.bucket = $1 AND m.member_id = w.member_id
                         AND m.kind = $6 AND m.subject_id = w.coupon_id AND m.part = w.end_date)
               FROM wallet_v1 w
               WHERE w.bucket = $1 AND (w.ends_at_ms, w.coupon_id) > ($2, $3) AND w.ends_at_ms <= $4 AND w.in_hand = 1
               ORDER BY w.bucket, w.ends_at_ms, w.coupon_id LIMIT $5";
    let kind = MessageKind::Expiring;
    let parameters = [BUCKET, behind.at_ms, behind.coupon_id, until_ms, PAGE, kind.number()];
    let rows = ledger.store().query(Statement::new(sql, parameters.map(Into::into))).await?;
    let at_ms = ledger.clock().now_ms();
    let message = |row: &Row| {
        let (coupon_id, member_id, part) = (row.int(1), row.int(2), row.int(3));
        let reason = Reason { member_id, kind, subject_id: coupon_id, part };
        NewMessage { reason, coupon_id, other_id: 0, at_ms }
    };
    let last = rows.last().map(|row| Due { at_ms: row.int(0), coupon_id: row.int(1) });
    Ok((last, rows.iter().filter(|row| row.int(4) == 0).map(message).collect()))
}
