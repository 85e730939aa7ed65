//! `coupon-ledger operator|auditor|employee …`: accounts, as whoever holds the machine may make them.
//!
//! A password comes from the terminal or from standard input, never from an argument: arguments are seen by others.

use std::io::{BufRead as _, IsTerminal as _, Read as _};

use serde_json::{Value, json};

use super::remote::{Holder, Remote};
use super::{Context, Failed, say};
use crate::account::AccountRole;
use crate::directory;
use crate::ledger::{ExecuteError, Ledger};
use crate::refusal::{Language, Refusal};
use crate::sign_in::{
    ByCode, MAX_PASSWORD, SignIn, SignInError, check_new_password, meta_of_operator, read_name,
};

/// The most bytes of a line with a password.
const MAX_LINE: u64 = 4 * MAX_PASSWORD as u64 + 2;

/// What to do with an operator's or an auditor's account.
#[derive(Debug, clap::Args)]
pub(super) struct AccountArgs {
    #[command(subcommand)]
    command: AccountCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AccountCommand {
    /// Create an account; the password is read from the terminal or from standard input
    Create {
        /// The name to sign in with
        #[arg(long)]
        name: String,
    },
    /// Choose another password, without the old one and without a second factor; every session ends
    Password {
        /// The name that is signed in with
        #[arg(long)]
        name: String,
    },
}

/// What to do with an employee's account.
#[derive(Debug, clap::Args)]
pub(super) struct EmployeeArgs {
    #[command(subcommand)]
    command: EmployeeCommand,
}

#[derive(Debug, clap::Subcommand)]
enum EmployeeCommand {
    /// Create an account for an employee; the password is read from the terminal or from standard input
    Account {
        /// The employee
        #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..=crate::value::MAX_ID))]
        id: i64,
        /// The name to sign in with
        #[arg(long)]
        name: String,
    },
    /// Choose another password, without the old one and without a second factor; every session ends
    Password {
        /// The name that is signed in with
        #[arg(long)]
        name: String,
    },
}

pub(super) async fn run(context: Context, role: AccountRole, arguments: AccountArgs) -> Result<(), Failed> {
    match arguments.command {
        AccountCommand::Create { name } => act(&context, Act::Create(role), &name).await,
        AccountCommand::Password { name } => act(&context, Act::Password, &name).await,
    }
}

pub(super) async fn run_employee(context: Context, arguments: EmployeeArgs) -> Result<(), Failed> {
    match arguments.command {
        EmployeeCommand::Account { id, name } => {
            act(&context, Act::Create(AccountRole::Employee(id)), &name).await
        }
        EmployeeCommand::Password { name } => act(&context, Act::Password, &name).await,
    }
}

#[derive(Clone, Copy)]
enum Act {
    Create(AccountRole),
    Password,
}

async fn act(context: &Context, act: Act, name: &str) -> Result<(), Failed> {
    if read_name(name).is_none() {
        return Err(failed(SignInError::Field("--name", crate::refusal::Wrong::NotAName)));
    }
    let password = read_password()?;
    check_new_password(&password).map_err(|why| failed(SignInError::Field("the password", why)))?;
    let secrets = context.secrets(matches!(act, Act::Create(_)))?;
    let holder = Holder::find(context, secrets).await?;
    let done = match &holder {
        Holder::Ledger(ledger) => in_ledger(ledger, act, name, &password).await.map_err(failed),
        Holder::Server(server) => through(server, act, name, &password).await,
    };
    holder.close().await;
    let id = done?;
    say(match act {
        Act::Create(role) => format!("account {id}: {} {name}", role.name()),
        Act::Password => format!("account {id}: another password, and every session ended"),
    })?;
    Ok(())
}

async fn in_ledger(ledger: &Ledger, act: Act, name: &str, password: &str) -> Result<i64, SignInError> {
    let sign_in = SignIn::new(ledger.clone());
    let meta = meta_of_operator(ledger);
    match act {
        Act::Create(role) => sign_in.create(role, (name, password), &meta).await,
        Act::Password => {
            let name = read_name(name).unwrap_or_default();
            let account_id = directory::account_named(ledger.store(), &name).await?;
            let account_id = account_id.ok_or(Refusal::NoSuchMember)?;
            let invited = sign_in.reset(account_id, true, &meta).await?;
            let asked = ByCode { code: &invited.code, name: None, password, receipt: None };
            sign_in.set_password(&asked, meta.request_id.clone()).await.map(|(account_id, ..)| account_id)
        }
    }
}

/// The same, by the server that has the ledger open.
async fn through(server: &Remote, act: Act, name: &str, password: &str) -> Result<i64, Failed> {
    let (route, body) = match act {
        Act::Create(AccountRole::Employee(id)) => {
            ("/account/add", json!({"name": name, "role": "employee", "user_id": id}))
        }
        Act::Create(role) => ("/account/add", json!({"name": name, "role": role.name()})),
        Act::Password => ("/user/resetpassword", json!({"name": name, "totp_off": 1})),
    };
    let invited = ask(server, route, &body).await?;
    let chosen = json!({"code": invited.get("code"), "password": password});
    let done = ask(server, "/user/setpassword", &chosen).await?;
    Ok(done.get("id").and_then(Value::as_i64).unwrap_or_default())
}

pub(super) async fn ask(server: &Remote, route: &str, body: &Value) -> Result<Value, Failed> {
    let answer = server.call(route, None, body).await?;
    if answer.code == 0 {
        return Ok(answer.data);
    }
    let info = match answer.info {
        Value::String(text) => text,
        Value::Object(fields) => fields.values().filter_map(Value::as_str).collect::<Vec<_>>().join("; "),
        other => other.to_string(),
    };
    Err(Failed::Refused(anyhow::anyhow!(info)))
}

pub(super) fn failed(error: SignInError) -> Failed {
    match error {
        SignInError::Field(field, why) => {
            Failed::Refused(anyhow::anyhow!(why.text(field, Language::English)))
        }
        SignInError::Execute(ExecuteError::Refused(refusal)) => Failed::Refused(refusal.into()),
        error @ SignInError::Refused { .. } => Failed::Refused(error.into()),
        error => error.into(),
    }
}

/// A password, typed twice on a terminal and not shown, or else the first line of standard input.
fn read_password() -> anyhow::Result<String> {
    let password = read_secret()?;
    if std::io::stdin().is_terminal() {
        let again = rpassword::prompt_password("Again: ")?;
        anyhow::ensure!(password == again, "these are two different passwords");
    }
    Ok(password)
}

/// A password that there is already, from the terminal, not shown, or else the first line of standard input.
pub(super) fn read_secret() -> anyhow::Result<String> {
    if std::io::stdin().is_terminal() {
        return Ok(rpassword::prompt_password("Password: ")?);
    }
    let mut line = String::new();
    std::io::stdin().lock().take(MAX_LINE).read_line(&mut line)?;
    let password = line.strip_suffix('\n').unwrap_or(&line);
    Ok(password.strip_suffix('\r').unwrap_or(password).to_owned())
}
