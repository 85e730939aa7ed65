//! Signatures of webhooks as Standard Webhooks has them (standardwebhooks.com): symmetric, version 1.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// A secret as receivers are given it.
#[must_use]
pub fn secret_text(secret: &[u8]) -> String {
    format!("whsec_{}", STANDARD.encode(secret))
}

/// What `webhook-signature` says: a signature by each of these secrets, the newest one's first.
#[must_use]
pub fn header<'s>(secrets: impl IntoIterator<Item = &'s [u8]>, id: &str, at_s: i64, body: &[u8]) -> String {
    secrets.into_iter().map(|secret| sign(secret, id, at_s, body)).collect::<Vec<_>>().join(" ")
}

fn sign(secret: &[u8], id: &str, at_s: i64, body: &[u8]) -> String {
    // HMAC takes keys of any length, so this cannot fail; an empty key would only make every check fail.
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret).unwrap_or_else(|_| Hmac::<Sha256>::new(&[0; 64].into()));
    mac.update(format!("{id}.{at_s}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Standard Webhooks' own libraries.
    #[test]
    fn it_signs_as_the_standard_says() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = header(
            [secret.as_slice()],
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(secret_text(&secret), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    }
}
