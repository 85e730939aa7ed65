//! Taking the log away: a folder that holds a range of the log, its receipts and the proof that they are what was signed.
//!
//! ```text
//! manifest.json              what the folder holds, and the signed checkpoint that it can be held against
//! events-<first>.ndjson.zst  events in pieces, one a line, as GET /v1/events gives them
//! leaves.bin                 each event's leaf of the transparency log, 32 bytes: they tell which event was changed
//! receipts.ndjson.zst        the receipts of idempotency keys whose events lie in the range
//! ```
//!
//! What is written is a draft until everything is on disk; a folder under its own name is whole. It holds no personal
//! data: neither the directory nor reviews' texts. The format is fixed for ever, like the leaves.

mod manifest;
mod read;
mod write;

pub use manifest::{FileEntry, Manifest, Proof, hashes_of};
pub use read::{Archive, Damage, Leaves, MAX_LINE, ReadError};
pub(super) use write::kind_of;
pub use write::{ExportError, Wanted, export};

/// How many events one file holds.
pub const PIECE: i64 = 100_000;

/// The leaves' file.
const LEAVES: &str = "leaves.bin";

/// The receipts' file.
const RECEIPTS: &str = "receipts.ndjson.zst";

/// The manifest's file, written last.
const MANIFEST: &str = "manifest.json";

/// The file of the events from this position on.
fn piece_name(first: i64) -> String {
    format!("events-{first}.ndjson.zst")
}
