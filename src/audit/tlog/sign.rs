//! Signs the tree: only one that begins with what was signed before.
//!
//! What was signed last is remembered twice: in the database, where every server reads it, and in a small file in the data
//! folder (`checkpoint-….note`), which no administrator of the database can reach. Before a signature leaves this process
//! it is in that file. A tree that is smaller than either, or does not begin with it, is refused, again and again, until
//! somebody has mended what is wrong: docs/audit.md says how.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use tlog_tiles::{EMPTY_HASH, Hash, check_tree};

use super::{FOLLOWER, consistency, latest, root, size};
use crate::audit::checkpoint::{BadKey, Opened, Signed, Trust, Untrusted, cosignatures, sign, verifier_key};
use crate::durable;
use crate::ledger::{ExecuteError, Executed, Ledger, Meta};
use crate::provenance::{LEDGER_ID, Provenance, ProvenanceCommand};
use crate::secrets::Secrets;
use crate::store::{BUCKET, Statement, Store, StoreError};

/// What rotating the key is called, as a path and in the receipts of idempotency keys.
pub const ROTATE_KEY: &str = "/v1/keys/checkpoint";

/// Checkpoints are kept for so long, and the first of each hour for ever.
const KEPT_MS: i64 = 60_000;

const HOUR_MS: i64 = 3_600_000;

/// Why there is no signature.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ledger's own stream cannot be read.
    #[error(transparent)]
    Ledger(#[from] ExecuteError),
    /// The file of what was signed last.
    #[error("cannot use {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// No signature until somebody has mended it.
    #[error("nothing is signed: {0}")]
    Refused(#[from] Refused),
}

/// Why a tree must not be signed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A checkpoint that is remembered is not what this ledger signed.
    #[error("{place}: {why}")]
    Untrusted {
        /// Where it lies.
        place: String,
        /// What is wrong with it.
        why: Untrusted,
    },
    /// The tree has lost leaves: an older copy of the database, most likely.
    #[error(
        "the log has {tree} leaves, and {place} was signed over {known}: is this an older copy of the database?"
    )]
    Smaller {
        /// The tree's.
        tree: u64,
        /// What was signed.
        known: u64,
        /// Where it lies.
        place: String,
    },
    /// The tree does not begin with what was signed.
    #[error(
        "the log of {tree} leaves does not begin with the {known} over which {place} was signed: events were changed, or \
         are another history's"
    )]
    Inconsistent {
        /// The tree's.
        tree: u64,
        /// What was signed.
        known: u64,
        /// Where it lies.
        place: String,
    },
    /// A key that cannot be one.
    #[error(transparent)]
    BadKey(#[from] BadKey),
}

/// The public halves of a ledger's keys up to a generation, the first one first.
#[must_use]
pub fn verifier_keys(secrets: &Secrets, origin: &str, generation: u32) -> Vec<String> {
    (1..=generation).map(|one| verifier_key_of(secrets, origin, one)).collect()
}

/// The public half of a ledger's key of one generation.
#[must_use]
pub fn verifier_key_of(secrets: &Secrets, origin: &str, generation: u32) -> String {
    verifier_key(origin, &secrets.checkpoint_key(generation))
}

/// Lets the next generation's key sign from now on.
pub async fn rotate_key(ledger: &Ledger, meta: &Meta) -> Result<Executed<Provenance>, ExecuteError> {
    let origin = origin(ledger.store()).await?;
    let (provenance, _) = ledger.load::<Provenance>(LEDGER_ID).await?;
    let generation = provenance.key_generation().saturating_add(1);
    let verifier_key = verifier_key_of(ledger.secrets(), &origin, generation);
    let employee_id = meta.caller.employee_id();
    let command = ProvenanceCommand::RotateCheckpointKey { generation, verifier_key, employee_id };
    ledger.execute::<Provenance>(LEDGER_ID, &command, meta).await
}

/// The ledger's name, which opening it for writing gave it.
async fn origin(store: &Store) -> Result<String, StoreError> {
    store.origin().await?.ok_or_else(|| StoreError::Corrupt {
        table: "ledger_facts".to_owned(),
        column: "value".to_owned(),
        what: "the ledger has no origin".to_owned(),
    })
}

/// A tree that continues all that was signed.
struct Examined {
    provenance: Provenance,
    tree: u64,
    tree_root: Hash,
    signed_size: u64,
    /// What the file said.
    remembered: Option<String>,
}

fn place_of(stored: &Signed) -> String {
    format!("tlog_checkpoints, size {}", stored.size)
}

/// A row of the database that says what was signed must say what its note says.
fn open_stored(trust: &Trust, stored: &Signed) -> Result<Opened, Refused> {
    let untrusted = |why| Refused::Untrusted { place: place_of(stored), why };
    let opened = trust.open(&stored.note).map_err(untrusted)?;
    if (opened.size, opened.root) == (stored.size, stored.root) {
        return Ok(opened);
    }
    Err(untrusted(Untrusted::Malformed))
}

