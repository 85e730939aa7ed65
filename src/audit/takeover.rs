//! Taking an export over into an empty ledger: the same streams, bytes, times and receipts, one position further on.
//!
//! The new log has an origin of its own, and its first event says where the rest comes from: the source's origin, size,
//! root, last checkpoint and the digest of what it held, which whoever checks the new log counts again. The export is
//! checked whole before the first row is written. An import that was cut off goes on where it was; until it is finished
//! the ledger is nobody's (`store::takeover`).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::check::{CheckError, Finding, Trusted, check_files};
use super::export::{Archive, Damage, Manifest, ReadError};
use super::leaf;
use super::rebuild::{RebuildError, Running, drop_old};
use crate::clock::Clock;
use crate::directory::next_behind;
use crate::entity::{KINDS, encode};
use crate::provenance::{ImportedFrom, LEDGER_ID, Provenance, ProvenanceEvent};
use crate::store::{Statement, Store, StoreError, StoredEvent, StoredReceipt, Takeover, raise_ids};
use crate::value::{hex, random};

/// Events of one transaction.
const EVENTS: usize = 2_000;

/// Receipts of one transaction: on PostgreSQL each is a round trip.
const RECEIPTS: usize = 500;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many events were checked.
    Checked(i64),
    /// So many are written.
    Written(i64),
    /// The live tables are written anew.
    Rebuilding,
}

/// What was taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenOver {
    /// What the export says of itself.
    pub manifest: Manifest,
    /// Whether an import that was cut off went on.
    pub resumed: bool,
}

/// Why an export was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The export is not whole, or not what was signed.
    #[error("the export is damaged: {}{}", .0.first().map(ToString::to_string).unwrap_or_default(),
            if .0.len() > 1 { format!(", and {} more", .0.len() - 1) } else { String::new() })]
    Unsound(Vec<Finding>),
    /// A part of a log is no ledger.
    #[error("the export begins at position {0}: only one from position 1 on can be taken over")]
    NotFromTheStart(i64),
    /// There is a ledger already.
    #[error("this ledger is not empty: an export is taken over into a new one")]
    NotEmpty,
    /// Another import was cut off here.
    #[error(
        "another export is half taken over into this ledger: finish that one, or start with an empty ledger"
    )]
    AnotherExport,
    /// What is in the database is not what was written there.
    #[error(
        "what was taken over is not what the export holds: somebody has written to this database meanwhile; it stays \
         nobody's ledger, so begin anew with an empty one"
    )]
    Altered,
    /// It changed while it was read.
    #[error("the export changed while it was taken over: {0}")]
    Changed(String),
    /// The live tables.
    #[error("the live tables could not be written: {0}")]
    Rebuild(#[from] RebuildError),
}

impl From<ReadError> for TakeoverError {
    fn from(error: ReadError) -> Self {
        Self::Check(error.into())
    }
}

/// Takes an export over into an empty ledger that was opened by `store::open_for_takeover`.
pub async fn take_over(
    store: &Store,
    folder: &Path,
    trusted: &Trusted,
    now_ms: i64,
    mut progress: impl FnMut(Step),
) -> Result<TakenOver, TakeoverError> {
    let report = check_files(folder, trusted, |events| progress(Step::Checked(events)))?;
    if !report.is_sound() {
        return Err(TakeoverError::Unsound(report.findings));
    }
    let archive = Archive::open(folder)?.map_err(|damage| changed(&damage))?;
    let manifest = archive.manifest().clone();
    if manifest.from != 1 {
        return Err(TakeoverError::NotFromTheStart(manifest.from));
    }
    let begun = match store.takeover().await? {
        Some(begun) if begun.export == manifest.sha256 => Some(begun),
        Some(_) => return Err(TakeoverError::AnotherExport),
        None if store.begin_takeover(&manifest.sha256).await? => None,
        None => return Err(TakeoverError::NotEmpty),
    };
    let resumed = begun.is_some();
    let so_far = begun.unwrap_or_else(|| Takeover { export: manifest.sha256.clone(), ..Takeover::default() });
    if so_far.head == 0 {
        store.take_events(vec![note(&manifest, report.root.as_deref(), now_ms)?]).await?;
    }
    let read = copy_events(store, folder, so_far.head.max(1), &mut progress).await?;
    if read.digest != manifest.digest {
        return Err(TakeoverError::Changed("its events have another digest".to_owned()));
    }
    copy_receipts(store, folder, so_far).await?;
    if digest_of(store).await? != manifest.digest {
        return Err(TakeoverError::Altered);
    }
    store.write(read.ids.statements()).await?;
    progress(Step::Rebuilding);
    Running::begin(store, &Clock::manual(now_ms), "all", true).await?.run().await?;
    drop_old(store).await?;
    store.end_takeover().await?;
    Ok(TakenOver { manifest, resumed })
}

