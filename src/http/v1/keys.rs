//! The ledger's keys: which there are, and the next one in the place of one.

use serde_json::{Value, json};

use super::{Ask, Method, Page, Resource, Run};
use crate::audit::tlog::{ROTATE_KEY, rotate_key, verifier_key_of, verifier_keys};
use crate::http::Failure;
use crate::http::routes::{Holds, optional, required};
use crate::ledger::{Executed, keys};
use crate::provenance::{LEDGER_ID, Provenance};
use crate::secrets::Purpose;

/// Which handler answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// `GET /v1/keys`
    List,
    /// `POST /v1/keys/checkpoint`
    RotateCheckpoint,
    /// `POST /v1/keys/{key}`
    Rotate,
}

const PURPOSES: &[&str] = &["token", "qr", "gift"];

/// The longest overlap, in days.
const MAX_OVERLAP: i64 = 3_650;

const DAY_MS: i64 = 86_400_000;

pub(super) const RESOURCES: &[Resource] = &[
    Resource {
        method: Method::Get,
        path: "/v1/keys",
        about: "`checkpoint_keys`: those that sign checkpoints, the first one first; the last one signs, and for thirty days the \
                one before it as well. Pin them from another source than the server that you check. `keys`: the others by \
                their names; of each purpose the last one is used, and what an older one signed is good until \
                `accepted_until_ms`, null = without an end. Gifts keep the key by which they were given",
        parts: &[],
        query: &[],
        produces: "application/json",
        example: r#"{"origin":"coupon-ledger/0123456789abcdef","checkpoint_keys":["coupon-ledger/0123456789abcdef+5c2c1bd1+AQgjhTMDVYrkZmGRsCQmiLUdzuqt/tWvQR2z1R7ZiPQ7"],"keys":[{"key":"token","generation":1,"key_id":"1f2e3d4c","accepted_until_ms":1795406400000},{"key":"token","generation":2,"key_id":"5b6a7988","accepted_until_ms":null},{"key":"qr","generation":1,"key_id":"0a1b2c3d","accepted_until_ms":null},{"key":"gift","generation":1,"key_id":"9f8e7d6c","accepted_until_ms":null}]}"#,
        run: Run::Keys(Keys::List),
    },
    Resource {
        method: Method::Post,
        path: ROTATE_KEY,
        about: "Signs checkpoints with a new key from now on, and for thirty days with the one before it as well; within \
                those the key is not replaced again (6004). Takes an Idempotency-Key",
        parts: &[],
        query: &[],
        produces: "application/json",
        example: r#"{"generation":2,"verifier_key":"coupon-ledger/0123456789abcdef+5c2c1bd1+AQgjhTMDVYrkZmGRsCQmiLUdzuqt/tWvQR2z1R7ZiPQ7"}"#,
        run: Run::Keys(Keys::RotateCheckpoint),
    },
    Resource {
        method: Method::Post,
        path: "/v1/keys/{key}",
        about: "Uses a new key from now on: `token` for tokens and counter codes, `qr` for the QR codes of shops and partners, \
                `gift` for the codes of gifts, of which those that wait keep theirs. With an overlap of 0 all that older keys \
                signed is worthless at once, on every server within half a minute. Takes an Idempotency-Key",
        parts: &[required("key", Holds::OneOf(PURPOSES), "what it is for")],
        query: &[optional(
            "overlap_days",
            Holds::Int(0, MAX_OVERLAP),
            "for how long what the key before has signed is good; default 30; nothing to gifts",
        )],
        produces: "application/json",
        example: r#"{"key":"token","generation":2,"key_id":"5b6a7988"}"#,
        run: Run::Keys(Keys::Rotate),
    },
];

pub(super) async fn run(which: Keys, ask: Ask) -> Result<Page, Failure> {
    match which {
        Keys::List => list(ask).await,
        Keys::RotateCheckpoint => rotate_checkpoint(ask).await,
        Keys::Rotate => rotate(ask).await,
    }
}

async fn list(mut ask: Ask) -> Result<Page, Failure> {
    ask.checked()?;
    let ledger = &ask.app.ledger;
    let (provenance, _) = ledger.load::<Provenance>(LEDGER_ID).await?;
    let origin = ledger.store().origin().await?.unwrap_or_default();
    let checkpoint_keys = verifier_keys(ledger.secrets(), &origin, provenance.key_generation());
    let keys: Vec<Value> = keys::list(ledger.secrets(), &provenance)
        .map(|known| {
            json!({
                "key": known.purpose.name(),
                "generation": known.generation,
                "key_id": known.key_id,
                "accepted_until_ms": known.accepted_until_ms,
            })
        })
        .collect();
    Page::json(&json!({"origin": origin, "checkpoint_keys": checkpoint_keys, "keys": keys}))
}

async fn rotate_checkpoint(mut ask: Ask) -> Result<Page, Failure> {
    ask.checked()?;
    let ledger = &ask.app.ledger;
    let done = rotate_key(ledger, &ask.meta(ROTATE_KEY, "")).await?;
    let generation = done.state.key_generation();
    let origin = ledger.store().origin().await?.unwrap_or_default();
    let key = verifier_key_of(ledger.secrets(), &origin, generation);
    answered(&done, &json!({"generation": generation, "verifier_key": key}))
}

async fn rotate(mut ask: Ask) -> Result<Page, Failure> {
    let name = ask.form.one_of("key", PURPOSES);
    let overlap_days = ask.form.optional_int("overlap_days", 0, MAX_OVERLAP).unwrap_or(30);
    ask.checked()?;
    let key = Purpose::ALL.into_iter().find(|purpose| Some(purpose.name()) == name);
    let key = key.ok_or(Failure::NotThere)?;
    let ledger = &ask.app.ledger;
    let meta = ask.meta(keys::operation(key), &overlap_days.to_string());
    let done = keys::rotate(ledger, key, overlap_days * DAY_MS, &meta).await?;
    let generation = done.state.accepted(key, 0).newest;
    let key_id = ledger.secrets().key_id(key, generation);
    answered(&done, &json!({"key": key.name(), "generation": generation, "key_id": key_id}))
}

fn answered(done: &Executed<Provenance>, answer: &Value) -> Result<Page, Failure> {
    let page = Page::json(answer)?;
    Ok(if done.replayed { page.with_text("idempotency-replayed", "true") } else { page })
}
