//! The keys that live outside the database, and the keyed functions made of them.
//!
//! One root secret (a file of mode 0600, or the environment) yields a key per purpose, so that a copy of the database
//! alone gives no token, no gift code, no shop QR and no request. Nothing here is ever logged or stored.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::value::hex;

type HmacSha256 = Hmac<Sha256>;

/// A key for one purpose.
#[derive(Clone)]
struct Key(Arc<[u8; 32]>);

impl Key {
    fn mac(&self, parts: &[&[u8]]) -> HmacSha256 {
        // HMAC takes keys of any length, so this cannot fail; an empty key would only make every check fail.
        let mut mac = HmacSha256::new_from_slice(self.0.as_slice())
            .unwrap_or_else(|_| HmacSha256::new(&[0; 64].into()));
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }

    fn digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.mac(parts).finalize().into_bytes().into()
    }

    /// The digest's first bytes.
    fn short<const N: usize>(&self, parts: &[&[u8]]) -> [u8; N] {
        let mut bytes = self.digest(parts).into_iter();
        std::array::from_fn(|_| bytes.next().unwrap_or_default())
    }
}

/// Every key of this ledger.
#[derive(Clone)]
pub struct Secrets {
    root: Key,
    tokens: Key,
    requests: Key,
    shops: Key,
    partners: Key,
    counter: Key,
    search: Key,
    accounts: Key,
    second_factors: Key,
    csrf: Key,
    names: Key,
    subjects: Key,
    begun: Key,
    gifts: GiftCodes,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.id())
    }
}

impl Secrets {
    /// The keys that follow from a root secret.
    #[must_use]
    pub fn from_root(root: [u8; 32]) -> Self {
        let root = Key(Arc::new(root));
        let derive = |purpose: &str| Key(Arc::new(root.digest(&[b"coupon-ledger", purpose.as_bytes()])));
        let gifts = derive("gift codes");
        let key_id = hex(&gifts.short::<4>(&[b"id"]));
        Self {
            tokens: derive("tokens"),
            requests: derive("requests"),
            shops: derive("shop QR codes"),
            partners: derive("partner pages"),
            counter: derive("counter codes"),
            search: derive("member search"),
            accounts: derive("account codes"),
            second_factors: derive("second factors"),
            csrf: derive("csrf tokens"),
            names: derive("sign-in names"),
            subjects: derive("subjects"),
            begun: derive("sign-ins begun"),
            gifts: GiftCodes { key: gifts, key_id: key_id.into() },
            root,
        }
    }

