//! `coupon-ledger import`: coupons or members of another system, from a CSV file; or an export of a ledger, into an
//! empty one.
//!
//! The same import as over HTTP, under the same keys: one that was killed is started again with the same arguments and goes
//! on where it was, whoever held the ledger then and holds it now.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::Value;

use super::remote::{Holder, Remote, as_operator};
use super::{Context, Failed, Progress, say};
use crate::approving::{self, Imported, Rule};
use crate::audit::check::{Trusted, check_files};
use crate::audit::takeover::{Step, take_over};
use crate::clock::Clock;
use crate::http::approvals::waiting_json;
use crate::http::form::Form;
use crate::http::import::{key_of, read_import, report_json};
use crate::import::{Asked, MAX_FILE_BYTES, What};
use crate::ledger::{ExecuteError, Ledger};
use crate::refusal::Language;
use crate::secrets::Secrets;
use crate::store;
use crate::value::{hex, random};

/// How long a server may take: longer than it takes itself.
const PATIENCE: Duration = Duration::from_secs(900);

/// How often an import is tried while the ledger is too busy or out of reach.
const TRIES: u32 = 30;

/// What to import.
#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// What the file holds
    what: Held,
    /// The file, as CSV with a header (docs/api.md has its columns); or the folder of an export
    file: PathBuf,
    /// Check every line and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Names the run: started again under its name it goes on and takes nothing twice [default: made of the file's content]
    #[arg(long, value_name = "NAME", value_parser = parse_run)]
    run: Option<String>,
    /// A verifier key of the ledger that the export is of, which must have signed it
    #[arg(long = "key", value_name = "VKEY")]
    keys: Vec<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Held {
    Coupons,
    Members,
    Export,
}

/// A run's name is an idempotency key.
fn parse_run(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (6..=64).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("6 to 64 letters, digits, - or _".to_owned())
    }
}

