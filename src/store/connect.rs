//! Opening a ledger: which engine, whether it is safe to run on, and whether this program may.

use std::path::{Path, PathBuf};

use super::{PostgresStore, SqliteStore, Statement, Store, StoreError};
use crate::value::{hex, random};

/// Where a ledger lies and who opens it.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The folder of the embedded ledger; with PostgreSQL it holds the secret only.
    pub data_dir: PathBuf,
    /// A `postgres://` URL; None = SQLite in the data folder.
    pub database_url: Option<String>,
    /// Tells the root secret apart from another without giving it away.
    pub secret_id: String,
    /// Now, Unix milliseconds.
    pub now_ms: i64,
}

/// Why a ledger could not be opened, in a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file under `projections/` makes no statistic.
    #[error(transparent)]
    Statistic(#[from] super::statistics::BadStatistic),
    /// Another process writes to the data folder.
    #[error("the data folder {folder} is in use{holder}")]
    InUse {
        /// Which folder.
        folder: String,
        /// By whom, as far as the folder tells.
        holder: String,
    },
    /// The folder or a file in it cannot be used.
    #[error("cannot use {path}: {source}")]
    Folder {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The database cannot be reached.
    #[error("cannot reach the database at {host}: {source}")]
    Unreachable {
        /// Where it was looked for; never with a password.
        host: String,
        /// Why.
        source: sqlx::Error,
    },
    /// The database URL cannot be used.
    #[error("the database URL cannot be used: {0}")]
    BadUrl(String),
    /// The server is too old.
    #[error("PostgreSQL {found} is too old: 15 or later is needed")]
    TooOld {
        /// What answered.
        found: String,
    },
    /// The server would lose what it acknowledged.
    #[error("the database runs with {setting}={value}: an acknowledged coupon could be lost; turn it on")]
    UnsafeSetting {
        /// Which setting.
        setting: String,
        /// Its value.
        value: String,
    },
    /// The ledger was written by a newer program.
    #[error(
        "this ledger is from a newer version (schema {found}, this program knows {known}): run that version"
    )]
    NewerLedger {
        /// The ledger's.
        found: i64,
        /// This program's.
        known: i64,
    },
    /// The ledger was started with another root secret.
    #[error(
        "this ledger was started with another secret ({expected}, not {found}): gift codes, tokens and idempotency keys \
         would not hold; give the same secret (--secret-file or COUPON_LEDGER_SECRET)"
    )]
    OtherSecret {
        /// The id the ledger remembers.
        expected: String,
        /// The id of the secret given.
        found: String,
    },
    /// There is nothing to read.
    #[error("there is no ledger in {0}: start the server once")]
    NoLedger(String),
    /// Half of another ledger.
    #[error(
        "the import of an export into this ledger was begun and is not finished: finish it with the same \
         `coupon-ledger import export DIR`, or remove the data folder (on PostgreSQL, drop the database) and start anew"
    )]
    HalfImported,
    /// Anything else the database says.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for OpenError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Opens a ledger for writing: brings it up to date and makes sure that it is this program's to write.
pub async fn open(options: &StoreOptions) -> Result<Store, OpenError> {
    let store = open_for_takeover(options).await?;
    refuse_half_imported(&store).await?;
    Ok(store)
}

/// The same for whoever takes an export over: what an import that was cut off has left may be there.
pub async fn open_for_takeover(options: &StoreOptions) -> Result<Store, OpenError> {
    let store = match &options.database_url {
        Some(url) => Store::Postgres(PostgresStore::open(url, options.now_ms).await?),
        None => Store::Sqlite(SqliteStore::open(&options.data_dir, options.now_ms)?),
    };
    check_secret(&store, &options.secret_id).await?;
    name_ledger(&store).await?;
    Ok(store)
}

/// Opens a ledger for reading while a server may run on it. Migrates nothing, writes nothing.
pub async fn open_read_only(options: &StoreOptions) -> Result<Store, OpenError> {
    let store = match &options.database_url {
        Some(url) => {
            let store = PostgresStore::connect(url).await?;
            if !store.has_ledger().await? {
                store.close().await;
                return Err(OpenError::NoLedger("this database".to_owned()));
            }
            Store::Postgres(store)
        }
        None => Store::Sqlite(SqliteStore::open_read_only(&options.data_dir)?),
    };
    refuse_half_imported(&store).await?;
    Ok(store)
}

/// Opens a backup of the embedded engine for reading.
pub fn open_copy(file: &Path) -> Result<Store, OpenError> {
    Ok(Store::Sqlite(SqliteStore::open_copy(file)?))
}

async fn refuse_half_imported(store: &Store) -> Result<(), OpenError> {
    if store.takeover().await?.is_none() {
        return Ok(());
    }
    store.close().await;
    Err(OpenError::HalfImported)
}

/// The first start writes down which secret it is; every later one must have the same.
async fn check_secret(store: &Store, secret_id: &str) -> Result<(), OpenError> {
    let rows = store
        .write(vec![
            Statement::new(
                "INSERT INTO ledger_facts (name, value) VALUES ('secret_id', $1) ON CONFLICT (name) DO NOTHING",
                [secret_id.into()],
            ),
            Statement::new("SELECT value FROM ledger_facts WHERE name = 'secret_id'", []),
        ])
        .await?;
    let expected =
        rows.get(1).and_then(|rows| rows.first()).map(|row| row.text(0).to_owned()).unwrap_or_default();
    if expected == secret_id {
        return Ok(());
    }
    Err(OpenError::OtherSecret { expected, found: secret_id.to_owned() })
}

/// The first start gives the ledger a name that no other has: the origin of its transparency log.
async fn name_ledger(store: &Store) -> Result<(), StoreError> {
    if store.origin().await?.is_some() {
        return Ok(());
    }
    let sql = "INSERT INTO ledger_facts (name, value) VALUES ('origin', $1) ON CONFLICT (name) DO NOTHING";
    let origin = format!("coupon-ledger/{}", hex(&random::<8>()));
    store.write(vec![Statement::new(sql, [origin.into()])]).await.map(drop)
}
