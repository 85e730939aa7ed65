//! Files that are whole or not there, however the machine goes down: written beside, synced, renamed, and the folder synced.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Result, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::value::{hex, random};

/// Replaces a file: whole or not at all, and on disk when this returns. A file that is new has mode 0600.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    // A name of its own: another process that writes the same file at once tears nothing.
    let draft = beside(path, &format!("{}.draft", hex(&random::<4>())));
    let written = private().create_new(true).open(&draft).and_then(|mut file| {
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

/// How files are written that nobody else on the machine may read.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

/// A file on its way, with the digest and the number of the bytes that go into it.
pub(crate) struct Hashed {
    file: BufWriter<File>,
    digest: Sha256,
    bytes: u64,
}

impl Hashed {
    /// Of a file that is empty.
    pub(crate) fn new(file: File) -> Self {
        Self { file: BufWriter::with_capacity(1 << 16, file), digest: Sha256::new(), bytes: 0 }
    }

    /// Its SHA-256 and its length; on disk, whatever happens next.
    pub(crate) fn finish(mut self) -> Result<(String, u64)> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        Ok((hex(&self.digest.finalize()), self.bytes))
    }
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.file.write_all(bytes)?;
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush()
    }
}

/// Waits until no other process holds a file's lock, which lies beside it; this one holds it until the answer is dropped.
pub fn lock(path: &Path) -> Result<File> {
    let lock = private().create(true).truncate(false).open(beside(path, "lock"))?;
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
