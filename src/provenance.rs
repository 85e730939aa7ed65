//! What a ledger says of itself, in its own log: where it comes from, and which key vouches for it.
//!
//! One stream, `ledger` 1; and from `ledger` 2 on a stream of its own for the note of each import, because a ledger that is
//! taken over brings its `ledger` 1 with it, which goes on. The keys themselves are derived from the root secret and nowhere
//! stored; what is here are their generations, so that every server and every auditor knows from when on which of them signs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::refusal::Refusal;
use crate::secrets::{Accepted, Purpose};

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
    /// What these keys are for is done with another one from now on.
    KeyRotated {
        /// What they are for.
        key: Purpose,
        /// The new key's generation; the first key, which no event names, has 1.
        generation: u32,
        /// What the new key is called.
        key_id: String,
        /// For how long what the one before has signed is good.
        overlap_ms: i64,
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
    /// Use the next key.
    RotateKey {
        /// What it is for.
        key: Purpose,
        /// The next generation, as whoever named the key believed it to be.
        generation: u32,
        /// What that generation's key is called.
        key_id: String,
        /// For how long what the one before has signed is good, in milliseconds.
        overlap_ms: i64,
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
    /// Of each other key that was replaced, in their order, until when what it signed is good: Unix milliseconds.
    pub replaced: BTreeMap<Purpose, Vec<i64>>,
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

    /// Which generations of a purpose's keys are good at this instant. One that ends early ends those before it as well.
    #[must_use]
    pub fn accepted(&self, purpose: Purpose, now_ms: i64) -> Accepted {
        let replaced = self.replaced.get(&purpose).map(Vec::as_slice).unwrap_or_default();
        let ended = replaced.iter().rposition(|until_ms| *until_ms <= now_ms).map_or(0, |last| last + 1);
        Accepted { oldest: ended as u32 + 1, newest: replaced.len() as u32 + 1 }
    }

    /// Until when what a key signed is good, Unix milliseconds; None = it is the one in use.
    #[must_use]
    pub fn accepted_until_ms(&self, purpose: Purpose, generation: u32) -> Option<i64> {
        let replaced = self.replaced.get(&purpose).map(Vec::as_slice).unwrap_or_default();
        replaced.iter().skip(generation.saturating_sub(1) as usize).copied().min()
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
            ProvenanceEvent::KeyRotated { key, overlap_ms, at_ms, .. } => {
                self.replaced.entry(*key).or_default().push(at_ms.saturating_add(*overlap_ms));
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
            ProvenanceCommand::RotateKey { key, generation, key_id, overlap_ms, employee_id } => {
                if self.accepted(*key, at_ms).newest.checked_add(1) != Some(*generation) {
                    return Err(Refusal::IdTaken);
                }
                Ok(vec![ProvenanceEvent::KeyRotated {
                    key: *key,
                    generation: *generation,
                    key_id: key_id.clone(),
                    overlap_ms: *overlap_ms,
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
    fn a_key_is_good_until_its_end_and_not_beyond_a_later_ones() {
        let replaced = |at_ms: i64, overlap_ms: i64| ProvenanceEvent::KeyRotated {
            key: Purpose::Token,
            generation: 0,
            key_id: String::new(),
            overlap_ms,
            at_ms,
            employee_id: 0,
        };
        let mut ledger = Provenance::default();
        let accepted = |ledger: &Provenance, now_ms| {
            let Accepted { oldest, newest } = ledger.accepted(Purpose::Token, now_ms);
            (oldest, newest)
        };
        assert_eq!(accepted(&ledger, i64::MAX), (1, 1));
        ledger.evolve(&replaced(1_000, 500));
        assert_eq!((accepted(&ledger, 1_499), accepted(&ledger, 1_500)), ((1, 2), (2, 2)));
        // The second one has leaked: it ends at once, and with it the first, whoever has them.
        ledger.evolve(&replaced(1_200, 0));
        assert_eq!(accepted(&ledger, 1_200), (3, 3));
        ledger.evolve(&replaced(1_300, i64::MAX));
        assert_eq!(accepted(&ledger, i64::MAX - 1), (3, 4));
        assert_eq!(ledger.accepted(Purpose::Qr, 0), Accepted { oldest: 1, newest: 1 });
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
