//! `coupon-ledger rebuild`: live tables made anew from the log, beside a running server.
//!
//! On SQLite the server that holds the ledger does it, and is asked how far it is; otherwise it is done here. Started again
//! after a kill, it goes on where it was.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use super::remote::{Holder, Remote};
use super::{Context, Failed, say};
use crate::audit::rebuild::{self, CouponReport, Difference, RebuildError, Report, Running};
use crate::http::v1::rebuilds::standing;
use crate::ledger::Ledger;
use crate::value::MAX_ID;

/// How often is looked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What to rebuild.
#[derive(Debug, clap::Args)]
pub(super) struct RebuildArgs {
    /// all, or read models parted by commas: wallet,stock
    #[arg(required_unless_present_any = ["coupon", "drop_old"], conflicts_with = "coupon")]
    models: Option<String>,
    /// Make the rows of this coupon alone anew
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..=MAX_ID), conflicts_with = "drop_old")]
    coupon: Option<i64>,
    /// Drop what earlier rebuilds replaced and kept: by itself, or before rebuilding
    #[arg(long)]
    drop_old: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(context: Context, arguments: RebuildArgs) -> Result<(), Failed> {
    if let Some(models) = &arguments.models {
        rebuild::tables(models)?;
    }
    let secrets = context.secrets(false)?;
    let to = Holder::find(&context, secrets).await?;
    let done = match (&arguments.models, arguments.coupon) {
        (Some(models), _) => all(&to, models, &arguments).await,
        (None, Some(id)) => coupon(&to, id, arguments.json).await,
        (None, None) => drop_old(&to, arguments.json).await,
    };
    to.close().await;
    done
}

async fn all(to: &Holder, models: &str, arguments: &RebuildArgs) -> Result<(), Failed> {
    let report = match to {
        Holder::Ledger(ledger) => here(ledger, models, arguments.drop_old).await?,
        Holder::Server(server) => there(server, models, arguments.drop_old).await?,
    };
    if arguments.json {
        say(serde_json::to_string(&report)?)?;
    } else {
        say(in_words(&report))?;
    }
    findings(report.difference_count)
}

/// Rebuilds in this process.
async fn here(ledger: &Ledger, models: &str, drop_old: bool) -> Result<Report, Failed> {
    let running = Running::begin(ledger.store(), ledger.clock(), models, drop_old).await;
    let running = running.map_err(refused)?;
    let mut progress = Progress::begin(running.id(), running.resumed);
    let id = running.id();
    let mut working = tokio::spawn(running.run());
    let report = loop {
        tokio::select! {
            done = &mut working => break done.map_err(anyhow::Error::from)?.map_err(refused)?,
            () = tokio::time::sleep(LOOK_EVERY) => {
                if let Some((rebuild, running)) = rebuild::look(ledger.store(), id).await? {
                    progress.show(&standing(&rebuild, running));
                }
            }
        }
    };
    progress.end();
    Ok(report)
}

/// Lets the server rebuild that holds the ledger.
async fn there(server: &Remote, models: &str, drop_old: bool) -> Result<Report, Failed> {
    let path = format!("/v1/rebuilds?models={models}&drop_old={}", u8::from(drop_old));
    let begun = server.ask(Method::POST, &path).await?;
    let id = begun.get("rebuild_id").and_then(Value::as_i64).unwrap_or_default();
    let resumed = begun.get("resumed").and_then(Value::as_bool).unwrap_or_default();
    let mut progress = Progress::begin(id, resumed);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let standing = server.ask(Method::GET, &format!("/v1/rebuilds/{id}")).await?;
        progress.show(&standing);
        if standing.get("running") != Some(&Value::Bool(true)) {
            if let Some(report) = standing.get("report").filter(|report| report.is_object()) {
                progress.end();
                return Ok(serde_json::from_value(report.clone())?);
            }
            let why = standing.get("failed").and_then(Value::as_str);
            let why = why.unwrap_or("it ended without saying why: the server's log may tell");
            return Err(anyhow::anyhow!("rebuild {id} stopped: {why}").into());
        }
    }
}

