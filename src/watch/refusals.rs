//! Refusals as they are counted, and which of them an event names.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::identity::Caller;
use crate::ledger::{ExecuteError, Ledger, Meta};
use crate::refusals::{NOBODY, Refusals, RefusalsCommand, Refused};
use crate::value::{hex, random};

/// The most kinds of refusals that one event names.
pub const MAX_NAMED: usize = 64;

/// The most kinds of refusals that are told apart until they are written down.
const MAX_KINDS: usize = 1_024;

/// Who, at which call, with which code.
type Kind = (Option<Caller>, &'static str, i64);

/// What was refused since it was last written down.
#[derive(Debug, Default)]
pub(super) struct Counted {
    kinds: HashMap<Kind, i64>,
    /// Those that are not told apart.
    others: i64,
    from_ms: i64,
    /// The stream of a write of which nobody knows whether it arrived, with what it said.
    unknown: Option<(i64, RefusalsCommand)>,
}

impl Counted {
    pub(super) fn count(&mut self, kind: Kind, now_ms: i64) {
        if self.kinds.is_empty() && self.others == 0 {
            self.from_ms = now_ms;
        }
        self.add(kind, 1);
    }

    fn add(&mut self, kind: Kind, count: i64) {
        if self.kinds.len() < MAX_KINDS || self.kinds.contains_key(&kind) {
            let so_far = self.kinds.entry(kind).or_default();
            *so_far = so_far.saturating_add(count);
        } else {
            self.others = self.others.saturating_add(count);
        }
    }

    /// Takes back what could not be written.
    pub(super) fn join(&mut self, earlier: Self) {
        if !earlier.is_empty() {
            self.from_ms = earlier.from_ms;
        }
        for (kind, count) in earlier.kinds {
            self.add(kind, count);
        }
        self.others = self.others.saturating_add(earlier.others);
        self.unknown = earlier.unknown;
    }

    fn is_empty(&self) -> bool {
        self.kinds.is_empty() && self.others == 0
    }

    /// What an event says of it. Whoever is known comes first, who works here before members: a flood of what nobody signed
    /// must not hide the one employee who tries doors.
    fn told(&self) -> RefusalsCommand {
        let rank = |caller: &Option<Caller>| match caller {
            None => 2,
            Some(Caller::Member(_)) => 1,
            Some(_) => 0,
        };
        let mut kinds: Vec<(&Kind, &i64)> = self.kinds.iter().collect();
        kinds.sort_by_key(|((caller, action, code), count)| {
            (rank(caller), Reverse(**count), caller.map(|caller| caller.to_string()), *action, *code)
        });
        let unnamed =
            kinds.iter().skip(MAX_NAMED).fold(self.others, |sum, (_, count)| sum.saturating_add(**count));
        let name = |((caller, action, code), count): (&Kind, &i64)| Refused {
            caller: caller.map_or_else(|| NOBODY.to_owned(), |caller| caller.to_string()),
            action: (*action).to_owned(),
            code: *code,
            count: *count,
        };
        let refused = kinds.into_iter().take(MAX_NAMED).map(name).collect();
        RefusalsCommand::Gather { from_ms: self.from_ms, refused, others: unnamed }
    }

    /// Writes it down in one event; what is not written comes back with the error.
    pub(super) async fn write_down(mut self, ledger: &Ledger) -> Result<(), (ExecuteError, Self)> {
        // First what may have arrived: under the same id it is written once.
        if let Some((id, command)) = self.unknown.take()
            && let Err(error) = execute(ledger, id, &command).await
        {
            self.unknown = Some((id, command));
            return Err((error, self));
        }
        if self.is_empty() {
            return Ok(());
        }
        let command = self.told();
        let id = match ledger.next_id("refusals", false).await {
            Ok(id) => id,
            Err(error) => return Err((error, self)),
        };
        match execute(ledger, id, &command).await {
            Ok(()) => Ok(()),
            Err(error @ ExecuteError::Busy) => Err((error, self)),
            Err(error) => Err((error, Self { unknown: Some((id, command)), ..Self::default() })),
        }
    }
}

async fn execute(ledger: &Ledger, id: i64, command: &RefusalsCommand) -> Result<(), ExecuteError> {
    let request_id = format!("refusals-{}", hex(&random::<6>()));
    let meta = Meta { caller: Caller::System, at: ledger.now(), request_id, receipt: None, job_id: None };
    ledger.execute::<Refusals>(id, command, &meta).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(counted: &Counted) -> (Vec<String>, i64) {
        let RefusalsCommand::Gather { refused, others, .. } = counted.told();
        let text = |one: &Refused| format!("{} {} {} {}", one.caller, one.action, one.code, one.count);
        (refused.iter().map(text).collect(), others)
    }

    #[test]
    fn who_is_known_is_named_first_and_the_rest_is_counted() {
        let mut counted = Counted::default();
        let names: Vec<&'static str> = (0..100).map(|number| &*format!("/{number}").leak()).collect();
        for name in &names {
            counted.count((None, name, 1001), 7);
            counted.count((None, name, 1001), 8);
        }
        counted.count((Some(Caller::Member(439)), "/shop/add", 1002), 9);
        counted.count((Some(Caller::Employee(1)), "/shop/add", 1002), 9);
        let (refused, others) = named(&counted);
        assert_eq!(
            refused[..3],
            ["employee:1 /shop/add 1002 1", "member:439 /shop/add 1002 1", "nobody /0 1001 2"]
        );
        assert_eq!((refused.len(), others), (MAX_NAMED, 2 * (102 - 64)));
    }

    #[test]
    fn however_many_kinds_there_are_memory_is_bounded_and_none_is_lost() {
        let mut counted = Counted::default();
        for id in 0..10_000 {
            counted.count((Some(Caller::Member(id)), "/shop/add", 1002), id);
        }
        assert_eq!((counted.kinds.len(), counted.others, counted.from_ms), (MAX_KINDS, 10_000 - 1_024, 0));
        let (refused, others) = named(&counted);
        assert_eq!(refused.len() as i64 + others, 10_000);
        let mut later = Counted::default();
        later.count((None, "/shop/add", 1001), 20_000);
        later.join(counted);
        let (refused, others) = named(&later);
        assert_eq!((refused.len() as i64 + others, later.from_ms), (10_001, 0));
    }
}
