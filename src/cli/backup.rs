//! `coupon-ledger backup` and `coupon-ledger restore`.

use std::path::PathBuf;

use serde_json::json;

use super::verify::{self, Occasion, VerifyArgs};
use super::{Context, Failed, say};
use crate::backup::{self, BackedUp, Site};
use crate::clock::Clock;
use crate::store::{Store, StoreOptions};

/// Which file, and what it takes to write or read it.
#[derive(Debug, clap::Args)]
pub(super) struct BackupArgs {
    /// The backup
    file: PathBuf,
    /// The folder of `pg_dump` and `pg_restore` [default: found on the PATH]
    #[arg(long, value_name = "DIR", env = "COUPON_LEDGER_POSTGRES_TOOLS")]
    postgres_tools: Option<PathBuf>,
    /// Leave out the verification that follows
    #[arg(long)]
    no_verify: bool,
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
    let site = site(&context, &arguments);
    let BackedUp { position, bytes } = backup::backup(&site, &arguments.file).await?;
    let told = json!({"file": arguments.file, "position": position, "bytes": bytes});
    say(told)?;
    eprintln!(
        "coupon-ledger: the keys are not in it: keep secret.key, and one copy of person.keys that is replaced after each \
         erasure, apart from it"
    );
    if arguments.no_verify {
        return Ok(());
    }
    look(&context, &backup::open(&site, &arguments.file).await?, Occasion::BackedUp).await
}

pub(super) async fn restore(context: Context, arguments: BackupArgs) -> Result<(), Failed> {
    backup::restore(&site(&context, &arguments), &arguments.file).await?;
    eprintln!(
        "coupon-ledger: restored; the keys are not in it: put secret.key and person.keys in place before the server starts"
    );
    if arguments.no_verify {
        return Ok(());
    }
    look(&context, &context.open_to_read().await?, Occasion::Restored).await
}

/// What was found is a line of JSON.
async fn look(context: &Context, store: &Store, occasion: Occasion) -> Result<(), Failed> {
    let verified = verify::look(context, store, &VerifyArgs::default(), occasion).await;
    store.close().await;
    let (position, totals) = verified?;
    say(verify::report(position, &totals))?;
    verify::judge(&totals)
}