async fn coupon(to: &Holder, id: i64, as_json: bool) -> Result<(), Failed> {
    let report: CouponReport = match to {
        Holder::Ledger(ledger) => rebuild::repair_coupon(ledger.store(), id).await.map_err(refused)?,
        Holder::Server(server) => {
            serde_json::from_value(server.ask(Method::POST, &format!("/v1/coupons/{id}/rebuild")).await?)?
        }
    };
    if as_json {
        say(serde_json::to_string(&report)?)?;
    } else {
        let rows = format!("coupon {id}: {} rows", report.rows);
        let lines = report.differences.iter().flat_map(Difference::lines);
        say(std::iter::once(rows).chain(lines).collect::<Vec<_>>().join("\n"))?;
    }
    findings(report.differences.len() as u64)
}

async fn drop_old(to: &Holder, as_json: bool) -> Result<(), Failed> {
    let dropped = match to {
        Holder::Ledger(ledger) => {
            json!({"dropped": rebuild::drop_old(ledger.store()).await.map_err(refused)?})
        }
        Holder::Server(server) => server.ask(Method::POST, "/v1/rebuilds/drop-old").await?,
    };
    let names = dropped.get("dropped").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if as_json {
        say(&dropped)?;
    } else if names.is_empty() {
        say("nothing was kept")?;
    }
    for name in names.iter().filter_map(Value::as_str).filter(|_| !as_json) {
        say(format_args!("dropped {name}"))?;
    }
    Ok(())
}

/// What the ledger says no to, and what could not run.
fn refused(error: RebuildError) -> Failed {
    match error {
        RebuildError::Busy | RebuildError::OldKept(_) | RebuildError::NoSuchCoupon(_) => {
            Failed::Refused(error.into())
        }
        error => Failed::CouldNotRun(error.into()),
    }
}

/// Rows that differed are findings, though they are mended: somebody must ask where they came from.
fn findings(count: u64) -> Result<(), Failed> {
    match count {
        0 => Ok(()),
        count => {
            Err(Failed::Refused(anyhow::anyhow!("{count} rows were not what the log gives; they are now")))
        }
    }
}

fn in_words(report: &Report) -> String {
    let Report { position, streams, events, took_ms, held_us, .. } = report;
    let mut lines = vec![format!(
        "rebuilt from {events} events of {streams} streams, as of position {position}, in {}.{:03} s; writers waited {}.{:03} ms for the swap",
        took_ms / 1_000,
        took_ms % 1_000,
        held_us / 1_000,
        held_us % 1_000
    )];
    for table in &report.tables {
        let what = match table.differences {
            0 => "as before".to_owned(),
            count => format!("{count} rows differ from before, {}", table.old_digest),
        };
        lines.push(format!("{} {} {what}", table.new_digest, table.table));
    }
    lines.extend(report.differences.iter().flat_map(Difference::lines));
    let more = report.difference_count - report.differences.len() as u64;
    if more > 0 {
        lines.push(format!("and {more} rows more"));
    }
    lines.join("\n")
}

/// One line on standard error, again and again on a terminal and now and then elsewhere.
struct Progress {
    id: i64,
    started: Instant,
    shown: Instant,
    terminal: bool,
    first_events: Option<i64>,
}

impl Progress {
    fn begin(id: i64, resumed: bool) -> Self {
        let how = if resumed { "goes on" } else { "begins" };
        eprintln!("coupon-ledger: rebuild {id} {how}");
        let now = Instant::now();
        Self { id, started: now, shown: now, terminal: std::io::stderr().is_terminal(), first_events: None }
    }

    fn show(&mut self, standing: &Value) {
        let pause = if self.terminal { Duration::ZERO } else { Duration::from_secs(5) };
        let number = |name: &str| standing.get(name).and_then(Value::as_i64).unwrap_or_default();
        let (events, streams, began_at) = (number("events"), number("streams"), number("began_at"));
        let first = *self.first_events.get_or_insert(events);
        if self.shown.elapsed() < pause {
            return;
        }
        self.shown = Instant::now();
        let state = standing.get("state").and_then(Value::as_str).unwrap_or_default();
        let per_second = (events - first) as u128 * 1_000 / self.started.elapsed().as_millis().max(1);
        let end = if self.terminal { "  \r" } else { "\n" };
        eprint!(
            "coupon-ledger: rebuild {}: {state}, {streams} streams, {events} of {began_at} events, {per_second}/s{end}",
            self.id
        );
    }

    fn end(&self) {
        if self.terminal {
            eprintln!();
        }
    }
}
