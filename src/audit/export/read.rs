//! Reading an export: every byte is hashed on the way, every line must be what this program writes.
//!
//! What is wrong with the folder is damage, handed to whoever reads; what keeps it from being read at all is an error.
//! Nothing is believed here: whether the events are what was signed is for `check`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{FileEntry, LEAVES, MANIFEST, Manifest, RECEIPTS};
use crate::audit::feed;
use crate::store::{StoredEvent, StoredReceipt};
use crate::value::hex;

/// The longest line that is read. A request's body is far smaller.
pub const MAX_LINE: u64 = 16 << 20;

/// The largest manifest that is read: that of a hundred billion events is half as large.
const MAX_MANIFEST: u64 = 256 << 20;

/// Why an export could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file or folder.
    #[error("cannot read {path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// There is none.
    #[error("there is no export in {0}: it has no manifest.json")]
    NoExport(String),
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which file.
    pub file: String,
    /// At or behind which position, as far as that is known.
    pub position: Option<i64>,
    /// What.
    pub what: String,
}

/// The folder of an export.
pub struct Archive {
    folder: PathBuf,
    manifest: Manifest,
}

impl Archive {
    /// Reads its manifest; damage where that is not whole.
    pub fn open(folder: &Path) -> Result<Result<Self, Damage>, ReadError> {
        let path = folder.join(MANIFEST);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(MAX_MANIFEST + 1).read_to_end(&mut bytes)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(ReadError::NoExport(folder.display().to_string()));
            }
            read => read.map_err(|source| io_error(&path, source))?,
        };
        let parsed = if bytes.len() as u64 > MAX_MANIFEST {
            Err("it is larger than any that this program writes".to_owned())
        } else {
            Manifest::parse(&bytes)
        };
        Ok(match parsed {
            Ok(manifest) => Ok(Self { folder: folder.to_owned(), manifest }),
            Err(what) => Err(Damage { file: MANIFEST.to_owned(), position: None, what }),
        })
    }

    /// What it says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Every event of its files, in their order, and all damage.
    pub fn events(&self, mut meet: impl FnMut(Result<StoredEvent, Damage>)) -> Result<(), ReadError> {
        for piece in self.manifest.pieces() {
            let mut next = piece.first;
            let line = |text: &str| {
                let event = feed::event_of(text).ok_or_else(|| Damage {
                    file: piece.name.clone(),
                    position: Some(next),
                    what: "the line is not one that this program wrote".to_owned(),
                });
                let position = event.as_ref().map_or(next, |event| event.position);
                next = position.saturating_add(1);
                event
            };
            // One line more than there must be: it is damage, and is told as an event that is too many.
            let most = piece.last.saturating_sub(piece.first).saturating_add(1);
            self.lines(piece, most, line, &mut meet)?;
        }
        Ok(())
    }

    /// Every receipt, in its order, and all damage.
    pub fn receipts(&self, mut meet: impl FnMut(Result<StoredReceipt, Damage>)) -> Result<(), ReadError> {
        let Some(file) = self.manifest.file(RECEIPTS) else { return Ok(()) };
        let mut number = 0_u64;
        let line = |text: &str| {
            number += 1;
            let receipt: Option<StoredReceipt> = serde_json::from_str(text).ok();
            receipt
                .filter(|receipt| serde_json::to_string(receipt).is_ok_and(|again| again == text))
                .ok_or_else(|| Damage {
                    file: file.name.clone(),
                    position: None,
                    what: format!("line {number} is not one that this program wrote"),
                })
        };
        self.lines(file, self.manifest.receipts, line, &mut meet)
    }

    /// The leaves as they are kept, in order; None where there is no such file.
    pub fn leaves(&self) -> Result<Option<Leaves>, ReadError> {
        let path = self.folder.join(LEAVES);
        match File::open(&path) {
            Ok(file) => Ok(Some(Leaves { path, file: BufReader::with_capacity(1 << 16, file) })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io_error(&path, source)),
        }
    }

    /// Holds the leaves' file against the manifest.
    pub fn check_leaves(&self, mut damaged: impl FnMut(Damage)) -> Result<(), ReadError> {
        let Some(entry) = self.manifest.file(LEAVES) else { return Ok(()) };
        let Some(mut file) = self.open_file(entry, &mut damaged)? else { return Ok(()) };
        file.finish(&self.folder, entry, &mut damaged)
    }

    fn open_file(
        &self,
        entry: &FileEntry,
        damaged: &mut impl FnMut(Damage),
    ) -> Result<Option<Hashed>, ReadError> {
        let path = self.folder.join(&entry.name);
        match File::open(&path) {
            Ok(file) => Ok(Some(Hashed { file, digest: Sha256::new(), bytes: 0 })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let what = "the file is missing".to_owned();
                damaged(Damage { file: entry.name.clone(), position: Some(entry.first), what });
                Ok(None)
            }
            Err(source) => Err(io_error(&path, source)),
        }
    }

    /// Every line of a compressed file, but not more than one beyond how many there are to be; then its digest. A line that is
    /// no good says so, and the next one is read.
    fn lines<T>(
        &self,
        entry: &FileEntry,
        most: i64,
        mut parse: impl FnMut(&str) -> Result<T, Damage>,
        meet: &mut impl FnMut(Result<T, Damage>),
    ) -> Result<(), ReadError> {
        let mut damaged = |damage: Damage| meet(Err(damage));
        let Some(file) = self.open_file(entry, &mut damaged)? else { return Ok(()) };
        let damage = |what: String| Damage { file: entry.name.clone(), position: None, what };
        let path = self.folder.join(&entry.name);
        let mut reader = BufReader::with_capacity(1 << 16, file);
        match zstd::Decoder::with_buffer(&mut reader) {
            Ok(decoder) => {
                let mut lines = BufReader::with_capacity(1 << 17, decoder);
                let mut line = Vec::new();
                let mut count = 0_i64;
                loop {
                    if count > most {
                        // A little file can be told to hold lines without end.
                        let what = format!("it has more lines than the {most} that the manifest says");
                        meet(Err(Damage { position: Some(entry.last), ..damage(what) }));
                        break;
                    }
                    count += 1;
                    line.clear();
                    match (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line) {
                        Ok(0) => break,
                        Ok(_) => {}
                        Err(error) => {
                            meet(Err(damage(format!("it cannot be decompressed to its end: {error}"))));
                            break;
                        }
                    }
                    let text = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
                    // What is no line at all goes the way of a line that is none of ours.
                    meet(parse(text.unwrap_or_default()));
                }
            }
            Err(source) => return Err(io_error(&path, source)),
        }
        // What the decompressor did not want belongs to the file all the same.
        let mut rest = reader.into_inner();
        rest.finish(&self.folder, entry, &mut |damage| meet(Err(damage)))
    }
}

