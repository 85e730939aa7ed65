//! The command line: `coupon-ledger [serve] …`, `coupon-ledger token …`, `coupon-ledger issue …`,
//! `coupon-ledger import …`, `coupon-ledger history …`, `coupon-ledger as-of …`, `coupon-ledger verify …`,
//! `coupon-ledger export …`, `coupon-ledger check …`, `coupon-ledger key …`, `coupon-ledger witness …`,
//! `coupon-ledger rebuild …`, `coupon-ledger followers …`, `coupon-ledger backup …`, `coupon-ledger restore …`,
//! `coupon-ledger operator|auditor|employee …`, `coupon-ledger machine …`, `coupon-ledger partner-key …`,
//! `coupon-ledger webhook …`,
//! `coupon-ledger approval …`.
//!
//! Data goes to stdout, logs and progress to stderr. Exit code 0 done, 1 refused or findings, 2 could not run.

mod account;
mod approval;
mod as_of;
mod backup;
mod check;
mod export;
mod followers;
mod history;
mod import;
mod issue;
mod key;
mod machine;
mod partner_key;
mod rebuild;
mod remote;
mod safety;
mod serve;
mod token;
mod verify;
mod webhook;
mod witness;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::account::AccountRole;
use crate::approving::Limits;
use crate::clock::{Clock, Zone};
use crate::config::{self, File, Place, Serve};
use crate::directory::{Seal, SealError};
use crate::ledger::keys;
use crate::secrets::Secrets;
use crate::store::{self, OpenError, Store, StoreOptions};

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
#[expect(clippy::large_enum_variant, reason = "there is one of it, once")]
enum Command {
    /// Run the server (what happens without a subcommand)
    Serve(Serve),
    /// Print a token, or revoke one; works while the server runs
    Token(token::TokenArgs),
    /// Issue one coupon of a definition to each of many members; works while the server runs
    Issue(issue::IssueArgs),
    /// Import coupons or members of another system from CSV while the server runs, or an export into an empty ledger
    Import(import::ImportArgs),
    /// Hold everything that is stored against the events and against what was signed; works while the server runs
    Verify(verify::VerifyArgs),
    /// Write the log into a folder that can be checked anywhere; works while the server runs
    Export(export::ExportArgs),
    /// Check an export or a receipt; needs no database and no server
    Check(check::CheckArgs),
    /// List or rotate the keys that sign the transparency log
    Key(key::KeyArgs),
    /// Issue, list or revoke keys for programs that call the ledger
    Machine(machine::MachineArgs),
    /// Register, list or revoke the public keys by which partners sign their requests
    PartnerKey(partner_key::PartnerKeyArgs),
    /// List, approve or refuse what waits for somebody else's word; works while the server runs
    Approval(approval::ApprovalArgs),
    /// Add, list, change, pause, resume or remove webhooks, send events once more, and tell what was given up
    Webhook(webhook::WebhookArgs),
    /// Watch another ledger's transparency log, and cosign what continues it
    Witness(witness::WitnessArgs),
    /// Tell what happened to a coupon or any other stream, or what somebody did; works while the server runs
    History(history::HistoryArgs),
    /// Show what somebody was shown then, from events alone, or write the whole ledger as it was into a new file
    AsOf(as_of::AsOfArgs),
    /// Make live tables anew from the log, beside those in use, and compare both; works while the server runs
    Rebuild(rebuild::RebuildArgs),
    /// What follows the log or the calendar by itself: how it stands, pause, resume, reset
    Followers(followers::FollowersArgs),
    /// Write the whole ledger into a new file, while the server runs; the keys are not in it
    Backup(backup::BackupArgs),
    /// Restore a backup into an empty data folder or an empty database, and check it
    Restore(backup::BackupArgs),
    /// Create an operator's account, or choose another password for one; works while the server runs
    Operator(account::AccountArgs),
    /// The same for an auditor
    Auditor(account::AccountArgs),
    /// Create an account for an employee, or choose another password for one; works while the server runs
    Employee(account::EmployeeArgs),
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
    /// Above which numbers one person's word is not enough, where no server holds the ledger.
    approvals: Limits,
}

impl Context {
    fn secrets(&self, make: bool) -> anyhow::Result<Secrets> {
        config::secrets(&self.place, &self.folder, make).map_err(anyhow::Error::msg)
    }

    /// Opens the ledger for reading, which needs no secret; a server may be running on it.
    async fn open_to_read(&self) -> Result<Store, OpenError> {
        store::open_read_only(&self.place_options(0)).await
    }

