//! Shops (門店): where coupons are redeemed, and whose QR a member scans.

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::refusal::{Refusal, Wrong};

/// What people read of a shop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShopDetails {
    /// Its name.
    pub name: String,
    /// Its telephone number.
    pub phone: String,
    /// Its address.
    pub address: String,
}

/// What happened to a shop. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShopEvent {
    /// It was opened. Its first audit key has number 1.
    Opened {
        /// What people read.
        details: ShopDetails,
        /// The employee who did it, 0 for an operator without an employee's id.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Its details changed.
    Edited {
        /// From now on.
        details: ShopDetails,
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It was closed: nothing can be redeemed there.
    Closed {
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It was opened again.
    Reopened {
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Its audit key was rotated: QR codes printed before are no longer ours.
    AuditKeyRotated {
        /// The number of the key from now on.
        audit_key: u32,
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
}

/// What can be asked of a shop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShopCommand {
    /// Open it.
    Open {
        /// What people read.
        details: ShopDetails,
        /// Who.
        employee_id: i64,
    },
    /// Change its details and whether it is open.
    Edit {
        /// From now on.
        details: ShopDetails,
        /// Open?
        open: bool,
        /// Who.
        employee_id: i64,
    },
    /// Make QR codes printed before invalid.
    RotateAuditKey {
        /// Who.
        employee_id: i64,
    },
}

/// A shop as its events make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shop {
    /// None until it is opened for the first time.
    pub details: Option<ShopDetails>,
    /// Whether it is open.
    pub open: bool,
    /// The number of its audit key, from 1.
    pub audit_key: u32,
    /// Who opened it.
    pub employee_id: i64,
}

impl Shop {
    /// What these events make of it; total on any event.
    pub fn evolve(&mut self, event: &ShopEvent) {
        match event {
            ShopEvent::Opened { details, employee_id, .. } => {
                *self = Self {
                    details: Some(details.clone()),
                    open: true,
                    audit_key: 1,
                    employee_id: *employee_id,
                };
            }
            ShopEvent::Edited { details, .. } => self.details = Some(details.clone()),
            ShopEvent::Closed { .. } => self.open = false,
            ShopEvent::Reopened { .. } => self.open = true,
            ShopEvent::AuditKeyRotated { audit_key, .. } => self.audit_key = *audit_key,
        }
    }

    /// What follows from a command, or why nothing does.
    pub fn decide(&self, command: &ShopCommand, facts: &Facts) -> Result<Vec<ShopEvent>, Refusal> {
        let at_ms = facts.at.ms;
        match (command, &self.details) {
            (ShopCommand::Open { .. }, Some(_)) => Err(Refusal::field("id", Wrong::Taken)),
            (ShopCommand::Open { details, employee_id }, None) => {
                Ok(vec![ShopEvent::Opened { details: details.clone(), employee_id: *employee_id, at_ms }])
            }
            (_, None) => Err(Refusal::NoSuchShop),
            (ShopCommand::Edit { details, open, employee_id }, Some(current)) => {
                let employee_id = *employee_id;
                let mut events = Vec::new();
                if details != current {
                    events.push(ShopEvent::Edited { details: details.clone(), employee_id, at_ms });
                }
                match (self.open, *open) {
                    (true, false) => events.push(ShopEvent::Closed { employee_id, at_ms }),
                    (false, true) => events.push(ShopEvent::Reopened { employee_id, at_ms }),
                    _ => {}
                }
                Ok(events)
            }
            (ShopCommand::RotateAuditKey { employee_id }, Some(_)) => Ok(vec![ShopEvent::AuditKeyRotated {
                audit_key: self.audit_key.saturating_add(1),
                employee_id: *employee_id,
                at_ms,
            }]),
        }
    }
}