    /// A root secret as it is written to a file: 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const SHAPE: &str = "the secret must be 64 hexadecimal digits";
        let text = text.trim();
        if text.len() != 64 || !text.is_ascii() {
            return Err(SHAPE);
        }
        let mut root = [0; 32];
        for (byte, digits) in root.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| SHAPE)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| SHAPE)?;
        }
        Ok(Self::from_root(root))
    }

    /// What tells one root secret from another without giving it away; the database remembers it, so that a server
    /// with another secret does not start on this ledger.
    #[must_use]
    pub fn id(&self) -> String {
        hex(&self.root.short::<8>(&[b"id"]))
    }

    /// The key of a generation that signs checkpoints of the transparency log. No copy of the database holds one.
    #[must_use]
    pub fn checkpoint_key(&self, generation: u32) -> SigningKey {
        let purpose = format!("checkpoint key {generation}");
        SigningKey::from_bytes(&self.root.digest(&[b"coupon-ledger", purpose.as_bytes()]))
    }

    /// The gift codes of this ledger.
    #[must_use]
    pub fn gift_codes(&self) -> &GiftCodes {
        &self.gifts
    }

    /// The receipt's fingerprint of a request: it tells whether the same key came with the same body.
    #[must_use]
    pub fn request_mac(&self, canonical_body: &str) -> String {
        hex(&self.requests.digest(&[canonical_body.as_bytes()]))
    }

    /// What stands in the database for how a text of a member begins: equal for equal beginnings of one field, and
    /// nothing to whoever has not this key.
    #[must_use]
    pub fn search_token(&self, field: &str, beginning: &str) -> i64 {
        i64::from_be_bytes(self.search.short(&[field.as_bytes(), beginning.as_bytes()]))
    }

    /// The signature of a token's payload.
    #[must_use]
    pub fn sign_token(&self, payload: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.tokens.digest(&[payload.as_bytes()]))
    }

    /// Checks a token's signature in constant time.
    #[must_use]
    pub fn token_is_ours(&self, payload: &str, signature: &str) -> bool {
        URL_SAFE_NO_PAD
            .decode(signature)
            .is_ok_and(|signature| self.tokens.mac(&[payload.as_bytes()]).verify_slice(&signature).is_ok())
    }

    /// The URL in a shop's redemption QR: `{base}/qr/{shop}/{key}/{signature}`.
    #[must_use]
    pub fn shop_url(&self, base: &str, shop_id: i64, audit_key: u32) -> String {
        let unsigned = format!("{}/qr/{shop_id}/{audit_key}", base.trim_end_matches('/'));
        let signature = URL_SAFE_NO_PAD.encode(self.shops.short::<16>(&[unsigned.as_bytes()]));
        format!("{unsigned}/{signature}")
    }

    /// The shop and the number of its key in a URL that this ledger signed, byte for byte; whether that key is still
    /// the shop's is for the caller to ask.
    #[must_use]
    pub fn signed_shop(&self, url: &str) -> Option<(i64, u32)> {
        let (unsigned, signature) = url.rsplit_once('/')?;
        let signature_bytes = URL_SAFE_NO_PAD.decode(signature).ok()?;
        if signature_bytes.len() != 16 {
            return None;
        }
        self.shops.mac(&[unsigned.as_bytes()]).verify_truncated_left(&signature_bytes).ok()?;
        let (rest, audit_key) = unsigned.rsplit_once('/')?;
        let (_, shop_id) = rest.rsplit_once('/')?;
        Some((shop_id.parse().ok()?, audit_key.parse().ok()?))
    }

    /// The URL of the page where members find what a partner hands out: `{base}/partner/{partner}/{signature}`.
    #[must_use]
    pub fn partner_url(&self, base: &str, partner_id: i64) -> String {
        let unsigned = format!("{}/partner/{partner_id}", base.trim_end_matches('/'));
        let signature = URL_SAFE_NO_PAD.encode(self.partners.short::<16>(&[unsigned.as_bytes()]));
        format!("{unsigned}/{signature}")
    }

    /// The partner in a URL that this ledger signed, byte for byte.
    #[must_use]
    pub fn signed_partner(&self, url: &str) -> Option<i64> {
        let (unsigned, signature) = url.rsplit_once('/')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok().filter(|bytes| bytes.len() == 16)?;
        self.partners.mac(&[unsigned.as_bytes()]).verify_truncated_left(&signature).ok()?;
        unsigned.rsplit_once('/')?.1.parse().ok()
    }

    /// The code that a member shows at the counter: which coupon, its version, and when it lapses, under 128 bits that
    /// nobody else can make.
    #[must_use]
    pub fn counter_code(&self, coupon_id: i64, version: i64, lapses_at_ms: i64) -> String {
        let unsigned = format!("cc1.{coupon_id}.{version}.{lapses_at_ms}");
        let signature = URL_SAFE_NO_PAD.encode(self.counter.short::<16>(&[unsigned.as_bytes()]));
        format!("{unsigned}.{signature}")
    }

    /// (coupon, version, when it lapses) of a code that this ledger made, byte for byte.
    #[must_use]
    pub fn read_counter_code(&self, code: &str) -> Option<(i64, i64, i64)> {
        let (unsigned, signature) = code.trim().rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok().filter(|bytes| bytes.len() == 16)?;
        self.counter.mac(&[unsigned.as_bytes()]).verify_truncated_left(&signature).ok()?;
        let mut numbers = unsigned.strip_prefix("cc1.")?.split('.').map(|number| number.parse().ok());
        match (numbers.next()?, numbers.next()?, numbers.next()?, numbers.next()) {
            (Some(coupon_id), Some(version), Some(lapses_at_ms), None) => {
                Some((coupon_id, version, lapses_at_ms))
            }
            _ => None,
        }
    }
}

