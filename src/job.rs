//! Jobs: what an operator starts and the ledger carries out chunk by chunk, a mass send (群發), a recall, an extension.
//!
//! A job is a stream of its own: who started it and with which words, who paused and cancelled it, and what it came to.
//! What it does to coupons is written in their own streams, in chunks that name the job as their cause and are committed
//! only while it runs. How far it is stands outside the log (`job_progress`).

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::refusal::{Refusal, Wrong};

/// Members by shop, tag and level: the values of one are or-ed, the three and-ed; an empty one means everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipients {
    /// Their shops.
    pub shop_ids: Vec<i64>,
    /// Their tags.
    pub tag_ids: Vec<i64>,
    /// Their levels.
    pub level_ids: Vec<i64>,
}

/// Which coupons are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coupons {
    /// All that were issued from a definition.
    OfDefinition(i64),
    /// All that were issued by a mass send.
    OfSend(i64),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Issue one coupon to each of many members.
    Send {
        /// From which definition.
        definition_id: i64,
        /// To whom, as it was asked; who that was then is fixed when it is asked.
        recipients: Recipients,
        /// Whether they are told.
        notify: bool,
    },
    /// Issue one coupon to each of these members, named one by one.
    SendTo {
        /// From which definition.
        definition_id: i64,
        /// To whom, each once.
        member_ids: Vec<i64>,
    },
    /// Void what is unused.
    Recall {
        /// Of which coupons.
        coupons: Coupons,
    },
    /// Move the end date of what is unused.
    Extend {
        /// Of which coupons.
        coupons: Coupons,
        /// Their last local day from then on.
        end_date: NaiveDate,
    },
}

/// What happened to a job. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobEvent {
    /// It was proposed, and waits until somebody else approves it. Whom it is about is fixed.
    Proposed {
        /// By which approval it is started.
        approval_id: i64,
        /// What is to be done.
        work: Work,
        /// How many members or coupons it is about.
        targeted: i64,
        /// The log's last position then: coupons that are issued later are not meant.
        until_position: i64,
        /// Why; empty for a send.
        reason: String,
        /// Who, 0 for an operator without an employee's id.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It was started.
    Started {
        /// What is to be done.
        work: Work,
        /// How many members or coupons it is about.
        targeted: i64,
        /// The log's last position then: coupons that are issued later are not meant.
        until_position: i64,
        /// Why; empty for a send.
        reason: String,
        /// Who, 0 for an operator without an employee's id.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It was told to wait.
    Paused {
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It was told to go on.
    Resumed {
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It was ended early. What it has done stays done.
    Cancelled {
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It has come to its end.
    Finished {
        /// How many were issued, voided or moved.
        done: i64,
        /// How many were refused, by code.
        refused: BTreeMap<i64, i64>,
        /// Unix milliseconds.
        at_ms: i64,
    },
}

/// What can be asked of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobCommand {
    /// Have it wait for an approval.
    Propose {
        /// Which.
        approval_id: i64,
        /// What is to be done.
        work: Work,
        /// How many members or coupons it is about.
        targeted: i64,
        /// The log's last position.
        until_position: i64,
        /// Why.
        reason: String,
        /// Who.
        employee_id: i64,
    },
    /// It was not approved.
    Decline {
        /// Who.
        employee_id: i64,
    },
    /// Start it: at once, or where it waits for that.
    Start {
        /// What is to be done.
        work: Work,
        /// How many members or coupons it is about.
        targeted: i64,
        /// The log's last position.
        until_position: i64,
        /// Why.
        reason: String,
        /// Who.
        employee_id: i64,
    },
    /// Wait.
    Pause {
        /// Who.
        employee_id: i64,
    },
    /// Go on.
    Resume {
        /// Who.
        employee_id: i64,
    },
    /// End early.
    Cancel {
        /// Who.
        employee_id: i64,
    },
    /// It has come to its end.
    Finish {
        /// How many were issued, voided or moved.
        done: i64,
        /// How many were refused, by code.
        refused: BTreeMap<i64, i64>,
    },
}

/// What a job is at: the manual's `state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// 0
    #[default]
    Running,
    /// 1
    Done,
    /// 2
    Paused,
    /// 3
    Cancelled,
    /// 4: it waits until somebody else approves it.
    Proposed,
}

impl JobState {
    /// The manual's number of it.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            Self::Running => 0,
            Self::Done => 1,
            Self::Paused => 2,
            Self::Cancelled => 3,
            Self::Proposed => 4,
        }
    }
}

