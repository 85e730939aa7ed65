//! The transparency log's loop: one server at a time follows and signs, the others look on.
//!
//! It must cost the writer little, and stop loudly: what keeps it from going on is in the log and in /metrics, and it tries
//! again until somebody has mended it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::witnesses::{Witness, ask_witness};
use super::{FOLLOWER, SignError, Signer, follow, latest};
use crate::audit::checkpoint::Signed;
use crate::followers::{self, TLOG};
use crate::lease;
use crate::ledger::Ledger;
use crate::metrics::FollowerLabels;
use crate::store::{Store, StoreError};

/// Between two looks at the log: a checkpoint at least every second while events come.
const TICK: Duration = Duration::from_millis(500);

/// How often a failure is said again.
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Which server follows and signs, where several share a ledger.
const LEASE: &str = "tlog lease";

/// How long a server may be silent before another one takes its place, and when it says that it is there.
const LEASE_MS: i64 = 10_000;
const RENEW_AFTER: Duration = Duration::from_secs(3);

/// How often checkpoints that need not be kept are let go.
const THIN_AFTER: Duration = Duration::from_secs(60);

/// While it catches up, and while nothing happens: how long it goes without looking at what is signed.
const SIGN_AFTER: Duration = Duration::from_secs(1);
const LOOK_AFTER: Duration = Duration::from_secs(5);

/// What the transparency log is run with.
#[derive(Clone, Debug)]
pub struct TlogOptions {
    /// Where this server remembers what was signed.
    pub folder: PathBuf,
    /// Who is asked to cosign.
    pub witnesses: Vec<Witness>,
}

/// Follows and signs for as long as the server runs.
pub async fn run_tlog(ledger: Ledger, options: TlogOptions) {
    let (signed, _) = watch::channel(None);
    let mut asking = tokio::task::JoinSet::new();
    for witness in options.witnesses {
        asking.spawn(ask_witness(ledger.clone(), witness, signed.subscribe()));
    }
    let mut said = Said::default();
    let mut running = Running {
        ledger,
        folder: options.folder,
        signer: None,
        leads: false,
        signed,
        times: Times::default(),
    };
    loop {
        let outcome = running.round().await;
        if said.outcome(&running.ledger, outcome.as_ref().err()) {
            let error = outcome.as_ref().err().map(ToString::to_string);
            followers::note(&running.ledger, &TLOG, error).await;
        }
        if outcome.is_err() {
            running.times.signed = None;
        }
        if is_due(running.times.measured, SIGN_AFTER) {
            running.measure().await;
        }
        if !matches!(outcome, Ok(true)) {
            tokio::time::sleep(TICK).await;
        }
    }
}

/// Lets another server go on at once, where this one follows and signs.
pub async fn release_tlog_lease(ledger: &Ledger) -> Result<(), StoreError> {
    if ledger.store().is_shared() { lease::release(ledger, LEASE).await } else { Ok(()) }
}

/// When things were last done.
#[derive(Default)]
struct Times {
    leased: Option<Instant>,
    signed: Option<Instant>,
    thinned: Option<Instant>,
    measured: Option<Instant>,
}

struct Running {
    ledger: Ledger,
    folder: PathBuf,
    signer: Option<Signer>,
    leads: bool,
    signed: watch::Sender<Option<Signed>>,
    times: Times,
}

fn is_due(last: Option<Instant>, after: Duration) -> bool {
    last.is_none_or(|last| last.elapsed() >= after)
}

impl Running {
    /// Whether there is more to do at once.
    async fn round(&mut self) -> Result<bool, SignError> {
        if followers::is_paused(&self.ledger, &TLOG).await? {
            return Ok(false);
        }
        let signer = match &self.signer {
            Some(signer) => signer,
            None => self.signer.insert(Signer::new(self.ledger.clone(), &self.folder).await?),
        };
        // One process alone has an embedded ledger.
        if self.ledger.store().is_shared() && is_due(self.times.leased, RENEW_AFTER) {
            self.leads = false;
            self.leads = lease::take(&self.ledger, LEASE, LEASE_MS).await?;
            self.times.leased = Some(Instant::now());
        }
        let look = is_due(self.times.signed, LOOK_AFTER);
        if self.ledger.store().is_shared() && !self.leads {
            if is_due(self.times.signed, SIGN_AFTER) {
                signer.observe().await?;
                self.times.signed = Some(Instant::now());
            }
            return Ok(false);
        }
        let followed = follow(self.ledger.store()).await?;
        let up_to_date = !followed.more || is_due(self.times.signed, SIGN_AFTER);
        let is_time = look || (followed.added > 0 && up_to_date);
        // A tree that is made anew comes to what was signed of it by and by, and is no older one.
        if is_time && !(followed.more && followed.size < signed_size(self.ledger.store()).await?) {
            let signed = match signer.sign().await? {
                // After a start: witnesses may not have seen it.
                None if self.signed.borrow().is_none() => latest(self.ledger.store()).await?,
                signed => signed,
            };
            if signed.is_some() {
                self.signed.send_replace(signed);
            }
            self.times.signed = Some(Instant::now());
        }
        if is_due(self.times.thinned, THIN_AFTER) {
            signer.thin().await?;
            self.times.thinned = Some(Instant::now());
        }
        Ok(followed.more)
    }

    /// How far behind the signatures are.
    async fn measure(&mut self) {
        self.times.measured = Some(Instant::now());
        let store = self.ledger.store();
        let Ok(signed) = latest(store).await else { return };
        let size = signed.map_or(0, |signed| signed.size as i64);
        let Ok(waiting) = store.events_after(size, 1).await else { return };
        let since = waiting.first().map(|event| self.ledger.clock().now_ms() - event.recorded_at_ms);
        let metrics = self.ledger.metrics();
        metrics.checkpoint_size.set(size);
        metrics.follower_lag.get_or_create(&LABELS).set(since.map_or(0, |ms| ms.max(0) / 1_000));
    }
}

async fn signed_size(store: &Store) -> Result<u64, StoreError> {
    Ok(latest(store).await?.map_or(0, |signed| signed.size))
}

const LABELS: FollowerLabels = FollowerLabels { follower: FOLLOWER };

/// What was last said of a failure: once, and again while it lasts, but not at every tick.
#[derive(Default)]
struct Said {
    failure: Option<(String, Instant)>,
}

impl Said {
    /// Says how a round ended, where that is news; whether it was.
    fn outcome(&mut self, ledger: &Ledger, error: Option<&SignError>) -> bool {
        ledger.metrics().follower_failed.get_or_create(&LABELS).set(i64::from(error.is_some()));
        let Some(error) = error else {
            let news = self.failure.take().is_some();
            if news {
                tracing::info!("the transparency log goes on");
            }
            return news;
        };
        let text = error.to_string();
        let said =
            self.failure.as_ref().is_some_and(|(last, at)| *last == text && at.elapsed() < SAID_AGAIN_AFTER);
        if !said {
            tracing::error!(error = %text, "the transparency log stands still");
            self.failure = Some((text, Instant::now()));
        }
        !said
    }
}
