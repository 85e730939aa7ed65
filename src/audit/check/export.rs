//! An export held against what was signed, and against the rules.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use tlog_tiles::Hash;

use super::receipts::Bindings;
use super::rules::Rules;
use super::{CheckError, Finding, Findings, Kept, Older, Report, Trusted, short};
use crate::audit::checkpoint::{Opened, Trust};
use crate::audit::export::{Archive, Leaves, Manifest, ReadError, hashes_of, kind_of};
use crate::audit::leaf;
use crate::audit::merkle::Range;
use crate::store::StoredEvent;
use crate::value::hex;

/// A ledger has a new key every thirty days at most: more than eighty years of them.
const MAX_KEYS: usize = 1_000;

/// Each time that a ledger is taken over adds a note of an import: nobody does that so often.
const MAX_IMPORTS: i64 = 100;

/// Checks everything about an export. `progress` is told how many events are read.
pub fn check_export(
    folder: &Path,
    trusted: &Trusted,
    progress: impl FnMut(i64),
) -> Result<Report, CheckError> {
    check(folder, trusted, true, progress)
}

/// Checks that an export is whole and what was signed, and not whether what it tells follows the rules.
pub fn check_files(
    folder: &Path,
    trusted: &Trusted,
    progress: impl FnMut(i64),
) -> Result<Report, CheckError> {
    check(folder, trusted, false, progress)
}

fn check(
    folder: &Path,
    trusted: &Trusted,
    rules: bool,
    mut progress: impl FnMut(i64),
) -> Result<Report, CheckError> {
    let mut found = Findings::default();
    let archive = match Archive::open(folder)? {
        Ok(archive) => archive,
        Err(damage) => {
            let findings = vec![damage.into()];
            return Ok(Report { findings, ..Report::default() });
        }
    };
    let manifest = archive.manifest();
    let opened = signed(manifest, trusted, &mut found);
    let mut kept = Vec::new();
    for older in &trusted.older {
        kept.extend(comparable(older, manifest, trusted, opened.as_ref(), &mut found)?);
    }
    let mut reading = Reading::new(manifest, kept, archive.leaves()?, rules);
    reading.compare(&mut found);
    let mut whole = true;
    archive.events(|read| match read {
        Ok(event) => {
            reading.see(&event, &mut found);
            if reading.events % 10_000 == 0 {
                progress(reading.events);
            }
        }
        Err(damage) => {
            whole = false;
            found.add(damage.into());
        }
    })?;
    progress(reading.events);
    if let Some(error) = reading.failed.take() {
        return Err(error.into());
    }
    let mut bindings = std::mem::take(&mut reading.bindings);
    let mut receipts = 0;
    archive.receipts(|read| match read {
        Ok(receipt) => {
            receipts += 1;
            bindings.take(&receipt, &mut found);
        }
        Err(damage) => found.add(damage.into()),
    })?;
    archive.check_leaves(|damage| found.add(damage.into()))?;
    bindings.finish(&mut found);
    let read = reading.finish(manifest, opened.as_ref(), whole, &mut found);
    found.list.sort_by_key(|finding| (finding.position.is_none(), finding.position));
    if receipts != manifest.receipts {
        let what = format!("the manifest says {} receipts, there are {receipts}", manifest.receipts);
        found.add(Finding::of("receipts", what));
    }
    Ok(Report {
        origin: manifest.origin.clone(),
        from: manifest.from,
        to: manifest.to,
        events: read.events,
        receipts,
        root: read.root,
        signed_size: opened.as_ref().map_or(0, |opened| opened.size),
        witnesses: opened
            .map(|opened| opened.witnesses.into_iter().map(|(name, _)| name).collect())
            .unwrap_or_default(),
        notes: read.notes,
        findings: found.list,
        findings_left_out: found.left_out,
    })
}

