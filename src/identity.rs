//! Who calls: bearer tokens, and what a caller may do.
//!
//! A token is `cl1.<payload>.<signature>`: checked without the database, ended by its own date, and cut short by the
//! list of revoked tokens that every process reads again within a minute. Whoever signs in with a name and a password has
//! a session instead, `cs1.<id>.<secret>`: it means nothing by itself, and the database is asked at each call.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::account::AccountRole;
use crate::secrets::Secrets;
use crate::value::{MAX_ID, hex, parse_int, random};

/// Whoever makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Caller {
    /// A member, by his id.
    Member(i64),
    /// A shop's employee, by his id.
    Employee(i64),
    /// A partner, by his id: he sees what is his.
    Partner(i64),
    /// A program with a key of its own, by the key's id.
    Machine(i64),
    /// An operator who signed in, by his account's id.
    OperatorAccount(i64),
    /// An auditor who signed in, by his account's id: reads everything, changes nothing.
    AuditorAccount(i64),
    /// Whoever holds an operator's token from the command line.
    Operator,
    /// The same of an auditor.
    Auditor,
    /// The ledger itself: sweeps and the demo world.
    System,
}

impl Caller {
    /// The kind of caller, as metadata and metrics name it.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Member(_) => "member",
            Self::Employee(_) => "employee",
            Self::Partner(_) => "partner",
            Self::Machine(_) => "machine",
            Self::Operator | Self::OperatorAccount(_) => "operator",
            Self::Auditor | Self::AuditorAccount(_) => "auditor",
            Self::System => "system",
        }
    }

    /// The id behind the manual's `user_id`: the employee's, or 0.
    #[must_use]
    pub fn employee_id(self) -> i64 {
        match self {
            Self::Employee(id) => id,
            _ => 0,
        }
    }
}

impl Caller {
    /// As whom somebody acts who signs in with this account.
    #[must_use]
    pub fn of_account(role: AccountRole, account_id: i64) -> Self {
        match role {
            AccountRole::Operator => Self::OperatorAccount(account_id),
            AccountRole::Auditor => Self::AuditorAccount(account_id),
            AccountRole::Employee(employee_id) => Self::Employee(employee_id),
        }
    }

    /// A caller as he is displayed, `member:439`, `operator:7` or `operator`; `member/439` is understood too.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let Some((kind, id)) = text.split_once([':', '/']) else {
            return [Self::Operator, Self::Auditor, Self::System]
                .into_iter()
                .find(|caller| caller.kind() == text);
        };
        let id = parse_int(id, 1, MAX_ID).ok().filter(|id| (1..=MAX_ID).contains(id))?;
        let with_ids = [
            Self::Member,
            Self::Employee,
            Self::Partner,
            Self::Machine,
            Self::OperatorAccount,
            Self::AuditorAccount,
        ];
        with_ids.into_iter().map(|caller| caller(id)).find(|caller| caller.kind() == kind)
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(id)
            | Self::Employee(id)
            | Self::Partner(id)
            | Self::Machine(id)
            | Self::OperatorAccount(id)
            | Self::AuditorAccount(id) => write!(f, "{}:{id}", self.kind()),
            _ => f.write_str(self.kind()),
        }
    }
}

/// What a token says, once its signature is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Whose it is.
    #[serde(rename = "c")]
    pub caller: Caller,
    /// Its own id, by which it can be revoked.
    #[serde(rename = "t")]
    pub id: String,
    /// From when on it is worthless, Unix seconds.
    #[serde(rename = "e")]
    pub expires_at_s: i64,
}

impl Token {
    /// A new token for a caller, valid for `ttl_s` seconds from `now_ms`.
    #[must_use]
    pub fn new(caller: Caller, now_ms: i64, ttl_s: i64) -> Self {
        Self { caller, id: hex(&random::<8>()), expires_at_s: (now_ms / 1000).saturating_add(ttl_s) }
    }

    /// The token as it travels.
    #[must_use]
    pub fn sign(&self, secrets: &Secrets) -> String {
        let payload = serde_json::to_vec(self).unwrap_or_default();
        let payload = URL_SAFE_NO_PAD.encode(payload);
        let signature = secrets.sign_token(&payload);
        format!("cl1.{payload}.{signature}")
    }

    /// The token in a text, if this ledger signed it and it has not ended.
    #[must_use]
    pub fn verify(text: &str, secrets: &Secrets, now_ms: i64) -> Option<Self> {
        let token = Self::read(text, secrets)?;
        (now_ms < token.expires_at_s.saturating_mul(1000)).then_some(token)
    }