/// A code that lets somebody choose a password, once the secrets have found it ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordCode {
    /// Of an account: which, and the code's number there.
    Account(i64, u32),
    /// Of the first operator, whose account it makes; until when it holds, Unix milliseconds.
    Setup(i64),
}

impl Secrets {
    /// The text of such a code. Asked again, it is the same; no copy of the database holds it.
    #[must_use]
    pub fn password_code(&self, code: PasswordCode) -> String {
        let unsigned = match code {
            PasswordCode::Account(account_id, number) => format!("ac1.{account_id}.{number}"),
            PasswordCode::Setup(lapses_at_ms) => format!("su1.{lapses_at_ms}"),
        };
        let signature = URL_SAFE_NO_PAD.encode(self.accounts.short::<16>(&[unsigned.as_bytes()]));
        format!("{unsigned}.{signature}")
    }

    /// The code in a text, if this ledger made it, byte for byte.
    #[must_use]
    pub fn read_password_code(&self, text: &str) -> Option<PasswordCode> {
        let (unsigned, signature) = text.trim().rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok().filter(|bytes| bytes.len() == 16)?;
        self.accounts.mac(&[unsigned.as_bytes()]).verify_truncated_left(&signature).ok()?;
        match unsigned.split('.').collect::<Vec<_>>().as_slice() {
            ["ac1", account_id, number] => {
                Some(PasswordCode::Account(account_id.parse().ok()?, number.parse().ok()?))
            }
            ["su1", lapses_at_ms] => Some(PasswordCode::Setup(lapses_at_ms.parse().ok()?)),
            _ => None,
        }
    }

    /// The secret of an account's second factor (RFC 6238), by its number: each time it is set up it is another.
    #[must_use]
    pub fn second_factor(&self, account_id: i64, number: u32) -> [u8; 20] {
        self.second_factors.short(&[&account_id.to_be_bytes(), &number.to_be_bytes()])
    }

    /// What a page must send with every write of a session that came in a cookie.
    #[must_use]
    pub fn csrf_token(&self, session_id: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.csrf.short::<16>(&[session_id.as_bytes()]))
    }

    /// Checks it in constant time.
    #[must_use]
    pub fn is_csrf_token(&self, session_id: &str, token: &str) -> bool {
        URL_SAFE_NO_PAD.decode(token).is_ok_and(|token| {
            token.len() == 16 && self.csrf.mac(&[session_id.as_bytes()]).verify_truncated_left(&token).is_ok()
        })
    }

    /// What stands in the database for whom a provider names.
    #[must_use]
    pub fn subject(&self, issuer: &str, subject: &str) -> String {
        hex(&self.subjects.short::<16>(&[issuer.as_bytes(), subject.as_bytes()]))
    }

    /// A sign-in that was begun, signed for its way through a browser.
    #[must_use]
    pub fn sign_begun(&self, text: &str) -> String {
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(self.begun.short::<16>(&[text.as_bytes()])))
    }

    /// What was signed, if it was by this ledger.
    #[must_use]
    pub fn read_begun(&self, signed: &str) -> Option<String> {
        let (text, signature) = signed.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok().filter(|bytes| bytes.len() == 16)?;
        self.begun.mac(&[text.as_bytes()]).verify_truncated_left(&signature).ok()?;
        Some(text.to_owned())
    }

    /// What stands in the database for a name that somebody tried to sign in with, whether there is such an account or not.
    #[must_use]
    pub fn sign_in_name(&self, name: &str) -> String {
        hex(&self.names.short::<16>(&[name.as_bytes()]))
    }
}