/// The checkpoint that the export brings, once a trusted key has signed it.
fn signed(manifest: &Manifest, trusted: &Trusted, found: &mut Findings) -> Option<Opened> {
    let Some(proof) = &manifest.proof else {
        if trusted.trust.is_some() {
            found.add(Finding::of("signature", "the export brings no signed checkpoint".to_owned()));
        }
        return None;
    };
    if proof.keys.len() > MAX_KEYS {
        let what = format!("it names {} keys, and no ledger has had so many", proof.keys.len());
        found.add(Finding::of("manifest", what));
        return None;
    }
    // Without a trusted key the tree is held against the export's own word all the same: damage on the way shows.
    if trusted.trust.is_none() && proof.keys.is_empty() {
        return None;
    }
    let opened = match &trusted.trust {
        Some(_) => trusted.open(&proof.checkpoint, found),
        None => Trust::new(&proof.keys, &[], 0)
            .ok()
            .and_then(|own| own.open(&proof.checkpoint).ok())
            .or_else(|| {
                let what = "the checkpoint is not signed by the keys that the export names".to_owned();
                found.add(Finding::of("signature", what));
                None
            }),
    }?;
    if opened.origin != manifest.origin {
        let what = format!("the manifest says {}, the checkpoint {}", manifest.origin, opened.origin);
        found.add(Finding::of("origin", what));
    }
    if opened.size < manifest.to as u64 {
        let what =
            format!("the checkpoint covers {} positions, the export goes to {}", opened.size, manifest.to);
        found.add(Finding::of("signature", what));
        return None;
    }
    Some(opened)
}

/// A kept checkpoint that the export's tree, or the signed one, can be held against.
fn comparable(
    older: &Older,
    manifest: &Manifest,
    trusted: &Trusted,
    signed: Option<&Opened>,
    found: &mut Findings,
) -> Result<Option<Kept>, CheckError> {
    let Some(kept) = older.open(trusted, &manifest.origin, found)? else { return Ok(None) };
    let has_root = manifest.from == 1 || manifest.proof.is_some();
    let within = has_root && ((manifest.from - 1) as u64..=manifest.to as u64).contains(&kept.size);
    if within || signed.is_some_and(|signed| signed.size == kept.size) {
        return Ok(Some(kept));
    }
    Err(older.incomparable(&format!(
        "covers {} positions, and the export has the positions {} to {}: they cannot be compared",
        kept.size, manifest.from, manifest.to
    )))
}

/// An export on its way past.
struct Reading {
    /// The position that must come next.
    next: i64,
    events: i64,
    /// The first and the last position that the export says it has.
    first: i64,
    last: i64,
    last_recorded_ms: i64,
    first_recorded_ms: i64,
    /// How many events there are of each type that the manifest counts.
    counts: BTreeMap<String, i64>,
    /// Whether there is another type.
    miscounted: bool,
    tree: Range,
    kept_tree: Range,
    leaves: Option<Leaves>,
    /// Where an event and its kept leaf differ, with the streams.
    differing: Vec<(i64, String)>,
    differing_left_out: u64,
    older: Vec<Kept>,
    digest: Sha256,
    imports: Vec<Import>,
    bindings: Bindings,
    rules: Option<Rules>,
    failed: Option<ReadError>,
    /// Whether the subtrees before the range could be read.
    whole_proof: bool,
}

/// A note of an import, and where what it took over ends.
struct Import {
    position: i64,
    until: i64,
    digest: String,
}

/// What was read.
struct Read {
    events: i64,
    root: Option<String>,
    notes: Vec<String>,
}

impl Reading {
    fn new(manifest: &Manifest, older: Vec<Kept>, leaves: Option<Leaves>, rules: bool) -> Self {
        let before = (manifest.from - 1) as u64;
        let hashes = manifest.proof.as_ref().map(|proof| hashes_of(&proof.before).unwrap_or_default());
        let range = hashes.and_then(|hashes| Range::of(0, before, &hashes));
        let whole_proof = range.is_some();
        // An export that nothing signed has no leaves before its own: its tree has no root, and needs none.
        let tree = range.unwrap_or_else(|| Range::empty(before));
        Self {
            next: manifest.from,
            events: 0,
            first: manifest.from,
            last: manifest.to,
            last_recorded_ms: i64::MIN,
            first_recorded_ms: 0,
            counts: manifest.events.keys().map(|kind| (kind.clone(), 0)).collect(),
            miscounted: false,
            kept_tree: tree.clone(),
            tree,
            leaves,
            differing: Vec::new(),
            differing_left_out: 0,
            older,
            digest: Sha256::new(),
            imports: Vec::new(),
            bindings: Bindings::new(manifest.from, manifest.to),
            rules: rules.then(|| Rules::new(manifest.from)),
            failed: None,
            whole_proof,
        }
    }

