//! Partners' public keys, by which a partner signs his requests instead of showing a token.
//!
//! Only the public half is ever here, so it stands in the log: whoever reads the log can tell which key a partner had when.

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::refusal::Refusal;

/// What happened to a partner's key. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PartnerKeyEvent {
    /// It was registered: requests that are signed with it are the partner's.
    Registered {
        /// Whose it is.
        partner_id: i64,
        /// The Ed25519 public key, 32 bytes in base64.
        public_key: String,
        /// The employee who did it, 0 for an operator without an employee's id.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It was revoked: what it signs is nobody's from now on.
    Revoked {
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
}

/// What can be asked of a partner's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartnerKeyCommand {
    /// Register it.
    Register {
        /// Whose it is.
        partner_id: i64,
        /// The Ed25519 public key, 32 bytes in base64.
        public_key: String,
        /// Who.
        employee_id: i64,
    },
    /// Revoke it.
    Revoke {
        /// Who.
        employee_id: i64,
    },
}

/// A partner's key as its events make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartnerKey {
    /// None until it is registered.
    pub public_key: Option<String>,
    /// Whose it is.
    pub partner_id: i64,
    /// Who registered it.
    pub employee_id: i64,
    /// When, Unix milliseconds.
    pub registered_at_ms: i64,
    /// When it was revoked, Unix milliseconds; 0 = it was not.
    pub revoked_at_ms: i64,
}

impl PartnerKey {
    /// What these events make of it; total on any event.
    pub fn evolve(&mut self, event: &PartnerKeyEvent) {
        match event {
            PartnerKeyEvent::Registered { partner_id, public_key, employee_id, at_ms } => {
                *self = Self {
                    public_key: Some(public_key.clone()),
                    partner_id: *partner_id,
                    employee_id: *employee_id,
                    registered_at_ms: *at_ms,
                    revoked_at_ms: 0,
                };
            }
            PartnerKeyEvent::Revoked { at_ms, .. } => self.revoked_at_ms = *at_ms,
        }
    }

    /// What follows from a command, or why nothing does.
    pub fn decide(
        &self,
        command: &PartnerKeyCommand,
        facts: &Facts,
    ) -> Result<Vec<PartnerKeyEvent>, Refusal> {
        let at_ms = facts.at.ms;
        match command {
            PartnerKeyCommand::Register { .. } if self.public_key.is_some() => Err(Refusal::IdTaken),
            PartnerKeyCommand::Register { .. } if !facts.shop.as_ref().is_some_and(|shop| shop.partner) => {
                Err(Refusal::NoSuchRule)
            }
            PartnerKeyCommand::Register { partner_id, public_key, employee_id } => {
                let (partner_id, public_key, employee_id) = (*partner_id, public_key.clone(), *employee_id);
                Ok(vec![PartnerKeyEvent::Registered { partner_id, public_key, employee_id, at_ms }])
            }
            PartnerKeyCommand::Revoke { .. } if self.public_key.is_none() => Err(Refusal::NoSuchRule),
            PartnerKeyCommand::Revoke { .. } if self.revoked_at_ms != 0 => Ok(Vec::new()),
            PartnerKeyCommand::Revoke { employee_id } => {
                Ok(vec![PartnerKeyEvent::Revoked { employee_id: *employee_id, at_ms }])
            }
        }
    }
}
