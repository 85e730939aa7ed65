//! Scratch ledgers: copies of a part of a log, made to be asked and thrown away.
//!
//! Events are put into one exactly as they are stored elsewhere, positions and times with them, and not every stream need be
//! there. That must never happen to a ledger: only a [`Scratch`] can do it, it is always a new database, and no server
//! starts on one. An I/O error of it is an error and no more: nothing that was acknowledged lies in it.

use std::path::{Path, PathBuf};

use super::connect::OpenError;
use super::{Effects, LiveRow, SqliteStore, Statement, StockOf, Store, StoreError, StoredEvent};
use crate::value::{hex, random};

/// What stands where a ledger remembers its secret: `store::open` refuses what was started with another.
const NO_SECRET: &str = "none, it is a copy of a part of another ledger";

/// Where a scratch ledger lies.
enum Place {
    /// In memory.
    Memory,
    /// In this file, which nobody knows yet.
    File(Draft),
}

/// A ledger that is nobody's.
pub struct Scratch {
    store: SqliteStore,
    place: Place,
}

/// A file in the making: unless it is finished, nothing is left of it.
struct Draft(PathBuf);

impl Draft {
    /// A new file that only its owner can read.
    fn beside(path: &Path) -> Result<Self, OpenError> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let draft = path.with_file_name(format!(".{name}.{}.draft", hex(&random::<6>())));
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .map_err(|source| OpenError::Folder { path: draft.display().to_string(), source })?;
        Ok(Self(draft))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        for behind in ["", "-wal", "-shm", "-journal"] {
            let mut name = self.0.clone().into_os_string();
            name.push(behind);
            // What is not there need not go.
            let _ = std::fs::remove_file(name);
        }
    }
}

impl Scratch {
    /// An empty one in memory.
    pub async fn in_memory() -> Result<Self, OpenError> {
        let name = format!("file:/scratch-{}?vfs=memdb", hex(&random::<12>()));
        Self::begin(SqliteStore::open_in_memory(&name)?, Place::Memory).await
    }

    /// An empty one in a new file beside `path`, which is not touched until [`Scratch::finish_as`].
    pub async fn beside(path: &Path) -> Result<Self, OpenError> {
        let draft = Draft::beside(path)?;
        Self::begin(SqliteStore::open_scratch_file(&draft.0)?, Place::File(draft)).await
    }

    /// An empty one in a new file among the system's temporary ones.
    pub async fn temporary() -> Result<Self, OpenError> {
        Self::beside(&std::env::temp_dir().join("coupon-ledger-scratch")).await
    }

    async fn begin(store: SqliteStore, place: Place) -> Result<Self, OpenError> {
        let sql = "INSERT INTO ledger_facts (name, value) VALUES ('secret_id', $1)";
        store.put(vec![Statement::new(sql, [NO_SECRET.into()])]).await?;
        Ok(Self { store, place })
    }

    /// The ledger that it is.
    #[must_use]
    pub fn store(&self) -> Store {
        Store::Sqlite(self.store.clone())
    }

    /// Puts events into its log exactly as they are.
    pub async fn put_events(&self, events: Vec<StoredEvent>) -> Result<(), StoreError> {
        self.store.put_events(events).await
    }

    /// Puts rows into its live tables, each new.
    pub async fn put_rows(&self, rows: Vec<LiveRow>) -> Result<(), StoreError> {
        self.store.put_rows(rows).await
    }

    /// Puts the events that come next, and what they write beside, which moves its head and its counters.
    pub async fn put_further(
        &self,
        events: Vec<StoredEvent>,
        effects: Vec<Effects>,
    ) -> Result<(), StoreError> {
        self.store.put_further(events, effects).await
    }

    /// Runs statements on what is neither log nor live table.
    pub async fn put(&self, statements: Vec<Statement>) -> Result<(), StoreError> {
        self.store.put(statements).await
    }

    /// Counts what its rows come to, and sets its head. `stock` is by the stock's key: None = unlimited.
    pub async fn count(
        &self,
        stock: Vec<(StockOf, Option<i64>)>,
        position: i64,
        last_ms: i64,
    ) -> Result<(), StoreError> {
        self.store.put_counters(stock).await?;
        let sql = "UPDATE log_head SET position = $1, last_ms = $2";
        self.put(vec![Statement::new(sql, [position.into(), last_ms.into()])]).await
    }

    /// Ends it, and nothing is left of it.
    pub async fn close(self) {
        self.store.close().await;
    }

    /// Ends it and leaves it as this one file, whole and on disk, where nothing was before.
    pub async fn finish_as(self, path: &Path) -> Result<(), OpenError> {
        self.store.close().await;
        let Place::File(draft) = &self.place else {
            return Err(OpenError::NoLedger("memory".to_owned()));
        };
        SqliteStore::settle_file(&draft.0)?;
        let failed = |source| OpenError::Folder { path: path.display().to_string(), source };
        std::fs::File::open(&draft.0).and_then(|file| file.sync_all()).map_err(failed)?;
        // A link, not a rename: a file that has come to be there meanwhile is not overwritten.
        std::fs::hard_link(&draft.0, path).map_err(failed)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}
