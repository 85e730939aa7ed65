//! What happened to proposals, in words.

use super::{Told, because, job_words};
use crate::approval::{Act, Approval, ApprovalEvent, Proposal};
use crate::clock::Zone;

impl Told for Approval {
    fn words(event: &ApprovalEvent, zone: Zone) -> String {
        match event {
            ApprovalEvent::Proposed(proposal) => {
                let Proposal {
                    act,
                    action,
                    above,
                    proposed_by,
                    behind,
                    employee_id: _,
                    lapses_at_ms,
                    at_ms: _,
                } = &**proposal;
                let (what, until) = (act_words(act), zone.date_time(*lapses_at_ms));
                format!(
                    "{what} proposed by {proposed_by} through {action}, as more than {above} need another's word than {}; \
                     open until {until}",
                    behind.join(", ")
                )
            }
            ApprovalEvent::Approved { by, at_ms: _ } => format!("approved by {by}"),
            ApprovalEvent::Refused { by, reason, at_ms: _ } => format!("refused by {by}{}", because(reason)),
            ApprovalEvent::Withdrawn { by, at_ms: _ } => format!("withdrawn by {by}"),
            ApprovalEvent::Expired { at_ms: _ } => "lapsed: nobody approved it in time".to_owned(),
        }
    }
}

fn act_words(act: &Act) -> String {
    match act {
        Act::Job { job_id, work, targeted, until_position, reason } => {
            format!("job {job_id}, {}{}", job_words(work, *targeted, *until_position), because(reason))
        }
        Act::Define { definition_id, offer: _, stock } => match stock {
            Some(stock) => format!("definition {definition_id} with a stock of {stock}"),
            None => format!("definition {definition_id} with an unlimited stock"),
        },
        Act::RaiseStock { definition_id, by, stock } => {
            format!("the stock of definition {definition_id}, raised by {by} to {stock},")
        }
        Act::Allot { allotment_id, partner_id, definition_id, num, end_date } => format!(
            "allotment {allotment_id} of {num} of definition {definition_id} to partner {partner_id} until {end_date}"
        ),
        Act::RaiseAllotment { allotment_id, by, num } => {
            format!("allotment {allotment_id}, raised by {by} to {num},")
        }
        Act::Import { sha256, rows } => {
            format!("the import of a file with {rows} coupons (SHA-256 {sha256})")
        }
    }
}
