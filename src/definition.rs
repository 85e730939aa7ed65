//! Definitions (電子券): what a coupon is worth, where and when it can be used, and who may be issued one.
//!
//! A definition is a stream of its own. What was issued keeps the terms it was issued under: they are copied into the
//! coupon's Issued event, so an edit never reaches back. Stock is part of the definition, but how much of it is
//! gone is a counter (projections/stock.sql), because one stream cannot know it.

use chrono::{Days, NaiveDate};
use serde::{Deserialize, Serialize};

use crate::clock::Zone;
use crate::facts::Facts;
use crate::refusal::{Refusal, Wrong};

/// What a coupon stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// 現金券, `type` 1: takes its deduction off an order.
    #[default]
    Cash,
    /// 兌換券, `type` 2: is exchanged for goods.
    Exchange,
}

/// The terms a coupon is used under; the Issued event carries a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a term of its own, and stored under its name")]
pub struct Terms {
    /// Cash or exchange.
    pub kind: Kind,
    /// What the member reads.
    pub title: String,
    /// What a cash coupon takes off, in cents; 0 for an exchange coupon.
    pub deduction_cents: i64,
    /// The order amount from which a cash coupon counts, in cents.
    pub minimum_order_cents: i64,
    /// The weekdays on which it can be used, Monday = 1 … Sunday = 7; empty = every day.
    pub weekdays: Vec<u8>,
    /// Whether its holder may give it away.
    pub givable: bool,
    /// Whether it may be combined with other coupons in an order.
    pub stackable: bool,
    /// The rules of use, for people.
    pub rules: String,
    /// The shops where it can be used; empty = every own shop.
    pub shop_ids: Vec<i64>,
    /// Whether the member may redeem it himself.
    pub self_redeemable: bool,
    /// Whether redeeming it himself needs the shop's signed QR.
    pub scan_required: bool,
}

impl Terms {
    /// Whether it can be used at a shop, or at a partner: where no shop is listed, that is every own shop and no partner.
    #[must_use]
    pub fn is_usable_at(&self, shop_id: i64, partner: bool) -> bool {
        if self.shop_ids.is_empty() { !partner } else { self.shop_ids.contains(&shop_id) }
    }
}

/// From when until when a coupon is valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validity {
    /// Between two days, both included.
    Fixed {
        /// First day.
        start: NaiveDate,
        /// Last day.
        end: NaiveDate,
    },
    /// Counted from the day of receipt.
    FromReceipt {
        /// Days until it starts.
        starts_after_days: u32,
        /// Days it is valid, at least 1.
        valid_days: u32,
    },
    /// From receipt until the member's card ends.
    MemberCard,
}

/// How many of a definition one member may be issued.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IssueLimit {
    /// Any number.
    #[default]
    Unlimited,
    /// At most `get_limit` per member.
    PerMember,
    /// One at a time until its end date, used or not.
    OneAtATime,
    /// Any number, but only for members of the listed levels.
    Levels,
}

/// Everything about a definition except its stock and its switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What is copied into the coupons.
    pub terms: Terms,
    /// When they are valid.
    pub validity: Validity,
    /// Who may be issued how many.
    pub issue_limit: IssueLimit,
    /// The number behind [`IssueLimit::PerMember`]; kept as given for the others.
    pub get_limit: i64,
    /// The levels behind [`IssueLimit::Levels`].
    pub level_ids: Vec<i64>,
    /// Whether members may claim it themselves.
    pub claimable: bool,
}

impl Offer {
    /// The first and the last day of a coupon received on `receipt`, or why there is none.
    pub fn valid_days(
        &self,
        receipt: NaiveDate,
        card_end: Option<NaiveDate>,
    ) -> Result<(NaiveDate, NaiveDate), Refusal> {
        let (start, end) = match self.validity {
            Validity::Fixed { start, end } => (start, end),
            Validity::FromReceipt { starts_after_days, valid_days } => {
                let start = receipt.checked_add_days(Days::new(starts_after_days.into()));
                let start = start.ok_or(Refusal::NotOnOffer)?;
                let end = start.checked_add_days(Days::new(u64::from(valid_days.max(1)) - 1));
                (start, end.ok_or(Refusal::NotOnOffer)?)
            }
            Validity::MemberCard => (receipt, card_end.ok_or(Refusal::NotOnOffer)?),
        };
        if end < receipt { Err(Refusal::NotOnOffer) } else { Ok((start, end)) }
    }

    /// Whether a coupon issued on this day could still be used.
    #[must_use]
    pub fn has_ended(&self, today: NaiveDate) -> bool {
        matches!(self.validity, Validity::Fixed { end, .. } if end < today)
    }
}

