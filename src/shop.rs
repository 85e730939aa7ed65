//! Shops (門店) and partners (合作商家): where coupons are redeemed, and whose QR a member scans.
//!
//! A partner is a shop in all that is done there, but never an own one: pages of shops do not show it, and a coupon for
//! every own shop is not redeemed there.

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
        /// Whether it is a partner and no own shop. Left out of the event where it is not.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        partner: bool,
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
        /// Whether it is a partner and no own shop.
        partner: bool,
        /// Who.
        employee_id: i64,
    },
    /// Change its details and whether it is open.
    Edit {
        /// From now on.
        details: ShopDetails,
        /// Open?
        open: bool,
        /// Whether it is meant to be a partner: one is not found among the shops, nor a shop among the partners.
        partner: bool,
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
    /// Whether it is a partner and no own shop.
    pub partner: bool,
    /// Who opened it.
    pub employee_id: i64,
}

impl Shop {
    /// What these events make of it; total on any event.
    pub fn evolve(&mut self, event: &ShopEvent) {
        match event {
            ShopEvent::Opened { details, partner, employee_id, .. } => {
                *self = Self {
                    details: Some(details.clone()),
                    open: true,
                    audit_key: 1,
                    partner: *partner,
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
            (ShopCommand::Open { details, partner, employee_id }, None) => {
                let (details, partner, employee_id) = (details.clone(), *partner, *employee_id);
                Ok(vec![ShopEvent::Opened { details, partner, employee_id, at_ms }])
            }
            (ShopCommand::Edit { partner: true, .. }, _) if !self.partner => Err(Refusal::NoSuchRule),
            (ShopCommand::Edit { partner: false, .. }, _) if self.partner => Err(Refusal::NoSuchShop),
            (_, None) => Err(Refusal::NoSuchShop),
            (ShopCommand::Edit { details, open, employee_id, .. }, Some(current)) => {
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
