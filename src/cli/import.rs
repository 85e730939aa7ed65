//! `coupon-ledger import`: coupons or members of another system, from a CSV file.
//!
//! The same import as over HTTP, under the same keys: one that was killed is started again with the same arguments and goes
//! on where it was, whoever held the ledger then and holds it now.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::Value;

use super::remote::{Holder, Remote};
use super::{Context, Failed};
use crate::http::form::Form;
use crate::http::import::{key_of, read_import, report_json};
use crate::identity::Caller;
use crate::import::{self, Asked, MAX_FILE_BYTES, What};
use crate::ledger::{ExecuteError, Ledger};
use crate::refusal::Language;
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
    /// The file, as CSV with a header; docs/api.md has its columns
    file: PathBuf,
    /// Check every line and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Names the run: started again under its name it goes on and takes nothing twice [default: made of the file's content]
    #[arg(long, value_name = "NAME", value_parser = parse_run)]
    run: Option<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Held {
    Coupons,
    Members,
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
    };
    let path = arguments.file.display();
    let size = std::fs::metadata(&arguments.file).with_context(|| format!("cannot read {path}"))?.len();
    if size > MAX_FILE_BYTES as u64 {
        let most = MAX_FILE_BYTES >> 20;
        return Err(anyhow::anyhow!("{path} is larger than {most} MiB: split it").into());
    }
    let file = Bytes::from(std::fs::read(&arguments.file).with_context(|| format!("cannot read {path}"))?);
    let key = arguments.run.unwrap_or_else(|| key_of(&file, arguments.dry_run));
    let query = format!("dry_run={}", u8::from(arguments.dry_run));
    let to = Holder::find(&context, secrets).await?;
    let mut tries = 0;
    let done = loop {
        let done = match &to {
            Holder::Ledger(ledger) => take(ledger, what, &key, &query, file.clone()).await,
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

async fn take(ledger: &Ledger, what: What, key: &str, query: &str, file: Bytes) -> Result<Value, Failed> {
    let mut form = Form::from_file(query, file).map_err(|_| anyhow::anyhow!("no form"))?;
    let (file, dry_run) = read_import(&mut form);
    let wrong = |errors: Vec<(&str, crate::refusal::Wrong)>| {
        let texts = errors.iter().map(|(field, why)| why.text(field, Language::English));
        Failed::Refused(anyhow::anyhow!(texts.collect::<Vec<_>>().join(", ")))
    };
    let request_mac = ledger.secrets().request_mac(&form.finish().map_err(wrong)?);
    let asked = Asked {
        caller: Caller::Operator,
        key: key.to_owned(),
        request_mac,
        request_id: hex(&random::<8>()),
        dry_run,
    };
    match import::run(ledger, what, &file, &asked).await {
        Ok(report) => {
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
        // Busy, away, or still at it: the same key tells later.
        9002 => Err(anyhow::anyhow!("the server answers {}", answer.info).into()),
        _ => Err(Failed::Refused(anyhow::anyhow!("{} ({})", answer.info, answer.code))),
    }
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
    println!("{told}");
    match told.get("bad_num").and_then(Value::as_u64).unwrap_or_default() {
        0 => Ok(()),
        bad => Err(Failed::Refused(anyhow::anyhow!("{bad} lines are bad"))),
    }
}