/// The function from a coupon and the number of a gift to the gift's six-digit code.
#[derive(Clone)]
pub struct GiftCodes {
    key: Key,
    key_id: Arc<str>,
}

impl fmt::Debug for GiftCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GiftCodes({})", self.key_id)
    }
}

impl GiftCodes {
    /// The id of the key, which the Given event records.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The code of a gift: 100000 to 999999. Asked again, it is the same.
    #[must_use]
    pub fn code(&self, coupon_id: i64, gift: u32) -> i64 {
        let digest = self.key.digest(&[b"code", &coupon_id.to_be_bytes(), &gift.to_be_bytes()]);
        let number = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        100_000 + (number % 900_000) as i64
    }

    /// Whether this is that gift's code.
    #[must_use]
    pub fn matches(&self, coupon_id: i64, gift: u32, code: i64) -> bool {
        // Five tries a gift, counted durably, are what protects six digits; timing adds nothing to them.
        self.code(coupon_id, gift) == code
    }
}

/// What the log keeps of a review's text: SHA-256 over the salt and the text.
#[must_use]
pub fn review_hash(salt: &str, text: &str) -> String {
    let mut hash = Sha256::new();
    hash.update((salt.len() as u64).to_be_bytes());
    hash.update(salt);
    hash.update(text);
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partners_url_is_accepted_byte_for_byte_only_and_is_no_shops() {
        let secrets = Secrets::from_root([7; 32]);
        let url = secrets.partner_url("https://coupons.example/", 12);
        assert_eq!(secrets.signed_partner(&url), Some(12));
        assert_eq!(secrets.signed_shop(&url), None);
        for other in
            [url.replace("/12/", "/13/"), url.replace("https", "http"), format!("{url}A"), String::new()]
        {
            assert_eq!(secrets.signed_partner(&other), None, "{other}");
        }
        assert_eq!(Secrets::from_root([8; 32]).signed_partner(&url), None);
    }

    #[test]
    fn a_shop_url_is_accepted_byte_for_byte_only() {
        let secrets = Secrets::from_root([7; 32]);
        let url = secrets.shop_url("https://coupons.example/", 12, 3);
        assert_eq!(secrets.signed_shop(&url), Some((12, 3)));
        for at in 0..url.len() {
            let mut other = url.clone().into_bytes();
            other[at] ^= 1;
            if let Ok(other) = String::from_utf8(other) {
                assert_eq!(secrets.signed_shop(&other), None, "{other}");
            }
        }
        assert_eq!(Secrets::from_root([8; 32]).signed_shop(&url), None);
    }

    #[test]
    fn a_password_code_is_accepted_byte_for_byte_only() {
        let secrets = Secrets::from_root([7; 32]);
        for code in [PasswordCode::Account(7, 3), PasswordCode::Setup(1_795_406_400_000)] {
            let text = secrets.password_code(code);
            assert_eq!(secrets.read_password_code(&text), Some(code));
            assert_eq!(Secrets::from_root([8; 32]).read_password_code(&text), None);
            for at in 0..text.len() {
                let mut other = text.clone().into_bytes();
                other[at] ^= 1;
                if let Ok(other) = String::from_utf8(other) {
                    assert_eq!(secrets.read_password_code(&other), None, "{other}");
                }
            }
        }
    }

    #[test]
    fn gift_codes_have_six_digits_and_are_the_same_when_asked_again() {
        let secrets = Secrets::from_root([7; 32]);
        for gift in 1..2_000 {
            let code = secrets.gift_codes().code(1, gift);
            assert!((100_000..=999_999).contains(&code));
            assert!(secrets.gift_codes().matches(1, gift, code));
        }
    }

    #[test]
    fn a_secret_is_64_hexadecimal_digits() {
        assert!(Secrets::parse(&"ab".repeat(32)).is_ok());
        for bad in ["", "ab", &"zz".repeat(32), &"é".repeat(32)] {
            assert!(Secrets::parse(bad).is_err());
        }
    }
}
