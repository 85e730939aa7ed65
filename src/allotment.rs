//! Allotments (引流券): how many coupons of a definition a partner hands out, and until when.
//!
//! How many of it were taken is a counter (projections/stock.sql), as with a definition's own stock, because one stream
//! cannot know it. An allotment never changes what was taken from it.

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::refusal::{Refusal, Wrong};
use crate::value::MAX_ID;

/// How many allotments of one partner may be open: a member takes them all in one call.
pub const MAX_OPEN: usize = 100;

/// What happened to an allotment. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AllotmentEvent {
    /// So many coupons were set aside for a partner.
    Allotted {
        /// The partner who hands them out.
        partner_id: i64,
        /// The definition they are issued from.
        definition_id: i64,
        /// How many may be taken.
        num: i64,
        /// The last local day on which they can be taken.
        end_date: NaiveDate,
        /// The employee who did it, 0 for an operator without an employee's id.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Its last day was moved.
    EndChanged {
        /// The last local day from now on.
        end_date: NaiveDate,
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// More or fewer may be taken.
    StockChanged {
        /// How many more (or, negative, fewer).
        by: i64,
        /// How many from now on.
        num: i64,
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
}

/// What can be asked of an allotment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllotmentCommand {
    /// Set coupons aside for a partner.
    Allot {
        /// The partner.
        partner_id: i64,
        /// The definition.
        definition_id: i64,
        /// How many.
        num: i64,
        /// The last local day.
        end_date: NaiveDate,
        /// Who.
        employee_id: i64,
        /// More than so many need approval; None = any number will do.
        at_most: Option<i64>,
    },
    /// Move its last day.
    ChangeEnd {
        /// The last local day from then on.
        end_date: NaiveDate,
        /// Who.
        employee_id: i64,
    },
    /// Change how many may be taken.
    ChangeStock {
        /// How many more or, negative, fewer.
        by: i64,
        /// Who.
        employee_id: i64,
        /// To raise it above so many needs approval; None = any number will do.
        at_most: Option<i64>,
    },
}

/// One entry of the stock log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockEntry {
    /// How many more (or, negative, fewer).
    pub by: i64,
    /// How many from then on.
    pub num: i64,
    /// Who.
    pub employee_id: i64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// An allotment as its events make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allotment {
    /// The partner who hands it out, 0 until it is allotted.
    pub partner_id: i64,
    /// The definition behind it.
    pub definition_id: i64,
    /// The last local day on which it can be taken.
    pub end_date: NaiveDate,
    /// Every change of its number, the first being the allotment itself.
    pub stock_log: Vec<StockEntry>,
}

impl Allotment {
    /// How many may be taken in all; None until it is allotted.
    #[must_use]
    pub fn num(&self) -> Option<i64> {
        self.stock_log.last().map(|entry| entry.num)
    }

    /// Whether nothing can be taken any more on this day.
    #[must_use]
    pub fn has_ended(&self, today: NaiveDate) -> bool {
        self.end_date < today
    }

    /// What these events make of it; total on any event.
    pub fn evolve(&mut self, event: &AllotmentEvent) {
        match event {
            AllotmentEvent::Allotted { partner_id, definition_id, num, end_date, employee_id, at_ms } => {
                let first = StockEntry { by: *num, num: *num, employee_id: *employee_id, at_ms: *at_ms };
                *self = Self {
                    partner_id: *partner_id,
                    definition_id: *definition_id,
                    end_date: *end_date,
                    stock_log: vec![first],
                };
            }
            AllotmentEvent::EndChanged { end_date, .. } => self.end_date = *end_date,
            AllotmentEvent::StockChanged { by, num, employee_id, at_ms } => {
                let (by, num, employee_id, at_ms) = (*by, *num, *employee_id, *at_ms);
                self.stock_log.push(StockEntry { by, num, employee_id, at_ms });
            }
        }
    }

    /// What follows from a command, or why nothing does.
    pub fn decide(&self, command: &AllotmentCommand, facts: &Facts) -> Result<Vec<AllotmentEvent>, Refusal> {
        let at_ms = facts.at.ms;
        match (command, self.num()) {
            (AllotmentCommand::Allot { .. }, Some(_)) => Err(Refusal::field("id", Wrong::Taken)),
            (
                AllotmentCommand::Allot { partner_id, definition_id, num, end_date, employee_id, at_most },
                None,
            ) => {
                refuse_to_allot(*end_date, facts)?;
                if at_most.is_some_and(|most| *num > most) {
                    return Err(Refusal::NeedsApproval);
                }
                Ok(vec![AllotmentEvent::Allotted {
                    partner_id: *partner_id,
                    definition_id: *definition_id,
                    num: *num,
                    end_date: *end_date,
                    employee_id: *employee_id,
                    at_ms,
                }])
            }
            (_, None) => Err(Refusal::NoSuchRule),
            (AllotmentCommand::ChangeEnd { end_date, .. }, Some(_)) if *end_date == self.end_date => {
                Ok(Vec::new())
            }
            (AllotmentCommand::ChangeEnd { end_date, employee_id }, Some(_)) => {
                let (end_date, employee_id) = (*end_date, *employee_id);
                Ok(vec![AllotmentEvent::EndChanged { end_date, employee_id, at_ms }])
            }
            (AllotmentCommand::ChangeStock { by, employee_id, at_most }, Some(num)) => {
                let num = num.saturating_add(*by);
                // Never below what was taken: the counter knows, and the append's guard asks it under the head lock.
                if !(0..=MAX_ID).contains(&num) {
                    return Err(Refusal::field("num", Wrong::OutOfRange { min: 0, max: MAX_ID }));
                }
                if *by > 0 && at_most.is_some_and(|most| num > most) {
                    return Err(Refusal::NeedsApproval);
                }
                Ok(vec![AllotmentEvent::StockChanged { by: *by, num, employee_id: *employee_id, at_ms }])
            }
        }
    }
}

/// 2005 2003 2002 5006, then 401 for a last day that has passed.
fn refuse_to_allot(end_date: NaiveDate, facts: &Facts) -> Result<(), Refusal> {
    let partner = facts.shop.as_ref().filter(|shop| shop.partner).ok_or(Refusal::NoSuchRule)?;
    if !partner.open {
        return Err(Refusal::NoSuchShop);
    }
    let definition = facts.definition.as_ref().ok_or(Refusal::NoSuchDefinition)?;
    let offer = definition.offer.as_ref().ok_or(Refusal::NoSuchDefinition)?;
    if !definition.on || offer.has_ended(facts.at.day) {
        return Err(Refusal::NotOnOffer);
    }
    if end_date < facts.at.day {
        return Err(Refusal::field("end_time", Wrong::EndBeforeStart));
    }
    Ok(())
}
