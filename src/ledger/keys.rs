//! Which keys are good: the log says so, and this tells the secrets.
//!
//! Every server reads it again with its housekeeping, so that what a replaced key signed is refused everywhere within half a
//! minute of its end. That a key is newer than a server knows needs no telling: nobody can make it who has not the root secret.

use super::{ExecuteError, Executed, Ledger, Meta};
use crate::entity::{fold, stream_of};
use crate::provenance::{LEDGER_ID, Provenance, ProvenanceCommand};
use crate::secrets::{Purpose, Secrets};
use crate::store::Store;

/// Reads from a log which keys are good at this instant, and tells the secrets.
pub async fn accept(secrets: &Secrets, store: &Store, now_ms: i64) -> Result<(), ExecuteError> {
    let stream = store.load_one(stream_of::<Provenance>(LEDGER_ID)).await?;
    let (provenance, _) = fold::<Provenance>(&stream)?;
    for purpose in Purpose::ALL {
        secrets.accept(purpose, provenance.accepted(purpose, now_ms));
    }
    Ok(())
}

/// The same for a ledger.
pub async fn follow(ledger: &Ledger) -> Result<(), ExecuteError> {
    accept(ledger.secrets(), ledger.store(), ledger.clock().now_ms()).await
}

/// Uses the next key from now on; what the one before has signed is good for so much longer.
pub async fn rotate(
    ledger: &Ledger,
    key: Purpose,
    overlap_ms: i64,
    meta: &Meta,
) -> Result<Executed<Provenance>, ExecuteError> {
    let (provenance, _) = ledger.load::<Provenance>(LEDGER_ID).await?;
    let generation = provenance.accepted(key, meta.at.ms).newest.saturating_add(1);
    let key_id = ledger.secrets().key_id(key, generation);
    let employee_id = meta.caller.employee_id();
    let command = ProvenanceCommand::RotateKey { key, generation, key_id, overlap_ms, employee_id };
    let done = ledger.execute::<Provenance>(LEDGER_ID, &command, meta).await?;
    follow(ledger).await?;
    Ok(done)
}

/// What rotating a key is called, as a path and in the receipts of idempotency keys.
#[must_use]
pub fn operation(key: Purpose) -> &'static str {
    match key {
        Purpose::Token => "/v1/keys/token",
        Purpose::Qr => "/v1/keys/qr",
        Purpose::Gift => "/v1/keys/gift",
    }
}

/// A key that there is or was.
pub struct Known {
    /// What it is for.
    pub purpose: Purpose,
    /// Its generation, from 1.
    pub generation: u32,
    /// What it is called.
    pub key_id: String,
    /// Until when what it signed is good, Unix milliseconds; None = it is in use.
    pub accepted_until_ms: Option<i64>,
}

/// Every key but those of checkpoints, by purpose, the first one first.
pub fn list(secrets: &Secrets, provenance: &Provenance) -> impl Iterator<Item = Known> {
    Purpose::ALL.into_iter().flat_map(move |purpose| {
        let newest = provenance.accepted(purpose, 0).newest;
        (1..=newest).map(move |generation| Known {
            purpose,
            generation,
            key_id: secrets.key_id(purpose, generation),
            accepted_until_ms: provenance.accepted_until_ms(purpose, generation),
        })
    })
}
