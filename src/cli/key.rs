//! `coupon-ledger key`: which keys there are, and the next one in the place of one.

use clap::Subcommand;
use serde_json::Value;

use super::remote::{Holder, Remote, as_operator};
use super::{Context, Failed, say};
use crate::audit::tlog::{ROTATE_KEY, rotate_key, verifier_key_of, verifier_keys};
use crate::clock::Clock;
use crate::entity::{fold, stream_of};
use crate::ledger::keys::{self, Known};
use crate::ledger::{ExecuteError, Ledger, Meta};
use crate::provenance::{LEDGER_ID, Provenance};
use crate::secrets::Purpose;
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
    List {
        /// Print the names of all other keys as well, with the time until which what they signed is good
        #[arg(long)]
        all: bool,
    },
    /// Use a new key from now on, and print its name, or its public half where it signs checkpoints; works while the server
    /// runs
    Rotate {
        /// Which key
        #[arg(value_enum)]
        key: Rotatable,
        /// For how many days what the key before has signed is good; 0: it is worthless at once [default: 30]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=3_650))]
        overlap_days: Option<u32>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Rotatable {
    /// The one that signs tokens and counter codes
    Token,
    /// The one that signs the QR codes of shops and partners
    Qr,
    /// The pepper of gift codes: gifts that wait keep theirs
    Gift,
    /// The one that signs checkpoints, for thirty days beside the one before
    Checkpoint,
}

impl Rotatable {
    /// What it is for; None = it signs checkpoints.
    fn purpose(self) -> Option<Purpose> {
        match self {
            Self::Token => Some(Purpose::Token),
            Self::Qr => Some(Purpose::Qr),
            Self::Gift => Some(Purpose::Gift),
            Self::Checkpoint => None,
        }
    }
}

pub(super) async fn run(context: Context, arguments: KeyArgs) -> Result<(), Failed> {
    match arguments.command {
        KeyCommand::List { all } => list(&context, all).await,
        KeyCommand::Rotate { key: Rotatable::Checkpoint | Rotatable::Gift, overlap_days: Some(_) } => {
            Err(anyhow::anyhow!("--overlap-days is for token and qr only").into())
        }
        KeyCommand::Rotate { key, overlap_days } => {
            rotate(&context, key, overlap_days.map_or(30, i64::from)).await
        }
    }
}

async fn list(context: &Context, all: bool) -> Result<(), Failed> {
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
    for Known { purpose, generation, key_id, accepted_until_ms } in
        keys::list(&secrets, &provenance).filter(|_| all)
    {
        let until = match accepted_until_ms {
            None => "in use".to_owned(),
            // Of a gift nothing ends: it keeps the key by which it was given.
            Some(_) if purpose == Purpose::Gift => "of gifts given before".to_owned(),
            Some(ms) => format!("good until {}", context.zone.date_time(ms)),
        };
        say(format!("{} {generation} {key_id} {until}", purpose.name()))?;
    }
    Ok(())
}

async fn rotate(context: &Context, key: Rotatable, overlap_days: i64) -> Result<(), Failed> {
    let holder = Holder::find(context, context.secrets(false)?).await?;
    let rotated = match &holder {
        Holder::Ledger(ledger) => rotate_here(ledger, key, overlap_days).await,
        Holder::Server(server) => rotate_there(server, key, overlap_days).await,
    };
    holder.close().await;
    say(rotated?)?;
    match key {
        Rotatable::Checkpoint => eprintln!(
            "coupon-ledger: from now on checkpoints carry this key's signature, and for 30 days the old one's as well"
        ),
        Rotatable::Gift => eprintln!(
            "coupon-ledger: from now on gifts get their codes from this key; those that wait keep theirs"
        ),
        Rotatable::Token | Rotatable::Qr if overlap_days == 0 => eprintln!(
            "coupon-ledger: from now on this key signs, and what older ones signed is worthless, on every server within half \
             a minute"
        ),
        Rotatable::Token | Rotatable::Qr => eprintln!(
            "coupon-ledger: from now on this key signs; what the one before signed is good for {overlap_days} days more"
        ),
    }
    Ok(())
}

/// Whoever has had no answer and asks again on the same day means the same rotation, and is told the key that it made.
fn idempotency_key(overlap_days: i64) -> String {
    format!("key-rotate-{overlap_days}-{}", Clock::System.now_ms().div_euclid(86_400_000))
}

async fn rotate_here(ledger: &Ledger, key: Rotatable, overlap_days: i64) -> Result<String, Failed> {
    let (operation, canonical, action) = match key.purpose() {
        Some(purpose) => (keys::operation(purpose), overlap_days.to_string(), "POST /v1/keys/{key}"),
        None => (ROTATE_KEY, String::new(), "POST /v1/keys/checkpoint"),
    };
    let caller = as_operator(action)?;
    let receipt = ReceiptKey { caller: caller.to_string(), operation, key: idempotency_key(overlap_days) };
    let receipt = Some((receipt, ledger.secrets().request_mac(&canonical)));
    let meta = Meta { caller, at: ledger.now(), request_id: hex(&random::<8>()), receipt, job_id: None };
    let rotated = match key.purpose() {
        Some(purpose) => keys::rotate(ledger, purpose, overlap_days * 86_400_000, &meta).await,
        None => rotate_key(ledger, &meta).await,
    };
    let rotated = rotated.map_err(|error| match error {
        error @ (ExecuteError::Refused(_) | ExecuteError::Conflict) => Failed::Refused(error.into()),
        error => error.into(),
    });
    let state = rotated?.state;
    if let Some(purpose) = key.purpose() {
        return Ok(ledger.secrets().key_id(purpose, state.accepted(purpose, 0).newest));
    }
    let origin = ledger.store().origin().await?.unwrap_or_default();
    Ok(verifier_key_of(ledger.secrets(), &origin, state.key_generation()))
}

async fn rotate_there(server: &Remote, key: Rotatable, overlap_days: i64) -> Result<String, Failed> {
    let (path, name) = match key.purpose() {
        Some(purpose) => (format!("{}?overlap_days={overlap_days}", keys::operation(purpose)), "key_id"),
        None => (ROTATE_KEY.to_owned(), "verifier_key"),
    };
    match server.post_resource(&path, &idempotency_key(overlap_days)).await? {
        (200, answer) => Ok(text(&answer, name)),
        (status, answer) => {
            let info = text(&answer, "info");
            Err(Failed::Refused(anyhow::anyhow!("the server answers {status}: {info}")))
        }
    }
}

fn text(answer: &Value, name: &str) -> String {
    answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}
