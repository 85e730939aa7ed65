//! Writing an export, page by page: memory stays flat, and no read transaction is longer than a page's.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::manifest::{FORMAT, hash_texts};
use super::{FileEntry, LEAVES, MANIFEST, Manifest, PIECE, Proof, RECEIPTS, piece_name};
use crate::audit::checkpoint::Signed;
use crate::audit::{feed, leaf, tlog};
use crate::durable::{self, Hashed};
use crate::entity::{fold, stream_of};
use crate::provenance::{LEDGER_ID, Provenance};
use crate::secrets::Secrets;
use crate::store::{BUCKET, Cell, Row, Statement, Store, StoreError, StoredEvent, StoredReceipt};
use crate::value::hex;

/// Events or receipts of one read.
const PAGE: i64 = 2_000;

/// How hard zstd tries: its own default.
const LEVEL: i32 = 3;

/// What is to be exported.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The first position; None = the first of the log.
    pub from: Option<i64>,
    /// The last position; None = as far as is signed, or the head where nothing was ever signed.
    pub to: Option<i64>,
    /// Whether positions behind the last checkpoint are wanted too, which nothing proves yet.
    pub unsigned: bool,
    /// The ledger's secret, from which its verifier keys follow; without it the manifest names none.
    pub secrets: Option<Secrets>,
}

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file or folder.
    #[error("cannot write {path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The folder is there, or its draft.
    #[error("{0}")]
    InTheWay(String),
    /// The log has no such positions.
    #[error("there are no positions from {from} to {to}: the log ends at {head}")]
    NoSuchPositions {
        /// What was asked.
        from: i64,
        /// What was asked.
        to: i64,
        /// The last position.
        head: i64,
    },
    /// Nothing proves these positions yet.
    #[error(
        "position {to} is not signed yet: the last checkpoint covers {size}; end there, or export what nothing proves \
         with --unsigned"
    )]
    NotSigned {
        /// What was asked.
        to: i64,
        /// How far is signed.
        size: i64,
    },
    /// The log is not what it should be.
    #[error("{0}")]
    Damaged(String),
}

/// Writes a range of the log into a folder that must not be there yet. `progress` is told how many of how many events
/// are written.
pub async fn export(
    store: &Store,
    wanted: &Wanted,
    folder: &Path,
    mut progress: impl FnMut(i64, i64),
) -> Result<Manifest, ExportError> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let draft = folder.with_file_name(format!("{name}.draft"));
    if folder.exists() {
        return Err(ExportError::InTheWay(format!("{} is there already", folder.display())));
    }
    let plan = Plan::make(store, wanted).await?;
    std::fs::create_dir(&draft).map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => ExportError::InTheWay(format!(
            "{} is there: another export writes it, or was cut off; remove it and try again",
            draft.display()
        )),
        _ => io_error(&draft, source),
    })?;
    let written = match write(store, plan, &draft, &mut progress).await {
        Ok(manifest) => publish(&draft, folder).map(|()| manifest),
        Err(error) => Err(error),
    };
    if written.is_err() {
        // What failed is what is told; a draft that cannot be removed says so the next time.
        let _ = std::fs::remove_dir_all(&draft);
    }
    written
}

fn io_error(path: &Path, source: std::io::Error) -> ExportError {
    ExportError::Io { path: path.display().to_string(), source }
}

/// Under its own name only once everything is on disk.
fn publish(draft: &Path, folder: &Path) -> Result<(), ExportError> {
    durable::sync_folder_of(&draft.join(MANIFEST)).map_err(|source| io_error(draft, source))?;
    std::fs::rename(draft, folder).map_err(|source| io_error(folder, source))?;
    durable::sync_folder_of(folder).map_err(|source| io_error(folder, source))
}

/// What is known before anything is written.
struct Plan {
    from: i64,
    to: i64,
    /// How many leaves the tiles have.
    hashed: u64,
    manifest: Manifest,
}

impl Plan {
    async fn make(store: &Store, wanted: &Wanted) -> Result<Self, ExportError> {
        // In this order: the log may grow meanwhile, and is then longer than what is signed of it, never shorter.
        let signed = tlog::latest(store).await?;
        let hashed = tlog::size(store).await?;
        let head =
            one(store, "SELECT position FROM log_head WHERE bucket = $1", [BUCKET.into()]).await?.int(0);
        let size = signed.as_ref().map(|signed| signed.size as i64);
        let from = wanted.from.unwrap_or(1);
        let last = if wanted.unsigned { head } else { size.unwrap_or(head) };
        let to = wanted.to.unwrap_or(last);
        if from < 1 || to < from || to > head {
            return Err(ExportError::NoSuchPositions { from, to, head });
        }
        let proof = match signed {
            Some(signed) if to <= signed.size as i64 => Some(prove(store, wanted, (from, to), signed).await?),
            Some(signed) if !wanted.unsigned => {
                return Err(ExportError::NotSigned { to, size: signed.size as i64 });
            }
            _ => None,
        };
        let fact = "SELECT value FROM ledger_facts WHERE name = $1";
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            origin: store.origin().await?.unwrap_or_default(),
            // Not checked against `wanted.secrets`: a key that is another's shows when somebody checks the export.
            secret_id: one(store, fact, ["secret_id".into()]).await?.take_text(0),
            from,
            to,
            head,
            proof,
            ..Manifest::default()
        };
        Ok(Self { from, to, hashed, manifest })
    }
}

