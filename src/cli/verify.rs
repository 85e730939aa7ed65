//! `coupon-ledger verify`: everything that is stored, held against the events and against what was signed.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Context, Failed, write_out};
use crate::audit::tlog::remembered;
use crate::audit::verify::{MAX_FINDINGS, State, Totals, Trusted, verify};
use crate::config;
use crate::durable;
use crate::secrets::Secrets;
use crate::store::{OpenError, Store};

/// How often what is done so far is written down.
const KEEP_EVERY: Duration = Duration::from_secs(2);

/// What to hold the ledger against.
#[derive(Debug, Default, clap::Args)]
pub(super) struct VerifyArgs {
    /// A key that signs the ledger's checkpoints, as `key list` prints it [default: those of the ledger's secret]
    #[arg(long = "key", value_name = "VKEY")]
    keys: Vec<String>,
    /// A checkpoint that was kept elsewhere: the log must still be what it says
    #[arg(long = "checkpoint", value_name = "FILE")]
    checkpoints: Vec<PathBuf>,
    /// Write down how far it has come, and go on from there when started again
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Findings as JSON, one object
    #[arg(long)]
    json: bool,
}

/// What `--state` holds.
#[derive(Serialize, Deserialize)]
struct Kept {
    origin: String,
    /// None: it has only begun.
    state: Option<State>,
}

pub(super) async fn run(context: Context, arguments: VerifyArgs) -> Result<(), Failed> {
    let store = context.open_to_read().await?;
    let looked = look(&context, &store, &arguments, Occasion::Asked).await;
    store.close().await;
    let (position, totals) = looked?;
    let told =
        if arguments.json { format!("{}\n", report(position, &totals)) } else { in_words(position, &totals) };
    write_out(&told)?;
    judge(&totals)
}

/// Why a ledger is verified.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// It was asked for: what cannot be looked at is an error.
    Asked,
    /// It was backed up: what was signed since says nothing of the backup.
    BackedUp,
    /// It was restored: its keys may still be elsewhere.
    Restored,
}

/// Verifies an open ledger.
pub(super) async fn look(
    context: &Context,
    store: &Store,
    arguments: &VerifyArgs,
    occasion: Occasion,
) -> anyhow::Result<(i64, Totals)> {
    let mut trusted = if arguments.keys.is_empty() {
        trusted(context, store, occasion).await?
    } else {
        Trusted::keys(&arguments.keys)?
    };
    let origin = store.origin().await?.unwrap_or_default();
    if occasion != Occasion::BackedUp
        && let Some(note) = remembered(&origin, &context.folder)?
    {
        trusted.notes.push(("what was signed last".to_owned(), note));
    }
    for path in &arguments.checkpoints {
        let name = path.display().to_string();
        let note = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        trusted.notes.push((name, note));
    }
    if trusted.notes.is_empty() && occasion != Occasion::BackedUp {
        eprintln!(
            "coupon-ledger: no checkpoint is known from elsewhere: the database is held against itself only"
        );
    }
    look_at(store, &origin, &trusted, arguments.state.as_deref()).await
}

/// What the keys that lie here let one look at.
async fn trusted(context: &Context, store: &Store, occasion: Occasion) -> anyhow::Result<Trusted> {
    let secrets = match config::find_secrets(&context.place, &context.folder).map_err(anyhow::Error::msg)? {
        Some(secrets) => Some(secrets),
        None if occasion == Occasion::Asked => Some(context.secrets(false)?),
        None => None,
    };
    // Under another secret every signature is somebody else's: that says nothing of the ledger.
    let (found, expected) = (secrets.as_ref().map(Secrets::id), store.secret_id().await?);
    let secrets = match (secrets, found) {
        (Some(secrets), Some(found)) if found == expected => secrets,
        (Some(_), Some(found)) if occasion == Occasion::Asked => {
            return Err(OpenError::OtherSecret { expected, found }.into());
        }
        _ => {
            eprintln!(
                "coupon-ledger: the ledger's secret is not here: neither signatures nor reviews are looked at"
            );
            return Ok(Trusted::default());
        }
    };
    let seal = context.find_seal(store, &secrets).await?;
    if seal.is_none() {
        eprintln!("coupon-ledger: the person keys are not here: reviews are not held against their hashes");
    }
    Ok(Trusted { seal, ..Trusted::of_secret(store, &secrets).await? })
}