    fn see(&mut self, event: &StoredEvent, found: &mut Findings) {
        if event.position != self.next {
            let what = format!("position {} comes where {} must", event.position, self.next);
            found.add(Finding::at("position", self.next, what));
        }
        self.next = event.position.saturating_add(1);
        self.events += 1;
        if event.recorded_at_ms < self.last_recorded_ms {
            let what = format!("it was recorded at {} ms, before the event before it", event.recorded_at_ms);
            let stream = Some(stream_name(event));
            found.add(Finding { stream, ..Finding::at("recorded time", event.position, what) });
        }
        if self.events == 1 {
            self.first_recorded_ms = event.recorded_at_ms;
        }
        self.last_recorded_ms = event.recorded_at_ms;
        self.hash(event);
        self.compare(found);
        self.follow_imports(event, found);
        self.bindings.see(event, found);
        if let Some(rules) = &mut self.rules {
            rules.see(event, found);
        }
        match self.counts.get_mut(kind_of(event).as_str()) {
            Some(count) => *count += 1,
            None => self.miscounted = true,
        }
    }

    fn hash(&mut self, event: &StoredEvent) {
        let hash = leaf::hash(event);
        self.tree.push(hash);
        match self.kept_leaf(event.position) {
            Some(kept) if kept != hash.0 => {
                if self.differing.len() < super::MAX_FINDINGS {
                    self.differing.push((event.position, stream_name(event)));
                } else {
                    self.differing_left_out += 1;
                }
            }
            _ => {}
        }
    }

    /// The leaf that was kept of a position. Leaves of events that are missing are passed over; a file that is missing or
    /// too short is told as damage.
    fn kept_leaf(&mut self, position: i64) -> Option<[u8; 32]> {
        let Ok(wanted) = u64::try_from(position.saturating_sub(1)) else { return None };
        if wanted >= self.last as u64 {
            return None;
        }
        while self.kept_tree.until() <= wanted {
            match self.leaves.as_mut()?.next_leaf() {
                Ok(Some(leaf)) => {
                    self.kept_tree.push(Hash(leaf));
                    if self.kept_tree.until() == wanted + 1 {
                        return Some(leaf);
                    }
                }
                Ok(None) => self.leaves = None,
                Err(error) => {
                    self.leaves = None;
                    self.failed.get_or_insert(error);
                }
            }
        }
        None
    }

    /// Holds the tree so far against the kept checkpoints that have its size.
    fn compare(&self, found: &mut Findings) {
        for kept in self.older.iter().filter(|kept| kept.size == self.tree.until()) {
            if self.tree.root() != Some(kept.root) {
                found.add(kept.fork());
            }
        }
    }

    /// A ledger that was taken over from an export says what that held; here it is counted again.
    fn follow_imports(&mut self, event: &StoredEvent, found: &mut Findings) {
        if leaf::is_import_note(event) {
            // Notes begin a log, one behind the other; of a part the first ones may lie before it.
            let next = self.first.saturating_add(self.imports.len() as i64);
            match leaf::import_note(event) {
                Some(from) if event.position <= next && event.position <= MAX_IMPORTS => {
                    self.imports.push(Import {
                        position: event.position,
                        until: event.position.saturating_add(from.size),
                        digest: short(&from.digest),
                    });
                }
                _ => {
                    let what = "a note of an import stands where none can".to_owned();
                    found.add(Finding::at("import", event.position, what));
                }
            }
            return;
        }
        self.digest.update(leaf::contents(event));
        if self.first > 1 {
            // What came before a part would have to be counted, too.
            return;
        }
        for import in self.imports.iter().filter(|import| import.until == event.position) {
            let digest = hex(&self.digest.clone().finalize());
            if digest != import.digest {
                let what = format!(
                    "it took over events with the digest {}; up to position {} they have {digest}",
                    import.digest, import.until
                );
                found.add(Finding::at("import", import.position, what));
            }
        }
    }

