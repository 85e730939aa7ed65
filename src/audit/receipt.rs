//! Receipts: proofs that an event is in the log, to be kept and checked elsewhere (c2sp.org/tlog-proof).
//!
//! A receipt holds the event's leaf itself, its place, the way from it to the root of a signed checkpoint, and that
//! checkpoint. It needs no server: [`Receipt::open`] is all that a reader must do, with keys that he trusts.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tlog_tiles::{Hash, check_record, record_hash};

use super::checkpoint::{Opened, Signed, Trust, Untrusted, cosignatures};
use super::leaf;
use super::merkle::MAX_PROOF;
use super::tlog::{covering, inclusion};
use crate::coupon::Coupon;
use crate::entity::{Folded, stream_of};
use crate::ledger::ExecuteError;
use crate::store::{Store, StoreError, StoredEvent};

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// How often it is looked for a signature that is to come.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Until when the signatures of witnesses are waited for, where there is a checkpoint without them.
const WITNESSES_WITHIN: Duration = Duration::from_secs(2);

/// A receipt.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    /// The leaf's bytes.
    pub leaf: Vec<u8>,
    /// Its place in the log: the event's position less one.
    pub index: u64,
    /// The way to the root, from the leaf's sibling up.
    pub proof: Vec<Hash>,
    /// The checkpoint, the whole signed note.
    pub note: String,
}

/// Why a receipt proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum BadReceipt {
    /// It has not the shape of one.
    #[error("it is no receipt (c2sp.org/tlog-proof): {0}")]
    Malformed(&'static str),
    /// Its checkpoint proves nothing.
    #[error("its checkpoint: {0}")]
    Untrusted(#[from] Untrusted),
    /// The event is not in the signed tree.
    #[error(
        "the event is not at index {index} of the signed tree of {size}: the receipt was changed, or is of another log"
    )]
    NotIncluded {
        /// Where it says that it is.
        index: u64,
        /// The tree's size.
        size: u64,
    },
    /// The leaf is no event of this program.
    #[error("what it proves is no event of this program")]
    NoEvent,
}

impl Receipt {
    /// Reads a receipt; what is in it proves nothing before it is opened.
    pub fn parse(text: &str) -> Result<Self, BadReceipt> {
        use BadReceipt::Malformed;
        let (head, note) = text.split_once("\n\n").ok_or(Malformed("it has no empty line"))?;
        let mut lines = head.split('\n');
        if lines.next() != Some(FIRST_LINE) {
            return Err(Malformed("its first line is another"));
        }
        let extra = lines.next().and_then(|line| line.strip_prefix("extra "));
        let leaf = extra.and_then(|extra| STANDARD.decode(extra).ok());
        let leaf = leaf.ok_or(Malformed("its second line is not the event in base64"))?;
        let number = lines.next().and_then(|line| line.strip_prefix("index "));
        let index = number.and_then(|number| number.parse::<u64>().ok().filter(|n| n.to_string() == number));
        let index = index.ok_or(Malformed("its third line is not an index"))?;
        let proof: Result<Vec<Hash>, _> = lines.map(Hash::parse_hash).collect();
        let proof = proof.map_err(|_| Malformed("a line of the proof is no hash"))?;
        if proof.len() > MAX_PROOF {
            return Err(Malformed("its proof is too long"));
        }
        Ok(Self { leaf, index, proof, note: note.to_owned() })
    }

    /// The event, and the checkpoint that vouches for it.
    pub fn open(&self, trust: &Trust) -> Result<(StoredEvent, Opened), BadReceipt> {
        let opened = trust.open(&self.note)?;
        let (index, size) = (self.index, opened.size);
        let not_included = BadReceipt::NotIncluded { index, size };
        if index >= size {
            return Err(not_included);
        }
        check_record(&self.proof, size, opened.root, index, record_hash(&self.leaf))
            .map_err(|_| not_included)?;
        let event = leaf::event(&self.leaf).filter(|event| event.position as u64 == index + 1);
        Ok((event.ok_or(BadReceipt::NoEvent)?, opened))
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}\nextra {}\nindex {}", STANDARD.encode(&self.leaf), self.index)?;
        for hash in &self.proof {
            writeln!(f, "{}", STANDARD.encode(hash.0))?;
        }
        write!(f, "\n{}", self.note)
    }
}

/// How long a receipt may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until the event is signed.
    pub signature: Duration,
    /// How many witnesses are asked: their signatures are waited for a little, too.
    pub witnesses: usize,
}

/// An event's receipt against the last checkpoint that has it, with the witnesses' signatures where they come in time;
/// None where it is not signed in time.
pub async fn receipt(
    store: &Store,
    event: &StoredEvent,
    patience: Patience,
) -> Result<Option<Receipt>, StoreError> {
    let index = event.position as u64 - 1;
    let looking = tokio::time::Instant::now();
    let signed = loop {
        let found = covering(store, index).await?;
        let waited = looking.elapsed();
        match best(&found, patience.witnesses) {
            Some((signed, cosigned)) if cosigned || waited >= WITNESSES_WITHIN.min(patience.signature) => {
                break signed.clone();
            }
            None if waited >= patience.signature => return Ok(None),
            _ => tokio::time::sleep(LOOK_AGAIN_AFTER).await,
        }
    };
    let corrupt = || StoreError::Corrupt {
        table: format!("tlog_checkpoints, size {}", signed.size),
        column: "size".to_owned(),
        what: "the tiles have fewer leaves".to_owned(),
    };
    let proof = inclusion(store, index, signed.size).await?.ok_or_else(corrupt)?;
    let leaf = leaf::bytes(event);
    // Nobody is handed a receipt that would prove nothing to him.
    check_record(&proof, signed.size, signed.root, index, record_hash(&leaf)).map_err(|_| {
        StoreError::Corrupt {
            table: "events".to_owned(),
            column: format!("position {}", event.position),
            what: "it is not in the tree that was signed: the event was changed since, or a tile was"
                .to_owned(),
        }
    })?;
    Ok(Some(Receipt { leaf, index, proof, note: signed.note }))
}

/// The last checkpoint that all witnesses have cosigned, or the last one; and whether it is such.
fn best(newest_first: &[Signed], witnesses: usize) -> Option<(&Signed, bool)> {
    let cosigned = newest_first.iter().find(|signed| cosignatures(&signed.note) >= witnesses);
    cosigned.map(|signed| (signed, true)).or_else(|| Some((newest_first.first()?, false)))
}

/// The event of a coupon that a receipt is asked for: the last one, or the one with this sequence. A member is told of
/// those only by which he came to hold it, and until it left his hand; None is also the answer to whoever never held it.
pub async fn event_of_coupon(
    store: &Store,
    coupon_id: i64,
    sequence: Option<i64>,
    member_id: Option<i64>,
) -> Result<Option<StoredEvent>, ExecuteError> {
    let mut folded = Folded::<Coupon>::default();
    let mut told = Vec::new();
    for event in store.load_one(stream_of::<Coupon>(coupon_id)).await? {
        let before = folded.state.holder_id;
        folded.take(event.as_ref())?;
        if member_id.is_none_or(|member_id| [before, folded.state.holder_id].contains(&member_id)) {
            told.push(event);
        }
    }
    Ok(match sequence {
        None => told.pop(),
        Some(sequence) => told.into_iter().find(|event| event.sequence == sequence),
    })
}
