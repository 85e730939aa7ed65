//! Maps the command line's outcome to an exit code, and nothing else.

use std::process::ExitCode;

use clap::Parser as _;
use coupon_ledger::cli::{Cli, run};

#[tokio::main]
async fn main() -> ExitCode {
    ExitCode::from(run(Cli::parse()).await)
}
