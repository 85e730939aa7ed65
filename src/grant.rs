//! Grants: "so many coupons of this definition", hung on what earns them: an order's amount, a group of goods, a level, a
//! birthday.
//!
//! Each is a stream of its own, so that its history tells who granted what when. What a grant is changed to binds later
//! issues only: what was issued names its grant and is never touched by it. Pure.

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::refusal::{Refusal, Wrong};

/// The most coupons that one grant gives at a time.
pub const MAX_NUM: i64 = 10_000;

/// What earns the coupons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// An order that reaches this rule's amount.
    OrderAmount(i64),
    /// Goods of this group in an order.
    GoodsGroup(i64),
    /// Reaching this level.
    Level(i64),
    /// A birthday.
    Birthday,
}

/// What happened to a grant. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrantEvent {
    /// It was added.
    Added {
        /// What earns it.
        cause: Cause,
        /// Of which definition.
        definition_id: i64,
        /// How many coupons.
        num: i64,
        /// Who, 0 for an operator without an employee's id.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It gives another number of coupons.
    Changed {
        /// How many from now on.
        num: i64,
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It gives nothing any more.
    Removed {
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
}

/// What can be asked of a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantCommand {
    /// Add it.
    Add {
        /// What earns it.
        cause: Cause,
        /// Of which definition; the definition itself is among the facts.
        definition_id: i64,
        /// How many coupons.
        num: i64,
        /// Who.
        employee_id: i64,
    },
    /// Give another number of coupons.
    Change {
        /// How many.
        num: i64,
        /// Who.
        employee_id: i64,
    },
    /// Give nothing any more.
    Remove {
        /// Who.
        employee_id: i64,
    },
}

/// A grant as its events make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// None until it is added.
    pub cause: Option<Cause>,
    /// Of which definition.
    pub definition_id: i64,
    /// How many coupons.
    pub num: i64,
    /// Who added it.
    pub employee_id: i64,
    /// When, Unix milliseconds.
    pub added_at_ms: i64,
    /// Whether it gives nothing any more.
    pub removed: bool,
}

impl Grant {
    /// What earns it, as long as it gives something.
    #[must_use]
    pub fn live_cause(&self) -> Option<Cause> {
        self.cause.filter(|_| !self.removed)
    }

    /// What these events make of it; total on any event.
    pub fn evolve(&mut self, event: &GrantEvent) {
        match event {
            GrantEvent::Added { cause, definition_id, num, employee_id, at_ms } => {
                *self = Self {
                    cause: Some(*cause),
                    definition_id: *definition_id,
                    num: *num,
                    employee_id: *employee_id,
                    added_at_ms: *at_ms,
                    removed: false,
                };
            }
            GrantEvent::Changed { num, .. } => self.num = *num,
            GrantEvent::Removed { .. } => self.removed = true,
        }
    }

    /// What follows from a command, or why nothing does.
    pub fn decide(&self, command: &GrantCommand, facts: &Facts) -> Result<Vec<GrantEvent>, Refusal> {
        let at_ms = facts.at.ms;
        let within = |num: i64| match num {
            1..=MAX_NUM => Ok(()),
            _ => Err(Refusal::field("num", Wrong::OutOfRange { min: 1, max: MAX_NUM })),
        };
        if let GrantCommand::Add { cause, definition_id, num, employee_id } = command {
            if self.cause.is_some() {
                return Err(Refusal::field("id", Wrong::Taken));
            }
            let defined = facts.definition.as_ref().is_some_and(|definition| definition.offer.is_some());
            if !defined {
                return Err(Refusal::NoSuchDefinition);
            }
            within(*num)?;
            return Ok(vec![GrantEvent::Added {
                cause: *cause,
                definition_id: *definition_id,
                num: *num,
                employee_id: *employee_id,
                at_ms,
            }]);
        }
        if self.live_cause().is_none() {
            return Err(Refusal::NoSuchRule);
        }
        match command {
            GrantCommand::Change { num, .. } if *num == self.num => Ok(Vec::new()),
            GrantCommand::Change { num, employee_id } => {
                within(*num)?;
                Ok(vec![GrantEvent::Changed { num: *num, employee_id: *employee_id, at_ms }])
            }
            GrantCommand::Remove { employee_id } => {
                Ok(vec![GrantEvent::Removed { employee_id: *employee_id, at_ms }])
            }
            GrantCommand::Add { .. } => Err(Refusal::NoSuchRule),
        }
    }
}
