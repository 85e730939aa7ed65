//! `coupon-ledger approval`: what waits for somebody else's word, and that word.
//!
//! Whoever runs a command on the ledger's machine is an operator without a name, and approves only what an employee proposed
//! who had signed in with a password. With `--name` he signs in, and is who that account says.

use clap::Subcommand;
use serde_json::{Value, json};

use super::account::{ask, failed, read_secret};
use super::remote::{Holder, Remote, refused_or_failed};
use super::{Context, Failed, say};
use crate::access::{self, Principal, Resource};
use crate::approval::Approval;
use crate::approving;
use crate::clock::Clock;
use crate::directory::end_session;
use crate::http::approvals::approval_json;
use crate::identity::Caller;
use crate::ledger::{ExecuteError, Executed, Ledger, Meta};
use crate::read_model::approvals;
use crate::read_model::pages::Slice;
use crate::sign_in::{Shown, SignIn};
use crate::value::{MAX_ID, hex, random};

/// What to do with proposals.
#[derive(Debug, clap::Args)]
pub(super) struct ApprovalArgs {
    #[command(subcommand)]
    command: ApprovalCommand,
}

#[derive(Debug, Subcommand)]
enum ApprovalCommand {
    /// Print the proposals that are open, one a line, newest first; works while the server runs
    List {
        /// Those that were approved, refused, withdrawn or have lapsed as well
        #[arg(long)]
        all: bool,
    },
    /// Approve what another proposed, and do it; works while the server runs
    Approve(Word),
    /// Refuse what was proposed; works while the server runs
    Refuse {
        #[command(flatten)]
        word: Word,
        /// Why
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Take back what one has proposed; works while the server runs
    Withdraw(Word),
}

/// Of which proposal, and by whom.
#[derive(Debug, clap::Args)]
struct Word {
    /// Its number
    #[arg(value_name = "ID", value_parser = clap::value_parser!(i64).range(1..=MAX_ID))]
    id: i64,
    /// Sign in with this name; the password is read from the terminal or from standard input [default: an operator without
    /// a name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The second factor's six digits, where the account asks for one
    #[arg(long, value_name = "CODE", requires = "name")]
    totp: Option<String>,
}

/// What is said of a proposal.
#[derive(Clone, Copy)]
enum Say<'a> {
    Approve,
    Refuse(&'a str),
    Withdraw,
}

impl Say<'_> {
    fn route(self) -> &'static str {
        match self {
            Self::Approve => "/approval/approve",
            Self::Refuse(_) => "/approval/refuse",
            Self::Withdraw => "/approval/withdraw",
        }
    }

    async fn to(self, ledger: &Ledger, id: i64, meta: &Meta) -> Result<Executed<Approval>, ExecuteError> {
        match self {
            Self::Approve => approving::approve(ledger, id, meta).await,
            Self::Refuse(reason) => approving::refuse(ledger, id, reason.to_owned(), meta).await,
            Self::Withdraw => approving::withdraw(ledger, id, meta).await,
        }
    }
}

pub(super) async fn run(context: Context, arguments: ApprovalArgs) -> Result<(), Failed> {
    match &arguments.command {
        ApprovalCommand::List { all } => list(&context, *all).await,
        ApprovalCommand::Approve(word) => give(&context, word, Say::Approve).await,
        ApprovalCommand::Refuse { word, reason } => {
            if reason.chars().count() > 200 || reason.chars().any(char::is_control) {
                return Err(anyhow::anyhow!("--reason must have at most 200 characters").into());
            }
            give(&context, word, Say::Refuse(reason)).await
        }
        ApprovalCommand::Withdraw(word) => give(&context, word, Say::Withdraw).await,
    }
}

async fn list(context: &Context, all: bool) -> Result<(), Failed> {
    let store = context.open_to_read().await?;
    let state = (!all).then_some(0);
    let rows = approvals::approvals(&store, state, Clock::System.now_ms(), Slice::All).await;
    store.close().await;
    for row in &rows? {
        say(Value::Object(approval_json(row)))?;
    }
    Ok(())
}

async fn give(context: &Context, word: &Word, what: Say<'_>) -> Result<(), Failed> {
    let password = word.name.as_ref().map(|_| read_secret()).transpose()?;
    let signing = word.name.as_deref().zip(password.as_deref());
    let signing = signing.map(|(name, password)| Shown { name, password, totp: word.totp.as_deref() });
    let holder = Holder::find(context, context.secrets(false)?).await?;
    let said = match &holder {
        Holder::Ledger(ledger) => in_ledger(ledger, word.id, what, signing).await,
        Holder::Server(server) => through(server, word.id, what, signing).await,
    };
    holder.close().await;
    say(said?)?;
    Ok(())
}

async fn in_ledger(
    ledger: &Ledger,
    id: i64,
    what: Say<'_>,
    signing: Option<Shown<'_>>,
) -> Result<Value, Failed> {
    let request_id = hex(&random::<8>());
    let caller = match signing {
        None => Caller::Operator,
        Some(shown) => {
            let signed_in =
                SignIn::new(ledger.clone()).sign_in(shown, request_id.clone()).await.map_err(failed)?;
            // The session was the way to try the password: nobody goes on with it.
            end_session(ledger.store(), &signed_in.token.id).await?;
            Caller::of_account(signed_in.role, signed_in.account_id)
        }
    };
    // An employee who signs in is known by his account here, and not by what he was given: only operators say yes or no.
    access::authorize(&Principal::plain(caller), what.route(), Resource::Unknown)
        .map_err(|denied| Failed::Refused(denied.into()))?;
    let meta = Meta { caller, at: ledger.now(), request_id, receipt: None, job_id: None };
    let done = what.to(ledger, id, &meta).await.map_err(refused_or_failed)?;
    let subject_id = done.state.proposal.as_ref().map_or(0, |proposal| proposal.act.subject_id());
    Ok(json!({"id": done.id, "state": done.state.state.number(), "subject_id": subject_id}))
}

async fn through(
    server: &Remote,
    id: i64,
    what: Say<'_>,
    signing: Option<Shown<'_>>,
) -> Result<Value, Failed> {
    let mut body = json!({ "id": id });
    if let Say::Refuse(reason) = what
        && let Some(fields) = body.as_object_mut()
    {
        fields.insert("reason".to_owned(), reason.into());
    }
    let Some(shown) = signing else { return ask(server, what.route(), &body).await };
    let mut login = json!({"name": shown.name, "password": shown.password});
    if let (Some(totp), Some(fields)) = (shown.totp, login.as_object_mut()) {
        fields.insert("totp".to_owned(), totp.into());
    }
    let session = ask(server, "/user/login", &login).await?;
    let token = session.get("token").and_then(Value::as_str).unwrap_or_default();
    let he = server.signed_in(token);
    let said = ask(&he, what.route(), &body).await;
    ask(&he, "/user/logout", &json!({})).await?;
    said
}
