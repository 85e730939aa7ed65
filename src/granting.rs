//! What the ledger gives by itself: what reaching a level earns, once per member and level for ever, and what a birthday
//! earns, once per member and year.
//!
//! Exactly once, whatever is killed when: what a member is given is one transaction under a key that names him and the level,
//! or him and the year; where the key has been used, it has been given. What is written beside (`level_reached`, the day that
//! birthdays are done with) only saves looking again, and a lease only keeps several servers from doing the same work. Each
//! coupon is admitted or refused by itself: what stock, limits or levels refuse now is not made up for later.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{Datelike as _, Days, NaiveDate};

use crate::clock::{day_number, day_numbered};
use crate::coupon::{Coupon, CouponCommand, Origin, Source};
use crate::definition::{Definition, IssueLimit};
use crate::directory;
use crate::facts::Facts;
use crate::followers::{self, BIRTHDAY};
use crate::grant::Cause;
use crate::identity::Caller;
use crate::lease;
use crate::ledger::writer::WriteError;
use crate::ledger::{ExecuteError, Ledger, Many, Meta};
use crate::read_model::pages;
use crate::read_model::rules::{self, GrantRow};
use crate::refusal::Refusal;
use crate::store::{Cell, ReceiptKey, Statement, Store, StoreError};
use crate::value::{hex, random};

/// How often is looked for members who have reached a level.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long after a failure birthdays are tried again.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Members that are looked at in one statement.
const PAGE: i64 = 200;

/// Which process gives what levels earn, and which what birthdays do.
const LEVEL_LEASE: &str = "level lease";
const BIRTHDAY_LEASE: &str = "birthday lease";

/// How long a process may work without renewing its lease: it does with every page.
const LEASE_MS: i64 = 15_000;

/// Days that are made up for, today included, after nobody was there to give.
const CATCH_UP_DAYS: u64 = 31;