pub(super) async fn run(context: Context, arguments: ImportArgs) -> Result<(), Failed> {
    let secrets = context.secrets(true)?;
    let what = match arguments.what {
        Held::Coupons => What::Coupons,
        Held::Members => What::Members,
        Held::Export => return import_export(context, &secrets, arguments).await,
    };
    let path = arguments.file.display();
    let size = std::fs::metadata(&arguments.file).with_context(|| format!("cannot read {path}"))?.len();
    if size > MAX_FILE_BYTES as u64 {
        let most = MAX_FILE_BYTES >> 20;
        return Err(anyhow::anyhow!("{path} is larger than {most} MiB: split it").into());
    }
    let file = Bytes::from(std::fs::read(&arguments.file).with_context(|| format!("cannot read {path}"))?);
    let key = arguments.run.unwrap_or_else(|| key_of(&secrets, &file, arguments.dry_run));
    let query = format!("dry_run={}", u8::from(arguments.dry_run));
    let to = Holder::find(&context, secrets).await?;
    let mut tries = 0;
    let done = loop {
        let done = match &to {
            Holder::Ledger(ledger) => {
                let above = context.approvals.imports;
                take(ledger, (what, above), &key, &query, file.clone()).await
            }
            Holder::Server(server) => hand_over(server, what, &key, &query, file.clone()).await,
        };
        match done {
            // The same key goes on where this try ended.
            Err(Failed::CouldNotRun(error)) if tries < TRIES => {
                tries += 1;
                eprintln!("coupon-ledger: {error:#}; trying again");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            done => break done,
        }
    };
    to.close().await;
    tell(done?)
}

/// An export becomes a ledger. Nothing else may have it open.
async fn import_export(context: Context, secrets: &Secrets, arguments: ImportArgs) -> Result<(), Failed> {
    let ImportArgs { file: folder, dry_run, keys, .. } = arguments;
    let trusted = Trusted::new(&keys, &[])?;
    if dry_run {
        let report = check_files(&folder, &trusted, |_| {})?;
        if let Some(finding) = report.findings.first() {
            return Err(anyhow::anyhow!("the export is damaged: {finding}").into());
        }
        say(serde_json::json!({"events": report.events, "receipts": report.receipts}))?;
        return Ok(());
    }
    // A disk that fails or is full ends the process where it is noticed, and is told there.
    let errors = tracing_subscriber::EnvFilter::new("error");
    let errors = tracing_subscriber::fmt().with_env_filter(errors).with_writer(std::io::stderr);
    let _ = errors.try_init();
    let now_ms = Clock::System.now_ms();
    let store = store::open_for_takeover(&context.store_options(secrets, now_ms)).await?;
    let mut shown = Progress::new("events");
    let taken = take_over(&store, &folder, &trusted, now_ms, |step| match step {
        Step::Checked(events) | Step::Written(events) => shown.tell(events, None),
        Step::Rebuilding => eprintln!("coupon-ledger: writing the live tables"),
    });
    let taken = taken.await;
    store.close().await;
    let taken = taken?;
    if taken.manifest.secret_id != secrets.id() {
        eprintln!(
            "coupon-ledger: the export is of a ledger with another secret ({}): its tokens, gift codes, QR codes and \
             idempotency keys do not hold here",
            taken.manifest.secret_id
        );
    }
    if taken.manifest.head > taken.manifest.to {
        eprintln!(
            "coupon-ledger: the export ends at position {}, and that ledger went on to {}",
            taken.manifest.to, taken.manifest.head
        );
    }
    let told = serde_json::json!({
        "events": taken.manifest.count(), "receipts": taken.manifest.receipts, "digest": taken.manifest.digest,
    });
    say(told)?;
    Ok(())
}

async fn take(
    ledger: &Ledger,
    (what, above): (What, i64),
    key: &str,
    query: &str,
    file: Bytes,
) -> Result<Value, Failed> {
    let mut form = Form::from_file(query, file).map_err(|_| anyhow::anyhow!("no form"))?;
    let (file, dry_run) = read_import(&mut form);
    let wrong = |errors: Vec<(&str, crate::refusal::Wrong)>| {
        let texts = errors.iter().map(|(field, why)| why.text(field, Language::English));
        Failed::Refused(anyhow::anyhow!(texts.collect::<Vec<_>>().join(", ")))
    };
    let request_mac = ledger.secrets().request_mac(&form.finish().map_err(wrong)?);
    let asked = Asked {
        caller: as_operator(what.operation())?,
        key: key.to_owned(),
        request_mac,
        request_id: hex(&random::<8>()),
        dry_run,
    };
    let behind = approving::behind(ledger, asked.caller, true).await?;
    let rule = Rule { above, action: what.operation(), behind };
    match approving::import(ledger, what, &file, &asked, &rule).await {
        Ok(Imported::Waits(proposed)) => Err(Failed::Refused(waiting(&waiting_json(&proposed)))),
        Ok(Imported::Taken(report)) => {
            let mut told = report_json(&report, dry_run, Language::English);
            note_replay(&mut told, report.replayed);
            Ok(told)
        }
        Err(ExecuteError::Refused(crate::refusal::Refusal::Field { field, why })) => {
            Err(wrong(vec![(field, why)]))
        }
        Err(ExecuteError::Refused(refusal)) => Err(Failed::Refused(refusal.into())),
        Err(error) => Err(error.into()),
    }
}

async fn hand_over(
    server: &Remote,
    what: What,
    key: &str,
    query: &str,
    file: Bytes,
) -> Result<Value, Failed> {
    let route = format!("{}?{query}", what.operation());
    let mut answer = server.post(&route, Some(key), ("text/csv", file), PATIENCE).await?;
    match answer.code {
        0 => {
            note_replay(&mut answer.data, answer.replayed);
            Ok(answer.data)
        }
        1004 => Err(Failed::Refused(waiting(&answer.data))),
        // Busy, away, or still at it: the same key tells later.
        9002 => Err(anyhow::anyhow!("the server answers {}", answer.info).into()),
        _ => Err(Failed::Refused(anyhow::anyhow!("{} ({})", answer.info, answer.code))),
    }
}

/// What whoever is to wait can do.
fn waiting(data: &Value) -> anyhow::Error {
    let number = |name: &str| data.get(name).and_then(Value::as_i64).unwrap_or_default();
    let (id, rows, above) = (number("approval_id"), number("nums"), number("above"));
    anyhow::anyhow!(
        "{rows} coupons, and more than {above} wait for somebody else's word: once approval {id} is given, import the same \
         file again"
    )
}

fn note_replay(told: &mut Value, replayed: bool) {
    if let Value::Object(told) = told {
        told.insert("replayed".to_owned(), replayed.into());
    }
}

/// Bad lines to standard error, counts to standard output.
fn tell(mut told: Value) -> Result<(), Failed> {
    let errors = told.as_object_mut().and_then(|told| told.shift_remove("errors")).unwrap_or_default();
    let errors = errors.as_array().map(Vec::as_slice).unwrap_or_default();
    for error in errors {
        let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let line = error.get("line").and_then(Value::as_u64).unwrap_or_default();
        eprintln!("coupon-ledger: line {line}, {}: {}", text("field"), text("why"));
    }
    say(&told)?;
    match told.get("bad_num").and_then(Value::as_u64).unwrap_or_default() {
        0 => Ok(()),
        bad => Err(Failed::Refused(anyhow::anyhow!("{bad} lines are bad"))),
    }
}
