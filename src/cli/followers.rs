//! `coupon-ledger followers`: how what follows the log or the calendar stands, and what it is told.

use serde_json::json;

use super::remote::{Holder, as_operator};
use super::{Context, Failed, say};
use crate::clock::Clock;
use crate::feeds::webhooks;
use crate::followers::{self, FollowerError, Order, Standing};
use crate::store::{self, StoreError};

/// What is asked of followers.
#[derive(Debug, clap::Args)]
pub(super) struct FollowersArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// How far each is, how far behind, whether it rests, and what went wrong last
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Let one rest, on every server and across starts, until it is resumed
    Pause {
        /// Its name
        name: String,
    },
    /// Let one go on
    Resume {
        /// Its name
        name: String,
    },
    /// Let one begin anew, where that does no harm
    Reset {
        /// Its name
        name: String,
    },
}

pub(super) async fn run(context: Context, arguments: FollowersArgs) -> Result<(), Failed> {
    match arguments.what {
        What::List { json } => list(&context, json).await,
        What::Pause { name } => tell(&context, &name, Order::Pause, "pause").await,
        What::Resume { name } => tell(&context, &name, Order::Resume, "resume").await,
        What::Reset { name } => tell(&context, &name, Order::Reset, "reset").await,
    }
}

async fn list(context: &Context, as_json: bool) -> Result<(), Failed> {
    let secrets = context.secrets(false)?;
    let clock = Clock::System;
    let store = store::open_read_only(&context.store_options(&secrets, clock.now_ms())).await?;
    let today = context.zone.moment(clock.now_ms()).day;
    let standings = async {
        let mut standings = followers::standings(&store, &clock, today).await?;
        standings.extend(webhooks::standings(&store).await?);
        Ok::<_, StoreError>(standings)
    };
    let standings = standings.await;
    store.close().await;
    let standings = standings?;
    if as_json {
        say(json!({"followers": standings}))?;
    } else {
        for standing in &standings {
            say(line(standing))?;
        }
    }
    Ok(())
}

fn line(standing: &Standing) -> String {
    let Standing { name, about, checkpoint, paused, last_error, .. } = standing;
    let lag = standing.lag.map_or_else(|| "has not begun".to_owned(), |lag| format!("{lag} behind"));
    let rests = if *paused { ", paused" } else { "" };
    let error = if last_error.is_empty() { String::new() } else { format!(", last error: {last_error}") };
    format!("{name}: at {checkpoint}, {lag}{rests}{error} ({about})")
}

async fn tell(context: &Context, name: &str, order: Order, word: &str) -> Result<(), Failed> {
    let secrets = context.secrets(false)?;
    let to = Holder::find(context, secrets).await?;
    let told = match &to {
        Holder::Ledger(ledger) => {
            as_operator("POST /v1/followers/{name}/{order}")?;
            match followers::order(ledger, name, order).await {
                Err(FollowerError::Store(error)) => Err(error.into()),
                told => told.map_err(|error| Failed::Refused(error.into())),
            }
        }
        Holder::Server(server) => {
            // A name is no path: whatever else it holds, no follower has it.
            let plain = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
            let name = if plain && !name.is_empty() { name } else { "?" };
            let path = format!("/v1/followers/{}/{word}", name.replace('?', "%3F"));
            server.ask(hyper::Method::POST, &path).await.map(drop)
        }
    };
    to.close().await;
    told?;
    eprintln!("coupon-ledger: {name}: {word}");
    Ok(())
}
