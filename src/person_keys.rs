//! The keys of persons: one for each member, all in one small file outside the database and its backups, and any of them
//! can be destroyed for good.
//!
//! Hides how: the keys are the leaves of a tree over all ids, and the file holds its [`tree::Frontier`]. Promises that
//! a destroyed key is gone from memory and from the file before [`PersonKeys::destroy`] returns, and that all others
//! still are what they were. The root is random and known to nobody once the file is made: it must never follow from the
//! ledger's secret, or a key could be made again.

mod tree;

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest as _, Sha256};
use tree::Frontier;
pub use tree::Key;
use zeroize::Zeroizing;

use crate::durable::{self, beside, sync_folder_of};
use crate::value::{hex, random};

/// The file's first line.
const HEAD: &str = "coupon-ledger person keys 1";

/// What the file is called once another has its place, until it is wiped.
const OLD: &str = "old";

/// Why the keys cannot be had or destroyed, in a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PersonKeysError {
    /// The file cannot be read or written.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// read, write, …
        what: &'static str,
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what this program wrote.
    #[error("{path} is damaged ({what}): put back the copy of it that is kept apart from the database")]
    Damaged {
        /// Which file.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// It is not there, and this ledger's members are written under its keys.
    #[error(
        "there are no person keys at {path}, and without them no member's name or telephone number can be read: put back \
         the copy that is kept apart from the database, or name the file with --person-keys-file"
    )]
    Missing {
        /// Which file.
        path: String,
    },
    /// It opens nothing of this ledger, which does not remember its keys' id: its tables were put there by hand.
    #[error(
        "the members' texts of this ledger do not open with the person keys in {path}: put this ledger's file there, or name \
         it with --person-keys-file"
    )]
    OpensNothing {
        /// Which file.
        path: String,
    },
    /// It belongs to another ledger.
    #[error(
        "{path} holds the person keys of another ledger ({found}, not {expected}): put this ledger's file there, or name it \
         with --person-keys-file"
    )]
    OfAnotherLedger {
        /// Which file.
        path: String,
        /// What the ledger remembers.
        expected: String,
        /// What the file says.
        found: String,
    },
}

/// The keys of all persons whose key was not destroyed. Cheap to clone.
#[derive(Clone)]
pub struct PersonKeys {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for PersonKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PersonKeys({})", self.id())
    }
}

struct Inner {
    path: PathBuf,
    id: String,
    frontier: RwLock<Frontier>,
}

impl PersonKeys {
    /// The keys in a file; None where there is no such file.
    pub fn read(path: &Path) -> Result<Option<Self>, PersonKeysError> {
        // Whoever destroys a key wipes the bytes of the file before: read just then, they look damaged, and the new file is there.
        match Self::read_once(path) {
            Err(PersonKeysError::Damaged { .. }) => Self::read_once(path),
            read => read,
        }
    }

