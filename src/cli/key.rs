//! `coupon-ledger key`: the keys that sign checkpoints of the transparency log.

use clap::Subcommand;
use serde_json::Value;

use super::remote::{Holder, as_operator};
use super::{Context, Failed, say};
use crate::audit::tlog::{ROTATE_KEY, rotate_key, verifier_key_of, verifier_keys};
use crate::clock::Clock;
use crate::entity::{fold, stream_of};
use crate::ledger::{ExecuteError, Meta};
use crate::provenance::{LEDGER_ID, Provenance};
use crate::store::{self, ReceiptKey};
use crate::value::{hex, random};

/// What to do with keys.
#[derive(Debug, clap::Args)]
pub(super) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Print the public keys that sign and have signed checkpoints, the first one first: what auditors pin
    List,
    /// Sign with a new key from now on, and print its public half; works while the server runs
    Rotate {
        /// Which key
        #[arg(value_enum)]
        key: Rotatable,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Rotatable {
    /// The one that signs checkpoints
    Checkpoint,
}

pub(super) async fn run(context: Context, arguments: KeyArgs) -> Result<(), Failed> {
    match arguments.command {
        KeyCommand::List => list(&context).await,
        KeyCommand::Rotate { key: Rotatable::Checkpoint } => rotate(&context).await,
    }
}

async fn list(context: &Context) -> Result<(), Failed> {
    let secrets = context.secrets(false)?;
    let store = store::open_read_only(&context.store_options(&secrets, Clock::System.now_ms())).await?;
    let reading = async {
        anyhow::Ok((store.origin().await?, store.load_one(stream_of::<Provenance>(LEDGER_ID)).await?))
    };
    let read = reading.await;
    store.close().await;
    let (origin, stream) = read?;
    let origin = origin.ok_or_else(|| {
        anyhow::anyhow!("this ledger has no transparency log yet: start this version's server on it once")
    })?;
    let (provenance, _) = fold::<Provenance>(&stream)?;
    for key in verifier_keys(&secrets, &origin, provenance.key_generation()) {
        say(key)?;
    }
    Ok(())
}

async fn rotate(context: &Context) -> Result<(), Failed> {
    let secrets = context.secrets(false)?;
    // Whoever has had no answer and asks again on the same day means the same rotation, and is told the key that it made.
    let key = format!("key-rotate-{}", Clock::System.now_ms().div_euclid(86_400_000));
    let holder = Holder::find(context, secrets).await?;
    let rotated = match &holder {
        Holder::Ledger(ledger) => {
            let caller = as_operator(&format!("POST {ROTATE_KEY}"))?;
            let request_id = hex(&random::<8>());
            let receipt = ReceiptKey { caller: caller.to_string(), operation: ROTATE_KEY, key };
            let receipt = Some((receipt, ledger.secrets().request_mac("")));
            let meta = Meta { caller, at: ledger.now(), request_id, receipt, job_id: None };
            match rotate_key(ledger, &meta).await {
                Ok(done) => {
                    let origin = ledger.store().origin().await?.unwrap_or_default();
                    Ok(Some(verifier_key_of(ledger.secrets(), &origin, done.state.key_generation())))
                }
                Err(error @ (ExecuteError::Refused(_) | ExecuteError::Conflict)) => {
                    Err(Failed::Refused(error.into()))
                }
                Err(error) => Err(error.into()),
            }
        }
        Holder::Server(server) => match server.post_resource(ROTATE_KEY, &key).await {
            Ok((200, answer)) => Ok(text(&answer, "verifier_key")),
            Ok((status, answer)) => {
                let info = text(&answer, "info").unwrap_or_default();
                Err(Failed::Refused(anyhow::anyhow!("the server answers {status}: {info}")))
            }
            Err(error) => Err(error.into()),
        },
    };
    holder.close().await;
    say(rotated?.unwrap_or_default())?;
    eprintln!(
        "coupon-ledger: from now on checkpoints carry this key's signature, and for 30 days the old one's as well"
    );
    Ok(())
}

fn text(answer: &Value, name: &str) -> Option<String> {
    answer.get(name).and_then(Value::as_str).map(ToOwned::to_owned)
}
