//! Personal texts as they lie in the database: sealed under a key of their person, and what finds them all the same.
//!
//! Hides the cipher (XChaCha20-Poly1305, bound to table, column and member) and the search tokens. Promises that nothing
//! of a text can be read from the database, its write-ahead log or a backup without the person's key, and nothing at all
//! once that is destroyed: it then reads as empty. Must never write a plain text.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::person_keys::{PersonKeys, PersonKeysError};
use crate::secrets::Secrets;
use crate::store::{Statement, Store, StoreError};
use crate::value::random;

/// What a sealed text begins with. Whatever does not was written before there were keys, and is sealed at the next start.
const SEALED: &str = "sealed:1:";

const NONCE_BYTES: usize = 24;

/// Where a sealed text lies: it opens nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    table: &'static str,
    column: &'static str,
}

const fn place(table: &'static str, column: &'static str) -> Place {
    Place { table, column }
}

/// See [`super::Member::nickname`].
pub const NICKNAME: Place = place("members", "nickname");
/// See [`super::Member::headimgurl`].
pub const HEADIMGURL: Place = place("members", "headimgurl");
/// See [`super::Member::member_name`].
pub const MEMBER_NAME: Place = place("members", "member_name");
/// See [`super::Member::phone`].
pub const PHONE: Place = place("members", "phone");
/// See [`super::Member::member_card`].
pub const MEMBER_CARD: Place = place("members", "member_card");
/// Who he is to WeChat.
pub const OPENID: Place = place("wechat_bindings", "openid");
/// What a member wrote of a coupon.
pub const REVIEW_TEXT: Place = place("reviews", "text");
/// What the hash of it was made with.
pub const REVIEW_SALT: Place = place("reviews", "salt");

/// A field that is searched by how it begins, and how long the beginnings are that have a token. Few, because each is a row
/// for every member: enough that a search is led to some thousands among a million, which are then opened and looked at.
#[derive(Debug)]
pub struct Searched {
    name: &'static str,
    lengths: &'static [usize],
}

/// Telephone numbers: the operator's prefix and some, and most of a number.
pub const BY_PHONE: &Searched = &Searched { name: "phone", lengths: &[4, 7] };
/// Cards, whose numbers often begin alike.
pub const BY_CARD: &Searched = &Searched { name: "card", lengths: &[4, 8, 12] };
/// Names and nicknames: two characters are most of a Chinese name.
pub const BY_NAME: &Searched = &Searched { name: "name", lengths: &[2, 4] };

/// The most tokens that a member has: of his telephone number, his card, his name and his nickname.
pub const MAX_TOKENS: usize = 9;

/// The first characters of a text, where it has so many.
fn beginning(text: &str, length: usize) -> Option<&str> {
    match text.char_indices().nth(length) {
        Some((end, _)) => text.get(..end),
        None => (text.chars().count() == length).then_some(text),
    }
}

/// Seals and opens the texts of persons. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Seal {
    keys: PersonKeys,
    secrets: Arc<Secrets>,
}

impl Seal {
    /// The keys in a file, which must be this ledger's. The first start of a ledger makes them, and the ledger remembers
    /// their id.
    pub async fn open(store: &Store, secrets: &Secrets, path: &Path) -> Result<Self, SealError> {
        let fact = || Statement::new("SELECT value FROM ledger_facts WHERE name = 'person_keys_id'", []);
        let remembered = store.query(fact()).await?.first().map(|row| row.text(0).to_owned());
        let shown = || path.display().to_string();
        // A ledger whose tables were put there by hand does not remember whose keys they are written under.
        let sealed = if remembered.is_none() { first_sealed(store).await? } else { None };
        let keys = match (PersonKeys::read(path)?, &remembered) {
            (Some(keys), _) => keys,
            (None, None) if sealed.is_none() => PersonKeys::make(path)?,
            (None, _) => return Err(PersonKeysError::Missing { path: shown() }.into()),
        };
        let seal = Self { keys, secrets: Arc::new(secrets.clone()) };
        if let Some((member_id, place, text)) = sealed
            && seal.open_one(place, member_id, &text).is_err()
        {
            return Err(PersonKeysError::OpensNothing { path: shown() }.into());
        }
        if let Err(error) = seal.keys.clear_leftovers() {
            tracing::warn!(%error, "what a crash may have left of the person keys");
        }
        let expected = if let Some(id) = remembered {
            id
        } else {
            let sql = "INSERT INTO ledger_facts (name, value) VALUES ('person_keys_id', $1)
                       ON CONFLICT (name) DO NOTHING";
            let answers = store.write(vec![Statement::new(sql, [seal.keys.id().into()]), fact()]).await?;
            // Another server may have been first, with keys of its own.
            answers
                .get(1)
                .and_then(|rows| rows.first())
                .map_or_else(String::new, |row| row.text(0).to_owned())
        };
        seal.keys.refuse_other(&expected)?;
        Ok(seal)
    }

