//! What a ledger says of itself, in its own log: where it comes from, and which key vouches for it.
//!
//! One stream, `ledger` 1; and from `ledger` 2 on a stream of its own for the note of each import, because a ledger that is
//! taken over brings its `ledger` 1 with it, which goes on. The keys themselves are derived from the root secret and nowhere stored; what is here are their
//! generations, so that every server and every auditor knows from when on which of them signs.

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::refusal::{Refusal, Wrong};

/// The one stream's id.
pub const LEDGER_ID: i64 = 1;

/// What happened to the ledger as a whole. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProvenanceEvent {
    /// Its streams were taken over from another ledger, as an export holds them.
    ImportedFrom(ImportedFrom),
    /// Checkpoints are signed by another key from now on.
    CheckpointKeyRotated {
        /// The new key's generation; the first key, which no event names, has 1.
        generation: u32,
        /// The new key, as auditors pin it.
        verifier_key: String,
        /// Unix milliseconds.
        at_ms: i64,
        /// The employee who did it, 0 for an operator without an employee's id.
        employee_id: i64,
    },
}

/// The ledger that this one continues, as it was when it was exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedFrom {
    /// Its origin.
    pub origin: String,
    /// How many events it had.
    pub size: i64,
    /// The root of its tree, base64.
    pub root: String,
    /// Its last checkpoint, the whole signed note; empty where it had none.
    pub checkpoint: String,
    /// The digest of what was imported.
    pub digest: String,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// What can be asked of the ledger as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProvenanceCommand {
    /// Say where it comes from; its `at_ms` is the command's time.
    ImportFrom(ImportedFrom),
    /// Sign with the next key.
    RotateCheckpointKey {
        /// The next generation, as whoever derived the key believed it to be.
        generation: u32,
        /// That generation's key.
        verifier_key: String,
        /// Who.
        employee_id: i64,
    },
}

/// A ledger as its events make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The ledger that it continues.
    pub imported_from: Option<ImportedFrom>,
    /// How often the key was rotated.
    pub rotations: u32,
    /// When that was last done, Unix milliseconds; 0 = never.
    pub rotated_at_ms: i64,
}

impl Provenance {
    /// The generation of the key that signs.
    #[must_use]
    pub fn key_generation(&self) -> u32 {
        self.rotations.saturating_add(1)
    }

    /// What these events make of it; total on any event.
    pub fn evolve(&mut self, event: &ProvenanceEvent) {
        match event {
            ProvenanceEvent::ImportedFrom(from) => self.imported_from = Some(from.clone()),
            ProvenanceEvent::CheckpointKeyRotated { generation, at_ms, .. } => {
                self.rotations = generation.saturating_sub(1);
                self.rotated_at_ms = *at_ms;
            }
        }
    }

    /// What follows from a command, or why nothing does.
    pub fn decide(
        &self,
        command: &ProvenanceCommand,
        facts: &Facts,
    ) -> Result<Vec<ProvenanceEvent>, Refusal> {
        let at_ms = facts.at.ms;
        match command {
            // Only a new ledger comes from another one.
            ProvenanceCommand::ImportFrom(_) if facts.version > 0 => {
                Err(Refusal::field("origin", Wrong::ImportedAlready))
            }
            ProvenanceCommand::ImportFrom(from) => {
                Ok(vec![ProvenanceEvent::ImportedFrom(ImportedFrom { at_ms, ..from.clone() })])
            }
            ProvenanceCommand::RotateCheckpointKey { generation, verifier_key, employee_id } => {
                if self.key_generation().checked_add(1) != Some(*generation) {
                    // Another operator was faster.
                    return Err(Refusal::IdTaken);
                }
                Ok(vec![ProvenanceEvent::CheckpointKeyRotated {
                    generation: *generation,
                    verifier_key: verifier_key.clone(),
                    at_ms,
                    employee_id: *employee_id,
                }])
            }
        }
    }
}
