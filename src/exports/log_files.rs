//! The log itself as Parquet, for DuckDB, ClickHouse, Spark and DataFusion to read where it lies.
//!
//! ```text
//! manifest.ndjson                                     which ledger, then one line for each file with events, in order
//! day=1970-01-01/empty.parquet                        every column and no event, from the folder's first moment on
//! day=2026-11-29/events-000000000001-000000100000.parquet
//! ```
//!
//! A file holds a closed range of positions of one local day, and is never written again: a further run goes on behind the
//! last one. A file's line is on disk before the file has its name, so that whoever reads by name meets each event once, and
//! a run that was cut off is gone on with. It holds what the log holds, and so no personal data.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

use super::parquet_file::ParquetFile;
use super::{ExportError, Kind, Line, Value};
use crate::audit::leaf;
use crate::clock::{Zone, day_number, day_text};
use crate::durable::{self, Hashed};
use crate::store::{BUCKET, Store, StoredEvent};
use crate::value::hex;

/// The format, by name and number.
const FORMAT: &str = "coupon-ledger parquet 1";

/// The manifest's file.
const MANIFEST: &str = "manifest.ndjson";

/// The day of the file without events, which is there so that the log of a ledger in which nothing has happened yet is read as any
/// other, and so is a folder whose first run was cut off. It is written once, before everything else, and has no line in the manifest:
/// it is of no position. Every program reads it as a day, and no event is of it.
const NO_DAY: &str = "1970-01-01";

/// How many events one file holds at most.
const EVENTS: i64 = 100_000;

/// Events of one read.
const PAGE: i64 = 2_000;

/// The columns: the log's own, then what is asked for most, pulled out of payload and metadata.
const COLUMNS: [(&str, Kind); 19] = [
    ("bucket", Kind::Int),
    ("position", Kind::Int),
    ("aggregate_type", Kind::Text),
    ("aggregate_id", Kind::Text),
    ("sequence", Kind::Int),
    ("event_type", Kind::Text),
    ("event_version", Kind::Text),
    ("payload", Kind::Text),
    ("metadata", Kind::Text),
    ("recorded_at_ms", Kind::Int),
    ("recorded_at", Kind::Instant),
    ("caller", Kind::Text),
    ("coupon_id", Kind::Id),
    ("definition_id", Kind::Id),
    ("member_id", Kind::Id),
    ("shop_id", Kind::Id),
    ("employee_id", Kind::Id),
    ("order_id", Kind::Id),
    ("redemption_id", Kind::Id),
];

/// The ids that are pulled out, each with the kind of streams whose own id it is, if there is one.
const IDS: [(&str, &str); 7] = [
    ("coupon_id", "coupon"),
    ("definition_id", "definition"),
    ("member_id", "member"),
    ("shop_id", "shop"),
    ("employee_id", "appointment"),
    ("order_id", "order"),
    ("redemption_id", ""),
];

/// What a run has come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogFiles {
    /// The ledger.
    pub origin: String,
    /// The first position that this run wrote; behind `to` where it wrote none.
    pub from: i64,
    /// The last position that the folder holds.
    pub to: i64,
    /// How many files with events this run wrote.
    pub files: usize,
}

/// The manifest's first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Of {
    format: String,
    origin: String,
    timezone: String,
}

/// A file's line in the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    file: String,
    day: String,
    from: i64,
    to: i64,
    bytes: u64,
    sha256: String,
    recorded_from_ms: i64,
    recorded_to_ms: i64,
    /// The last event's leaf of the transparency log: by it another log is told from the one that this goes on with.
    last_leaf: String,
}