async fn look_at(
    store: &Store,
    origin: &str,
    trusted: &Trusted,
    state_file: Option<&Path>,
) -> anyhow::Result<(i64, Totals)> {
    let begun = state_file.map(|path| read_state(path, origin)).transpose()?.flatten();
    let (begun, of_another) = match begun {
        Some(state) if state.is_of(trusted) => (Some(state), false),
        begun => (None, begun.is_some()),
    };
    if of_another {
        eprintln!(
            "coupon-ledger: what was done so far was another program's, or without these keys: from the start"
        );
    }
    if let Some(state) = &begun {
        eprintln!("coupon-ledger: going on: {} of {} parts were done", state.done(), state.pieces);
    }
    if let Some(path) = state_file {
        // Where nothing can be written down, that is said now and not after hours.
        write_state(path, origin, begun.as_ref())?;
    }
    let mut position = 0;
    let mut progress = Progress::new();
    let mut kept = Instant::now();
    let mut could_not_keep = None;
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let totals = verify(store, trusted, cores, begun, |state| {
        position = state.position;
        progress.show(state);
        if let Some(path) = state_file.filter(|_| kept.elapsed() >= KEEP_EVERY) {
            kept = Instant::now();
            could_not_keep = write_state(path, origin, Some(state)).err();
        }
    })
    .await?;
    progress.end();
    if let Some(error) = could_not_keep {
        eprintln!("coupon-ledger: how far it has come could not be written down: {error:#}");
    }
    if let Some(path) = state_file {
        // It is done: the next run begins anew.
        let _ = std::fs::remove_file(path);
    }
    Ok((position, totals))
}

fn read_state(path: &Path, origin: &str) -> anyhow::Result<Option<State>> {
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let kept: Kept = serde_json::from_slice(&text)
        .with_context(|| format!("{} does not say how far a verification has come", path.display()))?;
    anyhow::ensure!(kept.origin == origin, "{} is about another ledger ({})", path.display(), kept.origin);
    Ok(kept.state)
}

fn write_state(path: &Path, origin: &str, state: Option<&State>) -> anyhow::Result<()> {
    let kept = Kept { origin: origin.to_owned(), state: state.cloned() };
    durable::replace(path, &serde_json::to_vec(&kept)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// One line on standard error, as the work goes on.
struct Progress {
    started: Instant,
    shown: Instant,
    terminal: bool,
    events: u64,
}

impl Progress {
    fn new() -> Self {
        let now = Instant::now();
        Self { started: now, shown: now, terminal: std::io::stderr().is_terminal(), events: 0 }
    }

    fn show(&mut self, state: &State) {
        let pause = if self.terminal { Duration::from_millis(250) } else { Duration::from_secs(10) };
        self.events = state.totals.events;
        if self.shown.elapsed() < pause {
            return;
        }
        self.shown = Instant::now();
        let percent = state.done() * 100 / state.pieces.max(1);
        let bar = "#".repeat(percent / 4) + &"-".repeat(25 - percent / 4);
        let end = if self.terminal { "\r" } else { "\n" };
        let wrong = state.totals.wrong;
        eprint!("coupon-ledger: [{bar}] {percent:3} %, {} events, {wrong} findings{end}", self.events);
    }

    fn end(&self) {
        let per_second = u128::from(self.events) * 1_000 / self.started.elapsed().as_millis().max(1);
        let clear = if self.terminal { "\r\u{1b}[K" } else { "" };
        eprintln!(
            "{clear}coupon-ledger: {} events in {:.1?}, {per_second}/s",
            self.events,
            self.started.elapsed()
        );
    }
}

pub(super) fn report(position: i64, totals: &Totals) -> serde_json::Value {
    let Totals { events, hashed, signed, streams, rows, receipts, wrong, findings, .. } = totals;
    json!({"position": position, "events": events, "hashed": hashed, "signed": signed, "streams": streams, "rows": rows, "receipts": receipts,
           "findings_num": wrong, "findings": findings})
}

fn in_words(position: i64, totals: &Totals) -> String {
    let Totals { hashed, signed, streams, rows, receipts, wrong, findings, .. } = totals;
    let mut lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    if *wrong > MAX_FINDINGS as u64 {
        lines.push(format!("… and {} more", wrong - MAX_FINDINGS as u64));
    }
    lines.push(format!(
        "up to position {position}: {streams} streams, {rows} live rows, {receipts} receipts; {hashed} events are hashed, \
         {signed} signed"
    ));
    lines.join("\n") + "\n"
}

pub(super) fn judge(totals: &Totals) -> Result<(), Failed> {
    if totals.wrong > 0 {
        return Err(Failed::Refused(anyhow::anyhow!("{} things are wrong", totals.wrong)));
    }
    if totals.signed == 0 {
        eprintln!(
            "coupon-ledger: nothing of it is signed by a key that is known here: that all of it was written anew would not show"
        );
    }
    eprintln!("coupon-ledger: sound");
    Ok(())
}
