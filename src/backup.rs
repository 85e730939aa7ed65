//! Backups: the whole ledger in one file while it is being written to, and back into an empty place.
//!
//! Hides how each engine does it: SQLite's online copy of one snapshot, `pg_dump` and `pg_restore` on PostgreSQL.
//! Promises that a file which has its name is whole and on disk, and that a restore happens all or not at all. Must never
//! write over anything that is there, and never take a key along: secret and person keys are kept apart from backups, or
//! an erased member could be read from an old one.

mod postgres;

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::durable::sync_folder_of;
use crate::store::{self, OpenError, Store, StoreError, StoreOptions};
use crate::value::{hex, random};

/// Why there is no backup, or no restored ledger, in a sentence that says what to do. Nothing half-written is left.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The target is there.
    #[error("{0} is there already: nothing is written over; name another file")]
    Exists(String),
    /// There is a ledger, or something else, where one is to be restored.
    #[error("{0} is not empty: a backup is restored into an empty place only")]
    NotEmpty(String),
    /// A file or folder cannot be used.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// read, write, …
        what: &'static str,
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is none of our backups, or not whole.
    #[error("{path} is not a whole backup of a ledger: {what}")]
    NotABackup {
        /// Which file.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// It was made on the other engine.
    #[error("{path} is a backup of a ledger on {engine}: {what}")]
    OtherEngine {
        /// Which file.
        path: String,
        /// SQLite or PostgreSQL.
        engine: &'static str,
        /// What to do.
        what: &'static str,
    },
    /// `pg_dump` or `pg_restore`.
    #[error("{0}")]
    Tool(String),
    /// The ledger cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// SQLite's copy of the ledger.
    #[error("cannot write {path}: {source}")]
    Copy {
        /// Which file.
        path: String,
        /// Why.
        source: rusqlite::Error,
    },
    /// The work ended without saying why.
    #[error("the work was cut short")]
    CutShort,
}

/// Where a ledger lies, or is to lie.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its folder, and its database where it is on PostgreSQL.
    pub options: StoreOptions,
    /// Where `pg_dump` and `pg_restore` are; None = on the PATH.
    pub postgres_tools: Option<PathBuf>,
}

/// What was backed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackedUp {
    /// The last position that is in it for certain.
    pub position: i64,
    /// How large the file is.
    pub bytes: u64,
}

fn failed(what: &'static str, path: &Path, source: std::io::Error) -> BackupError {
    BackupError::File { what, path: path.display().to_string(), source }
}

/// A file on its way to its name; gone unless it gets there.
struct Draft {
    path: PathBuf,
    target: PathBuf,
}

impl Draft {
    /// An empty one, which only its owner can read, beside the target, which must not be there.
    fn beside(target: &Path) -> Result<Self, BackupError> {
        if target.symlink_metadata().is_ok() {
            return Err(BackupError::Exists(target.display().to_string()));
        }
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", hex(&random::<4>())));
        let path = target.with_file_name(name);
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        opened.map_err(|source| failed("write", target, source))?;
        Ok(Self { path, target: target.to_owned() })
    }

    /// Gives it its name once it is on disk, and returns its size.
    fn publish(self) -> Result<u64, BackupError> {
        let sync = || {
            let file = File::open(&self.path)?;
            file.sync_all()?;
            Ok(file.metadata()?.len())
        };
        let bytes = sync().map_err(|source| failed("write", &self.target, source))?;
        match std::fs::hard_link(&self.path, &self.target) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(BackupError::Exists(self.target.display().to_string()));
            }
            // A file system without links.
            Err(_) => std::fs::rename(&self.path, &self.target)
                .map_err(|source| failed("write", &self.target, source))?,
        }
        sync_folder_of(&self.target).map_err(|source| failed("write", &self.target, source))?;
        Ok(bytes)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // And what SQLite puts beside a file that it writes.
        for ending in ["", "-journal", "-wal", "-shm"] {
            let mut name = self.path.clone().into_os_string();
            name.push(ending);
            let _ = std::fs::remove_file(name);
        }
    }
}

