//! `coupon-ledger webhook`: where events are sent to, how each webhook stands, and what it is told.

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};

use super::remote::{Holder, as_operator, meta_of_operator, refused_or_failed};
use super::{Context, Failed, say};
use crate::audit::feed::Filter;
use crate::feeds::webhooks::{self, WebhookPolicy};
use crate::ledger::{ExecuteError, Ledger, Meta};
use crate::value::MAX_ID;
use crate::webhook::{Subscription, Why};

/// What to do with webhooks.
#[derive(Debug, clap::Args)]
pub(super) struct WebhookArgs {
    #[command(subcommand)]
    command: WebhookCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum WebhookCommand {
    /// Add one and print it with its secret; works while the server runs
    Add {
        /// Where to: https, and outside the network unless --webhook-allow-http and --webhook-allow-network say more
        #[arg(long, value_name = "URL")]
        url: String,
        /// Only events of these names, as Redeemed,Issued
        #[arg(long = "type", value_name = "NAMES", default_value = "")]
        types: String,
        /// Only of these kinds of streams or streams, as coupon,order/7
        #[arg(long = "stream", value_name = "STREAMS", default_value = "")]
        streams: String,
        /// Begin behind this position [default: with what comes]
        #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(i64).range(0..=MAX_ID))]
        after: Option<i64>,
    },
    /// Print every webhook and how it stands, one a line
    List,
    /// Send something else, or elsewhere; what is not given stays
    Change {
        #[command(flatten)]
        which: Which,
        /// Where to
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        /// Only events of these names; '' = all
        #[arg(long = "type", value_name = "NAMES")]
        types: Option<String>,
        /// Only of these streams; '' = all
        #[arg(long = "stream", value_name = "STREAMS")]
        streams: Option<String>,
    },
    /// Let one rest; it loses nothing
    Pause(Which),
    /// Let one go on where it was, or behind another position
    Resume {
        #[command(flatten)]
        which: Which,
        /// Behind this position
        #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(i64).range(0..=MAX_ID))]
        after: Option<i64>,
    },
    /// Remove one with all that it has not sent
    Remove(Which),
    /// Print the secret that signs
    Secret(Which),
    /// Give one another secret and print it; for a while the one before signs as well
    Rotate {
        #[command(flatten)]
        which: Which,
        /// For how long, in seconds; 0 where it has leaked
        #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(i64).range(0..=2_592_000))]
        overlap: i64,
    },
    /// Send the events of a range once more
    Resend {
        #[command(flatten)]
        which: Which,
        /// The first position
        #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(i64).range(1..=MAX_ID))]
        from: i64,
        /// The last one [default: the first]
        #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(i64).range(1..=MAX_ID))]
        to: Option<i64>,
    },
    /// Print the events of one that were given up, one a line
    Dead(Which),
}

#[derive(Clone, Copy, Debug, clap::Args)]
struct Which {
    /// Its number
    #[arg(value_name = "ID", value_parser = clap::value_parser!(i64).range(1..=MAX_ID))]
    id: i64,
}

pub(super) async fn run(
    context: Context,
    policy: WebhookPolicy,
    arguments: WebhookArgs,
) -> Result<(), Failed> {
    match arguments.command {
        WebhookCommand::List => list(&context).await,
        WebhookCommand::Dead(Which { id }) => dead(&context, id).await,
        command => tell(&context, &policy, command).await,
    }
}

async fn list(context: &Context) -> Result<(), Failed> {
    as_operator("GET /v1/webhooks")?;
    let store = context.open_to_read().await?;
    let rows = webhooks::list(&store).await;
    store.close().await;
    rows?.into_iter().try_for_each(say)?;
    Ok(())
}

async fn dead(context: &Context, id: i64) -> Result<(), Failed> {
    as_operator("GET /v1/webhooks/{id}/dead")?;
    let store = context.open_to_read().await?;
    let rows = webhooks::dead(&store, id, 0, i64::MAX).await;
    store.close().await;
    let rows = rows?.ok_or_else(|| Failed::Refused(anyhow::anyhow!("there is no webhook {id}")))?;
    rows.into_iter().try_for_each(say)?;
    Ok(())
}

/// Does it in the ledger, or asks the server that holds it.
async fn tell(context: &Context, policy: &WebhookPolicy, command: WebhookCommand) -> Result<(), Failed> {
    let holder = Holder::find(context, context.secrets(true)?).await?;
    let told = match &holder {
        Holder::Ledger(ledger) => match meta_of_operator(ledger, action(&command)) {
            Ok(meta) => here(ledger, policy, &meta, command).await.map_err(refused_or_failed),
            Err(failed) => Err(failed),
        },
        Holder::Server(server) => {
            let (method, path) = asked(&command);
            server.ask(method, &path).await
        }
    };
    holder.close().await;
    say(told?)?;
    Ok(())
}

/// What the table of who may do what calls it.
fn action(command: &WebhookCommand) -> &'static str {
    match command {
        WebhookCommand::Add { .. } => "POST /v1/webhooks",
        WebhookCommand::List => "GET /v1/webhooks",
        WebhookCommand::Change { .. } => "POST /v1/webhooks/{id}",
        WebhookCommand::Pause(_) => "POST /v1/webhooks/{id}/pause",
        WebhookCommand::Resume { .. } => "POST /v1/webhooks/{id}/resume",
        WebhookCommand::Remove(_) => "DELETE /v1/webhooks/{id}",
        WebhookCommand::Secret(_) => "GET /v1/webhooks/{id}/secret",
        WebhookCommand::Rotate { .. } => "POST /v1/webhooks/{id}/rotate",
        WebhookCommand::Resend { .. } => "POST /v1/webhooks/{id}/resend",
        WebhookCommand::Dead(_) => "GET /v1/webhooks/{id}/dead",
    }
}

