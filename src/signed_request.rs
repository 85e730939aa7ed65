//! Requests that a partner signs with his Ed25519 key, instead of showing a token; and the public keys that he may sign with.
//!
//! What is signed names the partner, the method, the path with its query, the time, a nonce and the body, each on a line of
//! its own (docs/security.md gives an example). Whatever is wrong with a signed request, the answer is the same. The nonce
//! is used up only by a request whose signature holds: nobody else can use up a partner's nonces, or fill the table of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::directory;
use crate::ledger::{ExecuteError, Executed, Ledger, Meta};
use crate::partner_key::{PartnerKey, PartnerKeyCommand};
use crate::read_model::partner_keys::{PartnerKeyRow, signing_keys};
use crate::refusal::{Refusal, Wrong};
use crate::store::{Store, StoreError};
use crate::value::{MAX_ID, hex, parse_int};

/// How far the time that was signed may be from the server's, seconds.
const WINDOW_S: i64 = 300;

/// How long a nonce is kept from when it came, milliseconds: as long as its time can be accepted anywhere, and a few seconds
/// by which servers' clocks may differ.
const NONCE_MS: i64 = (2 * WINDOW_S + 20) * 1000;

/// How many keys a partner may sign with at a time: each that he has is tried. One can follow another without a gap.
const MAX_KEYS: usize = 4;

/// The headers of a signed request: whose it is, when it was signed, its nonce, and the signature in base64.
pub const HEADERS: [&str; 4] = ["x-partner-id", "x-signature-time", "x-signature-nonce", "x-signature"];

/// What the headers of a signed request say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    partner_id: i64,
    time: String,
    nonce: String,
    signature: [u8; 64],
}

impl Signed {
    /// Reads the values of [`HEADERS`], in their order; None where one of them has not its shape.
    #[must_use]
    pub fn read([partner_id, time, nonce, signature]: [&str; 4]) -> Option<Self> {
        let id = number(partner_id)?;
        number(time)?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !(16..=64).contains(&nonce.len()) || !nonce.bytes().all(allowed) {
            return None;
        }
        let signature = STANDARD.decode(signature).ok()?.try_into().ok()?;
        Some(Self { partner_id: id, time: time.to_owned(), nonce: nonce.to_owned(), signature })
    }

    /// The keys that may have signed this: none where it was not signed just now. Asked before the body is read, so that
    /// nobody has it read who cannot have signed anything.
    pub async fn keys(&self, store: &Store, now_ms: i64) -> Result<Vec<String>, StoreError> {
        let signed_at_s = number(&self.time).unwrap_or_default();
        if (now_ms.div_euclid(1000) - signed_at_s).abs() > WINDOW_S {
            return Ok(Vec::new());
        }
        signing_keys(store, self.partner_id).await
    }

    /// The partner who signed this request with one of these keys, if he did, and for the first time.
    pub async fn partner(
        &self,
        store: &Store,
        keys: &[String],
        (method, path, body): (&str, &str, &[u8]),
        now_ms: i64,
    ) -> Result<Option<i64>, StoreError> {
        let message = message(self.partner_id, method, path, &self.time, &self.nonce, body);
        if !keys.iter().any(|key| self.is_signed_with(key, &message)) {
            return Ok(None);
        }
        let lapses_at_ms = now_ms.saturating_add(NONCE_MS);
        let first = directory::use_nonce(store, self.partner_id, &self.nonce, lapses_at_ms).await?;
        Ok(first.then_some(self.partner_id))
    }

    fn is_signed_with(&self, public_key: &str, message: &str) -> bool {
        let Some(key) = read_public_key(public_key) else { return false };
        key.verify_strict(message.as_bytes(), &Signature::from_bytes(&self.signature)).is_ok()
    }
}

/// A whole number from 1, written in the one way.
fn number(text: &str) -> Option<i64> {
    let number = parse_int(text, 1, MAX_ID).ok()?;
    ((1..=MAX_ID).contains(&number) && number.to_string() == text).then_some(number)
}

/// What a partner signs.
#[must_use]
pub fn message(partner_id: i64, method: &str, path: &str, time: &str, nonce: &str, body: &[u8]) -> String {
    let body = hex(&Sha256::digest(body));
    format!("coupon-ledger request 1\n{partner_id}\n{method}\n{path}\n{time}\n{nonce}\n{body}\n")
}

