//! Machines: programs with a key of their own, each with the rights that it was given.
//!
//! The log says what a key may do, until when, and that it was revoked; never the key, nor a hash of it.

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::refusal::Refusal;

/// What happened to a machine's key. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MachineEvent {
    /// It was issued.
    Issued {
        /// What the machine is called.
        name: String,
        /// Its rights by their numbers, in order.
        rights: Vec<i64>,
        /// From when on it is worthless, Unix milliseconds; 0 = it does not end by itself.
        expires_at_ms: i64,
        /// The employee who did it, 0 for an operator without an employee's id.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It was revoked: it is worthless from now on.
    Revoked {
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
}

/// What can be asked of a machine's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineCommand {
    /// Issue it.
    Issue {
        /// What the machine is called.
        name: String,
        /// Its rights by their numbers.
        rights: Vec<i64>,
        /// Those that whoever asks may give.
        givable: Vec<i64>,
        /// From when on it is worthless, Unix milliseconds; 0 = it does not end by itself.
        expires_at_ms: i64,
        /// Who.
        employee_id: i64,
    },
    /// Revoke it.
    Revoke {
        /// Who.
        employee_id: i64,
    },
}

/// A machine's key as its events make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// None until it is issued.
    pub name: Option<String>,
    /// Its rights by their numbers, in order.
    pub rights: Vec<i64>,
    /// From when on it is worthless, Unix milliseconds; 0 = it does not end by itself.
    pub expires_at_ms: i64,
    /// Who issued it.
    pub employee_id: i64,
    /// When, Unix milliseconds.
    pub issued_at_ms: i64,
    /// When it was revoked, Unix milliseconds; 0 = it was not.
    pub revoked_at_ms: i64,
}

impl Machine {
    /// What these events make of it; total on any event.
    pub fn evolve(&mut self, event: &MachineEvent) {
        match event {
            MachineEvent::Issued { name, rights, expires_at_ms, employee_id, at_ms } => {
                *self = Self {
                    name: Some(name.clone()),
                    rights: rights.clone(),
                    expires_at_ms: *expires_at_ms,
                    employee_id: *employee_id,
                    issued_at_ms: *at_ms,
                    revoked_at_ms: 0,
                };
            }
            MachineEvent::Revoked { at_ms, .. } => self.revoked_at_ms = *at_ms,
        }
    }

    /// What follows from a command, or why nothing does.
    pub fn decide(&self, command: &MachineCommand, facts: &Facts) -> Result<Vec<MachineEvent>, Refusal> {
        let at_ms = facts.at.ms;
        match command {
            MachineCommand::Issue { .. } if self.name.is_some() => Err(Refusal::IdTaken),
            MachineCommand::Issue { rights, givable, .. }
                if rights.iter().any(|right| !givable.contains(right)) =>
            {
                Err(Refusal::RightNotHeld)
            }
            MachineCommand::Issue { name, rights, expires_at_ms, employee_id, .. } => {
                let (name, mut rights) = (name.clone(), rights.clone());
                rights.sort_unstable();
                rights.dedup();
                let (expires_at_ms, employee_id) = (*expires_at_ms, *employee_id);
                Ok(vec![MachineEvent::Issued { name, rights, expires_at_ms, employee_id, at_ms }])
            }
            MachineCommand::Revoke { .. } if self.name.is_none() => Err(Refusal::NoSuchRule),
            MachineCommand::Revoke { .. } if self.revoked_at_ms != 0 => Ok(Vec::new()),
            MachineCommand::Revoke { employee_id } => {
                Ok(vec![MachineEvent::Revoked { employee_id: *employee_id, at_ms }])
            }
        }
    }
}
