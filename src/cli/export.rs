//! `coupon-ledger export`: the log, or a part of it, as a folder that can be checked without this program's server, or as
//! Parquet that other programs reckon with.

use std::path::PathBuf;

use super::{Context, Failed, say};
use crate::audit::export::{Manifest, Wanted, export};
use crate::exports::write_log_files;

/// What to export.
#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    /// The folder to write; it must not be there yet
    #[arg(long, value_name = "DIR", required_unless_present = "parquet")]
    out: Option<PathBuf>,
    /// Write the log as Parquet into this folder instead, for DuckDB and the like: again, it adds what is new since
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "from", "unsigned"])]
    parquet: Option<PathBuf>,
    /// The first position [default: 1]
    #[arg(long, value_name = "POSITION")]
    from: Option<i64>,
    /// The last position [default: as far as the last checkpoint signs; the end where nothing was ever signed, and with
    /// --parquet]
    #[arg(long, value_name = "POSITION")]
    to: Option<i64>,
    /// Go beyond the last checkpoint: nothing proves such an export
    #[arg(long)]
    unsigned: bool,
}

pub(super) async fn run(context: Context, arguments: ExportArgs) -> Result<(), Failed> {
    let ExportArgs { out, parquet, from, to, unsigned } = arguments;
    let store = context.open_to_read().await?;
    if let Some(folder) = parquet {
        let mut shown = super::Progress::new("events");
        let tell = |done, all| shown.tell(done, Some(all));
        let written = write_log_files(&store, context.zone, &folder, to, tell).await;
        store.close().await;
        return Ok(say(serde_json::to_string(&written?)?)?);
    }
    let out = out.ok_or_else(|| anyhow::anyhow!("--out or --parquet is needed"))?;
    // Reading a ledger needs no secret; with it the manifest names the keys.
    let wanted = Wanted { from, to, unsigned, secrets: context.secrets(false).ok() };
    let mut shown = super::Progress::new("events");
    let exported = export(&store, &wanted, &out, |done, all| shown.tell(done, Some(all))).await;
    store.close().await;
    let manifest = exported?;
    tell(&manifest)?;
    if to.is_none() && manifest.to < manifest.head {
        eprintln!(
            "coupon-ledger: the log goes on to position {}, which was not signed yet: export again, or with --unsigned",
            manifest.head
        );
    }
    if manifest.proof.is_none() {
        eprintln!(
            "coupon-ledger: nothing signed covers these events: a check can prove only that they are whole"
        );
    }
    Ok(())
}

fn tell(manifest: &Manifest) -> anyhow::Result<()> {
    let Manifest { origin, from, to, receipts, digest, .. } = manifest;
    let told = serde_json::json!({
        "origin": origin, "from": from, "to": to, "receipts": receipts, "digest": digest,
    });
    say(told)
}
