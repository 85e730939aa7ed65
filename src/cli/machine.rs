//! `coupon-ledger machine`: keys for programs that call the ledger.

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};

use super::remote::{Holder, meta_of_operator, refused_or_failed};
use super::token::parse_ttl;
use super::{Context, Failed, say};
use crate::access::Principal;
use crate::clock::Clock;
use crate::machine_keys::{self, NewKey};
use crate::read_model::machines;
use crate::value::MAX_ID;

/// What to do with machines' keys.
#[derive(Debug, clap::Args)]
pub(super) struct MachineArgs {
    #[command(subcommand)]
    command: MachineCommand,
}

#[derive(Debug, Subcommand)]
enum MachineCommand {
    /// Issue a key and print it, this once; works while the server runs
    Add {
        /// What the machine is called
        #[arg(long, value_name = "NAME")]
        name: String,
        /// Its rights, as orders,read: names of docs/security.md or numbers
        #[arg(long, value_name = "RIGHTS")]
        rights: String,
        /// How long it holds: 12h, 30d, 365d [default: until it is revoked]
        #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
        ttl: Option<i64>,
    },
    /// Print every key without its secret, one a line, newest first
    List,
    /// Revoke a key: it opens nothing from the next request on; works while the server runs
    Revoke {
        /// Its number
        #[arg(value_name = "ID", value_parser = clap::value_parser!(i64).range(1..=MAX_ID))]
        id: i64,
    },
}

pub(super) async fn run(context: Context, arguments: MachineArgs) -> Result<(), Failed> {
    match arguments.command {
        MachineCommand::Add { name, rights, ttl } => add(&context, name, &rights, ttl).await,
        MachineCommand::List => list(&context).await,
        MachineCommand::Revoke { id } => revoke(&context, id).await,
    }
}

async fn add(context: &Context, name: String, rights: &str, ttl: Option<i64>) -> Result<(), Failed> {
    let numbers = machine_keys::parse_rights(rights)
        .ok_or_else(|| anyhow::anyhow!("--rights: {rights:?} names a right that does not exist"))?;
    if name.trim().is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
        return Err(anyhow::anyhow!("--name must have 1 to 100 characters").into());
    }
    let holder = Holder::find(context, context.secrets(true)?).await?;
    let issued = match &holder {
        Holder::Ledger(ledger) => {
            let meta = meta_of_operator(ledger, "POST /v1/machine-keys")?;
            let new = NewKey { name, rights: numbers, ttl_s: ttl };
            let issued = machine_keys::issue(ledger, &Principal::plain(meta.caller), new, &meta).await;
            issued.map(|issued| machine_keys::issued_json(&issued)).map_err(refused_or_failed)
        }
        Holder::Server(server) => {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("name", &name).append_pair("rights", rights);
            if let Some(ttl) = ttl {
                query.append_pair("ttl_s", &ttl.to_string());
            }
            server.ask(Method::POST, &format!("/v1/machine-keys?{}", query.finish())).await
        }
    };
    holder.close().await;
    let issued = issued?;
    say(issued.get("key").and_then(Value::as_str).unwrap_or_default())?;
    let id = issued.get("id").and_then(Value::as_i64).unwrap_or_default();
    eprintln!("coupon-ledger: key {id}; it is not shown again: `coupon-ledger machine revoke {id}` ends it");
    Ok(())
}

async fn list(context: &Context) -> Result<(), Failed> {
    let store = context.open_to_read().await?;
    let rows = machines::machines(&store).await;
    store.close().await;
    let now_ms = Clock::System.now_ms();
    for row in &rows? {
        say(machine_keys::listed_json(row, now_ms))?;
    }
    Ok(())
}

async fn revoke(context: &Context, id: i64) -> Result<(), Failed> {
    let holder = Holder::find(context, context.secrets(false)?).await?;
    let revoked = match &holder {
        Holder::Ledger(ledger) => {
            let meta = meta_of_operator(ledger, "DELETE /v1/machine-keys/{id}")?;
            let machine = machine_keys::revoke(ledger, id, &meta).await.map_err(refused_or_failed);
            machine.map(|machine| json!({"id": id, "revoked_at_ms": machine.revoked_at_ms}))
        }
        Holder::Server(server) => server.ask(Method::DELETE, &format!("/v1/machine-keys/{id}")).await,
    };
    holder.close().await;
    say(revoked?)?;
    Ok(())
}
