//! What a webhook is signed with, as Standard Webhooks has it: whoever receives one can tell that it is ours, whole and new.
//!
//! The receiver recomputes HMAC-SHA-256 over `id.timestamp.body` with the secret that both hold, and refuses a timestamp that
//! is far from now. The secret must never come into the log, the database or an error.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// What a written secret begins with.
const PREFIX: &str = "whsec_";

/// How many bytes a secret may have.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The header `webhook-signature` of a body: `v1,` and the MAC in base64. `at_s` is the header `webhook-timestamp`, Unix
/// seconds; the id must hold no `.`.
#[must_use]
pub fn sign(secret: &[u8], id: &str, at_s: i64, body: &[u8]) -> String {
    // HMAC takes keys of any length, so this cannot fail; another key would only make every check fail.
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret).unwrap_or_else(|_| Hmac::<Sha256>::new(&[0; 64].into()));
    mac.update(format!("{id}.{at_s}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// A secret of ours as it is handed around.
#[must_use]
pub fn secret_text(secret: &[u8]) -> String {
    format!("{PREFIX}{}", STANDARD.encode(secret))
}

/// A secret as it is handed around: `whsec_` and 24 to 64 bytes in base64. What was given is not repeated.
pub fn parse_secret(text: &str) -> Result<Vec<u8>, &'static str> {
    let secret = text.trim().strip_prefix(PREFIX).and_then(|text| STANDARD.decode(text).ok());
    secret
        .filter(|bytes| SECRET_BYTES.contains(&bytes.len()))
        .ok_or("a webhook's secret is whsec_ and 24 to 64 bytes in base64")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by openssl: `printf '%s.%s.%s' ID TIME BODY | openssl dgst -sha256 -mac HMAC -macopt hexkey:…`.
    #[test]
    fn a_body_is_signed_as_standard_webhooks_has_it() {
        let secret = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signature =
            sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn whatever_is_changed_is_signed_otherwise() {
        let signed = sign(&[1; 32], "1", 2, b"3");
        for other in [
            sign(&[2; 32], "1", 2, b"3"),
            sign(&[1; 32], "2", 2, b"3"),
            sign(&[1; 32], "1", 3, b"3"),
            sign(&[1; 32], "1", 2, b"4"),
        ] {
            assert_ne!(signed, other);
        }
    }

    #[test]
    fn a_secret_that_is_none_is_refused_and_not_repeated() {
        let long = format!("{PREFIX}{}", STANDARD.encode([7; 65]));
        for text in ["", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_é", &long] {
            let refused = parse_secret(text).unwrap_err();
            assert!(!refused.contains("c2hvcnQ") && !refused.contains('é'), "{refused}");
        }
        for bytes in [24, 64] {
            assert_eq!(parse_secret(&secret_text(&vec![7; bytes])), Ok(vec![7; bytes]));
        }
    }
}