/// The digest of what is written. An import that goes on has not seen what was written before it was cut off.
async fn digest_of(store: &Store) -> Result<String, StoreError> {
    let (mut digest, mut position) = (Sha256::new(), 0);
    loop {
        let page = store.events_after(position, EVENTS as i64).await?;
        for event in page.iter().filter(|event| !leaf::is_import_note(event)) {
            digest.update(leaf::contents(event));
        }
        match page.last() {
            Some(last) => position = last.position,
            None => return Ok(hex(&digest.finalize())),
        }
    }
}

fn changed(damage: &Damage) -> TakeoverError {
    TakeoverError::Changed(format!("{}: {}", damage.file, damage.what))
}

/// The first event of the new log. It has a stream of its own behind those that the source may have, so that its own
/// stream goes on with its own sequence; and the time of what follows it, so that time never goes back.
fn note(manifest: &Manifest, root: Option<&str>, now_ms: i64) -> Result<StoredEvent, TakeoverError> {
    let notes_before = manifest.events.get("ledger/ImportedFrom").copied().unwrap_or_default();
    let event = ProvenanceEvent::ImportedFrom(ImportedFrom {
        origin: manifest.origin.clone(),
        size: manifest.to,
        root: root.unwrap_or_default().to_owned(),
        checkpoint: manifest.proof.as_ref().map(|proof| proof.checkpoint.clone()).unwrap_or_default(),
        digest: manifest.digest.clone(),
        at_ms: now_ms,
    });
    let corrupt = |error: serde_json::Error| TakeoverError::Changed(error.to_string());
    let encoded = encode::<Provenance>(&event).map_err(corrupt)?;
    let request_id = hex(&random::<8>());
    let metadata = serde_json::json!({
        "append_id": hex(&random::<16>()),
        "caller": "system",
        "caller_kind": "system",
        "request_id": request_id,
        "causation_id": request_id,
        "correlation_id": request_id,
    });
    Ok(StoredEvent {
        position: 1,
        aggregate_type: "ledger".to_owned(),
        aggregate_id: (LEDGER_ID + 1 + notes_before).to_string(),
        sequence: 1,
        event_type: encoded.event_type,
        event_version: encoded.event_version,
        payload: encoded.payload,
        metadata: metadata.to_string(),
        recorded_at_ms: manifest.recorded_from_ms,
    })
}

/// What the events have come to.
struct ReadEvents {
    digest: String,
    ids: HighestIds,
}

/// Something read on the way to whoever writes it.
type Sent<T> = Result<Vec<T>, TakeoverError>;

async fn copy_events(
    store: &Store,
    folder: &Path,
    head: i64,
    progress: &mut impl FnMut(Step),
) -> Result<ReadEvents, TakeoverError> {
    let (to, mut read) = mpsc::channel::<Sent<StoredEvent>>(2);
    let folder = folder.to_owned();
    let reading = tokio::task::spawn_blocking(move || read_events(&folder, head, &to));
    while let Some(page) = read.recv().await {
        let page = page?;
        let last = page.last().map_or(0, |event| event.position);
        store.take_events(page).await?;
        progress(Step::Written(last - 1));
    }
    reading.await.map_err(|_| TakeoverError::Changed("reading it was cut short".to_owned()))?
}

/// All of it, also what is written already: its digest must be right, and its ids are counted.
fn read_events(
    folder: &Path,
    head: i64,
    to: &mpsc::Sender<Sent<StoredEvent>>,
) -> Result<ReadEvents, TakeoverError> {
    let archive = Archive::open(folder)?.map_err(|damage| changed(&damage))?;
    let (mut page, mut digest, mut ids) = (Vec::with_capacity(EVENTS), Sha256::new(), HighestIds::default());
    let mut damage = None;
    archive.events(|read| {
        let mut event = match read {
            Ok(event) => event,
            Err(found) => {
                damage.get_or_insert(found);
                return;
            }
        };
        if !leaf::is_import_note(&event) {
            digest.update(leaf::contents(&event));
        }
        ids.see(&event);
        event.position += 1;
        if event.position > head {
            page.push(event);
        }
        if page.len() == EVENTS {
            // Whoever writes has gone away after an error of his own, which is what is told.
            let _ = to.blocking_send(Ok(std::mem::replace(&mut page, Vec::with_capacity(EVENTS))));
        }
    })?;
    if let Some(damage) = damage {
        return Err(changed(&damage));
    }
    let _ = to.blocking_send(Ok(page));
    Ok(ReadEvents { digest: hex(&digest.finalize()), ids })
}

