//! Bulk issue: one coupon of a definition to each of many members, chunk by chunk.
//!
//! A chunk is one transaction under one idempotency key, so a run that was killed goes on without doubling anyone; the
//! same rules hold as for a single issue, and a member who is refused stops nobody else. Between chunks, and in the
//! same batches, members' own requests go through.

use std::collections::HashMap;

use crate::coupon::{Coupon, CouponCommand, CouponEvent, Origin};
use crate::entity::decode;
use crate::ledger::{ExecuteError, Ledger, Many, Meta};
use crate::refusal::Refusal;
use crate::store::Receipt;

/// The most members of one chunk: enough to make a transaction cheap, few enough that nobody waits long behind it.
pub const MAX_CHUNK: usize = 500;

/// What became of a chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// (member, coupon)
    pub issued: Vec<(i64, i64)>,
    /// Members without a coupon, with the reason where it is known: a replay knows only that there was one.
    pub refused: Vec<(i64, Option<Refusal>)>,
    /// Whether the key had been used, and this is what it did then.
    pub replayed: bool,
}

/// Issues one coupon of a definition to each of these members; one who is listed twice gets two, if the definition lets him.
///
/// # Errors
/// 2002 and 5006 as the answer to the whole chunk, where nobody could be issued anything; and whatever keeps a command
/// from having an outcome.
pub async fn issue(
    ledger: &Ledger,
    definition_id: i64,
    origin: Origin,
    members: &[i64],
    meta: &Meta,
) -> Result<Chunk, ExecuteError> {
    let mut commands = Vec::with_capacity(members.len());
    for member_id in members {
        let id = ledger.next_id("coupon", false).await?;
        let command = CouponCommand::Issue { definition_id, member_id: *member_id, origin };
        commands.push((id, command));
    }
    let outcomes = match ledger.execute_many::<Coupon>(commands, meta).await? {
        Many::Done(outcomes) => outcomes,
        Many::Replayed(receipt) => return replay(ledger, members, &receipt).await,
    };
    let mut chunk = Chunk::default();
    for (member_id, outcome) in members.iter().zip(outcomes) {
        match outcome {
            Ok(done) => chunk.issued.push((*member_id, done.id)),
            Err(ExecuteError::Refused(refusal)) => chunk.refused.push((*member_id, Some(refusal))),
            Err(other) => return Err(other),
        }
    }
    match chunk.refused.first() {
        // One member's card may have ended where another has his coupon already: only a reason that all share is the
        // chunk's.
        Some((_, Some(why @ (Refusal::NoSuchDefinition | Refusal::NotOnOffer))))
            if chunk.issued.is_empty()
                && chunk.refused.iter().all(|(_, other)| other.as_ref() == Some(why)) =>
        {
            Err(why.clone().into())
        }
        _ => Ok(chunk),
    }
}

/// What a chunk did when its key was used, told by its events.
async fn replay(ledger: &Ledger, members: &[i64], receipt: &Receipt) -> Result<Chunk, ExecuteError> {
    let events = ledger.store().events_after(receipt.position - 1, receipt.event_count).await?;
    let mut issued: HashMap<i64, Vec<i64>> = HashMap::new();
    for stored in events.iter().rev() {
        if let CouponEvent::Issued(issue) = decode::<Coupon>(stored)? {
            let id = stored.aggregate_id.parse().unwrap_or_default();
            issued.entry(issue.member_id).or_default().push(id);
        }
    }
    let mut chunk = Chunk { replayed: true, ..Chunk::default() };
    for member_id in members {
        match issued.get_mut(member_id).and_then(Vec::pop) {
            Some(id) => chunk.issued.push((*member_id, id)),
            None => chunk.refused.push((*member_id, None)),
        }
    }
    Ok(chunk)
}
