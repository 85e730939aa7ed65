//! What is watched over: who reads personal data, and who is refused. Both become events, by one server each for itself.
//!
//! A reading is in the log before the answer leaves; whoever cannot be told of is shown nothing. The same reader, call and
//! person within [`SAME_READING_MS`] is one reading. Refusals are counted in memory and written down together, once a
//! minute at most: they never keep an answer waiting, and a crash loses those of a minute. Memory is bounded for both; where
//! it is full more readings are told than need be, and refusals are counted without being named.

mod refusals;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use futures::future::try_join_all;

use crate::identity::Caller;
use crate::ledger::{ExecuteError, Ledger, Meta};
use crate::reading::{MAX_PEOPLE, Person, Reading, ReadingCommand};
use refusals::Counted;
pub use refusals::MAX_NAMED;

/// How long the same reading is the same.
pub const SAME_READING_MS: i64 = 600_000;

/// The most readings that are remembered.
const MAX_REMEMBERED: usize = 65_536;

/// An answer with personal data, before it leaves.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Who asked.
    pub reader: Caller,
    /// By which call, as the table of who may do what names it.
    pub action: &'static str,
    /// Whose data is in it.
    pub people: &'a [Person],
    /// The request.
    pub request_id: &'a str,
}

/// What one server has seen.
#[derive(Debug, Default)]
pub struct Watch {
    readings: Mutex<HashMap<(Caller, &'static str, Person), i64>>,
    refused: Mutex<Counted>,
}

impl Watch {
    /// Writes a reading down, unless it is the reader's own data or was written down just now. Returns when it is on disk.
    pub async fn tell(&self, ledger: &Ledger, shown: Shown<'_>) -> Result<(), ExecuteError> {
        let at = ledger.now();
        let people = self.not_told(shown, at.ms);
        if people.is_empty() {
            return Ok(());
        }
        write_reading(ledger, shown, &people).await?;
        self.remember(shown, &people, at.ms);
        Ok(())
    }

    /// The people of an answer who have not been told of, each once.
    fn not_told(&self, shown: Shown<'_>, now_ms: i64) -> Vec<Person> {
        let readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        let told = |person: &Person| {
            let at_ms = readings.get(&(shown.reader, shown.action, *person));
            at_ms.is_some_and(|at_ms| is_same(*at_ms, now_ms))
        };
        let is_news = |person: &Person| !is_own(shown.reader, *person) && !told(person);
        let mut people: Vec<Person> = shown.people.iter().copied().filter(is_news).collect();
        people.sort_unstable();
        people.dedup();
        people
    }

    fn remember(&self, shown: Shown<'_>, people: &[Person], at_ms: i64) {
        let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        if readings.len() + people.len() > MAX_REMEMBERED {
            readings.retain(|_, told_ms| is_same(*told_ms, at_ms));
        }
        if readings.len() + people.len() > MAX_REMEMBERED {
            readings.clear();
        }
        let keys = people.iter().take(MAX_REMEMBERED).map(|person| (shown.reader, shown.action, *person));
        readings.extend(keys.map(|key| (key, at_ms)));
    }

    /// Counts a refusal of access: who, as far as he has proved it, by our name for what he called, with which code.
    pub fn refused(&self, caller: Option<Caller>, action: &'static str, code: i64, now_ms: i64) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).count((caller, action, code), now_ms);
    }

    /// Writes down what was refused since the last time: one event, or none. What could not be written is kept for the next.
    pub async fn write_down(&self, ledger: &Ledger) -> Result<(), ExecuteError> {
        let counted = std::mem::take(&mut *self.refused.lock().unwrap_or_else(PoisonError::into_inner));
        let Err((error, counted)) = counted.write_down(ledger).await else { return Ok(()) };
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).join(counted);
        Err(error)
    }
}

/// Writes down that these people's data is shown, whatever was written down before. Returns when it is on disk.
pub async fn write_reading(ledger: &Ledger, shown: Shown<'_>, people: &[Person]) -> Result<(), ExecuteError> {
    let meta = Meta {
        caller: shown.reader,
        at: ledger.now(),
        request_id: shown.request_id.to_owned(),
        receipt: None,
        job_id: None,
    };
    let events = people.chunks(MAX_PEOPLE).map(|people| {
        let command = ReadingCommand::Note {
            reader: shown.reader.to_string(),
            action: shown.action.to_owned(),
            people: people.to_vec(),
            shown: shown.people.len() as i64,
        };
        let meta = &meta;
        async move {
            let id = ledger.next_id("reading", false).await?;
            ledger.execute::<Reading>(id, &command, meta).await
        }
    });
    try_join_all(events).await?;
    Ok(())
}

/// Whether a reading then is the same as one now. A clock that was set back makes a new one.
fn is_same(then_ms: i64, now_ms: i64) -> bool {
    (0..SAME_READING_MS).contains(&now_ms.saturating_sub(then_ms))
}

fn is_own(reader: Caller, person: Person) -> bool {
    match (reader, person) {
        (Caller::Member(reader), Person::Member(id))
        | (Caller::Employee(reader), Person::Employee(id))
        | (Caller::OperatorAccount(reader) | Caller::AuditorAccount(reader), Person::Account(id)) => {
            reader == id
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(people: &[Person]) -> Shown<'_> {
        Shown { reader: Caller::Employee(1), action: "/member/list", people, request_id: "" }
    }

    #[test]
    fn a_reading_is_the_same_for_ten_minutes() {
        let (watch, people) = (Watch::default(), [Person::Member(2), Person::Member(1), Person::Member(2)]);
        assert_eq!(watch.not_told(shown(&people), 0), [Person::Member(1), Person::Member(2)]);
        watch.remember(shown(&people), &[Person::Member(2)], 1_000);
        assert_eq!(watch.not_told(shown(&people), 600_999), [Person::Member(1)]);
        assert_eq!(watch.not_told(shown(&people), 601_000).len(), 2);
        assert_eq!(watch.not_told(shown(&people), 999).len(), 2);
        let other = Shown { action: "/member/get", ..shown(&people) };
        assert_eq!(watch.not_told(other, 1_000).len(), 2);
    }

    #[test]
    fn what_is_ones_own_is_no_reading() {
        let watch = Watch::default();
        let people = [Person::Employee(1), Person::Member(1)];
        assert_eq!(watch.not_told(shown(&people), 0), [Person::Member(1)]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let watch = Watch::default();
        for first in 0..200 {
            let people: Vec<Person> = (0..1_000).map(|id| Person::Member(first * 1_000 + id)).collect();
            watch.remember(shown(&people), &people, 0);
            assert!(watch.readings.lock().unwrap().len() <= MAX_REMEMBERED);
            assert_eq!(watch.not_told(shown(&people), 1), []);
        }
    }
}
