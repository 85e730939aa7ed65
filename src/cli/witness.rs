//! `coupon-ledger witness`: watches another ledger's transparency log and cosigns what continues it.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;

use super::Failed;
use super::serve::{StopSignals, start_logging};
use crate::audit::checkpoint::Trust;
use crate::audit::witness::Witness;
use crate::clock::Clock;
use crate::http::server::{self, ServerOptions};
use crate::http::witness::router;

/// Which log, and where the witness remembers.
#[derive(Debug, clap::Args)]
pub(super) struct WitnessArgs {
    /// Where to listen
    #[arg(
        long = "listen",
        id = "witness_listen",
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:8788"
    )]
    listen: String,
    /// The log's public key, as `coupon-ledger key list` prints it; several while the log's key is rotated
    #[arg(long, value_name = "VKEY", required = true)]
    log: Vec<String>,
    /// The folder of its key and of what it cosigned last: never restore it from a backup
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Its name, as others know it [default: made of its key]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

pub(super) async fn run(arguments: WitnessArgs) -> Result<(), Failed> {
    start_logging(None)?;
    let trust = Trust::new(&arguments.log, &[], 0)?;
    let witness = Witness::open(&arguments.state, arguments.name.as_deref(), trust, Clock::System)?;
    let listener = TcpListener::bind(&arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let mut signals = StopSignals::listen()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "coupon-ledger {} as a witness", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "  listens on  http://{}", listener.local_addr()?)?;
    writeln!(out, "  watches     {}", witness.origin())?;
    writeln!(out, "  has seen    {} leaves", witness.size().await)?;
    writeln!(out, "  its key     {}", witness.verifier_key())?;
    out.flush()?;
    drop(out);
    server::serve(listener, router(Arc::new(witness)), ServerOptions::default(), async {
        signals.asked().await;
    })
    .await;
    Ok(())
}
