//! Second factors as RFC 6238 has them: SHA-1, six digits, thirty seconds, and a step to either side.

use data_encoding::BASE32_NOPAD;
use hmac::{Hmac, Mac as _};
use sha1::Sha1;

/// How long a code is shown, in milliseconds.
pub const TOTP_STEP_MS: i64 = 30_000;

/// The code of a step of time.
#[must_use]
pub fn totp_code(secret: &[u8], step: i64) -> String {
    // HMAC takes keys of any length, so this cannot fail; an empty key would only make every code wrong.
    let mut mac = Hmac::<Sha1>::new_from_slice(secret).unwrap_or_else(|_| Hmac::<Sha1>::new(&[0; 64].into()));
    mac.update(&step.to_be_bytes());
    let digest: [u8; 20] = mac.finalize().into_bytes().into();
    let offset = usize::from(digest.last().copied().unwrap_or_default() & 0xf);
    let number =
        digest.iter().skip(offset).take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    format!("{:06}", (number & 0x7fff_ffff) % 1_000_000)
}

/// The step of time whose code this is, if it is one of now, the one before and the one after.
pub(super) fn step_of(secret: &[u8], code: &str, now_ms: i64) -> Option<i64> {
    let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let now = now_ms.div_euclid(TOTP_STEP_MS);
    // Five tries a minute are what protects six digits; timing adds nothing to them.
    [now, now - 1, now + 1].into_iter().find(|step| totp_code(secret, *step) == code)
}

/// A secret as people type it, and as the URL that their apps read.
#[must_use]
pub fn totp_url(secret: &[u8], name: &str) -> (String, String) {
    let text = BASE32_NOPAD.encode(secret);
    let url = format!("otpauth://totp/coupon-ledger:{name}?secret={text}&issuer=coupon-ledger");
    (text, url)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B, the last six digits of SHA-1's column.
    #[test]
    fn codes_are_those_of_the_rfc() {
        let secret = b"12345678901234567890";
        for (second, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(totp_code(secret, second / 30), code);
        }
    }

    #[test]
    fn a_code_is_good_a_step_to_either_side() {
        let secret = b"12345678901234567890";
        let now_ms = 1_234_567_890_000;
        let step = now_ms / TOTP_STEP_MS;
        for (other, found) in
            [(-2, None), (-1, Some(step - 1)), (0, Some(step)), (1, Some(step + 1)), (2, None)]
        {
            assert_eq!(step_of(secret, &totp_code(secret, step + other), now_ms), found);
        }
        for garbage in ["", "000000", "12345", "1234567", "٠١٢٣٤٥"] {
            assert_eq!(step_of(secret, garbage, now_ms), None, "{garbage}");
        }
        assert_eq!(step_of(secret, " 005 924 ", now_ms), Some(step));
    }
}