async fn one(
    store: &Store,
    sql: &'static str,
    parameters: impl IntoIterator<Item = Cell>,
) -> Result<Row, StoreError> {
    let rows = store.query(Statement::new(sql, parameters)).await?;
    Ok(rows.into_iter().next().unwrap_or(Row(Vec::new())))
}

/// The leaves before and behind the range, as the roots of subtrees that the log keeps anyway.
async fn prove(
    store: &Store,
    wanted: &Wanted,
    (from, to): (i64, i64),
    signed: Signed,
) -> Result<Proof, ExportError> {
    let before = tlog::subtrees(store, 0, (from - 1) as u64).await?;
    let after = tlog::subtrees(store, to as u64, signed.size).await?;
    Ok(Proof {
        checkpoint: signed.note,
        keys: own_keys(store, wanted.secrets.as_ref()).await?,
        before: hash_texts(&before),
        after: hash_texts(&after),
    })
}

/// The keys that have signed this log, the first one first.
async fn own_keys(store: &Store, secrets: Option<&Secrets>) -> Result<Vec<String>, ExportError> {
    let (Some(secrets), Some(origin)) = (secrets, store.origin().await?) else { return Ok(Vec::new()) };
    let stream = store.load_one(stream_of::<Provenance>(LEDGER_ID)).await?;
    let (provenance, _) =
        fold::<Provenance>(&stream).map_err(|corrupt| ExportError::Damaged(corrupt.to_string()))?;
    Ok(tlog::verifier_keys(secrets, &origin, provenance.key_generation()))
}

async fn write(
    store: &Store,
    plan: Plan,
    draft: &Path,
    progress: &mut impl FnMut(i64, i64),
) -> Result<Manifest, ExportError> {
    let Plan { from, to, hashed, mut manifest } = plan;
    let mut leaves = Written::plain(draft, LEAVES.to_owned())?;
    let mut contents = Sha256::new();
    let mut position = from - 1;
    while position < to {
        let first = position + 1;
        let last = to.min(position + PIECE);
        let mut piece = Written::compressed(draft, piece_name(first))?;
        while position < last {
            let page = store.events_after(position, PAGE.min(last - position)).await?;
            refuse_gaps(position, &page)?;
            for leaf in tlog::leaves(store, &page, hashed).await? {
                leaves.put(&leaf.0)?;
            }
            for event in &page {
                piece.put_line(&feed::line(event)?)?;
                if !leaf::is_import_note(event) {
                    contents.update(leaf::contents(event));
                }
                *manifest.events.entry(kind_of(event)).or_default() += 1;
                if event.position == from {
                    manifest.recorded_from_ms = event.recorded_at_ms;
                }
                manifest.recorded_to_ms = event.recorded_at_ms;
                position = event.position;
            }
            progress(position - from + 1, to - from + 1);
        }
        manifest.files.push(piece.finish(first, last)?);
    }
    manifest.files.push(leaves.finish(from, to)?);
    let mut receipts = Written::compressed(draft, RECEIPTS.to_owned())?;
    manifest.receipts = write_receipts(store, from, to, &mut receipts).await?;
    manifest.files.push(receipts.finish(from, to)?);
    manifest.digest = hex(&contents.finalize());
    let manifest = manifest.sealed().map_err(|error| ExportError::Damaged(error.to_string()))?;
    let bytes = manifest.bytes().map_err(|error| ExportError::Damaged(error.to_string()))?;
    let mut file = Written::plain(draft, MANIFEST.to_owned())?;
    file.put(&bytes)?;
    file.finish(from, to)?;
    Ok(manifest)
}

/// What an export's counts are by.
pub(in crate::audit) fn kind_of(event: &StoredEvent) -> String {
    format!("{}/{}", event.aggregate_type, event.event_type)
}

