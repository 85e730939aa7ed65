//! A witness of another ledger's transparency log (c2sp.org/tlog-witness): it cosigns a checkpoint only where that
//! continues the last one that it cosigned.
//!
//! It knows the log's key and one checkpoint, no event. What it cosigns is on its disk before its answer leaves; one
//! request at a time is decided. It must never forget: with its state lost, it would vouch for another history.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use tlog_tiles::{Hash, check_tree};
use tokio::sync::Mutex;

use super::checkpoint::{Cosigner, MAX_NOTE_BYTES, Opened, Signed, Trust, Untrusted};
use super::merkle::MAX_PROOF;
use crate::clock::Clock;
use crate::durable;
use crate::value::{hex, random};

/// A request holds a note, and one hash for each doubling of the log.
pub const MAX_REQUEST_BYTES: usize = MAX_NOTE_BYTES + 64 * 48;

const KEY_FILE: &str = "witness.key";
const STATE_FILE: &str = "witness.state";

/// Its state before its first answer. A file that lost its bytes is not this.
const NOTHING: &str = "nothing was cosigned yet\n";

/// What a witness says: an HTTP status, the body's type, the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The HTTP status.
    pub status: u16,
    /// The body's type.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Said {
    fn text(status: u16, body: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: format!("{body}\n") }
    }

    /// What the witness has cosigned, to whoever believed something else.
    fn size(size: u64) -> Self {
        Self { status: 409, content_type: "text/x.tlog.size", body: format!("{size}\n") }
    }
}

/// Why a witness cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// A file of its.
    #[error("cannot use {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file of its that it did not write.
    #[error("{path} is not what this witness wrote: {what}")]
    Spoilt {
        /// Which.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// It has lost what it cosigned.
    #[error(
        "{0} is missing, so this witness no longer knows what it cosigned and could vouch for a second history under its key: \
         bring that very file back, or begin anew with an empty folder, and so with a new key that everybody must pin"
    )]
    Forgotten(String),
    /// A name that no key can have.
    #[error("{0:?} cannot be a witness's name: no spaces and no +, and at least one character")]
    Name(String),
    /// Another process.
    #[error("another witness runs on {0}")]
    InUse(String),
}

/// A witness of one log.
pub struct Witness {
    trust: Trust,
    name: String,
    key: SigningKey,
    clock: Clock,
    /// The last checkpoint that it cosigned, while nobody else looks at it.
    state: Mutex<Option<Opened>>,
    state_path: PathBuf,
    /// Held for as long as it lives: two of them on one state would not see each other's answers.
    _lock: std::fs::File,
}

impl Witness {
    /// Opens a witness's folder; at its first start there, it gets a key, and where it is given no name, that is its name.
    pub fn open(folder: &Path, name: Option<&str>, trust: Trust, clock: Clock) -> Result<Self, WitnessError> {
        let failed = |path: &Path, source| WitnessError::File { path: path.display().to_string(), source };
        crate::config::make_folder(folder).map_err(|error| failed(folder, error))?;
        let lock_path = folder.join("witness.lock");
        let lock = std::fs::File::create(&lock_path).map_err(|error| failed(&lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(WitnessError::InUse(folder.display().to_string()));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(failed(&lock_path, error)),
        }
        let state_path = folder.join(STATE_FILE);
        if !folder.join(KEY_FILE).exists() && !state_path.exists() {
            // Before there is a key: one without a state has lost it.
            durable::replace(&state_path, NOTHING.as_bytes()).map_err(|error| failed(&state_path, error))?;
        }
        let key = read_or_make_key(folder)?;
        let of_key = || format!("coupon-ledger-witness/{:.16}", hex(key.verifying_key().as_bytes()));
        let name = name.map_or_else(of_key, ToOwned::to_owned);
        if Cosigner::new(&name, key.clone(), 0).is_none() {
            return Err(WitnessError::Name(name));
        }
        let state = match std::fs::read_to_string(&state_path) {
            Ok(note) if note == NOTHING => None,
            Ok(note) => Some(trust.open(&note).map_err(|error| WitnessError::Spoilt {
                path: state_path.display().to_string(),
                what: error.to_string(),
            })?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(WitnessError::Forgotten(state_path.display().to_string()));
            }
            Err(error) => return Err(failed(&state_path, error)),
        };
        Ok(Self { trust, name, key, clock, state: Mutex::new(state), state_path, _lock: lock })
    }

    fn cosigner(&self) -> Option<Cosigner> {
        Cosigner::new(&self.name, self.key.clone(), (self.clock.now_ms() / 1_000) as u64)
    }

    /// The log that it watches.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.trust.origin()
    }

    /// The key that others pin.
    #[must_use]
    pub fn verifier_key(&self) -> String {
        self.cosigner().map(|cosigner| cosigner.verifier_key()).unwrap_or_default()
    }

