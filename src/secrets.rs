//! The keys that live outside the database, and the keyed functions made of them.
//!
//! One root secret (a file of mode 0600, or the environment) yields a key per purpose, so that a copy of the database
//! alone gives no token, no gift code, no shop QR and no request. Nothing here is ever logged or stored.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
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

    /// A key for a purpose of its own.
    fn derive(&self, purpose: &str) -> Self {
        Self(Arc::new(self.digest(&[b"coupon-ledger", purpose.as_bytes()])))
    }

    /// The digest's first bytes.
    fn short<const N: usize>(&self, parts: &[&[u8]]) -> [u8; N] {
        let mut bytes = self.digest(parts).into_iter();
        std::array::from_fn(|_| bytes.next().unwrap_or_default())
    }
}

/// What a key that is rotated is for. Those that sign checkpoints are rotated by themselves: auditors pin their public
/// halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Signs tokens, and the codes that members show at the counter.
    Token,
    /// Signs the URLs in the QR codes of shops and partners.
    Qr,
    /// Makes gift codes: their pepper.
    Gift,
}

impl Purpose {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Token, Self::Qr, Self::Gift];

    /// Its name in events and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Qr => "qr",
            Self::Gift => "gift",
        }
    }
}

/// The generations of a purpose's keys that are good by now: the newest one signs. The first one of all is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// What an older one signed is refused.
    pub oldest: u32,
    /// The one that signs.
    pub newest: u32,
}

/// Which generations are good, by purpose. The log says so; whoever reads it tells all who hold these secrets.
type Ring = Arc<RwLock<[Accepted; Purpose::ALL.len()]>>;

/// The keys of one use, a key for each generation, all of them made of the root secret.
#[derive(Clone)]
struct Line {
    root: Key,
    name: &'static str,
    of: Purpose,
    ring: Ring,
}

impl Line {
    fn accepted(&self) -> Accepted {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.get(self.of as usize).copied().unwrap_or(Accepted { oldest: 1, newest: 1 })
    }

    fn key(&self, generation: u32) -> Key {
        let name = if generation == 1 { self.name.to_owned() } else { format!("{} {generation}", self.name) };
        self.root.derive(&name)
    }

    /// A key's name to the world.
    fn id(&self, generation: u32) -> String {
        hex(&self.key(generation).short::<4>(&[b"id"]))
    }

    /// The first `N` bytes of the newest key's digest, behind its generation where that is not the first.
    fn tag<const N: usize>(&self, text: &str) -> String {
        let generation = self.accepted().newest;
        let tag = URL_SAFE_NO_PAD.encode(self.key(generation).short::<N>(&[text.as_bytes()]));
        if generation == 1 { tag } else { format!("{generation}.{tag}") }
    }

    /// Whether this is the tag of that text under a key that is good, in constant time. A generation that is not known here yet
    /// is one that another server has begun: nobody else can make its keys.
    fn has_tagged<const N: usize>(&self, text: &str, tag: &str) -> bool {
        let (generation, tag) = match tag.split_once('.') {
            None => (1, tag),
            Some((number, tag)) => match number.parse::<u32>() {
                Ok(generation) if generation > 1 && generation.to_string() == number => (generation, tag),
                _ => return false,
            },
        };
        let tag = URL_SAFE_NO_PAD.decode(tag).ok().filter(|bytes| bytes.len() == N);
        generation >= self.accepted().oldest
            && tag.is_some_and(|tag| {
                self.key(generation).mac(&[text.as_bytes()]).verify_truncated_left(&tag).is_ok()
            })
    }
}