/// Signs, and remembers what was signed.
pub struct Signer {
    ledger: Ledger,
    origin: String,
    memory: Memory,
}

impl Signer {
    /// A signer that remembers in this folder.
    pub async fn new(ledger: Ledger, folder: &Path) -> Result<Self, StoreError> {
        let origin = origin(ledger.store()).await?;
        let memory = Memory::of(&origin, folder);
        Ok(Self { ledger, origin, memory })
    }

    /// Looks at the tree and at what the database says was signed of it, and remembers that where it goes beyond what is
    /// remembered. Every server does so, also while another one signs: each is a witness of the database.
    pub async fn observe(&self) -> Result<(), SignError> {
        self.examine().await.map(drop)
    }

    /// Signs the tree that is in the tiles, if it has grown since; None where it has not, or another server was faster.
    pub async fn sign(&self) -> Result<Option<Signed>, SignError> {
        let Examined { provenance, tree, tree_root, signed_size, remembered } = self.examine().await?;
        if tree == signed_size {
            return Ok(None);
        }
        let signed = sign(&self.origin, tree, tree_root, &self.signing_keys(&provenance))
            .map_err(|why| Refused::Untrusted { place: "what would be signed".to_owned(), why })?;
        if !self.memory.replace(remembered, &signed.note).await? {
            return Ok(None);
        }
        Ok(self.store(&signed).await?.then_some(signed))
    }

    /// The tree, once it is known to continue all that was signed.
    async fn examine(&self) -> Result<Examined, SignError> {
        let store = self.ledger.store();
        let (provenance, trust) = self.provenance().await?;
        // In this order: the tree may grow meanwhile, and what is signed of it is behind it.
        let stored = latest(store).await?;
        let tree = size(store).await?;
        let tree_root = root(store, tree).await?.unwrap_or(EMPTY_HASH);
        let mut remembered = self.memory.read()?;
        let mut remembered_size = 0;
        if let Some(note) = &remembered {
            let known = self.open_remembered(&trust, note)?;
            self.check(&known, self.memory.path.display().to_string(), (tree, tree_root)).await?;
            remembered_size = known.size;
        } else if stored.is_some() {
            tracing::warn!(
                path = %self.memory.path.display(),
                "this data folder does not remember what was signed, though the database does: a server that is new to this \
                 ledger has no such file; where it was lost, only witnesses can tell whether the database was rolled back"
            );
        }
        let mut signed_size = 0;
        if let Some(stored) = stored {
            let known = open_stored(&trust, &stored)?;
            self.check(&known, place_of(&stored), (tree, tree_root)).await?;
            if known.size > remembered_size && self.memory.replace(remembered.clone(), &stored.note).await? {
                remembered = Some(stored.note);
            }
            signed_size = known.size;
        }
        Ok(Examined { provenance, tree, tree_root, signed_size, remembered })
    }

    async fn provenance(&self) -> Result<(Provenance, Trust), SignError> {
        let (provenance, _) = self.ledger.load::<Provenance>(LEDGER_ID).await?;
        let keys = verifier_keys(self.ledger.secrets(), &self.origin, provenance.key_generation());
        let trust = Trust::new(&keys, &[], 0).map_err(Refused::from)?;
        Ok((provenance, trust))
    }

    fn signing_keys(&self, provenance: &Provenance) -> Vec<SigningKey> {
        let generation = provenance.key_generation();
        let overlaps = provenance.overlaps(self.ledger.clock().now_ms());
        let oldest = generation.saturating_sub(u32::from(overlaps));
        (oldest..=generation).rev().map(|one| self.ledger.secrets().checkpoint_key(one)).collect()
    }

    fn open_remembered(&self, trust: &Trust, note: &str) -> Result<Opened, Refused> {
        let place = self.memory.path.display().to_string();
        trust.open(note).map_err(|why| Refused::Untrusted { place, why })
    }

    /// Whether a tree continues what was signed.
    async fn check(
        &self,
        known: &Opened,
        place: String,
        (tree, tree_root): (u64, Hash),
    ) -> Result<(), SignError> {
        if known.size == 0 {
            return Ok(());
        }
        let Some(proof) = consistency(self.ledger.store(), known.size, tree).await? else {
            return Err(Refused::Smaller { tree, known: known.size, place }.into());
        };
        check_tree(&proof, tree, tree_root, known.size, known.root)
            .map_err(|_| Refused::Inconsistent { tree, known: known.size, place }.into())
    }