    fn read_once(path: &Path) -> Result<Option<Self>, PersonKeysError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                return Err(damaged(path, "it is no text"));
            }
            Err(source) => return Err(failed("read", path, source)),
        };
        let (id, frontier) = parse(&text).map_err(|what| damaged(path, what))?;
        let inner = Inner { path: path.to_owned(), id, frontier: RwLock::new(frontier) };
        Ok(Some(Self { inner: Arc::new(inner) }))
    }

    /// No keys: whoever has none reads every text as erased.
    #[must_use]
    pub fn none() -> Self {
        let inner = Inner { path: PathBuf::new(), id: String::new(), frontier: RwLock::default() };
        Self { inner: Arc::new(inner) }
    }

    /// New keys in a new file of mode 0600. Where another process has just made it, that one's.
    pub fn make(path: &Path) -> Result<Self, PersonKeysError> {
        let root = Zeroizing::new(random::<32>());
        let mut hash = Sha256::new();
        hash.update(b"person keys id");
        hash.update(root.as_slice());
        let id: String = hex(&hash.finalize()).chars().take(16).collect();
        let _lock = lock(path)?;
        let draft = write_draft(path, &print(&id, &Frontier::of_root(root)))?;
        // The first link wins, and a file that is there is complete.
        let linked = std::fs::hard_link(&draft, path);
        let removed = std::fs::remove_file(&draft);
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(failed("make", path, error));
            }
            _ => removed.and_then(|()| sync_folder_of(path)).map_err(|error| failed("make", path, error))?,
        }
        Self::read(path)?.ok_or_else(|| PersonKeysError::Missing { path: path.display().to_string() })
    }

    /// Tells this file's keys from another's without giving any away; it stays when keys are destroyed.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Where they lie.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// A member's key; None where it was destroyed.
    #[must_use]
    pub fn key(&self, member_id: i64) -> Option<Key> {
        let id = u64::try_from(member_id).ok()?;
        self.inner.frontier.read().unwrap_or_else(PoisonError::into_inner).key(id)
    }

    /// Destroys keys for good, in memory and in the file, and returns how many of them were there until now. Blocks on the
    /// disk; several processes may share the file.
    pub fn destroy(&self, member_ids: &[i64]) -> Result<usize, PersonKeysError> {
        let path = &self.inner.path;
        let _lock = lock(path)?;
        clear_leftovers(path)?;
        // Another process may have destroyed keys in the file that this one still has.
        let filed =
            Self::read(path)?.ok_or_else(|| PersonKeysError::Missing { path: path.display().to_string() })?;
        self.refuse_other(&filed.inner.id)?;
        let mut frontier = filed.inner.frontier.write().unwrap_or_else(PoisonError::into_inner);
        let in_file = puncture_each(&mut frontier, member_ids);
        if in_file > 0 {
            replace(path, &print(&self.inner.id, &frontier))?;
        }
        let mut frontier = self.inner.frontier.write().unwrap_or_else(PoisonError::into_inner);
        Ok(puncture_each(&mut frontier, member_ids).max(in_file))
    }

    /// Wipes what a crash has left beside the file: it opens what was erased since.
    pub fn clear_leftovers(&self) -> Result<(), PersonKeysError> {
        let _lock = lock(&self.inner.path)?;
        clear_leftovers(&self.inner.path)
    }

    /// The ids whose keys were destroyed, lowest first.
    #[must_use]
    pub fn destroyed(&self) -> Vec<i64> {
        self.inner.frontier.read().unwrap_or_else(PoisonError::into_inner).gaps()
    }

    /// An error where these are not the keys that a ledger remembers.
    pub fn refuse_other(&self, expected: &str) -> Result<(), PersonKeysError> {
        if self.inner.id == expected {
            return Ok(());
        }
        Err(PersonKeysError::OfAnotherLedger {
            path: self.inner.path.display().to_string(),
            expected: expected.to_owned(),
            found: self.inner.id.clone(),
        })
    }
}

fn puncture_each(frontier: &mut Frontier, member_ids: &[i64]) -> usize {
    let ids = member_ids.iter().filter_map(|id| u64::try_from(*id).ok());
    ids.filter(|id| frontier.puncture(*id)).count()
}

fn failed(what: &'static str, path: &Path, source: std::io::Error) -> PersonKeysError {
    PersonKeysError::File { what, path: path.display().to_string(), source }
}

fn damaged(path: &Path, what: &'static str) -> PersonKeysError {
    PersonKeysError::Damaged { path: path.display().to_string(), what }
}

/// Held by whoever writes the file or drafts of it.
fn lock(path: &Path) -> Result<File, PersonKeysError> {
    durable::lock(path).map_err(|source| failed("lock", path, source))
}