    /// The same for reading beside a server: makes nothing and writes nothing. None where the keys are not here, or the ledger
    /// has none yet.
    pub async fn find(store: &Store, secrets: &Secrets, path: &Path) -> Result<Option<Self>, SealError> {
        let fact = Statement::new("SELECT value FROM ledger_facts WHERE name = 'person_keys_id'", []);
        let remembered = store.query(fact).await?;
        let (Some(keys), Some(remembered)) = (PersonKeys::read(path)?, remembered.first()) else {
            return Ok(None);
        };
        keys.refuse_other(remembered.text(0))?;
        Ok(Some(Self { keys, secrets: Arc::new(secrets.clone()) }))
    }

    /// Without keys, for who only asks what no text is needed for: each reads as empty.
    #[must_use]
    pub fn without_keys(secrets: &Secrets) -> Self {
        Self { keys: PersonKeys::none(), secrets: Arc::new(secrets.clone()) }
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &PersonKeys {
        &self.keys
    }

    /// What seals and opens the texts of one member.
    #[must_use]
    pub fn person(&self, member_id: i64) -> Person {
        let cipher = self.keys.key(member_id).map(|key| XChaCha20Poly1305::new(key.as_slice().into()));
        Person { id: member_id, cipher }
    }

    /// Opens one text.
    pub fn open_one(&self, place: Place, member_id: i64, stored: &str) -> Result<String, StoreError> {
        if stored.is_empty() { Ok(String::new()) } else { self.person(member_id).open(place, stored) }
    }

    /// The tokens of every beginning of these texts that has one.
    #[must_use]
    pub fn tokens(&self, texts: &[(&Searched, &str)]) -> BTreeSet<i64> {
        let of_text = |(field, text): &(&Searched, &str)| {
            let beginnings = field.lengths.iter().filter_map(|length| beginning(text, *length));
            beginnings.map(|beginning| self.secrets.search_token(field.name, beginning)).collect::<Vec<_>>()
        };
        texts.iter().flat_map(of_text).collect()
    }

    /// The token of the longest beginning of what is searched for that has one; None where it is too short for any.
    #[must_use]
    pub fn token(&self, field: &Searched, text: &str) -> Option<i64> {
        let longest = field.lengths.iter().rev().find_map(|length| {
            let whole = text.chars().count() >= *length;
            beginning(text, *length).filter(|_| whole)
        });
        longest.map(|beginning| self.secrets.search_token(field.name, beginning))
    }
}

/// A sealed text of some member, if there is one.
async fn first_sealed(store: &Store) -> Result<Option<(i64, Place, String)>, StoreError> {
    let places = [NICKNAME, HEADIMGURL, MEMBER_NAME, PHONE, MEMBER_CARD];
    let sql = "SELECT member_id, nickname, headimgurl, member_name, phone, member_card FROM members
               WHERE nickname LIKE $1 OR headimgurl LIKE $1 OR member_name LIKE $1 OR phone LIKE $1 OR member_card LIKE $1
               LIMIT 1";
    let rows = store.query(Statement::new(sql, [format!("{SEALED}%").into()])).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let mut texts = places.into_iter().zip(1..);
    let sealed = texts.find(|(_, column)| row.text(*column).starts_with(SEALED));
    Ok(sealed.map(|(place, column)| (row.int(0), place, row.text(column).to_owned())))
}

/// Why the seal cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The keys.
    #[error(transparent)]
    Keys(#[from] PersonKeysError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Seals and opens the texts of one member.
pub struct Person {
    id: i64,
    cipher: Option<XChaCha20Poly1305>,
}

impl Person {
    /// Whether his key was destroyed: nothing of his can be read or written any more.
    #[must_use]
    pub fn is_erased(&self) -> bool {
        self.cipher.is_none()
    }

    fn bound_to(&self, place: Place) -> Vec<u8> {
        [place.table.as_bytes(), b"\0", place.column.as_bytes(), b"\0", &self.id.to_be_bytes()].concat()
    }

    /// A text as it may be stored. An empty one is stored as it is; so is every text of whom was erased: as nothing.
    #[must_use]
    pub fn seal(&self, place: Place, text: &str) -> String {
        let Some(cipher) = self.cipher.as_ref().filter(|_| !text.is_empty()) else {
            return String::new();
        };
        let nonce = random::<NONCE_BYTES>();
        let payload = Payload { msg: text.as_bytes(), aad: &self.bound_to(place) };
        // It fails only beyond 256 GiB, and a text that cannot be sealed must not be stored.
        let Ok(sealed) = cipher.encrypt(XNonce::from_slice(&nonce), payload) else {
            return String::new();
        };
        let mut stored = SEALED.to_owned();
        URL_SAFE_NO_PAD.encode_string([nonce.as_slice(), &sealed].concat(), &mut stored);
        stored
    }

    /// A stored text as it was written, empty where the key was destroyed.
    ///
    /// # Errors
    /// Where it was changed, or belongs to another place or member.
    pub fn open(&self, place: Place, stored: &str) -> Result<String, StoreError> {
        let Some(encoded) = stored.strip_prefix(SEALED) else {
            return Ok(if self.is_erased() { String::new() } else { stored.to_owned() });
        };
        let Some(cipher) = &self.cipher else { return Ok(String::new()) };
        let corrupt = || StoreError::Corrupt {
            table: format!("{}, member {}", place.table, self.id),
            column: place.column.to_owned(),
            what: "the text does not open under its member's key".to_owned(),
        };
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| corrupt())?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES).ok_or_else(corrupt)?;
        let payload = Payload { msg: sealed, aad: &self.bound_to(place) };
        let text = cipher.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| corrupt())?;
        String::from_utf8(text).map_err(|_| corrupt())
    }
}