/// Every key of this ledger.
#[derive(Clone)]
pub struct Secrets {
    root: Key,
    tokens: Line,
    requests: Key,
    shops: Line,
    partners: Line,
    counter: Line,
    search: Key,
    wechat: Key,
    accounts: Key,
    second_factors: Key,
    csrf: Key,
    names: Key,
    subjects: Key,
    begun: Key,
    webhooks: Key,
    downloads: Key,
    gifts: GiftCodes,
    ring: Ring,
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
        let ring = Ring::new(RwLock::new([Accepted { oldest: 1, newest: 1 }; Purpose::ALL.len()]));
        let line = |of, name| Line { root: root.clone(), name, of, ring: ring.clone() };
        Self {
            tokens: line(Purpose::Token, "tokens"),
            requests: root.derive("requests"),
            shops: line(Purpose::Qr, "shop QR codes"),
            partners: line(Purpose::Qr, "partner pages"),
            counter: line(Purpose::Token, "counter codes"),
            search: root.derive("member search"),
            wechat: root.derive("wechat sign-in"),
            accounts: root.derive("account codes"),
            second_factors: root.derive("second factors"),
            csrf: root.derive("csrf tokens"),
            names: root.derive("sign-in names"),
            subjects: root.derive("subjects"),
            begun: root.derive("sign-ins begun"),
            webhooks: root.derive("webhooks"),
            downloads: root.derive("download links"),
            gifts: GiftCodes(line(Purpose::Gift, "gift codes")),
            ring,
            root,
        }
    }

    /// Tells everybody who holds these secrets which generations are good by now.
    pub fn accept(&self, purpose: Purpose, accepted: Accepted) {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = ring.get_mut(purpose as usize) {
            *place = accepted;
        }
    }

    /// What a key is called without being given away.
    #[must_use]
    pub fn key_id(&self, purpose: Purpose, generation: u32) -> String {
        match purpose {
            Purpose::Token => self.tokens.id(generation),
            Purpose::Qr => self.shops.id(generation),
            Purpose::Gift => self.gifts.0.id(generation),
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
        SigningKey::from_bytes(&self.root.derive(&format!("checkpoint key {generation}")).0)
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

    /// What stands in the database for an openid: equal for equal ones of one app, and nothing to whoever has not this key.
    #[must_use]
    pub fn openid_hash(&self, appid: &str, openid: &str) -> String {
        hex(&self.wechat.digest(&[b"openid", appid.as_bytes(), openid.as_bytes()]))
    }

    /// The `state` that goes to WeChat's page and back for a browser that keeps this cookie: letters and digits, as WeChat
    /// wants them.
    #[must_use]
    pub fn wechat_state(&self, cookie: &str) -> String {
        hex(&self.wechat.digest(&[b"state", cookie.as_bytes()]))
    }

    /// Whether a `state` belongs to this cookie, in constant time.
    #[must_use]
    pub fn is_wechat_state(&self, cookie: &str, state: &str) -> bool {
        let expected = self.wechat_state(cookie);
        let difference = expected.bytes().zip(state.bytes()).fold(0, |all, (one, other)| all | (one ^ other));
        expected.len() == state.len() && difference == 0
    }

    /// The signature of a token's payload.
    #[must_use]
    pub fn sign_token(&self, payload: &str) -> String {
        self.tokens.tag::<32>(payload)
    }

    /// Checks a token's signature in constant time.
    #[must_use]
    pub fn token_is_ours(&self, payload: &str, signature: &str) -> bool {
        self.tokens.has_tagged::<32>(payload, signature)
    }

    /// The URL in a shop's redemption QR: `{base}/qr/{shop}/{key}/{signature}`.
    #[must_use]
    pub fn shop_url(&self, base: &str, shop_id: i64, audit_key: u32) -> String {
        let unsigned = format!("{}/qr/{shop_id}/{audit_key}", base.trim_end_matches('/'));
        let signature = self.shops.tag::<16>(&unsigned);
        format!("{unsigned}/{signature}")
    }

    /// The shop and the number of its key in a URL that this ledger signed, byte for byte; whether that key is still
    /// the shop's is for the caller to ask.
    #[must_use]
    pub fn signed_shop(&self, url: &str) -> Option<(i64, u32)> {
        let (unsigned, signature) = url.rsplit_once('/')?;
        if !self.shops.has_tagged::<16>(unsigned, signature) {
            return None;
        }
        let (rest, audit_key) = unsigned.rsplit_once('/')?;
        let (_, shop_id) = rest.rsplit_once('/')?;
        Some((shop_id.parse().ok()?, audit_key.parse().ok()?))
    }

    /// The URL of the page where members find what a partner hands out: `{base}/partner/{partner}/{signature}`.
    #[must_use]
    pub fn partner_url(&self, base: &str, partner_id: i64) -> String {
        let unsigned = format!("{}/partner/{partner_id}", base.trim_end_matches('/'));
        let signature = self.partners.tag::<16>(&unsigned);
        format!("{unsigned}/{signature}")
    }

    /// The partner in a URL that this ledger signed, byte for byte.
    #[must_use]
    pub fn signed_partner(&self, url: &str) -> Option<i64> {
        let (unsigned, signature) = url.rsplit_once('/')?;
        if !self.partners.has_tagged::<16>(unsigned, signature) {
            return None;
        }
        unsigned.rsplit_once('/')?.1.parse().ok()
    }

    /// The code that a member shows at the counter: which coupon, its version, and when it lapses, under 128 bits that
    /// nobody else can make.
    #[must_use]
    pub fn counter_code(&self, coupon_id: i64, version: i64, lapses_at_ms: i64) -> String {
        let unsigned = format!("cc1.{coupon_id}.{version}.{lapses_at_ms}");
        let signature = self.counter.tag::<16>(&unsigned);
        format!("{unsigned}.{signature}")
    }

    /// (coupon, version, when it lapses) of a code that this ledger made, byte for byte.
    #[must_use]
    pub fn read_counter_code(&self, code: &str) -> Option<(i64, i64, i64)> {
        let code = code.trim();
        // The fourth point parts what is signed from its signature, which may have one of its own.
        let (at, _) = code.match_indices('.').nth(3)?;
        let (unsigned, signature) = (code.get(..at)?, code.get(at + 1..)?);
        if !self.counter.has_tagged::<16>(unsigned, signature) {
            return None;
        }
        let mut numbers = unsigned.strip_prefix("cc1.")?.split('.').map(|number| number.parse().ok());
        Some((numbers.next()??, numbers.next()??, numbers.next()??))
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

    /// The secret that signs what is sent to a webhook, by its generation. Asked again, it is the same; no copy of the database
    /// holds it.
    #[must_use]
    pub fn webhook_secret(&self, webhook_id: i64, generation: u32) -> [u8; 32] {
        self.webhooks.digest(&[&webhook_id.to_be_bytes(), &generation.to_be_bytes()])
    }

    /// What a link to an export's file shows, by which it is good until an instant (Unix milliseconds).
    #[must_use]
    pub fn download_signature(&self, export_id: i64, until_ms: i64) -> String {
        let parts = [&export_id.to_be_bytes()[..], &until_ms.to_be_bytes()];
        URL_SAFE_NO_PAD.encode(self.downloads.short::<16>(&parts))
    }

    /// Checks it in constant time.
    #[must_use]
    pub fn is_download_signature(&self, export_id: i64, until_ms: i64, signature: &str) -> bool {
        let parts = [&export_id.to_be_bytes()[..], &until_ms.to_be_bytes()];
        URL_SAFE_NO_PAD.decode(signature).is_ok_and(|signature| {
            signature.len() == 16 && self.downloads.mac(&parts).verify_truncated_left(&signature).is_ok()
        })
    }

    /// What stands in the database for a name that somebody tried to sign in with, whether there is such an account or not.
    #[must_use]
    pub fn sign_in_name(&self, name: &str) -> String {
        hex(&self.names.short::<16>(&[name.as_bytes()]))
    }
}

/// The function from a coupon and the number of a gift to the gift's six-digit code.
#[derive(Clone)]
pub struct GiftCodes(Line);

impl fmt::Debug for GiftCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GiftCodes({})", self.key_id())
    }
}

