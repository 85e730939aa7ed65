//! Making files: at once where they are small, else as jobs that go on after a kill.
//!
//! A job is read into parts and then written from them. Each finished part is on disk before it is written down, so what is
//! written down need not be read again; the file appears under its name only when it is whole. A folder has one worker, the
//! process that holds its lock, and its jobs are those that its id stands behind. What cannot be made says so and leaves
//! nothing behind; a database that is away makes nobody fail.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use futures::TryStreamExt as _;
use tokio::sync::Notify;

use super::file::{FileWriter, Head, write_all};
use super::record::{self, Asked, Export};
use super::rows::Reading;
use super::{ExportError, Format, Line, ROWS_AT_ONCE, parts};
use crate::config::make_folder;
use crate::durable::{self, Hashed, private};
use crate::identity::Caller;
use crate::ledger::Ledger;
use crate::reading::Person;
use crate::store::StoreError;
use crate::value::{hex, random};
use crate::watch::{Shown, write_reading};

/// How often a server looks for exports that others were asked for, and for files that are to go.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How often a file that is being written tells how far it is, and learns that nobody wants it any more.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Batches after which is told how far reading is, though they hold few rows.
const BATCHES: usize = 25;

/// Where a source has come to its end; no id is behind it.
const END: &str = "\u{10ffff}";

/// The file with the folder's id, and the name of the ledger whose it is.
const HOME: &str = "home";

/// The file that the folder's worker has locked.
const LOCK: &str = "lock";

/// What a draft's name ends with.
const DRAFT: &str = "draft";

const DAY_MS: i64 = 86_400_000;

/// Where files of exports lie, and for how long.
#[derive(Clone, Debug)]
pub struct ExportPlace {
    /// The folder.
    pub folder: PathBuf,
    /// The address of this server, for whoever asks another one.
    pub server: String,
    /// For how long a file is kept.
    pub keep_ms: i64,
    /// How many rows are answered at once; more are a job.
    pub rows_at_once: usize,
    /// How many rows one part holds.
    pub part_rows: usize,
    /// Told when there is something new to do.
    pub news: Arc<Notify>,
}

impl Default for ExportPlace {
    fn default() -> Self {
        Self {
            folder: PathBuf::from("data/exports"),
            server: String::new(),
            keep_ms: 7 * DAY_MS,
            rows_at_once: ROWS_AT_ONCE,
            part_rows: 25_000,
            news: Arc::default(),
        }
    }
}

impl ExportPlace {
    /// The id of the folder; None where nothing was ever made there.
    #[must_use]
    pub fn home(&self) -> Option<String> {
        self.home_and_ledger().map(|(home, _)| home)
    }

    /// The id of the folder, and the name of the ledger whose it is.
    fn home_and_ledger(&self) -> Option<(String, String)> {
        let text = std::fs::read_to_string(self.folder.join(HOME)).ok()?;
        let (home, ledger) = text.trim().split_once(' ')?;
        Some((home.to_owned(), ledger.to_owned()))
    }

    /// The file of an export.
    #[must_use]
    pub fn file_of(&self, export: &Export) -> PathBuf {
        self.folder.join(format!("{}.{}", export.id, export.asked.format.name()))
    }

    fn draft_of(&self, id: i64) -> PathBuf {
        self.folder.join(format!("{id}.{DRAFT}"))
    }

    /// Makes the folder what it must be: there, this ledger's, with an id, and this process's as long as the lock is held. None
    /// while another process has it. Refused where it is another ledger's, or somebody's who has other things in it: what is not
    /// under way there is removed.
    fn open(&self, ledger: &str) -> std::io::Result<Option<(File, String)>> {
        // Its owner's only, and so is every file: there may be personal data in it.
        make_folder(&self.folder)?;
        let lock = private().create(true).truncate(false).open(self.folder.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
        if let Some((home, of)) = self.home_and_ledger() {
            let refused = || std::io::Error::other(format!("the folder is of another ledger: {of}"));
            return if of == ledger { Ok(Some((lock, home))) } else { Err(refused()) };
        }
        for entry in std::fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            if name != LOCK {
                let name = name.to_string_lossy();
                return Err(std::io::Error::other(format!(
                    "the folder holds {name}: exports need one of their own"
                )));
            }
        }
        let home = hex(&random::<8>());
        durable::replace(&self.folder.join(HOME), format!("{home} {ledger}\n").as_bytes())?;
        Ok(Some((lock, home)))
    }
}