/// Writes what of the log, up to a position (None = its end), is not in the folder yet. `progress` is told how many of how
/// many events are written.
///
/// # Errors
/// Where the folder is another ledger's or another zone's, or is being written by another process.
pub async fn write_log_files(
    store: &Store,
    zone: Zone,
    folder: &Path,
    to: Option<i64>,
    mut progress: impl FnMut(i64, i64),
) -> Result<LogFiles, ExportError> {
    let head = store.head().await?;
    let to = to.unwrap_or(head);
    if to > head {
        return Err(ExportError::Damaged(format!("there is no position {to}: the log ends at {head}")));
    }
    let origin = store.origin().await?.unwrap_or_default();
    let of = Of { format: FORMAT.to_owned(), origin: origin.clone(), timezone: zone.0.name().to_owned() };
    let mut manifest = Manifest::open(folder, &of)?;
    let last = manifest.entries.last().cloned();
    let begun = last.as_ref().map_or(0, |entry| entry.to);
    if let Some(last) = &last {
        hold_against(store, last).await?;
    }
    manifest.publish_last()?;
    manifest.begin_with_no_event()?;
    let (mut position, mut files) = (begun, 0);
    let mut open: Option<Piece> = None;
    while position < to {
        let page = store.events_after(position, PAGE.min(to - position)).await?;
        for event in &page {
            if event.position != position + 1 {
                break;
            }
            position = event.position;
            let day = day_text(day_number(zone.moment(event.recorded_at_ms).day));
            if let Some(piece) = open.take_if(|piece| piece.day != day || piece.count() >= EVENTS) {
                manifest.add(piece)?;
                files += 1;
            }
            let piece = match &mut open {
                Some(piece) => piece,
                none => none.insert(Piece::begin(folder, day, event.position)?),
            };
            piece.put(event)?;
        }
        if page.last().is_none_or(|event| event.position != position) {
            return Err(ExportError::Damaged(format!("position {} of the log is missing", position + 1)));
        }
        progress(position - begun, to - begun);
    }
    if let Some(piece) = open {
        manifest.add(piece)?;
        files += 1;
    }
    Ok(LogFiles { origin, from: begun + 1, to: position.max(begun), files })
}

/// Whether the log is the one of which a folder holds the beginning.
async fn hold_against(store: &Store, last: &Entry) -> Result<(), ExportError> {
    let found = store.events_after(last.to - 1, 1).await?;
    let leaf = found.first().filter(|event| event.position == last.to).map(|event| hex(&leaf::hash(event).0));
    if leaf.as_ref() == Some(&last.last_leaf) {
        return Ok(());
    }
    Err(ExportError::Damaged(format!(
        "the folder holds another log: position {} is not the same event",
        last.to
    )))
}

fn io_error(path: &Path, source: std::io::Error) -> ExportError {
    ExportError::Io { path: path.to_owned(), source }
}

/// The manifest, and the folder that it is of; this process's as long as it lives.
struct Manifest {
    folder: PathBuf,
    path: PathBuf,
    file: File,
    entries: Vec<Entry>,
    _lock: File,
}

impl Manifest {
    fn open(folder: &Path, of: &Of) -> Result<Self, ExportError> {
        let path = folder.join(MANIFEST);
        std::fs::create_dir_all(folder).map_err(|source| io_error(folder, source))?;
        let failed = |source| io_error(&path, source);
        let lock = durable::lock(&path).map_err(failed)?;
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(&path).map_err(failed)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        // A line that was cut off is none: its file has no name yet.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64).map_err(failed)?;
        let mut lines = text.get(..whole).unwrap_or_default().lines();
        let unreadable = |error: serde_json::Error| {
            ExportError::Damaged(format!("{} cannot be read: {error}", path.display()))
        };
        match lines.next() {
            None => {
                let others = std::fs::read_dir(folder).map_err(|source| io_error(folder, source))?;
                if others.flatten().any(|entry| entry.path().is_dir()) {
                    return Err(ExportError::Damaged(format!(
                        "{} is no folder of ours: there is no manifest",
                        folder.display()
                    )));
                }
                append(&mut file, of).map_err(failed)?;
                durable::sync_folder_of(&path).map_err(failed)?;
            }
            Some(first) => {
                let first: Of = serde_json::from_str(first).map_err(unreadable)?;
                if first != *of {
                    return Err(ExportError::Damaged(format!(
                        "the folder is of {} in {} ({}), not of {} in {}",
                        first.origin, first.timezone, first.format, of.origin, of.timezone
                    )));
                }
            }
        }
        let entries = lines.map(serde_json::from_str).collect::<Result<_, _>>().map_err(unreadable)?;
        Ok(Self { folder: folder.to_owned(), path, file, entries, _lock: lock })
    }

