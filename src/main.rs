//! Maps the command line's outcome to an exit code, and nothing else.

use std::process::ExitCode;

use clap::Parser as _;
use coupon_ledger::cli::{Cli, run};

/// A tenth of the server's time went into the system's allocator; measured in docs/performance.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    ExitCode::from(Box::pin(run(Cli::parse())).await)
}
