//! Members as far as the log knows them: that one's personal data was erased. Everything else of a member lies in the
//! directory, where it can be erased.

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::refusal::Refusal;

/// What happened to a member. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberEvent {
    /// His personal data and the texts of his reviews were erased for good.
    Erased {
        /// Why, in the operator's words.
        reason: String,
        /// The employee who did it, 0 for an operator without an employee's id.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
}

/// What can be asked of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberCommand {
    /// Erase his personal data.
    Erase {
        /// Whose: the stream's own id, so that he is looked up.
        member_id: i64,
        /// Why.
        reason: String,
        /// Who.
        employee_id: i64,
    },
}

/// An erasure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// Why.
    pub reason: String,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// A member as his events make him.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The first erasure; None while his data is here.
    pub erased: Option<Erasure>,
}

impl Member {
    /// What these events make of him; total on any event.
    pub fn evolve(&mut self, event: &MemberEvent) {
        match event {
            MemberEvent::Erased { reason, at_ms, .. } => {
                self.erased.get_or_insert_with(|| Erasure { reason: reason.clone(), at_ms: *at_ms });
            }
        }
    }

    /// What follows from a command, or why nothing does. Who is erased already stays so: the first time stands.
    pub fn decide(&self, command: &MemberCommand, facts: &Facts) -> Result<Vec<MemberEvent>, Refusal> {
        match command {
            MemberCommand::Erase { .. } if self.erased.is_some() => Ok(Vec::new()),
            MemberCommand::Erase { .. } if facts.member.is_none() => Err(Refusal::NoSuchMember),
            MemberCommand::Erase { reason, employee_id, .. } => Ok(vec![MemberEvent::Erased {
                reason: reason.clone(),
                employee_id: *employee_id,
                at_ms: facts.at.ms,
            }]),
        }
    }
}