impl GiftCodes {
    /// How many generations beyond those that are known here another server may have begun meanwhile.
    const AHEAD: u32 = 2;

    /// The id of the key by which gifts get their codes from now on, which the Given event records.
    #[must_use]
    pub fn key_id(&self) -> String {
        self.0.id(self.0.accepted().newest)
    }

    /// The code of a gift: 100000 to 999999. Asked again, it is the same: a gift keeps the key by which it was given. One of
    /// another ledger, which this one has taken over, gets this ledger's first key.
    #[must_use]
    pub fn code(&self, coupon_id: i64, gift: u32, key_id: &str) -> i64 {
        let newest = self.0.accepted().newest.saturating_add(Self::AHEAD);
        let generation = (1..=newest).rev().find(|generation| self.0.id(*generation) == key_id).unwrap_or(1);
        let digest = self.0.key(generation).digest(&[b"code", &coupon_id.to_be_bytes(), &gift.to_be_bytes()]);
        let number = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        100_000 + (number % 900_000) as i64
    }

    /// Whether this is that gift's code.
    #[must_use]
    pub fn matches(&self, coupon_id: i64, gift: u32, key_id: &str, code: i64) -> bool {
        // Five tries a gift, counted durably, are what protects six digits; timing adds nothing to them.
        self.code(coupon_id, gift, key_id) == code
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
        for bit in 0..url.len() * 8 {
            let mut other = url.clone().into_bytes();
            other[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = String::from_utf8(other) {
                assert_eq!(secrets.signed_shop(&other), None, "{other}");
            }
        }
        assert_eq!(Secrets::from_root([8; 32]).signed_shop(&url), None);
    }

    #[test]
    fn a_state_belongs_to_its_cookie_and_an_openid_to_its_app() {
        let secrets = Secrets::from_root([7; 32]);
        let state = secrets.wechat_state("cookie");
        assert!(state.len() <= 128 && state.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{state}");
        assert!(secrets.is_wechat_state("cookie", &state));
        for (cookie, state) in
            [("cookie2", state.as_str()), ("cookie", &state[1..]), ("cookie", ""), ("", &state)]
        {
            assert!(!secrets.is_wechat_state(cookie, state), "{cookie} {state}");
        }
        let others = [
            secrets.openid_hash("wx2", "o1"),
            secrets.openid_hash("wx1", "o2"),
            secrets.openid_hash("wx1o", "1"),
        ];
        assert!(!others.contains(&secrets.openid_hash("wx1", "o1")));
        assert!(!Secrets::from_root([8; 32]).is_wechat_state("cookie", &state));
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
        let key_id = secrets.gift_codes().key_id();
        for gift in 1..2_000 {
            let code = secrets.gift_codes().code(1, gift, &key_id);
            assert!((100_000..=999_999).contains(&code));
            assert!(secrets.gift_codes().matches(1, gift, &key_id, code));
        }
    }

    /// Each with one of each thing that is signed, made when the newest generation was this.
    fn signed(secrets: &Secrets, newest: u32) -> [(&'static str, String); 4] {
        for purpose in Purpose::ALL {
            secrets.accept(purpose, Accepted { oldest: 1, newest });
        }
        [
            ("token", format!("payload {}", secrets.sign_token("payload"))),
            ("shop", secrets.shop_url("https://coupons.example", 12, 3)),
            ("partner", secrets.partner_url("https://coupons.example", 12)),
            ("counter", secrets.counter_code(1, 2, 3)),
        ]
    }

    fn is_good(secrets: &Secrets, what: &str, text: &str) -> bool {
        match what {
            "token" => text.split_once(' ').is_some_and(|(payload, tag)| secrets.token_is_ours(payload, tag)),
            "shop" => secrets.signed_shop(text).is_some(),
            "partner" => secrets.signed_partner(text).is_some(),
            _ => secrets.read_counter_code(text).is_some(),
        }
    }

    #[test]
    fn what_a_key_signed_is_good_as_long_as_the_key_is() {
        let secrets = Secrets::from_root([7; 32]);
        for made in 1..=4 {
            for (what, text) in signed(&secrets, made) {
                for (oldest, newest) in [(1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (4, 4)] {
                    for purpose in Purpose::ALL {
                        secrets.accept(purpose, Accepted { oldest, newest });
                    }
                    // Where a server does not know yet that there is a newer key, what it signed is good all the same.
                    assert_eq!(is_good(&secrets, what, &text), made >= oldest, "{what} {made} {oldest}");
                }
            }
        }
        // Copies know what one of them was told.
        let copy = secrets.clone();
        copy.accept(Purpose::Token, Accepted { oldest: 5, newest: 5 });
        assert!(secrets.sign_token("payload").starts_with("5."));
    }

    #[test]
    fn not_one_bit_of_what_is_signed_can_be_another() {
        for newest in [1, 2] {
            let secrets = Secrets::from_root([7; 32]);
            for (what, text) in signed(&secrets, newest) {
                assert!(is_good(&secrets, what, &text), "{text}");
                for at in 0..text.len() * 8 {
                    let mut other = text.clone().into_bytes();
                    other[at / 8] ^= 1 << (at % 8);
                    if let Ok(other) = String::from_utf8(other) {
                        assert!(!is_good(&secrets, what, &other), "{other}");
                    }
                }
                for other in [format!("{text}A"), format!("{text}="), text[..text.len() - 1].to_owned()] {
                    assert!(!is_good(&secrets, what, &other), "{other}");
                }
            }
        }
    }

    #[test]
    fn a_generation_is_written_in_one_way_only() {
        let secrets = Secrets::from_root([7; 32]);
        let [(_, text), ..] = signed(&secrets, 1);
        let tag = text.split_once(' ').unwrap().1;
        assert!(secrets.token_is_ours("payload", tag));
        for number in ["1", "0", "01", "+1", "-1", "", " 1", "4294967296"] {
            assert!(!secrets.token_is_ours("payload", &format!("{number}.{tag}")), "{number}");
        }
    }

    #[test]
    fn a_gift_keeps_the_key_by_which_it_was_given() {
        let secrets = Secrets::from_root([7; 32]);
        let codes = secrets.gift_codes();
        let (first, code) = (codes.key_id(), codes.code(1, 1, &codes.key_id()));
        secrets.accept(Purpose::Gift, Accepted { oldest: 2, newest: 2 });
        let second = codes.key_id();
        assert_ne!(first, second);
        assert_eq!(codes.code(1, 1, &first), code);
        assert_ne!(codes.code(1, 1, &second), code);
        // Another server that has not heard of the second key knows a gift's code all the same.
        let behind = Secrets::from_root([7; 32]);
        assert_eq!(behind.gift_codes().code(1, 1, &second), codes.code(1, 1, &second));
        // Of a ledger that was taken over: the first key's.
        assert_eq!(codes.code(1, 1, "00000000"), code);
    }

    #[test]
    fn a_secret_is_64_hexadecimal_digits() {
        assert!(Secrets::parse(&"ab".repeat(32)).is_ok());
        for bad in ["", "ab", &"zz".repeat(32), &"é".repeat(32)] {
            assert!(Secrets::parse(bad).is_err());
        }
    }
}
