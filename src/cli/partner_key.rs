//! `coupon-ledger partner-key`: the public keys by which partners sign their requests.

use clap::Subcommand;
use hyper::Method;
use serde_json::json;

use super::remote::{Holder, meta_of_operator, refused_or_failed};
use super::{Context, Failed, say};
use crate::read_model::partner_keys;
use crate::signed_request;
use crate::value::MAX_ID;

/// What to do with partners' keys.
#[derive(Debug, clap::Args)]
pub(super) struct PartnerKeyArgs {
    #[command(subcommand)]
    command: PartnerKeyCommand,
}

#[derive(Debug, Subcommand)]
enum PartnerKeyCommand {
    /// Register an Ed25519 public key; works while the server runs
    Add {
        /// Whose it is
        #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..=MAX_ID))]
        partner: i64,
        /// 32 bytes, in base64 or as hexadecimal digits
        #[arg(long, value_name = "KEY")]
        public_key: String,
    },
    /// Print every key, one a line, newest first
    List,
    /// Revoke a key: what it signs is nobody's from the next request on; works while the server runs
    Revoke {
        /// Its number
        #[arg(value_name = "ID", value_parser = clap::value_parser!(i64).range(1..=MAX_ID))]
        id: i64,
    },
}

pub(super) async fn run(context: Context, arguments: PartnerKeyArgs) -> Result<(), Failed> {
    match arguments.command {
        PartnerKeyCommand::Add { partner, public_key } => add(&context, partner, &public_key).await,
        PartnerKeyCommand::List => list(&context).await,
        PartnerKeyCommand::Revoke { id } => revoke(&context, id).await,
    }
}

async fn add(context: &Context, partner_id: i64, public_key: &str) -> Result<(), Failed> {
    let key = signed_request::read_public_key(public_key)
        .ok_or_else(|| anyhow::anyhow!("--public-key: not an Ed25519 public key in base64 or hexadecimal"))?;
    let holder = Holder::find(context, context.secrets(true)?).await?;
    let registered = match &holder {
        Holder::Ledger(ledger) => {
            let meta = meta_of_operator(ledger, "POST /v1/partner-keys")?;
            let done =
                signed_request::register(ledger, partner_id, &key, &meta).await.map_err(refused_or_failed);
            done.map(|done| signed_request::registered_json(done.id, &done.state))
        }
        Holder::Server(server) => {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("partner_id", &partner_id.to_string()).append_pair("public_key", public_key);
            server.ask(Method::POST, &format!("/v1/partner-keys?{}", query.finish())).await
        }
    };
    holder.close().await;
    say(registered?)?;
    Ok(())
}

async fn list(context: &Context) -> Result<(), Failed> {
    let store = context.open_to_read().await?;
    let rows = partner_keys::partner_keys(&store, 0).await;
    store.close().await;
    for row in &rows? {
        say(signed_request::listed_json(row))?;
    }
    Ok(())
}

async fn revoke(context: &Context, id: i64) -> Result<(), Failed> {
    let holder = Holder::find(context, context.secrets(false)?).await?;
    let revoked = match &holder {
        Holder::Ledger(ledger) => {
            let meta = meta_of_operator(ledger, "DELETE /v1/partner-keys/{id}")?;
            let done = signed_request::revoke(ledger, id, &meta).await.map_err(refused_or_failed);
            done.map(|done| json!({"id": id, "revoked_at_ms": done.state.revoked_at_ms}))
        }
        Holder::Server(server) => server.ask(Method::DELETE, &format!("/v1/partner-keys/{id}")).await,
    };
    holder.close().await;
    say(revoked?)?;
    Ok(())
}
