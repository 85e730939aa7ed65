//! A receipt that a member or merchant has kept: the proof that one event is in the log (c2sp.org/tlog-proof).
//!
//! Its extra data is the leaf itself, so the receipt tells what happened without anybody else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tlog_tiles::{Hash, check_record, record_hash};

use super::{CheckError, Finding, Findings, Report, Trusted};
use crate::audit::{feed, leaf};

/// The first line of every proof.
const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// Whether a text looks like a receipt.
#[must_use]
pub fn is_proof(text: &str) -> bool {
    text.starts_with("c2sp.org/tlog-proof@")
}

/// A proof, taken apart.
struct Proof<'a> {
    leaf: Vec<u8>,
    index: u64,
    hashes: Vec<Hash>,
    checkpoint: &'a str,
}

impl<'a> Proof<'a> {
    fn parse(text: &'a str) -> Result<Self, &'static str> {
        let (head, checkpoint) = text.split_once("\n\n").ok_or("it has no checkpoint")?;
        let mut lines = head.split('\n');
        if lines.next() != Some(HEADER) {
            return Err("its first line must be c2sp.org/tlog-proof@v1");
        }
        let extra = lines.next().and_then(|line| line.strip_prefix("extra "));
        let leaf =
            extra.and_then(|extra| STANDARD.decode(extra).ok()).ok_or("it does not bring the event")?;
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).unwrap_or_default();
        let index = index.parse().ok().filter(|number: &u64| number.to_string() == index);
        let index = index.ok_or("its index is no number")?;
        let hash = |line: &str| STANDARD.decode(line).ok()?.try_into().ok().map(Hash);
        let hashes = lines.map(hash).collect::<Option<_>>().ok_or("one of its hashes is none")?;
        Ok(Self { leaf, index, hashes, checkpoint })
    }
}

/// Checks a receipt.
pub fn check_proof(text: &str, trusted: &Trusted) -> Result<Report, CheckError> {
    let proof = Proof::parse(text).map_err(|what| CheckError::NoProof(what.to_owned()))?;
    let mut found = Findings::default();
    let mut report = Report::default();
    let opened = trusted.open(proof.checkpoint, &mut found);
    if let Some(opened) = &opened {
        report.origin.clone_from(&opened.origin);
        report.signed_size = opened.size;
        report.witnesses = opened.witnesses.iter().map(|(name, _)| name.clone()).collect();
        let hash = record_hash(&proof.leaf);
        if check_record(&proof.hashes, opened.size, opened.root, proof.index, hash).is_err() {
            let what = "the event is not in the tree that was signed".to_owned();
            found.add(Finding::at("inclusion", proof.index as i64 + 1, what));
        }
        for older in &trusted.older {
            let Some(kept) = older.open(trusted, &opened.origin, &mut found)? else { continue };
            if kept.size != opened.size {
                return Err(older.incomparable(format!(
                    "covers {} positions, and the receipt is of a tree of {}: only an export can be held against it",
                    kept.size, opened.size
                )));
            }
            if kept.root != opened.root {
                found.add(kept.fork());
            }
        }
    }
    match leaf::event(&proof.leaf) {
        Some(event) if event.position - 1 == proof.index as i64 => {
            (report.from, report.to, report.events) = (event.position, event.position, 1);
            report.notes.extend(feed::line(&event).ok());
        }
        Some(event) => {
            let what = format!("it tells of position {}, and its index is {}", event.position, proof.index);
            found.add(Finding::at("leaf", event.position, what));
        }
        None => found.add(Finding::of("leaf", "what it brings is no event".to_owned())),
    }
    report.findings = found.list;
    report.findings_left_out = found.left_out;
    Ok(report)
}
