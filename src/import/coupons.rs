//! Coupons of another system, row by row: what a row says, and what becomes of a chunk of them.

use std::collections::HashSet;

use chrono::{NaiveDate, NaiveDateTime};
use cqrs_es::Aggregate as _;

use super::table::{Column, Row, Table, optional, required};
use super::{BadLine, Import};
use crate::clock::{Moment, Zone};
use crate::coupon::{Coupon, CouponCommand, Past};
use crate::entity::Entity as _;
use crate::ledger::{ExecuteError, Executed, Ledger, Many, Meta};
use crate::read_model::pages;
use crate::refusal::{Refusal, Wrong};
use crate::store::{Receipt, ReceiptKey, raise_ids};
use crate::value::MAX_ID;

/// Rows of one transaction: few enough that nobody waits long behind it.
pub(super) const CHUNK: usize = 400;

pub(super) const COLUMNS: &[Column] = &[
    required("id"),
    required("coupon_id"),
    required("member_id"),
    required("start_date"),
    required("end_date"),
    optional("create_date"),
    required("state"),
    optional("use_date"),
    optional("shop_id"),
    optional("user_id"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unused,
    Used,
    Voided,
}

const STATES: &[(&str, State)] = &[
    ("unused", State::Unused),
    ("未使用", State::Unused),
    ("0", State::Unused),
    ("used", State::Used),
    ("已使用", State::Used),
    ("1", State::Used),
    ("voided", State::Voided),
    ("已作廢", State::Voided),
    ("已作废", State::Voided),
    ("3", State::Voided),
];

/// What a row says.
struct Incoming {
    line: u64,
    id: i64,
    definition_id: i64,
    member_id: i64,
    days: (NaiveDate, NaiveDate),
    born_at_ms: i64,
    past: Past,
}

impl Incoming {
    fn read(row: &Row, zone: Zone, at: Moment) -> Result<Self, Refusal> {
        row.complete()?;
        let id = row.int("id", 1, MAX_ID)?;
        let definition_id = row.int("coupon_id", 1, MAX_ID)?;
        let member_id = row.int("member_id", 1, MAX_ID)?;
        let days = (row.day("start_date")?, row.day("end_date")?);
        // Without a date of its own it was born when it started, or by now where that is still to come.
        let born = row.optional_time("create_date")?.map(|time| instant_ms(zone, time));
        let born_at_ms = born.unwrap_or_else(|| zone.day_starts_at_ms(days.0).min(at.ms));
        let state = row.word("state", STATES)?;
        let used_at = row.optional_time("use_date")?.map(|time| instant_ms(zone, time));
        let past = match (state, used_at) {
            (State::Unused, None) => Past::Unused,
            // One of the two is wrong, and which of them is worth money.
            (State::Unused, Some(_)) => {
                return Err(Refusal::field("use_date", Wrong::NotTogetherWith("state")));
            }
            (State::Used, None) => return Err(Refusal::field("use_date", Wrong::Required)),
            (State::Used, Some(at_ms)) => Past::Used {
                redemption_id: 0,
                shop_id: row.int("shop_id", 1, MAX_ID)?,
                employee_id: row.optional_int("user_id", 0, MAX_ID)?.unwrap_or_default(),
                at_ms,
            },
            (State::Voided, voided_at) => Past::Voided { at_ms: voided_at.unwrap_or(at.ms) },
        };
        Ok(Self { line: row.line, id, definition_id, member_id, days, born_at_ms, past })
    }

    fn command(&self, past: Past, employee_id: i64) -> (i64, CouponCommand) {
        let Self { id, definition_id, member_id, days, born_at_ms, .. } = *self;
        (id, CouponCommand::Import { definition_id, member_id, days, born_at_ms, past, employee_id })
    }

    fn bad(&self, refusal: Refusal) -> BadLine {
        BadLine { line: self.line, refusal }
    }
}

/// A day by itself stands for its first instant, where midnight does not exist too.
fn instant_ms(zone: Zone, time: NaiveDateTime) -> i64 {
    if time.time() == chrono::NaiveTime::MIN {
        zone.day_starts_at_ms(time.date())
    } else {
        zone.instant_ms(time)
    }
}

/// Says how far the ids of a file reach before any of them is written: whoever takes a block of ids from then on passes
/// over those that are taken.
pub(super) async fn claim_ids(ledger: &Ledger, table: Table<'_>) -> Result<(), ExecuteError> {
    if let Some(highest) = table.highest_id().await {
        ledger.store().write(vec![raise_ids("imported coupon", highest + 1)]).await?;
    }
    Ok(())
}

/// Takes a chunk of rows and returns those that were bad.
pub(super) async fn step(import: &mut Import<'_>, rows: &[Row]) -> Result<Vec<BadLine>, ExecuteError> {
    let at = import.ledger.now();
    let (mut lines, mut bad) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        let read = Incoming::read(row, import.ledger.zone(), at);
        match read.and_then(|line| import.refuse_second(line.id).map(|()| line)) {
            Ok(line) => lines.push(line),
            Err(refusal) => bad.push(BadLine { line: row.line, refusal }),
        }
    }
    bad.extend(refuse_own_ids(import.ledger, &mut lines).await?);
    let outcomes = if import.asked.dry_run {
        foresee(import, &lines, at).await?
    } else {
        take(import, &lines, at).await?
    };
    for (line, outcome) in lines.iter().zip(outcomes) {
        match outcome {
            Ok(()) => {}
            Err(ExecuteError::Refused(refusal)) => bad.push(line.bad(refusal)),
            Err(ExecuteError::Conflict) => bad.push(line.bad(Refusal::IdTaken)),
            Err(other) => return Err(other),
        }
    }
    Ok(bad)
}