    /// Gives the last file its name, where a run was cut off before.
    fn publish_last(&self) -> Result<(), ExportError> {
        let Some(last) = self.entries.last() else { return Ok(()) };
        let path = self.folder.join(&last.file);
        if path.exists() {
            return Ok(());
        }
        let draft = draft_of(&self.folder, &last.day);
        match std::fs::read(&draft) {
            Ok(bytes) if hex(&Sha256::digest(&bytes)) == last.sha256 => publish(&draft, &path),
            _ => Err(ExportError::Damaged(format!("{} is missing", path.display()))),
        }
    }

    /// Sees that a folder without events holds the file that says what columns they will have.
    fn begin_with_no_event(&self) -> Result<(), ExportError> {
        let path = self.folder.join(format!("day={NO_DAY}")).join("empty.parquet");
        if !self.entries.is_empty() || path.exists() {
            return Ok(());
        }
        let (draft, _) = Piece::begin(&self.folder, NO_DAY.to_owned(), 1)?.finish()?;
        publish(&draft, &path)
    }

    /// Ends a file: on disk, in the manifest, and then under its name.
    fn add(&mut self, piece: Piece) -> Result<(), ExportError> {
        let (draft, entry) = piece.finish()?;
        append(&mut self.file, &entry).map_err(|source| io_error(&self.path, source))?;
        publish(&draft, &self.folder.join(&entry.file))?;
        self.entries.push(entry);
        Ok(())
    }
}

fn append(file: &mut File, line: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(line)?;
    line.push(b'\n');
    let length = file.metadata()?.len();
    let written = file.write_all(&line).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a line would be cut off the next time; that it was not written is what is told.
        let _ = file.set_len(length);
    }
    written
}

fn publish(draft: &Path, path: &Path) -> Result<(), ExportError> {
    std::fs::rename(draft, path)
        .and_then(|()| durable::sync_folder_of(path))
        .map_err(|source| io_error(path, source))
}

/// Not what anybody who reads `*.parquet` would take for a file.
fn draft_of(folder: &Path, day: &str) -> PathBuf {
    folder.join(format!("day={day}")).join("events.draft")
}

/// A file on its way.
struct Piece {
    day: String,
    draft: PathBuf,
    file: ParquetFile<Hashed>,
    from: i64,
    to: i64,
    recorded_from_ms: i64,
    recorded_to_ms: i64,
    last_leaf: String,
}

impl Piece {
    fn begin(folder: &Path, day: String, from: i64) -> Result<Self, ExportError> {
        let draft = draft_of(folder, &day);
        let partition = draft.parent().unwrap_or(folder);
        let make = || {
            std::fs::create_dir_all(partition)?;
            durable::sync_folder_of(partition)?;
            // Other programs read it, under their own users: there is nothing personal in it.
            Ok(Hashed::new(File::create(&draft)?))
        };
        let out = make().map_err(|source| io_error(&draft, source))?;
        let file = ParquetFile::begin(&COLUMNS, [("format".to_owned(), FORMAT.to_owned())], out);
        let file = file.map_err(|error| error.at(&draft))?;
        let (recorded_from_ms, recorded_to_ms) = (0, 0);
        Ok(Self {
            day,
            draft,
            file,
            from,
            to: from - 1,
            recorded_from_ms,
            recorded_to_ms,
            last_leaf: String::new(),
        })
    }

    fn count(&self) -> i64 {
        self.to - self.from + 1
    }

