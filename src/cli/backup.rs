//! `coupon-ledger backup` and `coupon-ledger restore`.

use std::path::PathBuf;

use super::{Context, Failed};
use crate::backup::{self, Restored, Site};
use crate::clock::Clock;
use crate::store::StoreOptions;

/// Which file, and what it takes to write or read it.
#[derive(Debug, clap::Args)]
pub(super) struct BackupArgs {
    /// The backup
    file: PathBuf,
    /// The folder of `pg_dump` and `pg_restore` [default: found on the PATH]
    #[arg(long, value_name = "DIR", env = "COUPON_LEDGER_POSTGRES_TOOLS")]
    postgres_tools: Option<PathBuf>,
}

fn site(context: &Context, arguments: &BackupArgs) -> Site {
    let options = StoreOptions {
        data_dir: context.folder.clone(),
        database_url: context.place.database_url.clone(),
        // Neither looks into the ledger for what the secret is for, and both work without it.
        secret_id: String::new(),
        now_ms: Clock::System.now_ms(),
    };
    Site { options, postgres_tools: arguments.postgres_tools.clone() }
}

pub(super) async fn back_up(context: Context, arguments: BackupArgs) -> Result<(), Failed> {
    let done = backup::backup(&site(&context, &arguments), &arguments.file).await?;
    println!(
        "{}",
        serde_json::json!({"file": arguments.file, "position": done.position, "bytes": done.bytes})
    );
    eprintln!(
        "coupon-ledger: the keys are not in it: keep secret.key, and one copy of person.keys that is replaced after each \
         erasure, apart from it"
    );
    Ok(())
}

pub(super) async fn restore(context: Context, arguments: BackupArgs) -> Result<(), Failed> {
    let done = backup::restore(&site(&context, &arguments), &arguments.file).await?;
    let Restored { position, events, findings } = done;
    println!("{}", serde_json::json!({"position": position, "events": events, "findings": findings}));
    eprintln!(
        "coupon-ledger: the keys are not in it: put secret.key and person.keys in place before the server starts"
    );
    if findings.is_empty() {
        return Ok(());
    }
    Err(Failed::Refused(anyhow::anyhow!("restored, but not sound: {}", findings.join("; "))))
}