    /// The token in a text, if this ledger signed it, ended or not: what revoking needs.
    #[must_use]
    pub fn read(text: &str, secrets: &Secrets) -> Option<Self> {
        let (payload, signature) = text.trim().strip_prefix("cl1.")?.split_once('.')?;
        if !secrets.token_is_ours(payload, signature) {
            return None;
        }
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }
}

/// The token of a session. The database holds its id and the secret's hash: a copy of it yields no session.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionToken {
    /// Its id: 16 hexadecimal digits.
    pub id: String,
    secret: String,
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionToken({})", self.id)
    }
}

impl SessionToken {
    /// A new one, with 256 random bits.
    #[must_use]
    pub fn random() -> Self {
        Self { id: hex(&random::<8>()), secret: URL_SAFE_NO_PAD.encode(random::<32>()) }
    }

    /// The token in a text, if it has the shape of one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.trim().strip_prefix("cs1.")?.split_once('.')?;
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_secret = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let shaped =
            id.len() == 16 && id.bytes().all(is_hex) && secret.len() == 43 && secret.bytes().all(is_secret);
        shaped.then(|| Self { id: id.to_owned(), secret: secret.to_owned() })
    }

    /// The token as it travels.
    #[must_use]
    pub fn text(&self) -> String {
        format!("cs1.{}.{}", self.id, self.secret)
    }

    /// What the database keeps of the secret. It is random and long: one round of a plain hash hides it.
    #[must_use]
    pub fn secret_hash(&self) -> String {
        hex(&Sha256::digest(&self.secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_read_as_he_is_displayed() {
        let with_ids = [Caller::Member(439), Caller::Employee(1), Caller::Partner(2), Caller::Machine(3)];
        let of_accounts = [Caller::OperatorAccount(7), Caller::AuditorAccount(8)];
        let without = [Caller::Operator, Caller::Auditor, Caller::System];
        for caller in with_ids.into_iter().chain(of_accounts).chain(without) {
            assert_eq!(Caller::parse(&caller.to_string()), Some(caller));
        }
        assert_eq!(Caller::parse("employee/1000"), Some(Caller::Employee(1000)));
        for nobody in
            ["", "member", "member:", "member:0", "member:-1", "member:x", "system:1", "shop:1", ":1"]
        {
            assert_eq!(Caller::parse(nobody), None, "{nobody}");
        }
    }

    #[test]
    fn a_token_holds_until_its_end_and_only_under_its_secret() {
        let secrets = Secrets::from_root([1; 32]);
        let token = Token::new(Caller::Member(439), 1_000_000, 60);
        let text = token.sign(&secrets);
        assert_eq!(Token::verify(&text, &secrets, 1_059_999), Some(token.clone()));
        assert_eq!(Token::verify(&text, &secrets, 1_060_000), None);
        assert_eq!(Token::verify(&text, &Secrets::from_root([2; 32]), 1_000_000), None);
        assert_eq!(Token::read(&text, &secrets), Some(token));
        for garbage in ["", "cl1", "cl1.", "cl1..", "cl1.e30.", "cl1.e30.AAAA", "cl2.a.b"] {
            assert_eq!(Token::read(garbage, &secrets), None);
        }
    }

    #[test]
    fn a_token_with_one_flipped_bit_is_not_ours() {
        let secrets = Secrets::from_root([1; 32]);
        let text = Token::new(Caller::Operator, 0, 60).sign(&secrets);
        for bit in 0..text.len() * 8 {
            let mut other = text.clone().into_bytes();
            other[bit / 8] ^= 1 << (bit % 8);
            // What is no text is no header of ours either.
            let Ok(other) = String::from_utf8(other) else { continue };
            assert_eq!(Token::read(&other, &secrets), None, "{other}");
        }
    }

    #[test]
    fn a_session_is_read_as_it_travels_and_in_no_other_shape() {
        let token = SessionToken::random();
        let text = token.text();
        assert_eq!(SessionToken::parse(&text), Some(token.clone()));
        assert_ne!(SessionToken::random().secret_hash(), token.secret_hash());
        assert!(!format!("{token:?}").contains(&token.secret));
        let upper = format!("cs1.ABCDEF0123456789.{}", "A".repeat(43));
        for other in [&text[1..], &text[..text.len() - 1], &format!("{text}A"), "", "cs1.", "cs1..", &upper] {
            assert_eq!(SessionToken::parse(other), None, "{other}");
        }
    }
}