    /// The secrets, told by the ledger which keys are good; where it cannot be read they are its first ones.
    async fn secrets_in_use(&self) -> anyhow::Result<Secrets> {
        let secrets = self.secrets(false)?;
        self.learn_keys(&secrets).await;
        Ok(secrets)
    }

    async fn learn_keys(&self, secrets: &Secrets) {
        let Ok(store) = self.open_to_read().await else { return };
        let _ = keys::accept(secrets, &store, Clock::System.now_ms()).await;
        store.close().await;
    }

    /// The same beside a server: makes nothing. None where the keys are not here.
    async fn find_seal(&self, store: &Store, secrets: &Secrets) -> Result<Option<Seal>, SealError> {
        let path = config::person_keys_file(&self.place, &self.folder);
        Seal::find(store, secrets, &path).await
    }

    /// What seals and opens members' texts, with this ledger's keys.
    async fn seal(&self, store: &Store, secrets: &Secrets) -> Result<Seal, SealError> {
        let path = config::person_keys_file(&self.place, &self.folder);
        Seal::open(store, secrets, &path).await
    }

    fn store_options(&self, secrets: &Secrets, now_ms: i64) -> StoreOptions {
        StoreOptions { secret_id: secrets.id(), ..self.place_options(now_ms) }
    }

    fn place_options(&self, now_ms: i64) -> StoreOptions {
        StoreOptions {
            data_dir: self.folder.clone(),
            database_url: self.place.database_url.clone(),
            secret_id: String::new(),
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
    let approvals = Limits::from(&cli.serve.clone().or(file.serve.clone()));
    let context = Context { folder, place, zone, approvals };
    match cli.command {
        None => serve::run(context, cli.serve.or(file.serve)).await,
        Some(Command::Serve(serve)) => {
            let serve = serve.or_before(cli.serve, &Environment::parse_from([""]).serve);
            serve::run(context, serve.or(file.serve)).await
        }
        Some(Command::Token(arguments)) => token::run(context, arguments).await,
        Some(Command::Issue(arguments)) => issue::run(context, arguments).await,
        Some(Command::Import(arguments)) => import::run(context, arguments).await,
        Some(Command::Verify(arguments)) => verify::run(context, arguments).await,
        Some(Command::Export(arguments)) => export::run(context, arguments).await,
        Some(Command::Check(arguments)) => check::run(&arguments),
        Some(Command::Key(arguments)) => key::run(context, arguments).await,
        Some(Command::Machine(arguments)) => machine::run(context, arguments).await,
        Some(Command::PartnerKey(arguments)) => partner_key::run(context, arguments).await,
        Some(Command::Approval(arguments)) => approval::run(context, arguments).await,
        Some(Command::Webhook(arguments)) => {
            let policy = serve::webhook_policy(&cli.serve.or(file.serve))?;
            webhook::run(context, policy, arguments).await
        }
        Some(Command::Witness(arguments)) => witness::run(arguments).await,
        Some(Command::History(arguments)) => history::run(context, arguments).await,
        Some(Command::AsOf(arguments)) => as_of::run(context, arguments).await,
        Some(Command::Rebuild(arguments)) => rebuild::run(context, arguments).await,
        Some(Command::Followers(arguments)) => followers::run(context, arguments).await,
        Some(Command::Backup(arguments)) => backup::back_up(context, arguments).await,
        Some(Command::Restore(arguments)) => backup::restore(context, arguments).await,
        Some(Command::Operator(arguments)) => account::run(context, AccountRole::Operator, arguments).await,
        Some(Command::Auditor(arguments)) => account::run(context, AccountRole::Auditor, arguments).await,
        Some(Command::Employee(arguments)) => account::run_employee(context, arguments).await,
    }
}

/// Writes to stdout; false where nobody reads any more, as behind `head`.
fn write_out(text: &str) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to stdout"),
    }
}

/// A line to stdout.
fn say(line: impl std::fmt::Display) -> anyhow::Result<()> {
    write_out(&format!("{line}\n")).map(drop)
}

/// Tells on standard error how far something is, a few times a second at most.
struct Progress {
    what: &'static str,
    told: Option<std::time::Instant>,
}

impl Progress {
    fn new(what: &'static str) -> Self {
        Self { what, told: None }
    }

    fn tell(&mut self, done: i64, all: Option<i64>) {
        const EVERY: std::time::Duration = std::time::Duration::from_secs(1);
        let told = *self.told.get_or_insert_with(std::time::Instant::now);
        if told.elapsed() < EVERY {
            return;
        }
        self.told = Some(std::time::Instant::now());
        let what = self.what;
        match all {
            Some(all) => eprintln!("coupon-ledger: {done} of {all} {what}"),
            None => eprintln!("coupon-ledger: {done} {what}"),
        }
    }
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