    /// How many leaves the last tree had that it cosigned.
    pub async fn size(&self) -> u64 {
        self.state.lock().await.as_ref().map_or(0, |known| known.size)
    }

    /// Answers `POST /add-checkpoint`.
    pub async fn add_checkpoint(&self, body: &[u8]) -> Said {
        let Some(Asked { old, proof, note }) = Asked::read(body) else {
            return Said::text(400, "not a request of c2sp.org/tlog-witness");
        };
        let new = match self.trust.open(note) {
            Ok(new) => new,
            Err(error @ Untrusted::Malformed) => return Said::text(400, &error.to_string()),
            Err(error @ Untrusted::OtherLog { .. }) => return Said::text(404, &error.to_string()),
            Err(error) => return Said::text(403, &error.to_string()),
        };
        if old > new.size {
            return Said::text(400, "the old size is larger than the checkpoint's");
        }
        // From here on one at a time: what is compared with is what is replaced.
        let mut state = self.state.lock().await;
        let known = state.as_ref().map_or(0, |known| known.size);
        if old != known {
            return Said::size(known);
        }
        if let Some(known) = state.as_ref().filter(|known| known.size == new.size && known.root != new.root) {
            tracing::error!(size = new.size, "the log shows another tree of a size that was cosigned");
            return Said::size(known.size);
        }
        let continues = match state.as_ref() {
            // A tree of no leaves begins every other.
            None => proof.is_empty(),
            Some(known) if known.size == 0 => proof.is_empty(),
            Some(known) => check_tree(&proof, new.size, new.root, known.size, known.root).is_ok(),
        };
        if !continues {
            tracing::error!(old, size = new.size, "the log's proof does not hold");
            return Said::text(422, "the checkpoint does not continue the last one that was cosigned here");
        }
        self.cosign(&mut state, new, note).await
    }

    /// Remembers a checkpoint for good, and only then vouches for it.
    async fn cosign(&self, state: &mut Option<Opened>, new: Opened, note: &str) -> Said {
        let line = self.cosigner().and_then(|cosigner| cosigner.cosign(note).ok());
        let Some(line) = line else { return Said::text(500, "it cannot be signed") };
        if state.as_ref().is_none_or(|known| known.size < new.size) {
            let (path, note) = (self.state_path.clone(), note.to_owned());
            let written = tokio::task::spawn_blocking(move || durable::replace(&path, note.as_bytes())).await;
            if let Err(error) = written.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
                tracing::error!(%error, path = %self.state_path.display(), "the state cannot be written");
                return Said::text(500, "the witness cannot remember this checkpoint");
            }
            *state = Some(new);
        }
        Said { status: 200, content_type: "text/plain; charset=utf-8", body: line }
    }
}

/// A request's parts.
struct Asked<'a> {
    old: u64,
    proof: Vec<Hash>,
    note: &'a str,
}

impl<'a> Asked<'a> {
    fn read(body: &'a [u8]) -> Option<Self> {
        let (head, note) = std::str::from_utf8(body).ok()?.split_once("\n\n")?;
        let mut lines = head.split('\n');
        let number = lines.next()?.strip_prefix("old ")?;
        let old = number.parse::<u64>().ok().filter(|old| old.to_string() == number)?;
        let proof: Vec<Hash> = lines.map(|line| Hash::parse_hash(line).ok()).collect::<Option<_>>()?;
        (proof.len() <= MAX_PROOF).then_some(Self { old, proof, note })
    }
}

/// The witness's own key: 32 bytes in hexadecimal, in a file of mode 0600.
fn read_or_make_key(folder: &Path) -> Result<SigningKey, WitnessError> {
    let path = folder.join(KEY_FILE);
    let failed = |source| WitnessError::File { path: path.display().to_string(), source };
    if !path.exists() {
        let key = format!("{}\n", hex(&random::<32>()));
        durable::replace(&path, key.as_bytes()).map_err(failed)?;
    }
    let text = std::fs::read_to_string(&path).map_err(failed)?;
    let spoilt = || WitnessError::Spoilt {
        path: path.display().to_string(),
        what: "a key is 64 hexadecimal digits".to_owned(),
    };
    let text = text.trim();
    if text.len() != 64 || !text.is_ascii() {
        return Err(spoilt());
    }
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(digits).collect();
    let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).ok_or_else(spoilt)?;
    Ok(SigningKey::from_bytes(&bytes))
}

/// The body of a request that asks for a cosignature.
#[must_use]
pub fn request(old: u64, proof: &[Hash], signed: &Signed) -> String {
    let proof: String = proof.iter().map(|hash| STANDARD.encode(hash.0) + "\n").collect();
    format!("old {old}\n{proof}\n{}", signed.note)
}