fn refuse_gaps(position: i64, page: &[StoredEvent]) -> Result<(), ExportError> {
    let expected = position + 1..;
    let gap = expected.clone().zip(page).find(|(expected, event)| event.position != *expected);
    match gap {
        Some((missing, _)) => Err(ExportError::Damaged(format!("position {missing} of the log is missing"))),
        None if page.is_empty() => {
            Err(ExportError::Damaged(format!("position {} of the log is missing", position + 1)))
        }
        None => Ok(()),
    }
}

/// They have no index by position: all are walked by their key, and those of the range are kept.
async fn write_receipts(store: &Store, from: i64, to: i64, into: &mut Written) -> Result<i64, ExportError> {
    let sql = "SELECT caller, operation, key, request_mac, position, event_count FROM receipts
               WHERE bucket = $1 AND (caller, operation, key) > ($2, $3, $4)
               ORDER BY bucket, caller, operation, key LIMIT $5";
    let mut after = [String::new(), String::new(), String::new()];
    let mut written = 0;
    loop {
        let [caller, operation, key] = after.each_ref().map(|text| Cell::from(text.as_str()));
        let parameters = [BUCKET.into(), caller, operation, key, PAGE.into()];
        let page = store.query(Statement::new(sql, parameters)).await?;
        for row in page.iter().filter(|row| (from..=to).contains(&row.int(4))) {
            let [caller, operation, key, request_mac] =
                [0, 1, 2, 3].map(|column| row.text(column).to_owned());
            let line = StoredReceipt {
                caller,
                operation,
                key,
                request_mac,
                position: row.int(4),
                event_count: row.int(5),
            };
            let line =
                serde_json::to_string(&line).map_err(|error| ExportError::Damaged(error.to_string()))?;
            into.put_line(&line)?;
            written += 1;
        }
        match page.last() {
            Some(last) if page.len() as i64 == PAGE => {
                after = [0, 1, 2].map(|column| last.text(column).to_owned());
            }
            _ => return Ok(written),
        }
    }
}

/// A file on its way, with the digest of what goes to disk.
struct Written {
    path: PathBuf,
    name: String,
    into: Into,
}

enum Into {
    Plain(Hashed),
    Compressed(zstd::Encoder<'static, Hashed>),
}

impl Written {
    fn open(folder: &Path, name: &str) -> Result<(PathBuf, Hashed), ExportError> {
        let path = folder.join(name);
        let file = File::create_new(&path).map_err(|source| io_error(&path, source))?;
        Ok((path, Hashed::new(file)))
    }

    fn plain(folder: &Path, name: String) -> Result<Self, ExportError> {
        let (path, hashed) = Self::open(folder, &name)?;
        Ok(Self { path, name, into: Into::Plain(hashed) })
    }

    fn compressed(folder: &Path, name: String) -> Result<Self, ExportError> {
        let (path, hashed) = Self::open(folder, &name)?;
        let encoder = zstd::Encoder::new(hashed, LEVEL).and_then(|mut encoder| {
            // A copy that was damaged on the way is then no stream at all, even without this program.
            encoder.include_checksum(true)?;
            Ok(encoder)
        });
        let encoder = encoder.map_err(|source| io_error(&path, source))?;
        Ok(Self { path, name, into: Into::Compressed(encoder) })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        let put = match &mut self.into {
            Into::Plain(hashed) => hashed.write_all(bytes),
            Into::Compressed(encoder) => encoder.write_all(bytes),
        };
        put.map_err(|source| io_error(&self.path, source))
    }

    fn put_line(&mut self, line: &str) -> Result<(), ExportError> {
        self.put(line.as_bytes())?;
        self.put(b"\n")
    }

    /// On disk, whatever happens next.
    fn finish(self, first: i64, last: i64) -> Result<FileEntry, ExportError> {
        let finish = || match self.into {
            Into::Plain(hashed) => hashed.finish(),
            Into::Compressed(encoder) => encoder.finish()?.finish(),
        };
        let (sha256, bytes) = finish().map_err(|source| io_error(&self.path, source))?;
        Ok(FileEntry { name: self.name, sha256, bytes, first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_in_the_log_is_named() {
        let event = |position| StoredEvent {
            position,
            aggregate_type: "coupon".to_owned(),
            aggregate_id: "1".to_owned(),
            sequence: 1,
            event_type: "Viewed".to_owned(),
            event_version: "1.0".to_owned(),
            payload: "{}".to_owned(),
            metadata: "{}".to_owned(),
            recorded_at_ms: 0,
        };
        assert!(refuse_gaps(4, &[event(5), event(6)]).is_ok());
        for (page, missing) in [(vec![], 5), (vec![event(6)], 5), (vec![event(5), event(7)], 6)] {
            let said = refuse_gaps(4, &page).unwrap_err().to_string();
            assert_eq!(said, format!("position {missing} of the log is missing"));
        }
    }
}