async fn copy_receipts(store: &Store, folder: &Path, mut so_far: Takeover) -> Result<(), TakeoverError> {
    let (to, mut read) = mpsc::channel::<Sent<StoredReceipt>>(2);
    let (folder, skip) = (folder.to_owned(), so_far.receipts);
    let reading = tokio::task::spawn_blocking(move || read_receipts(&folder, skip, &to));
    while let Some(page) = read.recv().await {
        let page = page?;
        let count = page.len() as i64;
        store.take_receipts(&so_far, page).await?;
        so_far.receipts += count;
    }
    reading.await.map_err(|_| TakeoverError::Changed("reading it was cut short".to_owned()))?
}

fn read_receipts(
    folder: &Path,
    skip: i64,
    to: &mpsc::Sender<Sent<StoredReceipt>>,
) -> Result<(), TakeoverError> {
    let archive = Archive::open(folder)?.map_err(|damage| changed(&damage))?;
    let (mut page, mut number, mut damage) = (Vec::with_capacity(RECEIPTS), 0_i64, None);
    archive.receipts(|read| {
        let receipt = match read {
            Ok(receipt) => receipt,
            Err(found) => {
                damage.get_or_insert(found);
                return;
            }
        };
        number += 1;
        if number > skip {
            page.push(StoredReceipt { position: receipt.position + 1, ..receipt });
        }
        if page.len() == RECEIPTS {
            let _ = to.blocking_send(Ok(std::mem::replace(&mut page, Vec::with_capacity(RECEIPTS))));
        }
    })?;
    if let Some(damage) = damage {
        return Err(changed(&damage));
    }
    if !page.is_empty() {
        let _ = to.blocking_send(Ok(page));
    }
    Ok(())
}

/// The highest id of each kind that events name, so that none is handed out again.
#[derive(Default)]
struct HighestIds(BTreeMap<&'static str, i64>);

/// Kinds of ids and the fields of events that hold them.
const ID_FIELDS: &[(&str, &str)] = &[
    ("member_id", "member"),
    ("member_ids", "member"),
    ("giver_id", "member"),
    ("employee_id", "employee"),
    ("employee_ids", "employee"),
    ("account_ids", "account"),
    ("employee", "employee"),
    ("redemption_id", "redemption"),
    ("shop_id", "shop"),
    ("level", "member_level"),
    ("level_ids", "member_level"),
    ("tag_ids", "tag"),
    // What is proposed has its id before it has a stream.
    ("definition_id", "definition"),
    ("allotment_id", "allotment"),
];

impl HighestIds {
    fn see(&mut self, event: &StoredEvent) {
        let id = event.aggregate_id.parse().unwrap_or_default();
        // The ids of streams are of the same kinds.
        match KINDS.iter().find(|kind| **kind == event.aggregate_type) {
            // They have ids of their own, which may lie far above.
            Some(&"coupon") if event.sequence == 1 && event.event_type == "Imported" => {
                self.raise("imported coupon", id);
            }
            // That one was handed out here the first event has told.
            Some(&"coupon") if event.event_type != "Issued" => {}
            // Nobody hands out the numbers of the ledger's own.
            Some(&"ledger") | None => {}
            // It has the id of the employee whom it is about.
            Some(&"appointment") => self.raise("employee", id),
            Some(kind) => self.raise(kind, id),
        }
        // What cannot be read has no ids that anybody reads.
        self.look(None, &serde_json::from_str(&event.payload).unwrap_or_default());
    }

    fn look(&mut self, kind: Option<&'static str>, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let kind = ID_FIELDS.iter().find(|(field, _)| field == name).map(|(_, kind)| *kind);
                    self.look(kind, value);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.look(kind, value)),
            Value::Number(number) => {
                if let (Some(kind), Some(id)) = (kind, number.as_i64()) {
                    self.raise(kind, id);
                }
            }
            _ => {}
        }
    }

    fn raise(&mut self, kind: &'static str, id: i64) {
        let highest = self.0.entry(kind).or_default();
        *highest = (*highest).max(id);
    }

    fn statements(&self) -> Vec<Statement> {
        self.0
            .iter()
            .map(|(kind, id)| match *kind {
                // Own ids pass over imported ones below this.
                "imported coupon" => raise_ids(kind, id.saturating_add(1)),
                kind => raise_ids(kind, next_behind(*id)),
            })
            .collect()
    }
}