/// Writes a ledger into a new file, as of one instant, while servers go on.
pub async fn backup(site: &Site, file: &Path) -> Result<BackedUp, BackupError> {
    let draft = Draft::beside(file)?;
    let position = if let Some(url) = &site.options.database_url {
        postgres::dump(site, url, &draft.path).await?
    } else {
        let (folder, path) = (site.options.data_dir.clone(), draft.path.clone());
        let copying = tokio::task::spawn_blocking(move || store::copy_sqlite(&folder, &path));
        let copied = copying.await.map_err(|_| BackupError::CutShort)?;
        let named = |error| match error {
            OpenError::Store(StoreError::Sqlite(source)) => {
                BackupError::Copy { path: file.display().to_string(), source }
            }
            error => error.into(),
        };
        copied.map_err(named)?.position
    };
    Ok(BackedUp { position, bytes: draft.publish()? })
}

/// Which engine's backup a file is, by its first bytes.
fn engine_of(file: &Path) -> Result<&'static str, BackupError> {
    let mut head = Vec::new();
    File::open(file)
        .and_then(|file| file.take(16).read_to_end(&mut head))
        .map_err(|source| failed("read", file, source))?;
    match head.as_slice() {
        b"SQLite format 3\0" => Ok("SQLite"),
        head if head.starts_with(b"PGDMP") => Ok("PostgreSQL"),
        _ => Err(not_a_backup(file, &"it does not begin like one")),
    }
}

fn not_a_backup(file: &Path, what: &dyn std::fmt::Display) -> BackupError {
    BackupError::NotABackup { path: file.display().to_string(), what: what.to_string() }
}

/// Opens what [`backup`] has just made, to verify it: the file itself on SQLite; on PostgreSQL, whose dumps nobody can read,
/// the database that it was made of.
pub async fn open(site: &Site, file: &Path) -> Result<Store, BackupError> {
    Ok(match site.options.database_url {
        Some(_) => store::open_read_only(&site.options).await?,
        None => store::open_copy(file)?,
    })
}

/// Restores a backup into an empty place. Whether it is sound is for verify to say.
pub async fn restore(site: &Site, file: &Path) -> Result<(), BackupError> {
    let path = file.display().to_string();
    match (engine_of(file)?, &site.options.database_url) {
        ("SQLite", Some(_)) => {
            let what = "it is restored into a data folder, without --database-url";
            Err(BackupError::OtherEngine { path, engine: "SQLite", what })
        }
        ("PostgreSQL", None) => {
            let what = "name an empty database with --database-url";
            Err(BackupError::OtherEngine { path, engine: "PostgreSQL", what })
        }
        (_, Some(url)) => postgres::load(site, url, file).await,
        (_, None) => restore_sqlite(site, file).await,
    }
}

const SCAFFOLD: &str = "restoring-";

/// A folder that is gone with what is in it, however the work ends, unless the process is killed: then the next restore
/// finds it.
struct Scaffold(PathBuf);

fn clear_scaffolds(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(SCAFFOLD) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

impl Drop for Scaffold {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn restore_sqlite(site: &Site, file: &Path) -> Result<(), BackupError> {
    let folder = &site.options.data_dir;
    // Held to the end: no server starts on what is half there.
    let _lock = store::hold_folder(folder)?;
    let target = folder.join("ledger.db");
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db-journal"] {
        if folder.join(name).exists() {
            return Err(BackupError::NotEmpty(folder.display().to_string()));
        }
    }
    clear_scaffolds(folder).map_err(|source| failed("clear", folder, source))?;
    let scaffold = Scaffold(folder.join(format!("{SCAFFOLD}{}", hex(&random::<4>()))));
    crate::config::make_folder(&scaffold.0).map_err(|source| failed("write", folder, source))?;
    let copy = scaffold.0.join("ledger.db");
    copy_and_look(file, &copy).await?;
    std::fs::rename(&copy, &target).map_err(|source| failed("write", &target, source))?;
    sync_folder_of(&target).map_err(|source| failed("write", &target, source))
}

/// Copies a backup to where it is looked at: whole, of a ledger, and of a version that this program knows.
async fn copy_and_look(file: &Path, copy: &Path) -> Result<(), BackupError> {
    let (file, copy) = (file.to_owned(), copy.to_owned());
    let copying = tokio::task::spawn_blocking(move || {
        std::fs::copy(&file, &copy)
            .and_then(|_| File::open(&copy)?.sync_all())
            .map_err(|source| failed("restore", &file, source))?;
        store::look_at_sqlite(&copy).map_err(|error| match error {
            OpenError::Store(error) => not_a_backup(&file, &error),
            error => error.into(),
        })
    });
    copying.await.map_err(|_| BackupError::CutShort)?
}
