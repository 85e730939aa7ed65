//! Offices (職務), and who holds one: what an employee may do beside what every employee may.
//!
//! An office is a list of rights by their numbers; what a right opens is not the log's to say. Who holds an office and who
//! manages his shop is not the directory's to keep: a change of what somebody may do is an event, in a stream of its own that
//! has the employee's id.

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::refusal::{Refusal, Wrong};

/// What happened to an office. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OfficeEvent {
    /// It was added. It has no rights yet.
    Added {
        /// Its title.
        title: String,
        /// The employee who did it, 0 for an operator without an employee's id.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It has another title.
    Edited {
        /// From now on.
        title: String,
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It has other rights.
    RightsSet {
        /// All of them by their numbers, in order.
        rights: Vec<i64>,
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It was deleted: whoever still holds it has no rights by it.
    Deleted {
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
}

/// What can be asked of an office.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfficeCommand {
    /// Add it.
    Add {
        /// Its title.
        title: String,
        /// Who.
        employee_id: i64,
    },
    /// Give it another title.
    Edit {
        /// The title.
        title: String,
        /// Who.
        employee_id: i64,
    },
    /// Say which rights it has.
    SetRights {
        /// All of them by their numbers.
        rights: Vec<i64>,
        /// Those that whoever asks may give.
        givable: Vec<i64>,
        /// Who.
        employee_id: i64,
    },
    /// Delete it.
    Delete {
        /// Who.
        employee_id: i64,
    },
}

/// An office as its events make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Office {
    /// None until it is added.
    pub title: Option<String>,
    /// Its rights by their numbers, in order.
    pub rights: Vec<i64>,
    /// Who added it.
    pub employee_id: i64,
    /// When, Unix milliseconds.
    pub added_at_ms: i64,
    /// Whether it is gone.
    pub deleted: bool,
}

impl Office {
    /// Whether it is there.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.title.is_some() && !self.deleted
    }

    /// What these events make of it; total on any event.
    pub fn evolve(&mut self, event: &OfficeEvent) {
        match event {
            OfficeEvent::Added { title, employee_id, at_ms } => {
                *self = Self {
                    title: Some(title.clone()),
                    employee_id: *employee_id,
                    added_at_ms: *at_ms,
                    ..Self::default()
                };
            }
            OfficeEvent::Edited { title, .. } => self.title = Some(title.clone()),
            OfficeEvent::RightsSet { rights, .. } => self.rights.clone_from(rights),
            OfficeEvent::Deleted { .. } => {
                self.rights.clear();
                self.deleted = true;
            }
        }
    }

    /// What follows from a command, or why nothing does.
    pub fn decide(&self, command: &OfficeCommand, facts: &Facts) -> Result<Vec<OfficeEvent>, Refusal> {
        let at_ms = facts.at.ms;
        match command {
            OfficeCommand::Add { .. } if self.title.is_some() => Err(Refusal::field("id", Wrong::Taken)),
            OfficeCommand::Add { title, employee_id } => {
                let (title, employee_id) = (title.clone(), *employee_id);
                Ok(vec![OfficeEvent::Added { title, employee_id, at_ms }])
            }
            _ if !self.is_live() => Err(Refusal::NoSuchRule),
            OfficeCommand::Edit { title, .. } if Some(title) == self.title.as_ref() => Ok(Vec::new()),
            OfficeCommand::Edit { title, employee_id } => {
                let (title, employee_id) = (title.clone(), *employee_id);
                Ok(vec![OfficeEvent::Edited { title, employee_id, at_ms }])
            }
            OfficeCommand::SetRights { rights, givable, employee_id } => {
                let mut rights = rights.clone();
                rights.sort_unstable();
                rights.dedup();
                // What it has already is not given; asked here, so that nothing that was taken meanwhile comes back.
                if rights.iter().any(|right| !self.rights.contains(right) && !givable.contains(right)) {
                    return Err(Refusal::RightNotHeld);
                }
                if rights == self.rights {
                    return Ok(Vec::new());
                }
                Ok(vec![OfficeEvent::RightsSet { rights, employee_id: *employee_id, at_ms }])
            }
            OfficeCommand::Delete { employee_id } => {
                Ok(vec![OfficeEvent::Deleted { employee_id: *employee_id, at_ms }])
            }
        }
    }
}

/// What happened to an employee's place among the others. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppointmentEvent {
    /// He holds another office, or manages his shop from now on or no longer.
    Appointed {
        /// The office that he holds; 0 = none.
        office_id: i64,
        /// Whether he manages the shop where he works.
        manager: bool,
        /// The employee who did it, 0 for an operator without an employee's id.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
}

/// What can be asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppointmentCommand {
    /// Give him a place; what is None stays.
    Appoint {
        /// The office; 0 = none.
        office_id: Option<i64>,
        /// Whether he manages the shop where he works.
        manager: Option<bool>,
        /// Who.
        employee_id: i64,
    },
}

/// An employee's place as its events make it; whoever has none holds no office and manages nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appointment {
    /// The office that he holds; 0 = none.
    pub office_id: i64,
    /// Whether he manages the shop where he works.
    pub manager: bool,
    /// Whether anything was ever said of him.
    pub told: bool,
}

impl Appointment {
    /// What these events make of it; total on any event.
    pub fn evolve(&mut self, event: &AppointmentEvent) {
        let AppointmentEvent::Appointed { office_id, manager, .. } = event;
        *self = Self { office_id: *office_id, manager: *manager, told: true };
    }

    /// What follows from a command, or why nothing does.
    pub fn decide(
        &self,
        command: &AppointmentCommand,
        facts: &Facts,
    ) -> Result<Vec<AppointmentEvent>, Refusal> {
        let AppointmentCommand::Appoint { office_id, manager, employee_id } = command;
        let (office_id, manager) = (office_id.unwrap_or(self.office_id), manager.unwrap_or(self.manager));
        if (office_id, manager) == (self.office_id, self.manager) {
            return Ok(Vec::new());
        }
        let (employee_id, at_ms) = (*employee_id, facts.at.ms);
        Ok(vec![AppointmentEvent::Appointed { office_id, manager, employee_id, at_ms }])
    }
}