/// Takes out the rows whose ids this ledger hands out itself. Where such a stream has begun, the coupon says what it is.
async fn refuse_own_ids(ledger: &Ledger, lines: &mut Vec<Incoming>) -> Result<Vec<BadLine>, ExecuteError> {
    let below = ledger.store().imported_ids(Coupon::TYPE).await?.own_below;
    let own: Vec<i64> = lines.iter().map(|line| line.id).filter(|id| *id < below).collect();
    if own.is_empty() {
        return Ok(Vec::new());
    }
    let begun = ledger.store().begun(Coupon::TYPE, &own).await?;
    let is_own = |line: &mut Incoming| line.id < below && !begun.contains(&line.id);
    let refused = lines.extract_if(.., is_own);
    Ok(refused.map(|line| line.bad(Refusal::field("id", Wrong::OwnIds { below }))).collect())
}

type Outcomes = Vec<Result<(), ExecuteError>>;

fn meta(import: &Import<'_>, at: Moment, key: ReceiptKey) -> Meta {
    let asked = import.asked;
    Meta {
        caller: asked.caller,
        at,
        request_id: asked.request_id.clone(),
        receipt: Some((key, asked.request_mac.clone())),
        job_id: None,
    }
}

async fn take(import: &mut Import<'_>, lines: &[Incoming], at: Moment) -> Result<Outcomes, ExecuteError> {
    let ledger = import.ledger;
    let employee_id = import.asked.caller.employee_id();
    let mut commands = Vec::with_capacity(lines.len());
    for line in lines {
        let mut past = line.past;
        if let Past::Used { redemption_id, .. } = &mut past {
            *redemption_id = ledger.next_id("redemption", false).await?;
        }
        commands.push(line.command(past, employee_id));
    }
    let first = import.key(Some(import.number));
    let (mut key, mut taken, mut asked_before) = (first.clone(), HashSet::new(), 0);
    let mut open = Vec::new().into_iter();
    while !commands.is_empty() {
        match ledger.execute_many::<Coupon>(commands.clone(), &meta(import, at, key)).await? {
            Many::Done(outcomes) => {
                import.took_now |= outcomes.iter().any(Result::is_ok);
                open = outcomes.into_iter();
                break;
            }
            // The reasons of those that were refused then were lost with the answer: they are asked again, under a key of
            // their own, so that what comes in now is known as this import's the next time.
            Many::Replayed(receipt) => {
                import.took_earlier = true;
                taken.extend(taken_by(ledger, &receipt).await?);
                commands.retain(|(id, _)| !taken.contains(id));
                asked_before += 1;
                key = ReceiptKey { key: format!("{}/{asked_before}", first.key), ..first.clone() };
            }
        }
    }
    let outcome = |line: &Incoming| {
        if taken.contains(&line.id) {
            return Ok(());
        }
        open.next().map_or(Err(ExecuteError::Conflict), |outcome| outcome.map(|_| ()))
    };
    Ok(lines.iter().map(outcome).collect())
}

/// The coupons that a chunk took when its key was used, told by its events.
async fn taken_by(ledger: &Ledger, receipt: &Receipt) -> Result<HashSet<i64>, ExecuteError> {
    let events = ledger.store().events_after(receipt.position - 1, receipt.event_count).await?;
    Ok(events.iter().filter_map(|event| event.aggregate_id.parse().ok()).collect())
}

/// What taking them would come to.
async fn foresee(import: &mut Import<'_>, lines: &[Incoming], at: Moment) -> Result<Outcomes, ExecuteError> {
    let employee_id = import.asked.caller.employee_id();
    let commands: Vec<_> = lines.iter().map(|line| line.command(line.past, employee_id)).collect();
    let key = import.key(Some(import.number));
    let foreseen = import.ledger.foresee_many::<Coupon>(&commands, &meta(import, at, key)).await?;
    let mut outcomes = Vec::with_capacity(foreseen.len());
    for outcome in foreseen {
        outcomes.push(match outcome {
            Ok(done) => take_from_stock(import, &done).await?,
            Err(error) => Err(error),
        });
    }
    Ok(outcomes)
}

/// The stock is a counter that the writer asks; a dry run keeps one of its own.
async fn take_from_stock(
    import: &mut Import<'_>,
    done: &Executed<Coupon>,
) -> Result<Result<(), ExecuteError>, ExecuteError> {
    let Some(counts) = done.state.counts().filter(|counts| counts.issued > 0) else {
        return Ok(Ok(()));
    };
    let id = counts.definition_id;
    if !import.left.contains_key(&id) {
        let row = pages::definition(import.ledger.store(), id).await?;
        import.left.insert(id, row.map_or(0, |row| row.inventory()));
    }
    Ok(match import.left.get_mut(&id) {
        Some(0) => Err(Refusal::SoldOut.into()),
        Some(left) if *left > 0 => {
            *left -= 1;
            Ok(())
        }
        _ => Ok(()),
    })
}