/// A small file, made at once.
#[derive(Debug)]
pub struct Answered {
    /// What it holds.
    pub bytes: Vec<u8>,
    /// How many rows.
    pub rows: i64,
    /// Whose personal data is in it.
    pub people: Vec<Person>,
}

/// A file of at most so many rows, in memory.
pub async fn answer(ledger: &Ledger, asked: &Asked, at_most: usize) -> Result<Answered, ExportError> {
    let reading = Reading::begin(ledger, asked.selection.clone(), asked.as_of).await?;
    let mut lines: Vec<Line> = Vec::new();
    let mut batches = reading.batches("");
    while let Some(batch) = batches.try_next().await? {
        lines.extend(batch.lines);
        if lines.len() > at_most {
            return Err(ExportError::TooMany(at_most));
        }
    }
    let (head, format, sheet) = (asked.head(ledger).await?, asked.format, asked.selection.sheet);
    let write = move || {
        parts::sort(&mut lines, sheet.keys);
        let bytes = write_all(format, &head, &lines)?;
        Ok(Answered { bytes, rows: lines.len() as i64, people: sheet.people(&lines) })
    };
    tokio::task::spawn_blocking(write).await.map_err(|_| ExportError::CutShort)?
}

/// Makes what is asked for, and takes away what has lapsed, for as long as the server runs.
pub async fn run_exports(ledger: Ledger, place: ExportPlace) {
    loop {
        if let Err(error) = tick(&ledger, &place).await {
            tracing::warn!(%error, "exports are not made just now");
        }
        tokio::select! {
            () = place.news.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Takes away what has lapsed and makes all that waits; how many came to their end, one way or the other.
///
/// # Errors
/// What keeps exports from being made at all: those that it has begun are gone on with the next time.
pub async fn tick(ledger: &Ledger, place: &ExportPlace) -> Result<usize, ExportError> {
    let origin = ledger.store().origin().await?.unwrap_or_default();
    let opened =
        place.open(&origin).map_err(|source| ExportError::Io { path: place.folder.clone(), source })?;
    let Some((_lock, home)) = opened else { return Ok(0) };
    clean(ledger, place, &home).await?;
    let mut ended = 0;
    while let Some(export) = record::take_next(ledger, &home, &place.server).await? {
        make_one(ledger, place, export).await?;
        ended += 1;
    }
    Ok(ended)
}

/// Takes away files whose time is over, those with personal data once a member was erased, and what was left of exports that
/// are not under way any more.
async fn clean(ledger: &Ledger, place: &ExportPlace, home: &str) -> Result<(), ExportError> {
    let (store, now_ms) = (ledger.store(), ledger.clock().now_ms());
    let mut wanted = record::open_in(store, home).await?;
    for export in record::done_in(ledger, home).await? {
        let why = if export.was_overtaken(store).await? {
            "a member's data was erased"
        } else if export.lapses_at_ms <= now_ms {
            "its time is over"
        } else {
            wanted.push(export.id);
            continue;
        };
        remove(&place.file_of(&export))?;
        record::note_removed(store, export.id, why).await?;
    }
    let entries = std::fs::read_dir(&place.folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        if id_of_ours(&path).is_some_and(|id| !wanted.contains(&id)) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// The number of the export that a file or a draft is of; None where it is called otherwise, and none of ours.
fn id_of_ours(path: &Path) -> Option<i64> {
    let (stem, kind) = path.file_name()?.to_str()?.split_once('.')?;
    let ours = kind == DRAFT || Format::named(kind).is_some();
    stem.parse().ok().filter(|id: &i64| ours && id.to_string() == stem)
}

/// Sees that a file or a folder of ours is not there.
fn remove(path: &Path) -> Result<(), ExportError> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(ExportError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

async fn make_one(ledger: &Ledger, place: &ExportPlace, export: Export) -> Result<(), ExportError> {
    let (id, home) = (export.id, export.home.clone());
    let error = match make(ledger, place, export).await {
        Ok(rows) => {
            tracing::info!(export = id, rows, "exported");
            None
        }
        Err(error) if error.is_of_the_database() => return Err(error),
        Err(error) => Some(error),
    };
    // What failed is what is told; what cannot be removed now is by the next cleaning.
    let _ = std::fs::remove_dir_all(place.draft_of(id));
    match error {
        None | Some(ExportError::Cancelled) => Ok(()),
        Some(error) => {
            tracing::warn!(export = id, %error, "an export could not be made");
            let now_ms = ledger.clock().now_ms();
            Ok(record::note_failed(ledger.store(), (id, &home), &error.reason(), now_ms).await?)
        }
    }
}

async fn make(ledger: &Ledger, place: &ExportPlace, mut export: Export) -> Result<i64, ExportError> {
    let draft = place.draft_of(export.id);
    make_folder(&draft).map_err(|source| ExportError::Io { path: draft.clone(), source })?;
    if export.after != END {
        read(ledger, place, &mut export, &draft).await?;
    }
    let file = write(ledger, &mut export, &draft).await?;
    if export.was_overtaken(ledger.store()).await? {
        return Err(ExportError::Erased);
    }
    let path = place.file_of(&export);
    let publish = std::fs::rename(&file, &path).and_then(|()| durable::sync_folder_of(&path));
    publish.map_err(|source| ExportError::Io { path: path.clone(), source })?;
    export.ended_at_ms = ledger.clock().now_ms();
    export.lapses_at_ms = export.ended_at_ms.saturating_add(place.keep_ms);
    // Where that is not wanted, or not known, the next cleaning sees to the file.
    if record::note_done(ledger.store(), &export).await? {
        Ok(export.written)
    } else {
        Err(ExportError::Cancelled)
    }
}

/// Reads the rows that no finished part holds.
async fn read(
    ledger: &Ledger,
    place: &ExportPlace,
    export: &mut Export,
    draft: &Path,
) -> Result<(), ExportError> {
    let reading = Reading::begin(ledger, export.asked.selection.clone(), export.asked.as_of).await?;
    if export.total == 0 {
        export.total = reading.size().await?;
    }
    let mut batches = reading.batches(&export.after);
    let (mut held, mut since) = (Vec::new(), 0);
    let mut here = (export.after.clone(), export.seen);
    while let Some(batch) = batches.try_next().await? {
        here = (batch.next.unwrap_or_else(|| END.to_owned()), here.1 + batch.seen);
        held.extend(batch.lines);
        since += 1;
        if held.len() >= place.part_rows || since >= BATCHES {
            put_part(ledger, export, draft, std::mem::take(&mut held), &here).await?;
            since = 0;
        }
    }
    put_part(ledger, export, draft, held, &(END.to_owned(), here.1)).await
}

/// Puts a part on disk and writes down that it is there.
async fn put_part(
    ledger: &Ledger,
    export: &mut Export,
    draft: &Path,
    mut lines: Vec<Line>,
    (after, seen): &(String, i64),
) -> Result<(), ExportError> {
    if !lines.is_empty() {
        note_reading(ledger, export, &lines).await?;
        export.parts += 1;
        export.rows += lines.len() as i64;
        let (path, keys) = (parts::part_path(draft, export.parts), export.asked.selection.sheet.keys);
        let put = move || {
            parts::sort(&mut lines, keys);
            parts::write_part(&path, &lines)
        };
        tokio::task::spawn_blocking(put).await.map_err(|_| ExportError::CutShort)??;
    }
    (export.after, export.seen) = (after.clone(), *seen);
    if record::note_progress(ledger.store(), export).await? { Ok(()) } else { Err(ExportError::Cancelled) }
}

/// Writes down whose personal data is about to be on disk, and for whom. Where the part is made again, it is told again.
async fn note_reading(ledger: &Ledger, export: &Export, lines: &[Line]) -> Result<(), ExportError> {
    let people = export.asked.selection.sheet.people(lines);
    if people.is_empty() {
        return Ok(());
    }
    let reader = Caller::parse(&export.asked_by);
    let reader = reader.ok_or_else(|| ExportError::Damaged(format!("export {} is nobody's", export.id)))?;
    let request_id = format!("export-{}", export.id);
    let shown = Shown { reader, action: "POST /v1/exports", people: &people, request_id: &request_id };
    Ok(write_reading(ledger, shown, &people).await?)
}

/// Writes the file from the parts, and tells meanwhile how far it is.
async fn write(ledger: &Ledger, export: &mut Export, draft: &Path) -> Result<PathBuf, ExportError> {
    let work = Work {
        head: export.asked.head(ledger).await?,
        keys: export.asked.selection.sheet.keys,
        format: export.asked.format,
        draft: draft.to_owned(),
        parts: export.parts,
        written: Arc::new(AtomicI64::new(0)),
        unwanted: Arc::new(AtomicBool::new(false)),
    };
    let (written, unwanted) = (work.written.clone(), work.unwanted.clone());
    // Where nobody waits for it any more, because the server ends, it ends as well.
    let _unwanted_when_dropped = Unwanted(unwanted.clone());
    let mut writing = tokio::task::spawn_blocking(move || work.write());
    let made = loop {
        tokio::select! {
            made = &mut writing => break made.map_err(|_| ExportError::CutShort)?,
            () = tokio::time::sleep(TELL_EVERY) => {
                export.written = written.load(Ordering::Relaxed);
                // Where it cannot be told the work goes on, and says at its end what became of it.
                if let Ok(false) = record::note_progress(ledger.store(), export).await {
                    unwanted.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    let (path, (sha256, bytes)) = made?;
    export.written = written.load(Ordering::Relaxed);
    (export.bytes, export.sha256) = (bytes as i64, sha256);
    Ok(path)
}

struct Unwanted(Arc<AtomicBool>);

impl Drop for Unwanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A file that is to be written from parts, on a thread of its own.
struct Work {
    head: Head,
    keys: usize,
    format: super::Format,
    draft: PathBuf,
    parts: i64,
    written: Arc<AtomicI64>,
    unwanted: Arc<AtomicBool>,
}

impl Work {
    /// The file, its SHA-256 and its length.
    fn write(self) -> Result<(PathBuf, (String, u64)), ExportError> {
        let path = self.draft.join("file");
        let failed = |source| ExportError::Io { path: path.clone(), source };
        let file = private().create(true).truncate(true).open(&path).map_err(failed)?;
        let out = Hashed::new(file);
        let mut file = FileWriter::begin(self.format, &self.head, out).map_err(|error| error.at(&path))?;
        let paths = (1..=self.parts).map(|number| parts::part_path(&self.draft, number)).collect();
        parts::merge(&self.draft, paths, self.keys, |line| {
            if self.unwanted.load(Ordering::Relaxed) {
                return Err(ExportError::Cancelled);
            }
            self.written.fetch_add(1, Ordering::Relaxed);
            file.put(line).map_err(|error| error.at(&path))
        })?;
        let out = file.finish().map_err(|error| error.at(&path))?;
        let told = out.finish().map_err(failed)?;
        Ok((path, told))
    }
}

impl ExportError {
    /// Why, for whoever asked: without the server's paths.
    fn reason(&self) -> String {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match self {
            Self::Io { source, .. }
                if [StorageFull, QuotaExceeded, FileTooLarge].contains(&source.kind()) =>
            {
                "the server's disk is full".to_owned()
            }
            Self::Io { source, .. } => format!("the server cannot write the file: {source}"),
            Self::Format { why, .. } => format!("the file cannot be written: {why}"),
            Self::Damaged(_) => "what was read already cannot be read back: ask again".to_owned(),
            Self::Store(StoreError::Corrupt { .. }) | Self::Replay(_) => {
                "the ledger cannot be read: see the server's log".to_owned()
            }
            other => other.to_string(),
        }
    }
}
