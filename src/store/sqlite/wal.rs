//! The WAL: how full it is, and how it is written back.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use rusqlite::Connection;

use super::super::connect::OpenError;
use super::{end_process_on_io_error, folder_error};

/// How full the WAL is, read from the header of its index: the file's length does not say, because it is used again
/// from its start. <https://www.sqlite.org/walformat.html>
pub(super) struct Wal(File);

impl Wal {
    pub(super) fn of(path: &Path) -> Result<Self, OpenError> {
        let index = path.with_extension("db-shm");
        File::open(&index).map(Self).map_err(|source| folder_error(&index, source))
    }

    /// Frames in the WAL, and how many of them are not in the database yet. Where that cannot be read, as many as can be:
    /// better one checkpoint too many than a WAL without bounds.
    pub(super) fn frames(&self) -> (u32, u32) {
        let number = |at| {
            let mut bytes = [0; 4];
            self.0.read_exact_at(&mut bytes, at).map(|()| u32::from_ne_bytes(bytes))
        };
        match (number(16), number(96)) {
            (Ok(frames), Ok(in_database)) => (frames, frames.saturating_sub(in_database)),
            _ => (u32::MAX, u32::MAX),
        }
    }
}

/// Writes the WAL back into the database. A reader that still looks at it puts a part of that off, no more; false where
/// such a reader kept it from what it was asked.
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> bool {
    let started = Instant::now();
    let pragma = format!("PRAGMA wal_checkpoint({mode})");
    match connection.query_row(&pragma, [], |row| row.get::<_, i64>(0)) {
        Ok(busy) => {
            tracing::debug!(mode, busy, elapsed = ?started.elapsed(), "checkpoint");
            busy == 0
        }
        Err(error) => {
            end_process_on_io_error(&error);
            false
        }
    }
}
