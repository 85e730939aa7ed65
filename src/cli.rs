//! The command line: `coupon-ledger [serve] …`, `coupon-ledger token …`, `coupon-ledger issue …`,
//! `coupon-ledger import …`, `coupon-ledger backup …`.
//!
//! Data goes to stdout, logs and progress to stderr. Exit code 0 done, 1 refused or findings, 2 could not run.

mod backup;
mod import;
mod issue;
mod remote;
mod serve;
mod token;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::clock::{Clock, Zone};
use crate::config::{self, File, Place, Serve};
use crate::directory::{Seal, SealError};
use crate::replay;
use crate::secrets::Secrets;
use crate::store::{self, Store, StoreOptions};

/// An event-sourced ledger for the coupons that a merchant gives its members.
#[derive(Debug, Parser)]
#[command(name = "coupon-ledger", version, about)]
pub struct Cli {
    /// A TOML file with settings; flags and the environment win over it
    #[arg(long, global = true, value_name = "FILE", env = "COUPON_LEDGER_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    serve: Serve,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What the environment alone says of serving.
#[derive(Debug, Parser)]
struct Environment {
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (what happens without a subcommand)
    Serve(Serve),
    /// Print a token, or revoke one; works while the server runs
    Token(token::TokenArgs),
    /// Issue one coupon of a definition to each of many members; works while the server runs
    Issue(issue::IssueArgs),
    /// Import coupons or members of another system from CSV; works while the server runs
    Import(import::ImportArgs),
    /// Write the whole ledger into a new file, while the server runs; the keys are not in it
    Backup(backup::BackupArgs),
    /// Restore a backup into an empty data folder or an empty database, and check it
    Restore(backup::BackupArgs),
    /// Write every live table anew from the log; on SQLite the server must be stopped, on PostgreSQL writers wait
    Rebuild,
}

/// Why a command could not do what it was asked.
#[derive(Debug)]
pub enum Failed {
    /// Exit code 1: the ledger said no.
    Refused(anyhow::Error),
    /// Exit code 2: it could not run.
    CouldNotRun(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::CouldNotRun(error.into())
    }
}

/// What every subcommand knows once the settings are read.
struct Context {
    folder: PathBuf,
    place: Place,
    zone: Zone,
}

impl Context {
    fn secrets(&self, make: bool) -> anyhow::Result<Secrets> {
        config::secrets(&self.place, &self.folder, make).map_err(anyhow::Error::msg)
    }

    /// What seals and opens members' texts, with this ledger's keys.
    async fn seal(&self, store: &Store, secrets: &Secrets) -> Result<Seal, SealError> {
        let path = config::person_keys_file(&self.place, &self.folder);
        Seal::open(store, secrets, &path).await
    }

    fn store_options(&self, secrets: &Secrets, now_ms: i64) -> StoreOptions {
        StoreOptions {
            data_dir: self.folder.clone(),
            database_url: self.place.database_url.clone(),
            secret_id: secrets.id(),
            now_ms,
        }
    }
}

/// Runs the command line to its exit code.
pub async fn run(cli: Cli) -> u8 {
    match dispatch(cli).await {
        Ok(()) => 0,
        Err(Failed::Refused(error)) => {
            eprintln!("coupon-ledger: {}", sentence(&error));
            1
        }
        Err(Failed::CouldNotRun(error)) => {
            eprintln!("coupon-ledger: {}", sentence(&error));
            2
        }
    }
}

/// An error with its causes, each said once: many libraries print their cause themselves.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said {
        said if said.is_empty() => cause,
        said if said.contains(&cause) => said,
        said => format!("{said}: {cause}"),
    })
}

async fn dispatch(cli: Cli) -> Result<(), Failed> {
    let file =
        cli.config.as_deref().map(File::read).transpose().map_err(anyhow::Error::msg)?.unwrap_or_default();
    let mut place = cli.place.or(file.place);
    // An empty variable is how a container says that there is none.
    place.database_url = place.database_url.filter(|url| !url.is_empty());
    let folder = place.data_dir.clone().unwrap_or_else(|| PathBuf::from("data"));
    let zone = match &place.timezone {
        None => Zone::default(),
        Some(name) => Zone(name.parse().map_err(|_| anyhow::anyhow!("unknown time zone {name}"))?),
    };
    let context = Context { folder, place, zone };
    match cli.command {
        None => serve::run(context, cli.serve.or(file.serve)).await,
        Some(Command::Serve(serve)) => {
            let serve = serve.or_before(cli.serve, &Environment::parse_from([""]).serve);
            serve::run(context, serve.or(file.serve)).await
        }
        Some(Command::Token(arguments)) => token::run(context, arguments).await,
        Some(Command::Issue(arguments)) => issue::run(context, arguments).await,
        Some(Command::Import(arguments)) => import::run(context, arguments).await,
        Some(Command::Backup(arguments)) => backup::back_up(context, arguments).await,
        Some(Command::Restore(arguments)) => backup::restore(context, arguments).await,
        Some(Command::Rebuild) => rebuild(context).await,
    }
}

async fn rebuild(context: Context) -> Result<(), Failed> {
    let secrets = context.secrets(false)?;
    let store = store::open(&context.store_options(&secrets, Clock::System.now_ms())).await?;
    let started = std::time::Instant::now();
    let rebuilt = replay::rebuild(&store).await;
    store.close().await;
    let replay::Replayed { events, streams } = rebuilt?;
    eprintln!("coupon-ledger: {streams} streams, {events} events, in {:.1?}", started.elapsed());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_each_cause_once() {
        let io = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let printed_already = anyhow::Error::new(sqlx::Error::Io(io)).context("cannot reach the database");
        assert_eq!(
            sentence(&printed_already),
            "cannot reach the database: error communicating with database: connection refused"
        );
    }
}