async fn here(
    ledger: &Ledger,
    policy: &WebhookPolicy,
    meta: &Meta,
    command: WebhookCommand,
) -> Result<Value, ExecuteError> {
    let done = match command {
        WebhookCommand::Add { url, types, streams, after } => {
            let Filter { types, streams } = Filter::parse(&types, &streams);
            let subscription = Subscription { url, types, streams };
            let done = webhooks::add(ledger, policy, subscription, after, meta).await?;
            return Ok(webhooks::told_json_with_secret(ledger, &done));
        }
        WebhookCommand::Rotate { which: Which { id }, overlap } => {
            let done = webhooks::rotate(ledger, id, overlap * 1_000, meta).await?;
            return Ok(webhooks::told_json_with_secret(ledger, &done));
        }
        WebhookCommand::Remove(Which { id }) => {
            let done = webhooks::remove(ledger, id, meta).await?;
            return Ok(json!({"id": id, "removed_at_ms": done.state.removed_at_ms}));
        }
        WebhookCommand::Resend { which: Which { id }, from, to } => {
            let to = to.unwrap_or(from);
            let done = webhooks::resend(ledger, id, (from, to), meta).await?;
            return Ok(json!({"id": id, "lane": done.state.resends, "from": from, "to": to}));
        }
        WebhookCommand::Secret(Which { id }) => return webhooks::secret(ledger, id).await,
        WebhookCommand::Change { which: Which { id }, url, types, streams } => {
            let types = types.map(|text| Filter::parse(&text, "").types);
            let streams = streams.map(|text| Filter::parse("", &text).streams);
            webhooks::change(ledger, policy, id, (url, types, streams), meta).await?
        }
        WebhookCommand::Pause(Which { id }) => webhooks::pause(ledger, id, Why::Asked, meta).await?,
        WebhookCommand::Resume { which: Which { id }, after } => {
            webhooks::resume(ledger, id, after, meta).await?
        }
        // Read above, without a ledger to write to.
        WebhookCommand::List | WebhookCommand::Dead(_) => return Ok(Value::Null),
    };
    Ok(webhooks::told_json(&done))
}

/// The same as a request to the server.
fn asked(command: &WebhookCommand) -> (Method, String) {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            query.append_pair(name, &value);
        }
    };
    let number = |number: &Option<i64>| number.map(|number| number.to_string());
    let id = match command {
        WebhookCommand::Add { url, types, streams, after } => {
            put("url", Some(url.clone()));
            put("type", Some(types.clone()));
            put("stream", Some(streams.clone()));
            put("after", number(after));
            None
        }
        WebhookCommand::Change { which, url, types, streams } => {
            put("url", url.clone());
            put("type", types.clone());
            put("stream", streams.clone());
            Some(which.id)
        }
        WebhookCommand::Resume { which, after } => {
            put("after", number(after));
            Some(which.id)
        }
        WebhookCommand::Rotate { which, overlap } => {
            put("overlap_s", Some(overlap.to_string()));
            Some(which.id)
        }
        WebhookCommand::Resend { which, from, to } => {
            put("from", Some(from.to_string()));
            put("to", Some(to.unwrap_or(*from).to_string()));
            Some(which.id)
        }
        WebhookCommand::Pause(which)
        | WebhookCommand::Remove(which)
        | WebhookCommand::Secret(which)
        | WebhookCommand::Dead(which) => Some(which.id),
        WebhookCommand::List => None,
    };
    let (method, path) = action(command).split_once(' ').unwrap_or(("GET", "/v1/webhooks"));
    let path = path.replace("{id}", &id.unwrap_or_default().to_string());
    let method = match method {
        "POST" => Method::POST,
        "DELETE" => Method::DELETE,
        _ => Method::GET,
    };
    (method, format!("{path}?{}", query.finish()))
}