/// What happened to a definition. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DefinitionEvent {
    /// It was defined, switched on.
    Defined {
        /// Its offer.
        offer: Box<Offer>,
        /// How many may be issued in all; null = unlimited.
        stock: Option<i64>,
        /// The employee who did it, 0 for an operator without an employee's id.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Its offer was replaced. What was issued stays as it was.
    Edited {
        /// The offer from now on.
        offer: Box<Offer>,
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Its stock was changed.
    StockChanged {
        /// How many more (or, negative, fewer).
        by: i64,
        /// The stock from now on.
        stock: i64,
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It was switched on or off.
    StateChanged {
        /// Whether it is on from now on.
        on: bool,
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
}

/// What can be asked of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefinitionCommand {
    /// Define it.
    Define {
        /// Its offer.
        offer: Box<Offer>,
        /// None = unlimited.
        stock: Option<i64>,
        /// Who.
        employee_id: i64,
        /// More than so many need approval; None = any number will do.
        at_most: Option<i64>,
    },
    /// Replace its offer.
    Edit {
        /// The new offer.
        offer: Box<Offer>,
        /// Who.
        employee_id: i64,
    },
    /// Change its stock.
    ChangeStock {
        /// How many more or, negative, fewer.
        by: i64,
        /// Who.
        employee_id: i64,
        /// To raise it above so many needs approval; None = any number will do.
        at_most: Option<i64>,
    },
    /// Switch it on or off.
    ChangeState {
        /// On?
        on: bool,
        /// Who.
        employee_id: i64,
    },
}

/// A definition as its events make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// None until it is defined.
    pub offer: Option<Box<Offer>>,
    /// None = unlimited.
    pub stock: Option<i64>,
    /// Whether coupons may be issued from it.
    pub on: bool,
    /// Who defined it.
    pub employee_id: i64,
    /// When it was defined, Unix milliseconds.
    pub defined_at_ms: i64,
}

impl Definition {
    /// What these events make of it; total on any event.
    pub fn evolve(&mut self, event: &DefinitionEvent) {
        match event {
            DefinitionEvent::Defined { offer, stock, employee_id, at_ms } => {
                *self = Self {
                    offer: Some(offer.clone()),
                    stock: *stock,
                    on: true,
                    employee_id: *employee_id,
                    defined_at_ms: *at_ms,
                };
            }
            DefinitionEvent::Edited { offer, .. } => self.offer = Some(offer.clone()),
            DefinitionEvent::StockChanged { stock, .. } => self.stock = Some(*stock),
            DefinitionEvent::StateChanged { on, .. } => self.on = *on,
        }
    }

    /// What follows from a command, or why nothing does.
    pub fn decide(
        &self,
        command: &DefinitionCommand,
        facts: &Facts,
    ) -> Result<Vec<DefinitionEvent>, Refusal> {
        let at_ms = facts.at.ms;
        if let DefinitionCommand::Define { offer, stock, employee_id, at_most } = command {
            if self.offer.is_some() {
                return Err(Refusal::field("id", Wrong::Taken));
            }
            // What is unlimited is more than any number.
            if at_most.is_some_and(|most| stock.is_none_or(|stock| stock > most)) {
                return Err(Refusal::NeedsApproval);
            }
            let (offer, stock, employee_id) = (offer.clone(), *stock, *employee_id);
            return Ok(vec![DefinitionEvent::Defined { offer, stock, employee_id, at_ms }]);
        }
        let Some(current) = &self.offer else {
            return Err(Refusal::NoSuchDefinition);
        };
        match command {
            DefinitionCommand::Edit { offer, .. } if offer == current => Ok(Vec::new()),
            DefinitionCommand::Edit { offer, employee_id } => {
                Ok(vec![DefinitionEvent::Edited { offer: offer.clone(), employee_id: *employee_id, at_ms }])
            }
            DefinitionCommand::ChangeStock { by, employee_id, at_most } => {
                let stock = match self.stock {
                    Some(stock) => stock.saturating_add(*by),
                    None if *by < 0 => return Err(Refusal::field("num", Wrong::StockUnlimited)),
                    None => *by,
                };
                // Never below what is issued: the counter knows, and the append's guard asks it under the head lock.
                if !(0..=crate::value::MAX_ID).contains(&stock) {
                    return Err(Refusal::field(
                        "num",
                        Wrong::OutOfRange { min: 0, max: crate::value::MAX_ID },
                    ));
                }
                // Of an unlimited stock a number is less.
                let is_raised = *by > 0 && self.stock.is_some();
                if is_raised && at_most.is_some_and(|most| stock > most) {
                    return Err(Refusal::NeedsApproval);
                }
                Ok(vec![DefinitionEvent::StockChanged { by: *by, stock, employee_id: *employee_id, at_ms }])
            }
            DefinitionCommand::ChangeState { on, .. } if *on == self.on => Ok(Vec::new()),
            DefinitionCommand::ChangeState { on, employee_id } => {
                Ok(vec![DefinitionEvent::StateChanged { on: *on, employee_id: *employee_id, at_ms }])
            }
            DefinitionCommand::Define { .. } => Err(Refusal::NoSuchDefinition),
        }
    }
}

/// The instants between which a coupon of these days is valid: `[start, end)`, Unix milliseconds.
#[must_use]
pub fn valid_instants(zone: Zone, (start, end): (NaiveDate, NaiveDate)) -> (i64, i64) {
    (zone.day_starts_at_ms(start), zone.day_ends_at_ms(end))
}
