//! What a ledger says of itself, in its own log: where it comes from, and which key vouches for it.
//!
//! One stream, `ledger` 1; and from `ledger` 2 on a stream of its own for the note of each import, because a ledger that is
//! taken over brings its `ledger` 1 with it, which goes on. The keys themselves are derived from the root secret and nowhere stored; what is here are their
//! generations, so that every server and every auditor knows from when on which of them signs.

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::refusal::Refusal;

/// The one stream's id.
pub const LEDGER_ID: i64 = 1;

/// For how long after a rotation the key before it signs as well.
pub const OVERLAP_MS: i64 = 30 * 86_400_000;

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

    /// Whether the key before the one that signs signs as well.
    #[must_use]
    pub fn overlaps(&self, now_ms: i64) -> bool {
        self.rotations > 0 && now_ms < self.rotated_at_ms.saturating_add(OVERLAP_MS)
    }

    /// What these events make of it; total on any event.
    pub fn evolve(&mut self, event: &ProvenanceEvent) {
        match event {
            ProvenanceEvent::ImportedFrom(from) => self.imported_from = Some(from.clone()),
            ProvenanceEvent::CheckpointKeyRotated { at_ms, .. } => {
                // Counted and not believed: as many keys are derived as this says, and a forged number must not say how many.
                self.rotations = self.rotations.saturating_add(1);
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
            ProvenanceCommand::RotateCheckpointKey { generation, verifier_key, employee_id } => {
                if self.key_generation().checked_add(1) != Some(*generation) {
                    // Another operator was faster.
                    return Err(Refusal::IdTaken);
                }
                // The key before this one is still one that auditors and witnesses may have pinned alone.
                if self.overlaps(at_ms) {
                    return Err(Refusal::KeyRotatedLately);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rotated(generation: u32) -> ProvenanceEvent {
        ProvenanceEvent::CheckpointKeyRotated {
            generation,
            verifier_key: String::new(),
            at_ms: 1,
            employee_id: 0,
        }
    }

    #[test]
    fn a_rotation_is_one_more_key_whatever_number_it_says() {
        let mut ledger = Provenance::default();
        let keys: Vec<u32> = [2, u32::MAX, 0, 1]
            .map(|generation| {
                ledger.evolve(&rotated(generation));
                ledger.key_generation()
            })
            .into();
        assert_eq!(keys, [2, 3, 4, 5]);
    }
}
