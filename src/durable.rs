//! Files that are whole or not there, however the machine goes down: written beside, synced, renamed, and the folder synced.

use std::fs::{File, OpenOptions};
use std::io::{Result, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::value::{hex, random};

/// Replaces a file: whole or not at all, and on disk when this returns. A file that is new has mode 0600.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    // A name of its own: another process that writes the same file at once tears nothing.
    let draft = beside(path, &format!("{}.draft", hex(&random::<4>())));
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&draft, path)
        });
    if written.is_err() {
        // Why it could not be written is what is told.
        let _ = std::fs::remove_file(&draft);
    }
    written.and_then(|()| sync_folder_of(path))
}

/// Puts on disk under which names the files of a folder are there: this one's, and its neighbours'.
pub fn sync_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Waits until no other process holds a file's lock, which lies beside it; this one holds it until the answer is dropped.
pub fn lock(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    let lock = options.create(true).truncate(false).write(true).mode(0o600).open(beside(path, "lock"))?;
    lock.lock()?;
    Ok(lock)
}

/// A name in the same folder: the file's own with an ending.
#[must_use]
pub fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{ending}"));
    path.with_file_name(name)
}
