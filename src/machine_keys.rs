//! Machines' keys: `ck1.<id>.<secret>`, shown once, kept as a hash.
//!
//! A key opens something only while the log says that it was issued and not revoked (`machine`), and the database knows what
//! its secret hashes to. Both are read with every request, so that a key which is revoked opens nothing from the next one on,
//! on every server. Must never write down, log or repeat a secret.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::access::{Principal, RIGHTS, right_names};
use crate::directory;
use crate::identity::Caller;
use crate::ledger::{ExecuteError, Ledger, Meta};
use crate::machine::{Machine, MachineCommand};
use crate::read_model::machines::{self, MachineRow};
use crate::store::{Store, StoreError};
use crate::value::{MAX_ID, hex, parse_int, random};

/// What every key begins with.
const PREFIX: &str = "ck1.";

/// How often at most the time of the last use is written, milliseconds.
const USED_EVERY_MS: i64 = 60_000;

/// A key that is to be issued.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// What the machine is called.
    pub name: String,
    /// Its rights by their numbers.
    pub rights: Vec<i64>,
    /// For how long it holds, seconds; None = until it is revoked.
    pub ttl_s: Option<i64>,
}

/// A key that was issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Its id.
    pub id: i64,
    /// What it may do and until when.
    pub machine: Machine,
    /// The key itself; None where this only tells what the same request did before.
    pub key: Option<String>,
}

/// Issues a key. Nobody gives it a right that he has not himself.
pub async fn issue(
    ledger: &Ledger,
    who: &Principal,
    new: NewKey,
    meta: &Meta,
) -> Result<Issued, ExecuteError> {
    if let Some(done) = ledger.replay::<Machine>(meta).await? {
        return Ok(Issued { id: done.id, machine: done.state, key: None });
    }
    let id = ledger.next_id("machine_key", true).await?;
    let secret = random::<32>();
    // First the hash, which opens nothing without the event.
    directory::add_machine_key(ledger.store(), id, &hash(&secret)).await?;
    let expires_at_ms = new.ttl_s.map_or(0, |ttl| meta.at.ms.saturating_add(ttl.saturating_mul(1000)));
    let command = MachineCommand::Issue {
        name: new.name,
        rights: new.rights,
        givable: who.givable_rights(),
        expires_at_ms,
        employee_id: meta.caller.employee_id(),
    };
    let done = ledger.execute::<Machine>(id, &command, meta).await?;
    let key = (!done.replayed).then(|| format!("{PREFIX}{id}.{}", URL_SAFE_NO_PAD.encode(secret)));
    Ok(Issued { id: done.id, machine: done.state, key })
}

/// A number by which a text of a key's shape is counted, right or wrong.
#[must_use]
pub fn digest(text: &str) -> u64 {
    Sha256::digest(text.trim()).iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn hash(secret: &[u8]) -> String {
    hex(&Sha256::digest(secret))
}

/// Revokes a key; once more changes nothing.
pub async fn revoke(ledger: &Ledger, id: i64, meta: &Meta) -> Result<Machine, ExecuteError> {
    let command = MachineCommand::Revoke { employee_id: meta.caller.employee_id() };
    Ok(ledger.execute::<Machine>(id, &command, meta).await?.state)
}

/// The id and the secret in a text of a key's shape.
fn parse(text: &str) -> Option<(i64, [u8; 32])> {
    let (id, secret) = text.trim().strip_prefix(PREFIX)?.split_once('.')?;
    let number = parse_int(id, 1, MAX_ID).ok()?;
    let id = (number >= 1 && number.to_string() == id).then_some(number)?;
    let secret = URL_SAFE_NO_PAD.decode(secret).ok()?;
    Some((id, secret.try_into().ok()?))
}

/// Whether a text means to be a machine's key.
#[must_use]
pub fn is_key(text: &str) -> bool {
    text.trim_start().starts_with(PREFIX)
}

/// The machine whose key this is, with its rights, if it holds now. Notes that it was used.
pub async fn identify(store: &Store, text: &str, now_ms: i64) -> Result<Option<Principal>, StoreError> {
    let Some((id, secret)) = parse(text) else { return Ok(None) };
    let Some(row) = machines::machine(store, id).await?.filter(|row| row.holds(now_ms)) else {
        return Ok(None);
    };
    // How far two hashes of 256 random bits agree tells nobody anything about the bits.
    if row.secret_hash != hash(&secret) {
        return Ok(None);
    }
    if row.last_used_at_ms.saturating_add(USED_EVERY_MS) <= now_ms {
        // What it asks for is answered whether or not this can be noted.
        if let Err(error) = directory::note_machine_used(store, id, now_ms, USED_EVERY_MS).await {
            tracing::warn!(%error, machine = id, "that a key was used could not be noted");
        }
    }
    Ok(Some(Principal { rights: row.rights, ..Principal::plain(Caller::Machine(id)) }))
}

/// Rights by their names or their numbers, `orders,read`; None where one of them is none.
#[must_use]
pub fn parse_rights(text: &str) -> Option<Vec<i64>> {
    let right = |word: &str| {
        RIGHTS.iter().find(|right| right.name == word || right.id.to_string() == word).map(|right| right.id)
    };
    text.split(',').map(|word| right(word.trim())).collect()
}

fn or_null(at_ms: i64) -> Value {
    if at_ms == 0 { Value::Null } else { at_ms.into() }
}

/// A key that was issued, as it is shown this once.
#[must_use]
pub fn issued_json(issued: &Issued) -> Value {
    json!({
        "id": issued.id,
        "name": issued.machine.name,
        "rights": right_names(&issued.machine.rights),
        "expires_at_ms": or_null(issued.machine.expires_at_ms),
        "key": issued.key,
    })
}

/// A key as lists show it.
#[must_use]
pub fn listed_json(row: &MachineRow, now_ms: i64) -> Value {
    json!({
        "id": row.id,
        "name": row.name,
        "rights": right_names(&row.rights),
        "holds": row.holds(now_ms),
        "issued_at_ms": row.issued_at_ms,
        "expires_at_ms": or_null(row.expires_at_ms),
        "revoked_at_ms": or_null(row.revoked_at_ms),
        "last_used_at_ms": or_null(row.last_used_at_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_in_no_other_way() {
        let secret = [7; 32];
        let text = format!("ck1.12.{}", URL_SAFE_NO_PAD.encode(secret));
        assert_eq!(parse(&text), Some((12, secret)));
        let (start, encoded) = text.split_at(7);
        for other in [
            format!("ck1.012.{encoded}"),
            format!("ck1.+12.{encoded}"),
            format!("ck1.0.{encoded}"),
            format!("ck2.12.{encoded}"),
            format!("{start}{encoded}="),
            format!("{start}{encoded}AA"),
            format!("{start}{}", &encoded[1..]),
            format!("{start}.{encoded}"),
            "ck1.".to_owned(),
            "ck1.12.".to_owned(),
            String::new(),
        ] {
            assert_eq!(parse(&other), None, "{other}");
        }
    }

    #[test]
    fn rights_are_named_or_numbered() {
        assert_eq!(parse_rights("read, 9"), Some(vec![38, 9]));
        for wrong in ["", "read,", "everything", "1"] {
            assert_eq!(parse_rights(wrong), None, "{wrong}");
        }
    }
}
