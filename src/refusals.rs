//! Refusals of access, gathered: who was let do nothing, at which call, how often.
//!
//! An attacker decides how many there are, so they are no event each: what was counted in a span of time is one event, in a
//! stream of its own, and it names a bounded number. Nothing that a caller made up is in it: calls go by our names for them, and
//! whoever has not proved who he is goes by none.

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::refusal::Refusal;

/// Who asked without having proved who he is, or with what proves nothing.
pub const NOBODY: &str = "nobody";

/// One kind of refusal, with how often it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Who asked, as metadata names callers, or [`NOBODY`].
    pub caller: String,
    /// What he called, by our name for it.
    pub action: String,
    /// The code that he was answered.
    pub code: i64,
    /// How often.
    pub count: i64,
}

/// What happened. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalsEvent {
    /// So much was refused in this span of time, by one server.
    Gathered {
        /// When the first was counted, Unix milliseconds.
        from_ms: i64,
        /// Those that are named, at most so many as one event takes.
        refused: Vec<Refused>,
        /// How many there were beside.
        others: i64,
        /// When the last was counted at the latest, Unix milliseconds.
        at_ms: i64,
    },
}

/// What can be asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusalsCommand {
    /// Write down what was counted.
    Gather {
        /// When the first was counted, Unix milliseconds.
        from_ms: i64,
        /// Those that are named.
        refused: Vec<Refused>,
        /// How many there were beside.
        others: i64,
    },
}

/// Refusals as their event makes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// When the first was counted, Unix milliseconds.
    pub from_ms: i64,
    /// When the last was counted at the latest, Unix milliseconds; 0 until they are written down.
    pub at_ms: i64,
    /// How many there were in all.
    pub count: i64,
}

impl Refusals {
    /// What this event makes of them; total on any event.
    pub fn evolve(&mut self, event: &RefusalsEvent) {
        let RefusalsEvent::Gathered { from_ms, refused, others, at_ms } = event;
        let count = refused.iter().fold(*others, |sum, one| sum.saturating_add(one.count));
        *self = Self { from_ms: *from_ms, at_ms: *at_ms, count };
    }

    /// What follows from a command. Written down already, under an id that is asked for once: it was an answer that was lost.
    pub fn decide(&self, command: &RefusalsCommand, facts: &Facts) -> Result<Vec<RefusalsEvent>, Refusal> {
        let RefusalsCommand::Gather { from_ms, refused, others } = command;
        if self.at_ms != 0 {
            return Ok(Vec::new());
        }
        let (from_ms, refused, others, at_ms) = (*from_ms, refused.clone(), *others, facts.at.ms);
        Ok(vec![RefusalsEvent::Gathered { from_ms, refused, others, at_ms }])
    }
}