    fn put(&mut self, event: &StoredEvent) -> Result<(), ExportError> {
        self.file.put(&line_of(event)).map_err(|error| error.at(&self.draft))?;
        if self.count() == 0 {
            self.recorded_from_ms = event.recorded_at_ms;
        }
        (self.to, self.recorded_to_ms) = (event.position, event.recorded_at_ms);
        // Only the last one's is needed, and which one is the last is not known before.
        self.last_leaf = hex(&leaf::hash(event).0);
        Ok(())
    }

    fn finish(self) -> Result<(PathBuf, Entry), ExportError> {
        let Self { day, draft, file, from, to, recorded_from_ms, recorded_to_ms, last_leaf } = self;
        let out = file.finish().map_err(|error| error.at(&draft))?;
        let (sha256, bytes) = out.finish().map_err(|source| io_error(&draft, source))?;
        let entry = Entry {
            file: format!("day={day}/events-{from:012}-{to:012}.parquet"),
            day,
            from,
            to,
            bytes,
            sha256,
            recorded_from_ms,
            recorded_to_ms,
            last_leaf,
        };
        Ok((draft, entry))
    }
}

fn line_of(event: &StoredEvent) -> Line {
    let text = |text: &str| Value::Text(text.to_owned());
    let payload: Json = serde_json::from_str(&event.payload).unwrap_or_default();
    // `{"Issued":{…}}`; an event without fields is a text.
    let fields = payload.as_object().and_then(|event| event.values().next());
    let metadata: Json = serde_json::from_str(&event.metadata).unwrap_or_default();
    let mut line = vec![
        Value::Int(BUCKET),
        Value::Int(event.position),
        text(&event.aggregate_type),
        text(&event.aggregate_id),
        Value::Int(event.sequence),
        text(&event.event_type),
        text(&event.event_version),
        text(&event.payload),
        text(&event.metadata),
        Value::Int(event.recorded_at_ms),
        Value::Int(event.recorded_at_ms),
        metadata.get("caller").and_then(Json::as_str).map_or(Value::Null, text),
    ];
    line.extend(IDS.into_iter().map(|(id, kind)| {
        let own = (event.aggregate_type == kind).then(|| event.aggregate_id.parse().ok()).flatten();
        // An imported coupon's event has those of its birth inside.
        let field =
            |fields: &Json| fields.get(id).or_else(|| fields.get("issue")?.get(id)).and_then(Json::as_i64);
        let named = || fields.and_then(field).filter(|id| *id != 0);
        own.or_else(named).map_or(Value::Null, Value::Int)
    }));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_streams_own_or_the_events() {
        let event = |aggregate_type: &str, payload: &str| StoredEvent {
            position: 7,
            aggregate_type: aggregate_type.to_owned(),
            aggregate_id: "12".to_owned(),
            sequence: 2,
            event_type: "Redeemed".to_owned(),
            event_version: "1.0".to_owned(),
            payload: payload.to_owned(),
            metadata: r#"{"caller":"member:439"}"#.to_owned(),
            recorded_at_ms: 1_543_026_701_000,
        };
        let ids = |event: &StoredEvent| {
            let line = line_of(event);
            assert_eq!(line.len(), COLUMNS.len());
            line[11..].to_vec()
        };
        let caller = Value::Text("member:439".to_owned());
        assert_eq!(
            ids(&event(
                "coupon",
                r#"{"Redeemed":{"redemption_id":2,"member_id":439,"shop_id":1,"employee_id":0}}"#
            )),
            [
                caller.clone(),
                12.into(),
                Value::Null,
                439.into(),
                1.into(),
                Value::Null,
                Value::Null,
                2.into()
            ]
        );
        let nothing = || vec![Value::Null; 5];
        let of_order = [vec![caller.clone()], nothing(), vec![12.into(), Value::Null]].concat();
        assert_eq!(ids(&event("order", r#""Cancelled""#)), of_order);
        let imported = ids(&event("coupon", r#"{"Imported":{"issue":{"definition_id":3,"member_id":439}}}"#));
        let rest = vec![Value::Null; 4];
        assert_eq!(imported, [vec![caller, 12.into(), 3.into(), 439.into()], rest].concat());
    }
}
