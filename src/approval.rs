//! Approvals (four eyes): what mints or destroys value in bulk is proposed by one and approved by another.
//!
//! A proposal is a stream of its own. Its first event holds the whole command, so that what is approved is exactly what was
//! proposed; whoever proposed it, and under whose name he may come as well, does not approve it. That it has lapsed is
//! decided by the date; the event is written later and changes no answer.

use serde::{Deserialize, Serialize};

use crate::definition::Offer;
use crate::facts::Facts;
use crate::job::Work;
use crate::refusal::{Refusal, Wrong};

/// How long a proposal may be approved.
pub const HOLDS_MS: i64 = 7 * 86_400_000;

/// What is proposed: a command with everything in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Start a job that is there and waits: a mass send, a recall, an extension.
    Job {
        /// The job.
        job_id: i64,
        /// What is to be done.
        work: Work,
        /// How many members or coupons it is about.
        targeted: i64,
        /// Coupons that were issued behind this position are not meant.
        until_position: i64,
        /// Why; empty for a send.
        reason: String,
    },
    /// Define a coupon.
    Define {
        /// The id it will have.
        definition_id: i64,
        /// Its offer.
        offer: Box<Offer>,
        /// How many may be issued; null = unlimited.
        stock: Option<i64>,
    },
    /// Raise a definition's stock.
    RaiseStock {
        /// The definition.
        definition_id: i64,
        /// By how many.
        by: i64,
        /// To how many.
        stock: i64,
    },
    /// Set coupons aside for a partner.
    Allot {
        /// The id it will have.
        allotment_id: i64,
        /// The partner.
        partner_id: i64,
        /// The definition.
        definition_id: i64,
        /// How many.
        num: i64,
        /// The last local day on which they can be taken.
        end_date: chrono::NaiveDate,
    },
    /// Raise what a partner may hand out.
    RaiseAllotment {
        /// The allotment.
        allotment_id: i64,
        /// By how many.
        by: i64,
        /// To how many.
        num: i64,
    },
    /// Let whoever proposed it import this very file of coupons.
    Import {
        /// SHA-256 of the file, hexadecimal.
        sha256: String,
        /// How many rows it has.
        rows: i64,
    },
}

impl Act {
    /// What kind of thing it is, in a word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Job { work: Work::Send { .. } | Work::SendTo { .. }, .. } => "send",
            Self::Job { work: Work::Recall { .. }, .. } => "recall",
            Self::Job { work: Work::Extend { .. }, .. } => "extension",
            Self::Define { .. } | Self::RaiseStock { .. } => "stock",
            Self::Allot { .. } | Self::RaiseAllotment { .. } => "allotment",
            Self::Import { .. } => "import",
        }
    }

    /// The job, definition or allotment that it is about, 0 for a file.
    #[must_use]
    pub fn subject_id(&self) -> i64 {
        match self {
            Self::Job { job_id, .. } => *job_id,
            Self::Define { definition_id, .. } | Self::RaiseStock { definition_id, .. } => *definition_id,
            Self::Allot { allotment_id, .. } | Self::RaiseAllotment { allotment_id, .. } => *allotment_id,
            Self::Import { .. } => 0,
        }
    }

    /// How many members, coupons or rows it comes to; −1 = without a limit.
    #[must_use]
    pub fn num(&self) -> i64 {
        match self {
            Self::Job { targeted, .. } => *targeted,
            Self::Define { stock, .. } => stock.unwrap_or(-1),
            Self::RaiseStock { stock, .. } => *stock,
            Self::Allot { num, .. } | Self::RaiseAllotment { num, .. } => *num,
            Self::Import { rows, .. } => *rows,
        }
    }
}

/// A command that waits for somebody else's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The whole command.
    pub act: Act,
    /// Which route asks for it: whoever proposed it must still be allowed it when it is approved.
    pub action: String,
    /// Above which number it needs approval, as was set then.
    pub above: i64,
    /// Who proposed it, as metadata names callers.
    pub proposed_by: String,
    /// Everybody who may be the same person, himself among them: none of them approves it.
    pub behind: Vec<String>,
    /// The employee who did it, 0 for an operator without an employee's id.
    pub employee_id: i64,
    /// From when on it cannot be approved, Unix milliseconds.
    pub lapses_at_ms: i64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// What happened to a proposal. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApprovalEvent {
    /// It was proposed.
    Proposed(Box<Proposal>),
    /// Somebody else approved it; what was proposed is written in the same append.
    Approved {
        /// Who, as metadata names callers.
        by: String,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Somebody refused it.
    Refused {
        /// Who.
        by: String,
        /// Why; empty where he did not say.
        reason: String,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Whoever proposed it took it back.
    Withdrawn {
        /// Who.
        by: String,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Nobody approved it in time.
    Expired {
        /// Unix milliseconds.
        at_ms: i64,
    },
}

/// What can be asked of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApprovalCommand {
    /// Propose it.
    Propose {
        /// The whole command.
        act: Act,
        /// Which route asks for it.
        action: &'static str,
        /// Above which number it needs approval.
        above: i64,
        /// Who.
        by: String,
        /// Everybody who may be the same person.
        behind: Vec<String>,
        /// The employee who did it.
        employee_id: i64,
    },
    /// Approve it.
    Approve {
        /// Who.
        by: String,
    },
    /// Refuse it.
    Refuse {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Take it back.
    Withdraw {
        /// Who.
        by: String,
    },
    /// Write down that it has lapsed, if it has.
    Expire,
}

/// What a proposal is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// 0
    #[default]
    Open,
    /// 1
    Approved,
    /// 2
    Refused,
    /// 3
    Withdrawn,
    /// 4
    Expired,
}

impl ApprovalState {
    /// Its number.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            Self::Open => 0,
            Self::Approved => 1,
            Self::Refused => 2,
            Self::Withdrawn => 3,
            Self::Expired => 4,
        }
    }
}