    /// Stores a checkpoint; false where a larger one is there already.
    async fn store(&self, signed: &Signed) -> Result<bool, StoreError> {
        let (size, now_ms) = (signed.size as i64, self.ledger.clock().now_ms());
        // One server stores at a time, and nothing that the tiles do not have.
        let lock = "UPDATE checkpoints SET value = value WHERE bucket = $1 AND name = $2 AND value >= $3
                    RETURNING value";
        let insert = "INSERT INTO tlog_checkpoints (bucket, size, root, note, signed_at_ms)
                      SELECT $1, $2, $3, $4, $5
                      WHERE NOT EXISTS (SELECT 1 FROM tlog_checkpoints WHERE bucket = $1 AND size >= $2)
                      RETURNING size";
        let (root, note) = (STANDARD.encode(signed.root.0), signed.note.as_str());
        let answers = self.ledger.store().write(vec![
            Statement::new(lock, [BUCKET.into(), FOLLOWER.into(), size.into()]).must_return(),
            Statement::new(insert, [BUCKET.into(), size.into(), root.into(), note.into(), now_ms.into()])
                .must_return(),
        ]);
        Ok(answers.await?.get(1).is_some_and(|rows| !rows.is_empty()))
    }

    /// Lets checkpoints go that are older than a minute and not the first of their hour, nor the last that so many witnesses
    /// have cosigned.
    pub async fn thin(&self) -> Result<(), StoreError> {
        let store = self.ledger.store();
        let sql = "SELECT size, signed_at_ms, note FROM tlog_checkpoints WHERE bucket = $1
                   ORDER BY size DESC LIMIT 1000";
        let rows = store.query(Statement::new(sql, [BUCKET.into()])).await?;
        let until_ms = self.ledger.clock().now_ms() - KEPT_MS;
        let hour = |at_ms: i64| at_ms.div_euclid(HOUR_MS);
        let mut cosigned = None;
        // The last one stays, and so does the oldest that was read: what lies before it is not known here.
        let goes = rows.windows(2).filter_map(|pair| {
            let [row, before] = pair else { return None };
            let is_best = Some(cosignatures(row.text(2))) > cosigned;
            cosigned = cosigned.max(Some(cosignatures(row.text(2))));
            let is_doubled = row.int(1) < until_ms && hour(row.int(1)) == hour(before.int(1));
            (is_doubled && !is_best).then_some(row.int(0))
        });
        let delete = "DELETE FROM tlog_checkpoints WHERE bucket = $1 AND size = $2";
        let statements: Vec<_> =
            goes.take(500).map(|size| Statement::new(delete, [BUCKET.into(), size.into()])).collect();
        if !statements.is_empty() {
            store.write(statements).await?;
        }
        Ok(())
    }
}

/// The file of what this server last saw signed.
struct Memory {
    path: PathBuf,
}

/// The note of what a server with this data folder last saw signed of a ledger; None where it has seen nothing.
pub fn remembered(origin: &str, folder: &Path) -> Result<Option<String>, SignError> {
    Memory::of(origin, folder).read()
}

impl Memory {
    fn of(origin: &str, folder: &Path) -> Self {
        // A folder may have served another ledger.
        let name = format!("checkpoint-{}.note", origin.rsplit('/').next().unwrap_or_default());
        Self { path: folder.join(name) }
    }

    fn error(&self, source: std::io::Error) -> SignError {
        SignError::File { path: self.path.display().to_string(), source }
    }

    fn read(&self) -> Result<Option<String>, SignError> {
        match std::fs::read_to_string(&self.path) {
            Ok(note) => Ok(Some(note)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Remembers a note in the place of the one that was read and found to be continued; false where the file is another by
    /// now, because a server that shares the folder was faster: what that one signed is not overwritten unseen.
    async fn replace(&self, read: Option<String>, note: &str) -> Result<bool, SignError> {
        let (memory, note) = (Self { path: self.path.clone() }, note.to_owned());
        // The disk takes its time, which no request shall wait for.
        let replaced = tokio::task::spawn_blocking(move || {
            let _lock = durable::lock(&memory.path).map_err(|error| memory.error(error))?;
            if memory.read()? != read {
                return Ok(false);
            }
            durable::replace(&memory.path, note.as_bytes()).map_err(|error| memory.error(error))?;
            Ok(true)
        });
        replaced.await.unwrap_or_else(|error| Err(self.error(std::io::Error::other(error))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_note_takes_the_place_of_the_one_that_was_read_and_of_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::of("coupon-ledger/0123456789abcdef", folder.path());
        let read = |note: &str| Some(note.to_owned());
        assert!(memory.replace(None, "one").await.unwrap());
        // Two servers have read the first one; the slower one has signed less.
        assert!(memory.replace(read("one"), "three").await.unwrap());
        assert!(!memory.replace(read("one"), "two").await.unwrap());
        assert!(!memory.replace(None, "two").await.unwrap());
        assert_eq!(memory.read().unwrap(), read("three"));
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["checkpoint-0123456789abcdef.note", "checkpoint-0123456789abcdef.note.lock"]);
    }
}
