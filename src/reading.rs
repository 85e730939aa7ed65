//! Readings of personal data: who was shown whose, and by which call.
//!
//! Each reading is a stream of its own with one event: nothing is folded to append one, however often somebody is read, and
//! no two processes want the same stream. Whose readings there are is found by the live rows. Ids only: never what was shown.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::refusal::Refusal;

/// The most people of one event; more are told in several.
pub const MAX_PEOPLE: usize = 500;

/// Somebody whose personal data the directory keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Person {
    /// A member, by his id.
    Member(i64),
    /// An employee, by his id.
    Employee(i64),
    /// Whoever signs in with an account, by its id: his name.
    Account(i64),
}

/// The kinds of people, by the names that routes and the command line know them by.
pub const PEOPLE: &[&str] = &["member", "employee", "account"];

impl Person {
    /// The person of a kind.
    #[must_use]
    pub fn named(kind: &str, id: i64) -> Option<Self> {
        match kind {
            "member" => Some(Self::Member(id)),
            "employee" => Some(Self::Employee(id)),
            "account" => Some(Self::Account(id)),
            _ => None,
        }
    }

    /// The number of his kind in the live rows, and his id.
    #[must_use]
    pub fn columns(self) -> (i64, i64) {
        match self {
            Self::Member(id) => (0, id),
            Self::Employee(id) => (1, id),
            Self::Account(id) => (2, id),
        }
    }
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(id) => write!(f, "member {id}"),
            Self::Employee(id) => write!(f, "employee {id}"),
            Self::Account(id) => write!(f, "account {id}"),
        }
    }
}

/// What happened. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadingEvent {
    /// An answer with personal data was made for somebody else.
    Read {
        /// Who asked, as metadata names callers.
        reader: String,
        /// By which call.
        action: String,
        /// The members whose data was in it.
        member_ids: Vec<i64>,
        /// The employees whose data was in it.
        employee_ids: Vec<i64>,
        /// The accounts whose names were in it.
        account_ids: Vec<i64>,
        /// How many people were in the answer in all: with those of whom it was told shortly before.
        people: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
}

/// What can be asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadingCommand {
    /// Write it down.
    Note {
        /// Who asked.
        reader: String,
        /// By which call.
        action: String,
        /// Whose data.
        people: Vec<Person>,
        /// How many people were in the answer in all.
        shown: i64,
    },
}

/// A reading as its event makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// None until it is written down.
    pub reader: Option<String>,
    /// By which call.
    pub action: String,
    /// The members whose data was read.
    pub member_ids: Vec<i64>,
    /// The employees whose data was read.
    pub employee_ids: Vec<i64>,
    /// The accounts whose names were read.
    pub account_ids: Vec<i64>,
    /// How many people were in the answer in all.
    pub people: i64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

impl Reading {
    /// Everybody who was read.
    pub fn people(&self) -> impl Iterator<Item = Person> + '_ {
        let members = self.member_ids.iter().map(|id| Person::Member(*id));
        let employees = self.employee_ids.iter().map(|id| Person::Employee(*id));
        members.chain(employees).chain(self.account_ids.iter().map(|id| Person::Account(*id)))
    }

    /// What this event makes of it; total on any event.
    pub fn evolve(&mut self, event: &ReadingEvent) {
        let ReadingEvent::Read { reader, action, member_ids, employee_ids, account_ids, people, at_ms } =
            event;
        *self = Self {
            reader: Some(reader.clone()),
            action: action.clone(),
            member_ids: member_ids.clone(),
            employee_ids: employee_ids.clone(),
            account_ids: account_ids.clone(),
            people: *people,
            at_ms: *at_ms,
        };
    }

    /// What follows from a command, or why nothing does.
    pub fn decide(&self, command: &ReadingCommand, facts: &Facts) -> Result<Vec<ReadingEvent>, Refusal> {
        let ReadingCommand::Note { reader, action, people, shown } = command;
        if self.reader.is_some() {
            return Err(Refusal::IdTaken);
        }
        let mut people = people.clone();
        people.sort_unstable();
        people.dedup();
        let (mut member_ids, mut employee_ids, mut account_ids) = (Vec::new(), Vec::new(), Vec::new());
        for person in people {
            match person {
                Person::Member(id) => member_ids.push(id),
                Person::Employee(id) => employee_ids.push(id),
                Person::Account(id) => account_ids.push(id),
            }
        }
        let (reader, action, people, at_ms) = (reader.clone(), action.clone(), *shown, facts.at.ms);
        Ok(vec![ReadingEvent::Read { reader, action, member_ids, employee_ids, account_ids, people, at_ms }])
    }
}
