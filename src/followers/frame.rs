//! The loop of a follower of positions: one process at a time works, it stops loudly, and goes on where it was.
//!
//! A follower's step is one transaction that does its work and moves its checkpoint from where the step took it
//! ([`moved`](super::moved)), so that two who believe to have the turn do no harm. Nothing is on the append's path. What keeps
//! it from going on is in the log, in the metrics and on its page, and it is tried again until somebody has mended it.

use std::any::Any;
use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt as _;

use super::{Follower, is_paused, note};
use crate::lease;
use crate::ledger::Ledger;
use crate::metrics::FollowerLabels;
use crate::store::StoreError;

/// Between two looks at the log where there was nothing more to do.
const TICK: Duration = Duration::from_millis(500);

/// How often a failure is said again.
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// How long a process may be silent before another one takes its turn, and when it says that it is there.
const LEASE_MS: i64 = 10_000;
const RENEW_AFTER: Duration = Duration::from_secs(3);

/// How often it is told how old what it has not seen is.
const MEASURE_AFTER: Duration = Duration::from_secs(1);

/// A follower's work.
pub trait Follow: Send {
    /// Why a step was not done.
    type Error: std::fmt::Display + Send;

    /// Which follower it is.
    fn follower(&self) -> &'static Follower;

    /// Does the next piece, in one transaction that moves its checkpoint; whether there is more at once.
    fn step(&mut self, ledger: &Ledger) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}

/// Follows for as long as the server runs.
pub async fn run(ledger: Ledger, mut follow: impl Follow) {
    let follower = follow.follower();
    let mut turn = Turn::new(follower);
    let mut said = Said::new(follower);
    let mut measured: Option<Instant> = None;
    loop {
        let outcome = match may_step(&ledger, &mut turn).await {
            Ok(true) => caught(follow.step(&ledger)).await,
            Ok(false) => Ok(false),
            Err(error) => Err(error.to_string()),
        };
        said.outcome(&ledger, outcome.as_ref().err().map(String::as_str)).await;
        if is_due(measured, MEASURE_AFTER) {
            measured = Some(Instant::now());
            measure(&ledger, follower).await;
        }
        if outcome != Ok(true) {
            tokio::time::sleep(TICK).await;
        }
    }
}

/// Does a step; what panics in it is an error like any other, so that it is said and tried again.
pub(crate) async fn caught<T, E: Display>(step: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match AssertUnwindSafe(step).catch_unwind().await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(panic) => Err(panicked(panic.as_ref())),
    }
}

/// What a panic has said.
#[must_use]
pub fn panicked(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", said.unwrap_or("and said nothing"))
}

async fn may_step(ledger: &Ledger, turn: &mut Turn) -> Result<bool, StoreError> {
    Ok(!is_paused(ledger, turn.follower).await? && turn.is_ours(ledger).await?)
}

/// How old the first event is that a follower has not seen, in seconds.
async fn measure(ledger: &Ledger, follower: &'static Follower) {
    let store = ledger.store();
    let Ok(seen) = super::checkpoint(store, follower).await else { return };
    let Ok(waiting) = store.events_after(seen.max(0), 1).await else { return };
    let age_ms = waiting.first().map_or(0, |event| ledger.clock().now_ms() - event.recorded_at_ms);
    let labels = FollowerLabels { follower: follower.name };
    ledger.metrics().follower_lag.get_or_create(&labels).set(age_ms.max(0) / 1_000);
}

/// Whether something that was last done then is to be done again.
pub(crate) fn is_due(last: Option<Instant>, after: Duration) -> bool {
    last.is_none_or(|last| last.elapsed() >= after)
}

/// Whose turn it is, where several processes share a ledger.
pub(crate) struct Turn {
    follower: &'static Follower,
    ours: bool,
    renewed: Option<Instant>,
}

impl Turn {
    pub(crate) fn new(follower: &'static Follower) -> Self {
        Self { follower, ours: false, renewed: None }
    }

    /// Whether it is this process's. One process alone has an embedded ledger.
    pub(crate) async fn is_ours(&mut self, ledger: &Ledger) -> Result<bool, StoreError> {
        if !ledger.store().is_shared() {
            return Ok(true);
        }
        if is_due(self.renewed, RENEW_AFTER) {
            self.ours = false;
            self.ours = lease::take(ledger, &lease_of(self.follower), LEASE_MS).await?;
            self.renewed = Some(Instant::now());
        }
        Ok(self.ours)
    }
}

/// Lets other servers go on at once with what this one follows.
pub async fn release(ledger: &Ledger) -> Result<(), StoreError> {
    if ledger.store().is_shared() {
        for follower in super::ALL {
            lease::release(ledger, &lease_of(follower)).await?;
        }
    }
    Ok(())
}

fn lease_of(follower: &Follower) -> String {
    format!("{} lease", follower.name)
}

/// What was last said of a failure: once, and again while it lasts, but not at every tick.
pub(crate) struct Said {
    follower: &'static Follower,
    failure: Option<(String, Instant)>,
    /// Whether it is known that nothing of an earlier failure stands written down.
    clear: bool,
}

impl Said {
    pub(crate) fn new(follower: &'static Follower) -> Self {
        Self { follower, failure: None, clear: false }
    }

    /// Says how a step ended, where that is news, and writes it down.
    pub(crate) async fn outcome(&mut self, ledger: &Ledger, error: Option<&str>) {
        let labels = FollowerLabels { follower: self.follower.name };
        ledger.metrics().follower_failed.get_or_create(&labels).set(i64::from(error.is_some()));
        let name = self.follower.name;
        let Some(text) = error else {
            if self.failure.take().is_some() {
                tracing::info!(follower = name, "the follower goes on");
            } else if self.clear {
                return;
            }
            // What another process, or the one before, has left there is mended too.
            note(ledger, self.follower, None).await;
            self.clear = true;
            return;
        };
        let said =
            self.failure.as_ref().is_some_and(|(last, at)| last == text && at.elapsed() < SAID_AGAIN_AFTER);
        if !said {
            tracing::error!(follower = name, error = %text, "the follower stands still");
            self.failure = Some((text.to_owned(), Instant::now()));
            self.clear = false;
            note(ledger, self.follower, Some(text.to_owned())).await;
        }
    }
}
