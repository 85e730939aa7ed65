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
use crate::followers::frame::{Said, Turn, caught, is_due};
use crate::followers::{self, TLOG};
use crate::ledger::Ledger;
use crate::metrics::FollowerLabels;
use crate::store::{Store, StoreError};

/// Between two looks at the log: a checkpoint at least every second while events come.
const TICK: Duration = Duration::from_millis(500);

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
    let mut said = Said::new(&TLOG);
    let mut running = Running {
        ledger,
        folder: options.folder,
        signer: None,
        turn: Turn::new(&TLOG),
        signed,
        times: Times::default(),
    };
    loop {
        let outcome = caught(running.round()).await;
        said.outcome(&running.ledger, outcome.as_ref().err().map(String::as_str)).await;
        if outcome.is_err() {
            running.times.signed = None;
        }
        if is_due(running.times.measured, SIGN_AFTER) {
            running.measure().await;
        }
        if outcome != Ok(true) {
            tokio::time::sleep(TICK).await;
        }
    }
}

/// When things were last done.
#[derive(Default)]
struct Times {
    signed: Option<Instant>,
    thinned: Option<Instant>,
    measured: Option<Instant>,
}

struct Running {
    ledger: Ledger,
    folder: PathBuf,
    signer: Option<Signer>,
    turn: Turn,
    signed: watch::Sender<Option<Signed>>,
    times: Times,
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
        let leads = self.turn.is_ours(&self.ledger).await?;
        let look = is_due(self.times.signed, LOOK_AFTER);
        if !leads {
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
