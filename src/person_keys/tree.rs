//! The tree of keys: a puncturable function from ids to keys (Goldreich, Goldwasser, Micali).
//!
//! Each node makes its two children and nothing makes a node of its child. Whoever has a node can make every key below it;
//! taking a key away replaces the node above it by the siblings along the way down, below which is everything but it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Ids have so many bits: see [`crate::value::MAX_ID`].
const BITS: u32 = 53;

/// The lowest ids, which are the ones in use, have a node of their own from the start: a key is so many steps below it.
const COMMON_BITS: u32 = 24;

/// More than so many keys are not missing from a file that this program wrote.
const MAX_DESTROYED: u64 = 1 << 28;

/// What a node is stretched with into its left child, its right child, and at a leaf into the key.
const STEPS: [u8; 3] = [0, 1, 2];

/// A person's key, or a node; wiped where it is let go.
pub type Key = Zeroizing<[u8; 32]>;

struct Node {
    /// It stands for 2 to this power ids.
    height: u32,
    seed: Key,
}

/// The nodes by the first id that each stands for. No two stand for the same id.
#[derive(Default)]
pub(super) struct Frontier {
    nodes: BTreeMap<u64, Node>,
}

/// One hash of 33 bytes, always so many: a single block, and no input continues another.
fn stretch(seed: &Key, step: u8) -> Key {
    let mut hash = Sha256::new();
    hash.update(seed.as_slice());
    hash.update([step]);
    Zeroizing::new(hash.finalize().into())
}

fn child(seed: &Key, id: u64, height: u32) -> Key {
    let [left, right, _] = STEPS;
    stretch(seed, if id >> height & 1 == 0 { left } else { right })
}

impl Frontier {
    pub(super) fn of_root(root: Key) -> Self {
        let mut frontier = Self { nodes: BTreeMap::from([(0, Node { height: BITS, seed: root })]) };
        if let Some(seed) = frontier.open(0, COMMON_BITS) {
            frontier.nodes.insert(0, Node { height: COMMON_BITS, seed });
        }
        frontier
    }

    fn above(&self, id: u64) -> Option<(u64, &Node)> {
        let (first, node) = self.nodes.range(..=id).next_back()?;
        (id - first < 1 << node.height).then_some((*first, node))
    }

    pub(super) fn key(&self, id: u64) -> Option<Key> {
        let (_, node) = self.above(id)?;
        let seed = (0..node.height).rev().fold(node.seed.clone(), |seed, height| child(&seed, id, height));
        let [_, _, leaf] = STEPS;
        Some(stretch(&seed, leaf))
    }

    /// Replaces the node above an id by the siblings along the way down to a height, and returns what stood there.
    fn open(&mut self, id: u64, to_height: u32) -> Option<Key> {
        let first = self.above(id)?.0;
        let node = self.nodes.remove(&first)?;
        let mut seed = node.seed;
        for height in (to_height..node.height).rev() {
            let sibling = (id >> height ^ 1) << height;
            self.nodes.insert(sibling, Node { height, seed: child(&seed, sibling, height) });
            seed = child(&seed, id, height);
        }
        Some(seed)
    }

    /// Takes a key away for good; false where it was gone.
    pub(super) fn puncture(&mut self, id: u64) -> bool {
        self.open(id, 0).is_some()
    }

    /// The ids that no node stands for.
    pub(super) fn gaps(&self) -> Vec<i64> {
        let mut gaps = Vec::new();
        let mut next = 0_u64;
        for (first, node) in &self.nodes {
            gaps.extend((next..*first).map(|id| id as i64));
            next = first + (1 << node.height);
        }
        gaps.extend((next..1 << BITS).map(|id| id as i64));
        gaps
    }

    /// A line for each node: its first id, its height, its seed.
    pub(super) fn print(&self, to: &mut Zeroizing<String>) {
        // Reserved in one piece, so that no outgrown copy of it is left behind in memory.
        to.reserve(self.nodes.len() * 90 + 100);
        for (first, node) in &self.nodes {
            let _ = write!(to, "{first} {} ", node.height);
            for byte in node.seed.iter() {
                let _ = write!(to, "{byte:02x}");
            }
            to.push('\n');
        }
    }

    pub(super) fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Self, &'static str> {
        let mut nodes = BTreeMap::new();
        let (mut next, mut there) = (0, 0);
        for line in lines {
            let (first, node) = parse_node(line).ok_or("a line of it is no node")?;
            let end = first + (1 << node.height);
            if first < next || first % (1 << node.height) != 0 || end > 1 << BITS {
                return Err("its nodes do not lie side by side");
            }
            (next, there) = (end, there + (1 << node.height));
            nodes.insert(first, node);
        }
        // Keys are destroyed one by one, so whole ranges are never missing.
        if (1 << BITS) - there > MAX_DESTROYED {
            return Err("it lacks whole ranges of keys");
        }
        Ok(Self { nodes })
    }
}

fn parse_node(line: &str) -> Option<(u64, Node)> {
    let mut words = line.split(' ');
    let first: u64 = words.next()?.parse().ok()?;
    let height: u32 = words.next()?.parse().ok().filter(|height| *height <= BITS)?;
    let digits = words.next().filter(|digits| digits.len() == 64 && digits.is_ascii())?;
    let mut seed: Key = Zeroizing::new([0; 32]);
    for (byte, place) in seed.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(place..place + 2)?, 16).ok()?;
    }
    (first < 1 << BITS && words.next().is_none()).then_some((first, Node { height, seed }))
}
