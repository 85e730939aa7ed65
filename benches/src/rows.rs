//! The rows of the table, by what they need.

pub mod bulk;
pub mod commands;
pub mod export;
pub mod flood;
pub mod hot;
pub mod reads;
pub mod send;
pub mod statistics;
pub mod sweep;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

/// What holds for every row.
pub struct Settings {
    /// Connections instead of the row's own.
    pub connections: Option<usize>,
    /// Length of a round.
    pub seconds: f64,
    /// Rounds.
    pub rounds: usize,
    /// How much of the full load is loaded.
    pub scale: f64,
    /// Commands in a batch of the raw limits.
    pub raw_batch: usize,
    /// The program.
    pub program: PathBuf,
    /// Where folders are made.
    pub folder: TempDir,
}

impl Settings {
    /// A part of the full load, at least 100.
    pub fn scaled(&self, full: i64) -> i64 {
        ((full as f64 * self.scale) as i64).max(100)
    }

    /// A round.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// All rounds of a row.
    pub fn all_rounds(&self) -> Duration {
        self.duration() * self.rounds as u32
    }

    /// Where folders are made.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}