/// A proposal as its events make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// None until it is proposed.
    pub proposal: Option<Box<Proposal>>,
    /// What it is at, as far as it is written down.
    pub state: ApprovalState,
    /// Who approved, refused or withdrew it; empty while it is open, and where it lapsed.
    pub closed_by: String,
    /// When, Unix milliseconds; 0 = not yet.
    pub closed_at_ms: i64,
    /// Why it was refused.
    pub reason: String,
}

impl Approval {
    /// What it is at then, whether or not it is written down that it has lapsed.
    #[must_use]
    pub fn state_at(&self, now_ms: i64) -> ApprovalState {
        let lapsed = self.proposal.as_ref().is_some_and(|proposal| now_ms >= proposal.lapses_at_ms);
        match self.state {
            ApprovalState::Open if lapsed => ApprovalState::Expired,
            state => state,
        }
    }

    /// What these events make of it; total on any event.
    pub fn evolve(&mut self, event: &ApprovalEvent) {
        let (state, by, at_ms) = match event {
            ApprovalEvent::Proposed(proposal) => {
                *self = Self { proposal: Some(proposal.clone()), ..Self::default() };
                return;
            }
            ApprovalEvent::Approved { by, at_ms } => (ApprovalState::Approved, by.as_str(), *at_ms),
            ApprovalEvent::Refused { by, reason, at_ms } => {
                self.reason.clone_from(reason);
                (ApprovalState::Refused, by.as_str(), *at_ms)
            }
            ApprovalEvent::Withdrawn { by, at_ms } => (ApprovalState::Withdrawn, by.as_str(), *at_ms),
            ApprovalEvent::Expired { at_ms } => (ApprovalState::Expired, "", *at_ms),
        };
        self.state = state;
        by.clone_into(&mut self.closed_by);
        self.closed_at_ms = at_ms;
    }

    /// What follows from a command, or why nothing does: 2005, of an approval 1002 where it is no other's, then 401 where it
    /// is not open any more. What is as was asked already changes nothing.
    pub fn decide(&self, command: &ApprovalCommand, facts: &Facts) -> Result<Vec<ApprovalEvent>, Refusal> {
        let at_ms = facts.at.ms;
        if let ApprovalCommand::Propose { act, action, above, by, behind, employee_id } = command {
            if self.proposal.is_some() {
                return Err(Refusal::IdTaken);
            }
            return Ok(vec![ApprovalEvent::Proposed(Box::new(Proposal {
                act: act.clone(),
                action: (*action).to_owned(),
                above: *above,
                proposed_by: by.clone(),
                behind: behind.clone(),
                employee_id: *employee_id,
                lapses_at_ms: at_ms.saturating_add(HOLDS_MS),
                at_ms,
            }))]);
        }
        let proposal = self.proposal.as_ref().ok_or(Refusal::NoSuchRule)?;
        let state = self.state_at(at_ms);
        let ended = || Err(Refusal::field("id", Wrong::Ended));
        match command {
            ApprovalCommand::Approve { by } if proposal.behind.contains(by) => Err(Refusal::NotAnother),
            ApprovalCommand::Approve { by } => match state {
                ApprovalState::Open => Ok(vec![ApprovalEvent::Approved { by: by.clone(), at_ms }]),
                ApprovalState::Approved if self.closed_by == *by => Ok(Vec::new()),
                _ => ended(),
            },
            ApprovalCommand::Refuse { by, reason } => match state {
                ApprovalState::Open => {
                    Ok(vec![ApprovalEvent::Refused { by: by.clone(), reason: reason.clone(), at_ms }])
                }
                ApprovalState::Refused if self.closed_by == *by => Ok(Vec::new()),
                _ => ended(),
            },
            // Others' are as if they were not there.
            ApprovalCommand::Withdraw { by } if proposal.proposed_by != *by => Err(Refusal::NoSuchRule),
            ApprovalCommand::Withdraw { by } => match state {
                ApprovalState::Open => Ok(vec![ApprovalEvent::Withdrawn { by: by.clone(), at_ms }]),
                ApprovalState::Withdrawn => Ok(Vec::new()),
                _ => ended(),
            },
            ApprovalCommand::Expire => match (self.state, state) {
                (ApprovalState::Open, ApprovalState::Expired) => Ok(vec![ApprovalEvent::Expired { at_ms }]),
                _ => Ok(Vec::new()),
            },
            ApprovalCommand::Propose { .. } => Err(Refusal::IdTaken),
        }
    }
}
