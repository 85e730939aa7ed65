//! What an export says of itself.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tlog_tiles::Hash;

use super::{LEAVES, PIECE, RECEIPTS, piece_name};
use crate::value::hex;

/// The format, by name and number.
pub(super) const FORMAT: &str = "coupon-ledger export 1";

/// The manifest of an export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `coupon-ledger export 1`
    pub format: String,
    /// The ledger it was taken from.
    pub origin: String,
    /// Tells that ledger's root secret from another without giving it away.
    pub secret_id: String,
    /// The first position.
    pub from: i64,
    /// The last position.
    pub to: i64,
    /// The log's last position when the export began.
    pub head: i64,
    /// When the first event was recorded, Unix milliseconds.
    pub recorded_from_ms: i64,
    /// When the last event was recorded, Unix milliseconds.
    pub recorded_to_ms: i64,
    /// How many events, by stream type and event type: `coupon/Issued`.
    pub events: BTreeMap<String, i64>,
    /// How many receipts.
    pub receipts: i64,
    /// SHA-256 of what the events say wherever they stand: `leaf::contents` of each in order, notes of imports left out.
    /// Equal for a ledger and one that it was imported into.
    pub digest: String,
    /// Every other file, in order.
    pub files: Vec<FileEntry>,
    /// By which the events can be held against what was signed; none where nothing was.
    pub proof: Option<Proof>,
    /// SHA-256 of this manifest without this field: damage on the way shows. Against intent there is the proof.
    pub sha256: String,
}

/// A file of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name in the folder.
    pub name: String,
    /// Of its bytes as they lie there.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// The position of its first event; the receipts' file tells the range.
    pub first: i64,
    /// The position of its last event.
    pub last: i64,
}

/// What connects a range of events with a signed checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The signed note, with cosignatures where there are any.
    pub checkpoint: String,
    /// The verifier keys that the ledger says are its own. Believe only one that you had from elsewhere.
    pub keys: Vec<String>,
    /// The hashes of the largest complete subtrees before the range, as standard base64.
    pub before: Vec<String>,
    /// The same behind it, up to the checkpoint's size.
    pub after: Vec<String>,
}

impl Manifest {
    /// The bytes of its file.
    ///
    /// # Errors
    /// None that can happen: it is texts and numbers.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// With its own digest.
    pub(super) fn sealed(self) -> Result<Self, serde_json::Error> {
        let open = Self { sha256: String::new(), ..self };
        Ok(Self { sha256: hex(&Sha256::digest(open.bytes()?)), ..open })
    }

    /// Reads one and makes sure that it is whole: these very bytes are what this program writes for it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if manifest.format != FORMAT {
            return Err(format!("this program reads the format {FORMAT:?}, not {:?}", manifest.format));
        }
        let sealed = manifest.clone().sealed().and_then(|sealed| sealed.bytes());
        if sealed.ok().as_deref() != Some(bytes) {
            return Err("it was changed: its own digest is another".to_owned());
        }
        manifest.check_files()?;
        Ok(manifest)
    }

    /// How many events.
    #[must_use]
    pub fn count(&self) -> i64 {
        self.to - self.from + 1
    }

    /// The names follow from the range, so that nobody is led to a file elsewhere.
    fn check_files(&self) -> Result<(), String> {
        if self.from < 1 || self.to < self.from {
            return Err(format!("there are no positions from {} to {}", self.from, self.to));
        }
        let mut expected = Vec::new();
        let mut first = self.from;
        while first <= self.to && expected.len() <= self.files.len() {
            let last = self.to.min(first.saturating_add(PIECE - 1));
            expected.push((piece_name(first), first, last));
            first = last.saturating_add(1);
        }
        for name in [LEAVES, RECEIPTS] {
            expected.push((name.to_owned(), self.from, self.to));
        }
        let named = self.files.iter().map(|file| (file.name.clone(), file.first, file.last));
        if named.eq(expected) { Ok(()) } else { Err("its files are not those of its range".to_owned()) }
    }

    pub(super) fn pieces(&self) -> impl Iterator<Item = &FileEntry> {
        self.files.iter().filter(|file| file.name != LEAVES && file.name != RECEIPTS)
    }

    pub(super) fn file(&self, name: &str) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.name == name)
    }
}

/// Hashes as standard base64.
pub(super) fn hash_texts(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(|hash| STANDARD.encode(hash.0)).collect()
}

/// And back; None where one is none.
#[must_use]
pub fn hashes_of(texts: &[String]) -> Option<Vec<Hash>> {
    texts.iter().map(|text| STANDARD.decode(text).ok()?.try_into().ok().map(Hash)).collect()
}