/// A job as its events make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// None until it is started or proposed.
    pub work: Option<Work>,
    /// What it is at.
    pub state: JobState,
    /// How many members or coupons it is about.
    pub targeted: i64,
    /// Coupons issued behind this position are not meant.
    pub until_position: i64,
    /// Why.
    pub reason: String,
    /// Who started it.
    pub employee_id: i64,
    /// When, Unix milliseconds.
    pub started_at_ms: i64,
    /// When it was done or cancelled, Unix milliseconds; 0 = not yet.
    pub ended_at_ms: i64,
    /// What it came to, once it is done.
    pub done: i64,
    /// How many were refused by code, once it is done.
    pub refused: BTreeMap<i64, i64>,
}

impl Job {
    /// Whether it may write.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.work.is_some() && self.state == JobState::Running
    }

    /// What these events make of it; total on any event.
    pub fn evolve(&mut self, event: &JobEvent) {
        match event {
            JobEvent::Proposed {
                approval_id: _,
                work,
                targeted,
                until_position,
                reason,
                employee_id,
                at_ms,
            } => {
                *self = Self {
                    work: Some(work.clone()),
                    state: JobState::Proposed,
                    targeted: *targeted,
                    until_position: *until_position,
                    reason: reason.clone(),
                    employee_id: *employee_id,
                    started_at_ms: *at_ms,
                    ..Self::default()
                };
            }
            JobEvent::Started { work, targeted, until_position, reason, employee_id, at_ms } => {
                *self = Self {
                    work: Some(work.clone()),
                    targeted: *targeted,
                    until_position: *until_position,
                    reason: reason.clone(),
                    employee_id: *employee_id,
                    started_at_ms: *at_ms,
                    ..Self::default()
                };
            }
            JobEvent::Paused { .. } => self.state = JobState::Paused,
            JobEvent::Resumed { .. } => self.state = JobState::Running,
            JobEvent::Cancelled { at_ms, .. } => {
                self.state = JobState::Cancelled;
                self.ended_at_ms = *at_ms;
            }
            JobEvent::Finished { done, refused, at_ms } => {
                self.state = JobState::Done;
                self.ended_at_ms = *at_ms;
                self.done = *done;
                self.refused.clone_from(refused);
            }
        }
    }

    /// What follows from a command, or why nothing does.
    pub fn decide(&self, command: &JobCommand, facts: &Facts) -> Result<Vec<JobEvent>, Refusal> {
        let at_ms = facts.at.ms;
        if let JobCommand::Propose { approval_id, work, targeted, until_position, reason, employee_id } =
            command
        {
            if self.work.is_some() {
                return Err(Refusal::field("id", Wrong::Taken));
            }
            return Ok(vec![JobEvent::Proposed {
                approval_id: *approval_id,
                work: work.clone(),
                targeted: *targeted,
                until_position: *until_position,
                reason: reason.clone(),
                employee_id: *employee_id,
                at_ms,
            }]);
        }
        if let JobCommand::Start { work, targeted, until_position, reason, employee_id } = command {
            if self.work.is_some() && self.state != JobState::Proposed {
                return Err(Refusal::field("id", Wrong::Taken));
            }
            return Ok(vec![JobEvent::Started {
                work: work.clone(),
                targeted: *targeted,
                until_position: *until_position,
                reason: reason.clone(),
                employee_id: *employee_id,
                at_ms,
            }]);
        }
        if self.work.is_none() {
            return Err(Refusal::NoSuchRule);
        }
        let ended = || Err(Refusal::field("id", Wrong::Ended));
        match (command, self.state) {
            // Only who may approve it lets it go on, and only its proposal's end ends it.
            (
                JobCommand::Pause { .. } | JobCommand::Resume { .. } | JobCommand::Cancel { .. },
                JobState::Proposed,
            ) => Err(Refusal::NeedsApproval),
            (JobCommand::Decline { employee_id }, JobState::Proposed) => {
                Ok(vec![JobEvent::Cancelled { employee_id: *employee_id, at_ms }])
            }
            (JobCommand::Pause { employee_id }, JobState::Running) => {
                Ok(vec![JobEvent::Paused { employee_id: *employee_id, at_ms }])
            }
            (JobCommand::Resume { employee_id }, JobState::Paused) => {
                Ok(vec![JobEvent::Resumed { employee_id: *employee_id, at_ms }])
            }
            (JobCommand::Cancel { employee_id }, JobState::Running | JobState::Paused) => {
                Ok(vec![JobEvent::Cancelled { employee_id: *employee_id, at_ms }])
            }
            (JobCommand::Finish { done, refused }, JobState::Running) => {
                Ok(vec![JobEvent::Finished { done: *done, refused: refused.clone(), at_ms }])
            }
            // It is as was asked already.
            (JobCommand::Pause { .. }, JobState::Paused)
            | (JobCommand::Resume { .. }, JobState::Running)
            | (JobCommand::Cancel { .. }, JobState::Cancelled)
            | (JobCommand::Decline { .. } | JobCommand::Finish { .. }, _) => Ok(Vec::new()),
            _ => ended(),
        }
    }
}
