//! The embedded ledger as one file: copied while a server writes, and looked at before it is put to use.

use std::path::Path;
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::connect::OpenError;
use super::{BUCKET, SCHEMA_VERSION, StoreError};

/// What a copy holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its last position.
    pub position: i64,
}

/// Copies a folder's ledger into a file that is there and empty, as of one instant. Only reads: while it copies the
/// write-ahead log grows by what is written meanwhile, and is used again from its start when it is done.
pub fn copy_sqlite(folder: &Path, to: &Path) -> Result<Snapshot, OpenError> {
    let path = folder.join("ledger.db");
    if !path.exists() {
        return Err(OpenError::NoLedger(folder.display().to_string()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let from = Connection::open_with_flags(&path, flags)?;
    from.busy_timeout(Duration::from_secs(5))?;
    let mut copy = Connection::open(to)?;
    {
        let backup = Backup::new(&from, &mut copy)?;
        // All pages in one step, which is one read transaction: between two steps a writer would make it begin anew.
        while backup.step(-1).map_err(without_message)? != StepResult::Done {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    // One file, with nothing beside it, also on a medium that cannot be written.
    copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    let snapshot = read(&copy)?;
    copy.close().map_err(|(_, error)| error)?;
    Ok(snapshot)
}

/// A step's error: its message is that of the connection it was not made on, "not an error".
fn without_message(error: rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, _) => rusqlite::Error::SqliteFailure(code, None),
        error => error,
    }
}

/// Whether a file is a ledger that is whole and of a version that this program knows.
pub fn look_at_sqlite(path: &Path) -> Result<(), OpenError> {
    let connection = Connection::open(path)?;
    let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if sound != "ok" {
        let corrupt =
            |what| StoreError::Corrupt { table: "the file".to_owned(), column: "any".to_owned(), what };
        return Err(corrupt(sound).into());
    }
    read(&connection)?;
    connection.close().map_err(|(_, error)| error.into())
}

fn read(connection: &Connection) -> Result<Snapshot, OpenError> {
    let found = connection.query_row("SELECT MAX(version) FROM schema_versions", [], |row| row.get(0))?;
    if found > SCHEMA_VERSION {
        return Err(OpenError::NewerLedger { found, known: SCHEMA_VERSION });
    }
    let sql = "SELECT position FROM log_head WHERE bucket = ?1";
    Ok(Snapshot { position: connection.query_row(sql, [BUCKET], |row| row.get(0))? })
}