/// Wipes drafts and replaced files that are still there. For who holds the lock.
fn clear_leftovers(path: &Path) -> Result<(), PersonKeysError> {
    let place = |path: &Path| path.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
    let own = place(path).map_err(|source| failed("read", path, source))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).map_err(|source| failed("read", folder, source))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    for entry in entries {
        let found = entry.map_err(|source| failed("read", folder, source))?.file_name();
        let found = found.to_string_lossy();
        let ending = found.strip_prefix(&*name).and_then(|rest| rest.strip_prefix('.'));
        if ending.is_some_and(|ending| ending == OLD || is_draft(ending)) {
            let left = folder.join(&*found);
            let clear = || {
                // Killed between two names of one file, it is the file that is in use.
                if place(&left)? != own {
                    wipe(&OpenOptions::new().write(true).open(&left)?)?;
                }
                std::fs::remove_file(&left)
            };
            clear().map_err(|source| failed("wipe", &left, source))?;
        }
    }
    Ok(())
}

fn is_draft(ending: &str) -> bool {
    ending.len() == 8 && ending.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn wipe(file: &File) -> std::io::Result<()> {
    let length = usize::try_from(file.metadata()?.len()).unwrap_or_default();
    file.write_all_at(&vec![0; length], 0)?;
    file.sync_all()
}

fn write_draft(path: &Path, text: &str) -> Result<PathBuf, PersonKeysError> {
    let draft = beside(path, &hex(&random::<4>()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| {
        let _ = std::fs::remove_file(&draft);
        failed("write", &draft, source)
    })?;
    Ok(draft)
}

/// Puts a new file in the place of the old one and wipes the old one's bytes, as far as the disk lets itself be told: a
/// file system that copies on write, or a snapshot, may keep them. The old one keeps a name until then, so that whoever
/// comes after a crash finds it.
fn replace(path: &Path, text: &str) -> Result<(), PersonKeysError> {
    let failed = |source| failed("replace", path, source);
    std::fs::hard_link(path, beside(path, OLD)).map_err(failed)?;
    let draft = write_draft(path, text)?;
    std::fs::rename(&draft, path).map_err(failed)?;
    sync_folder_of(path).map_err(failed)?;
    clear_leftovers(path)
}

/// The file: what it is, its id, a line for each node, and a digest of all that by which one that was cut off is known.
fn print(id: &str, frontier: &Frontier) -> Zeroizing<String> {
    let mut text = Zeroizing::new(format!("{HEAD}\nid {id}\n"));
    frontier.print(&mut text);
    let digest = hex(&Sha256::digest(text.as_bytes()));
    text.push_str("digest ");
    text.push_str(&digest);
    text.push('\n');
    text
}

fn parse(text: &str) -> Result<(String, Frontier), &'static str> {
    let cut_off = "its end is missing or it was changed";
    let (body, digest) = text.rsplit_once("digest ").ok_or(cut_off)?;
    if digest != format!("{}\n", hex(&Sha256::digest(body.as_bytes()))) {
        return Err(cut_off);
    }
    let mut lines = body.lines();
    if lines.next() != Some(HEAD) {
        return Err("its first line says that it is something else");
    }
    let id = lines.next().and_then(|line| line.strip_prefix("id ")).ok_or("it has no id")?;
    Ok((id.to_owned(), Frontier::parse(lines)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn made() -> (tempfile::TempDir, PersonKeys) {
        let folder = tempfile::tempdir().unwrap();
        let keys = PersonKeys::make(&folder.path().join("person.keys")).unwrap();
        (folder, keys)
    }

    #[test]
    fn a_destroyed_key_is_gone_and_all_others_stay() {
        let (folder, keys) = made();
        let ids = [0, 1, 2, 438, 439, 440, 1 << 24, crate::value::MAX_ID];
        let before = ids.map(|id| keys.key(id).unwrap());
        assert_eq!(keys.destroy(&[439, 440]).unwrap(), 2);
        assert_eq!(keys.destroy(&[439, 440]).unwrap(), 0);
        let read = PersonKeys::read(keys.path()).unwrap().unwrap();
        for keys in [&keys, &read] {
            for (id, key) in ids.iter().zip(&before) {
                let now = keys.key(*id);
                if [439, 440].contains(id) {
                    assert!(now.is_none(), "{id}");
                } else {
                    assert_eq!(now.as_ref(), Some(key), "{id}");
                }
            }
            assert_eq!(keys.destroyed(), [439, 440]);
        }
        assert_eq!(read.id(), keys.id());
        let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert_eq!(names, ["person.keys", "person.keys.lock"]);
        assert_eq!(std::fs::metadata(keys.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_file_has_no_node_above_a_destroyed_key() {
        let (_folder, keys) = made();
        keys.destroy(&[439]).unwrap();
        let text = std::fs::read_to_string(keys.path()).unwrap();
        let covers = |line: &str| {
            let mut words = line.split(' ');
            let (first, height) = (words.next().unwrap(), words.next().unwrap());
            let (first, height): (u64, u32) = (first.parse().unwrap(), height.parse().unwrap());
            (first..first + (1 << height)).contains(&439)
        };
        let nodes: Vec<_> =
            text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).collect();
        assert_eq!(nodes.len(), 53);
        assert!(!nodes.into_iter().any(covers), "{text}");
    }

    #[test]
    fn two_processes_with_one_file_destroy_in_one_file() {
        let (_folder, one) = made();
        let other = PersonKeys::read(one.path()).unwrap().unwrap();
        one.destroy(&[1]).unwrap();
        other.destroy(&[2]).unwrap();
        assert_eq!(PersonKeys::read(one.path()).unwrap().unwrap().destroyed(), [1, 2]);
        // What the other did is only in the file: whoever asks again hears that there was something left to do.
        assert_eq!(one.destroy(&[2]).unwrap(), 1);
        assert_eq!(one.destroyed(), [1, 2]);
    }

    #[test]
    fn what_a_crash_has_left_beside_the_file_is_wiped() {
        let (folder, keys) = made();
        let names = || {
            let names = std::fs::read_dir(folder.path()).unwrap();
            let mut names: Vec<_> =
                names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        // Killed before the rename, and killed behind it; a copy of somebody's is his own affair.
        let before = std::fs::read(keys.path()).unwrap();
        for name in ["person.keys.0123abcd", "person.keys.old", "person.keys.copy"] {
            std::fs::write(folder.path().join(name), &before).unwrap();
        }
        let held = File::open(folder.path().join("person.keys.old")).unwrap();
        keys.clear_leftovers().unwrap();
        assert_eq!(names(), ["person.keys", "person.keys.copy", "person.keys.lock"]);
        let mut left = vec![1; before.len()];
        held.read_exact_at(&mut left, 0).unwrap();
        assert!(left.iter().all(|byte| *byte == 0), "its bytes are gone, too");
        // Killed before there was a second file: both are names of the one in use.
        std::fs::hard_link(keys.path(), folder.path().join("person.keys.old")).unwrap();
        assert_eq!(keys.destroy(&[439]).unwrap(), 1);
        assert!(
            keys.key(440).is_some() && PersonKeys::read(keys.path()).unwrap().unwrap().key(440).is_some()
        );
        assert_eq!(names(), ["person.keys", "person.keys.copy", "person.keys.lock"]);
    }

    #[test]
    fn a_file_that_was_cut_off_or_changed_is_refused() {
        let (_folder, keys) = made();
        let whole = std::fs::read(keys.path()).unwrap();
        for length in [0, 10, whole.len() / 2, whole.len() - 1] {
            std::fs::write(keys.path(), &whole[..length]).unwrap();
            let error = PersonKeys::read(keys.path()).err().unwrap().to_string();
            assert!(error.contains("is damaged (its end is missing or it was changed)"), "{length}: {error}");
        }
        let mut changed = whole.clone();
        changed[60] ^= 1;
        std::fs::write(keys.path(), changed).unwrap();
        assert!(PersonKeys::read(keys.path()).is_err());
        std::fs::write(keys.path(), whole).unwrap();
        assert!(PersonKeys::read(keys.path()).unwrap().is_some());
        assert!(PersonKeys::read(Path::new("/nowhere/person.keys")).unwrap().is_none());
    }
}