    fn finish(
        mut self,
        manifest: &Manifest,
        opened: Option<&Opened>,
        whole: bool,
        found: &mut Findings,
    ) -> Read {
        let mut notes = Vec::new();
        self.kept_leaf(manifest.to);
        if self.next != manifest.to.saturating_add(1) && whole {
            let what =
                format!("the events end before position {}, the manifest says {}", self.next, manifest.to);
            found.add(Finding::at("position", self.next, what));
        }
        if self.miscounted || self.counts != manifest.events {
            let what = "the manifest counts other events by type than there are".to_owned();
            found.add(Finding::of("manifest", what));
        }
        let times = (manifest.recorded_from_ms, manifest.recorded_to_ms);
        if self.events > 0 && times != (self.first_recorded_ms, self.last_recorded_ms) {
            let what = "the manifest gives other times of the first and last event than they have".to_owned();
            found.add(Finding::of("manifest", what));
        }
        let digest = hex(&self.digest.clone().finalize());
        if digest != manifest.digest {
            let what = format!("the manifest's digest is {}, the events have {digest}", manifest.digest);
            found.add(Finding::of("manifest", what));
        }
        for import in &self.imports {
            if manifest.from > 1 {
                notes.push(format!(
                    "what was imported at position {} is not counted in a part",
                    import.position
                ));
            } else if import.until > manifest.to {
                let position = import.position;
                notes.push(format!("what was imported at position {position} goes beyond this export"));
            }
        }
        self.hold_against_signed(manifest, opened, found, &mut notes);
        notes.extend(self.rules.and_then(Rules::finish));
        let root = self.tree.root().filter(|_| manifest.from == 1 || self.whole_proof);
        Read { events: self.events, root: root.map(|root| STANDARD.encode(root.0)), notes }
    }

    /// The tree of the events, and where it is another than what was signed: which of them.
    fn hold_against_signed(
        &self,
        manifest: &Manifest,
        opened: Option<&Opened>,
        found: &mut Findings,
        notes: &mut Vec<String>,
    ) {
        let Some(opened) = opened else {
            notes.push("nothing proves that the events are what was signed".to_owned());
            self.tell_differing("the event and its kept leaf differ", found);
            return;
        };
        let after = manifest.proof.as_ref().and_then(|proof| hashes_of(&proof.after));
        let after = after.and_then(|hashes| Range::of(manifest.to as u64, opened.size, &hashes));
        let root_of = |tree: &Range| {
            let mut tree = tree.clone();
            let joined = after.as_ref().is_some_and(|after| tree.join(after));
            tree.root().filter(|_| joined && self.whole_proof)
        };
        for kept in self.older.iter().filter(|kept| kept.size > manifest.to as u64) {
            // Only the signed tree's own size is left.
            if opened.root != kept.root {
                found.add(kept.fork());
            }
        }
        if root_of(&self.tree) == Some(opened.root) {
            let what = "leaves.bin has another leaf than the event, which is as it was signed";
            self.tell_differing(what, found);
        } else if root_of(&self.kept_tree) == Some(opened.root) && !self.differing.is_empty() {
            self.tell_differing("the event is not what was signed", found);
        } else {
            let what = format!(
                "the events {} to {} do not give the root that was signed for {} positions",
                manifest.from, manifest.to, opened.size
            );
            found.add(Finding::of("root", what));
            self.tell_differing("the event and its kept leaf differ", found);
        }
    }

    fn tell_differing(&self, what: &str, found: &mut Findings) {
        for (position, stream) in &self.differing {
            let stream = Some(stream.clone());
            found.add(Finding { stream, ..Finding::at("leaf", *position, what.to_owned()) });
        }
        found.left_out += self.differing_left_out;
    }
}

/// `coupon/439`, or the beginning of whatever it says that it is.
pub(super) fn stream_name(event: &StoredEvent) -> String {
    format!("{}/{}", short(&event.aggregate_type), short(&event.aggregate_id))
}