fn io_error(path: &Path, source: std::io::Error) -> ReadError {
    ReadError::Io { path: path.display().to_string(), source }
}

/// A file that is hashed while it is read.
struct Hashed {
    file: File,
    digest: Sha256,
    bytes: u64,
}

impl Read for Hashed {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(into)?;
        self.digest.update(into.get(..read).unwrap_or_default());
        self.bytes += read as u64;
        Ok(read)
    }
}

impl Hashed {
    /// Reads what is left, and holds the whole against the manifest.
    fn finish(
        &mut self,
        folder: &Path,
        entry: &FileEntry,
        damaged: &mut impl FnMut(Damage),
    ) -> Result<(), ReadError> {
        std::io::copy(self, &mut std::io::sink())
            .map_err(|source| io_error(&folder.join(&entry.name), source))?;
        let sha256 = hex(&std::mem::take(&mut self.digest).finalize());
        if (self.bytes, sha256.as_str()) != (entry.bytes, entry.sha256.as_str()) {
            let what = format!(
                "the manifest says {} bytes with SHA-256 {}, the file has {} with {sha256}",
                entry.bytes, entry.sha256, self.bytes
            );
            damaged(Damage { file: entry.name.clone(), position: None, what });
        }
        Ok(())
    }
}

/// The leaves of an export, read one after the other.
pub struct Leaves {
    path: PathBuf,
    file: BufReader<File>,
}

impl Leaves {
    /// The next one; None at the end.
    pub fn next_leaf(&mut self) -> Result<Option<[u8; 32]>, ReadError> {
        let mut leaf = [0; 32];
        match self.file.read_exact(&mut leaf) {
            Ok(()) => Ok(Some(leaf)),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
            Err(source) => Err(io_error(&self.path, source)),
        }
    }
}