/// Whether a stored text was written before there were keys.
#[must_use]
pub fn is_plain(stored: &str) -> bool {
    !stored.is_empty() && !stored.starts_with(SEALED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal() -> (tempfile::TempDir, Seal) {
        let folder = tempfile::tempdir().unwrap();
        let keys = PersonKeys::make(&folder.path().join("person.keys")).unwrap();
        (folder, Seal { keys, secrets: Arc::new(Secrets::from_root([7; 32])) })
    }

    #[test]
    fn a_text_opens_in_its_place_and_for_its_member_only() {
        let (_folder, seal) = seal();
        let stored = seal.person(439).seal(PHONE, "13812345678");
        assert!(!stored.contains("138") && !is_plain(&stored));
        assert_ne!(
            stored,
            seal.person(439).seal(PHONE, "13812345678"),
            "equal texts are not seen to be equal"
        );
        assert_eq!(seal.person(439).open(PHONE, &stored).unwrap(), "13812345678");
        for (member_id, place, stored) in [
            (439, MEMBER_CARD, stored.clone()),
            (442, PHONE, stored.clone()),
            (439, PHONE, stored[..stored.len() - 2].to_owned()),
            (439, PHONE, SEALED.to_owned()),
            (439, PHONE, format!("{SEALED}?")),
        ] {
            assert!(seal.person(member_id).open(place, &stored).is_err(), "{member_id} {place:?} {stored}");
        }
        seal.keys.destroy(&[439]).unwrap();
        assert_eq!(seal.person(439).open(PHONE, &stored).unwrap(), "");
        assert_eq!(seal.person(439).seal(PHONE, "13812345678"), "");
        assert_eq!(seal.open_one(PHONE, 442, "").unwrap(), "");
    }

    #[test]
    fn a_search_is_led_by_the_longest_beginning_that_has_a_token() {
        let (_folder, seal) = seal();
        let tokens =
            seal.tokens(&[(BY_PHONE, "13812345678"), (BY_NAME, "王小明"), (BY_NAME, "a"), (BY_CARD, "8800")]);
        assert_eq!(tokens.len(), 2 + 1 + 1);
        for (field, text) in [
            (BY_PHONE, "1381"),
            (BY_PHONE, "138123"),
            (BY_PHONE, "1381234"),
            (BY_PHONE, "138123456789999"),
            (BY_NAME, "王小"),
            (BY_NAME, "王小明"),
            (BY_CARD, "8800123"),
        ] {
            assert!(tokens.contains(&seal.token(field, text).unwrap()), "{text}");
        }
        assert_eq!(seal.token(BY_PHONE, "138"), None);
        assert_eq!(seal.token(BY_NAME, ""), None);
        assert!(!tokens.contains(&seal.token(BY_CARD, "1381").unwrap()), "a card is no telephone number");
        let most = [(BY_PHONE, "1234567"), (BY_CARD, "123456789012"), (BY_NAME, "abcd"), (BY_NAME, "wxyz")];
        assert_eq!(seal.tokens(&most).len(), MAX_TOKENS);
    }
}