/// The Ed25519 public key in a text: 32 bytes in base64 or as hexadecimal digits, and none of the few for which anybody can
/// sign.
#[must_use]
pub fn read_public_key(text: &str) -> Option<VerifyingKey> {
    let bytes: [u8; 32] = match text.len() {
        64 => {
            let mut bytes = [0; 32];
            for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
                let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
                *byte = u8::from_str_radix(digits, 16).ok()?;
            }
            bytes
        }
        _ => STANDARD.decode(text).ok()?.try_into().ok()?,
    };
    VerifyingKey::from_bytes(&bytes).ok().filter(|key| !key.is_weak())
}

/// Registers a key for a partner.
pub async fn register(
    ledger: &Ledger,
    partner_id: i64,
    key: &VerifyingKey,
    meta: &Meta,
) -> Result<Executed<PartnerKey>, ExecuteError> {
    if let Some(done) = ledger.replay::<PartnerKey>(meta).await? {
        return Ok(done);
    }
    let there = signing_keys(ledger.store(), partner_id).await?;
    let public_key = STANDARD.encode(key.as_bytes());
    if there.contains(&public_key) {
        return Err(Refusal::field("public_key", Wrong::Taken).into());
    }
    if there.len() >= MAX_KEYS {
        return Err(Refusal::field("partner_id", Wrong::TooMany { max: MAX_KEYS }).into());
    }
    let id = ledger.next_id("partner_key", true).await?;
    let employee_id = meta.caller.employee_id();
    ledger
        .execute::<PartnerKey>(id, &PartnerKeyCommand::Register { partner_id, public_key, employee_id }, meta)
        .await
}

/// Revokes a key; once more changes nothing.
pub async fn revoke(ledger: &Ledger, id: i64, meta: &Meta) -> Result<Executed<PartnerKey>, ExecuteError> {
    let command = PartnerKeyCommand::Revoke { employee_id: meta.caller.employee_id() };
    ledger.execute::<PartnerKey>(id, &command, meta).await
}

/// A key that was registered, as it is answered.
#[must_use]
pub fn registered_json(id: i64, key: &PartnerKey) -> Value {
    json!({"id": id, "partner_id": key.partner_id, "public_key": key.public_key})
}

/// A key as lists show it.
#[must_use]
pub fn listed_json(row: &PartnerKeyRow) -> Value {
    let revoked = if row.revoked_at_ms == 0 { Value::Null } else { row.revoked_at_ms.into() };
    json!({
        "id": row.id,
        "partner_id": row.partner_id,
        "public_key": row.public_key,
        "registered_at_ms": row.registered_at_ms,
        "revoked_at_ms": revoked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_base64_or_hexadecimal_and_no_weak_one() {
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
        let base64 = STANDARD.encode(key.as_bytes());
        assert_eq!(read_public_key(&base64), Some(key));
        assert_eq!(read_public_key(&hex(key.as_bytes())), Some(key));
        let (weak, plus) = (hex(&[0; 32]), format!("+1{}", "00".repeat(31)));
        for wrong in ["", &base64[1..], &base64.replace('=', ""), &weak, &plus, &"é".repeat(32)] {
            assert_eq!(read_public_key(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn headers_are_read_in_one_way_only() {
        let signature = STANDARD.encode([1; 64]);
        let good = ["2", "1543026701", "abcdefghijklmnop", signature.as_str()];
        assert!(Signed::read(good).is_some());
        let long = "n".repeat(65);
        for (place, wrong) in [
            (0, "02"),
            (0, "0"),
            (0, "-2"),
            (0, "2 "),
            (0, ""),
            (1, "01543026701"),
            (1, "1543026701.0"),
            (1, ""),
            (2, "short"),
            (2, "abcdefghijklmno\u{e9}"),
            (2, "abcdefgh ijklmnop"),
            (2, long.as_str()),
            (3, ""),
            (3, &signature[1..]),
            (3, signature.trim_end_matches('=')),
        ] {
            let mut other = good;
            other[place] = wrong;
            assert_eq!(Signed::read(other), None, "{wrong}");
        }
    }
}