/// Gives what is earned, for as long as the server runs.
pub async fn run_granting(ledger: Ledger) {
    let mut done_with: Option<NaiveDate> = None;
    let mut not_before = Instant::now();
    loop {
        if let Err(error) = grant_levels(&ledger).await {
            tracing::warn!(%error, "what levels earn was not given to everyone: it is tried again");
        }
        let today = ledger.now().day;
        if done_with != Some(today) && Instant::now() >= not_before {
            match grant_birthdays(&ledger).await {
                Ok(Some(coupons)) => {
                    tracing::info!(coupons, %today, "birthdays");
                    done_with = Some(today);
                    followers::note(&ledger, &BIRTHDAY, None).await;
                }
                // Another server is at it, or was when it died; or they are paused.
                Ok(None) => not_before = Instant::now() + TRY_AGAIN_AFTER,
                Err(error) => {
                    tracing::warn!(%error, "what birthdays earn was not given to everyone: it is tried again");
                    followers::note(&ledger, &BIRTHDAY, Some(error.to_string())).await;
                    not_before = Instant::now() + TRY_AGAIN_AFTER;
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Lets other servers go on with what this one worked on.
pub async fn release_leases(ledger: &Ledger) -> Result<(), StoreError> {
    lease::release(ledger, LEVEL_LEASE).await?;
    lease::release(ledger, BIRTHDAY_LEASE).await
}

/// Gives every member who has reached a level what it earns, and returns how many coupons that were. 0 also while another
/// server is at it.
pub async fn grant_levels(ledger: &Ledger) -> Result<usize, ExecuteError> {
    let mut behind = (0, 0);
    let mut given = 0;
    loop {
        let page = to_be_given(ledger.store(), behind).await?;
        let Some(last) = page.last() else { break };
        behind = *last;
        if !lease::take(ledger, LEVEL_LEASE, LEASE_MS).await? {
            return Ok(given);
        }
        let mut grants: HashMap<i64, Vec<GrantRow>> = HashMap::new();
        let mut done = Vec::with_capacity(page.len());
        for (member_id, level_id) in page {
            let granted = match grants.entry(level_id) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    new.insert(rules::grants_of(ledger.store(), Cause::Level(level_id)).await?)
                }
            };
            match give(ledger, member_id, granted, "level", format!("{member_id}-{level_id}")).await {
                Ok(coupons) => {
                    given += coupons;
                    done.push(mark_done(member_id, level_id));
                }
                Err(error) => pass_over(member_id, error)?,
            }
        }
        ledger.store().write(done).await?;
    }
    if behind != (0, 0) {
        lease::release(ledger, LEVEL_LEASE).await?;
    }
    Ok(given)
}

/// Members with the levels they have reached and not been given for, behind this one.
async fn to_be_given(store: &Store, behind: (i64, i64)) -> Result<Vec<(i64, i64)>, StoreError> {
    let sql = "SELECT member_id, level_id FROM level_reached
               WHERE state = 0 AND (member_id, level_id) > ($1, $2) ORDER BY state, member_id, level_id LIMIT $3";
    let rows = store.query(Statement::new(sql, [behind.0, behind.1, PAGE].map(Cell::from))).await?;
    Ok(rows.iter().map(|row| (row.int(0), row.int(1))).collect())
}

fn mark_done(member_id: i64, level_id: i64) -> Statement {
    let sql = "UPDATE level_reached SET state = 1 WHERE member_id = $1 AND level_id = $2";
    Statement::new(sql, [member_id.into(), level_id.into()])
}

/// Gives a member all that is granted, under a key that is used once only; returns how many coupons he was issued now.
async fn give(
    ledger: &Ledger,
    member_id: i64,
    grants: &[GrantRow],
    operation: &'static str,
    key: String,
) -> Result<usize, ExecuteError> {
    let mut commands = Vec::new();
    for grant in grants {
        let origin = Origin { source_id: grant.id, ..Origin::of(source_of(grant.cause), 0) };
        for _ in 0..grant.num {
            let definition_id = grant.definition_id;
            let id = ledger.next_id("coupon", false).await?;
            commands.push((id, CouponCommand::Issue { definition_id, member_id, origin }));
        }
    }
    if commands.is_empty() {
        return Ok(0);
    }
    let request_mac = ledger.secrets().request_mac(&key);
    let receipt = Some((ReceiptKey { caller: Caller::System.to_string(), operation, key }, request_mac));
    let request_id = format!("{operation}-{}", hex(&random::<6>()));
    let meta = Meta { caller: Caller::System, at: ledger.now(), request_id, receipt, job_id: None };
    let outcomes = match ledger.execute_many::<Coupon>(commands, &meta).await? {
        Many::Replayed(_) => return Ok(0),
        Many::Done(outcomes) => outcomes,
    };
    let mut issued = 0;
    for outcome in outcomes {
        match outcome {
            Ok(_) => issued += 1,
            Err(ExecuteError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(issued)
}

/// What lies in one member's gift alone must not keep it from everybody behind him; anything else ends the pass.
fn pass_over(member_id: i64, error: ExecuteError) -> Result<(), ExecuteError> {
    match error {
        ExecuteError::Conflict | ExecuteError::Corrupt(_) | ExecuteError::Write(WriteError::Rejected(_)) => {
            tracing::warn!(member_id, %error, "not given: it is tried again");
            Ok(())
        }
        error => Err(error),
    }
}

/// Gives what birthdays earn, for every local day up to today that is not done with, and returns how many coupons that were;
/// None while another server is at it, or they are paused. The first time ever begins with today.
pub async fn grant_birthdays(ledger: &Ledger) -> Result<Option<usize>, ExecuteError> {
    let today = ledger.now().day;
    let mut checkpoint = followers::checkpoint(ledger.store(), &BIRTHDAY).await?;
    let done_with = day_numbered(checkpoint);
    let mut given = 0;
    for day in days_to_do(today, done_with) {
        let Some(coupons) = grant_birthdays_of(ledger, day).await? else { return Ok(None) };
        given += coupons;
        followers::move_checkpoint(ledger, &BIRTHDAY, checkpoint, day_number(day)).await?;
        checkpoint = day_number(day);
    }
    if done_with != Some(today) {
        lease::release(ledger, BIRTHDAY_LEASE).await?;
    }
    Ok(Some(given))
}

/// The days behind the last one that is done with, up to today.
fn days_to_do(today: NaiveDate, done_with: Option<NaiveDate>) -> impl Iterator<Item = NaiveDate> {
    let earliest = today.checked_sub_days(Days::new(CATCH_UP_DAYS - 1)).unwrap_or(today);
    let first = done_with.map_or(Some(today), |day| day.succ_opt().map(|next| next.max(earliest)));
    first.into_iter().flat_map(|first| first.iter_days()).take_while(move |day| *day <= today)
}

/// The months and days, 229 for 29 February, of those whose birthday a day is: in a common year 28 February is theirs too who
/// were born on the 29th.
fn born_on(day: NaiveDate) -> Vec<i64> {
    let mut born = vec![i64::from(day.month() * 100 + day.day())];
    if born == [228] && !day.leap_year() {
        born.push(229);
    }
    born
}

async fn grant_birthdays_of(ledger: &Ledger, day: NaiveDate) -> Result<Option<usize>, ExecuteError> {
    let grants = rules::grants_of(ledger.store(), Cause::Birthday).await?;
    if grants.is_empty() {
        return Ok(Some(0));
    }
    let mut given = 0;
    let mut failed = None;
    for born in born_on(day) {
        let mut behind = 0;
        loop {
            if followers::is_paused(ledger, &BIRTHDAY).await?
                || !lease::take(ledger, BIRTHDAY_LEASE, LEASE_MS).await?
            {
                return Ok(None);
            }
            let members = members_born(ledger.store(), born, behind).await?;
            let Some(last) = members.last() else { break };
            behind = *last;
            for member_id in members {
                let key = format!("{member_id}-{}", day.year());
                match give(ledger, member_id, &grants, "birthday", key).await {
                    Ok(coupons) => given += coupons,
                    Err(error) => {
                        pass_over(member_id, error)?;
                        failed = Some(member_id);
                    }
                }
            }
        }
    }
    // The day is not done with: whoever has his already is not given it again.
    if failed.is_some() { Err(ExecuteError::Conflict) } else { Ok(Some(given)) }
}

/// Members with this month and day of birth, behind this one.
async fn members_born(store: &Store, born: i64, behind: i64) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT member_id FROM members WHERE birthday > 0 AND birthday % 10000 = $1 AND member_id > $2
               ORDER BY member_id LIMIT $3";
    let rows = store.query(Statement::new(sql, [born, behind, PAGE].map(Cell::from))).await?;
    Ok(rows.iter().map(|row| row.int(0)).collect())
}

/// How a coupon is born that a cause earned.
#[must_use]
pub fn source_of(cause: Cause) -> Source {
    match cause {
        Cause::OrderAmount(_) => Source::OrderAmount,
        Cause::GoodsGroup(_) => Source::ProductGroup,
        Cause::Level(_) => Source::MemberLevel,
        Cause::Birthday => Source::Birthday,
    }
}

/// How many coupons of a grant a member would be issued now, and what he would be refused the next one with. Decided as
/// issuing decides, on a coupon that is never written; what counters say then is as of this moment. `level_id` is the level
/// that he would have by then, where that is what is asked.
///
/// # Errors
/// None of the domain's: a refusal is the answer.
pub async fn would_give(
    ledger: &Ledger,
    member_id: i64,
    level_id: Option<i64>,
    grant: &GrantRow,
) -> Result<(i64, Option<Refusal>), ExecuteError> {
    let definition_id = grant.definition_id;
    let at = ledger.now();
    let mut facts = Facts::at(0, at, ledger.zone(), ledger.secrets().gift_codes().clone());
    facts.definition = Some(Arc::new(ledger.load::<Definition>(definition_id).await?.0));
    facts.member = directory::membership(ledger.store(), member_id).await?;
    if let (Some(member), Some(level_id)) = (&mut facts.member, level_id) {
        member.level_id = level_id;
    }
    let origin = Origin { source_id: grant.id, ..Origin::of(source_of(grant.cause), 0) };
    let issue = CouponCommand::Issue { definition_id, member_id, origin };
    if let Err(refusal) = Coupon::default().decide(&issue, &facts) {
        return Ok((0, Some(refusal)));
    }
    let (issued, ends_at_ms) = rules::issued_to(ledger.store(), member_id, definition_id).await?;
    let offer = facts.definition.as_ref().and_then(|definition| definition.offer.as_ref());
    let allowed = match offer.map(|offer| (&offer.issue_limit, offer.get_limit)) {
        Some((IssueLimit::PerMember, limit)) => (limit - issued).max(0),
        Some((IssueLimit::OneAtATime, _)) => i64::from(ends_at_ms <= at.ms),
        _ => i64::MAX,
    };
    let row = pages::definition(ledger.store(), definition_id).await?;
    let left = row.map_or(0, |row| row.inventory());
    let left = if left < 0 { i64::MAX } else { left };
    let given = grant.num.min(allowed).min(left);
    let why = match given {
        given if given == grant.num => None,
        given if given == allowed => Some(Refusal::LimitReached),
        _ => Some(Refusal::SoldOut),
    };
    Ok((given, why))
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::{born_on, days_to_do};

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    #[test]
    fn who_was_born_on_29_february_has_his_birthday_every_year_once() {
        for (on, born) in [
            ("2027-02-28", vec![228, 229]),
            ("2028-02-28", vec![228]),
            ("2028-02-29", vec![229]),
            ("2100-02-28", vec![228, 229]),
            ("2026-12-31", vec![1231]),
        ] {
            assert_eq!(born_on(day(on)), born, "{on}");
        }
    }

    #[test]
    fn days_are_made_up_for_but_not_for_ever() {
        let days = |done: Option<&str>| days_to_do(day("2026-03-02"), done.map(day)).collect::<Vec<_>>();
        assert_eq!(days(None), [day("2026-03-02")]);
        assert_eq!(days(Some("2026-02-27")), ["2026-02-28", "2026-03-01", "2026-03-02"].map(day));
        assert!(days(Some("2026-03-02")).is_empty());
        assert!(days(Some("2026-03-09")).is_empty());
        let long = days(Some("2025-01-01"));
        assert_eq!((long.len(), long[0]), (31, day("2026-01-31")));
    }
}
