//! The RFC 6962 tree over a range of leaves, kept as the roots of its largest complete subtrees.
//!
//! What is read in order is hashed with memory for some twenty hashes; ranges that were hashed apart, side by side or on
//! another day, join to what one pass gives. The hashing itself is `tlog_tiles`'.

use tlog_tiles::{EMPTY_HASH, Hash, node_hash};

/// A proof has at most so many hashes: one for each doubling.
pub const MAX_PROOF: usize = 63;

/// A complete subtree: of `2^level` leaves, the `index`th of its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// 0 is a leaf.
    pub level: u8,
    /// From 0, on its level.
    pub index: u64,
}

/// The complete subtrees that cover the leaves from `from` up to but without `until`, in order.
#[must_use]
pub fn cover(from: u64, until: u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut at = from;
    while at < until {
        // As large as where it begins allows, and as what is left does.
        let level = at.trailing_zeros().min((until - at).ilog2()) as u8;
        nodes.push(Node { level, index: at >> level });
        at += 1 << level;
    }
    nodes
}

/// The leaves from one up to but without another, as the roots of their largest complete subtrees.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    from: u64,
    until: u64,
    nodes: Vec<(Node, Hash)>,
}

impl Range {
    /// No leaves, before this one.
    #[must_use]
    pub fn empty(from: u64) -> Self {
        Self { from, until: from, nodes: Vec::new() }
    }

    /// The range with these hashes of its [`cover`]; None where they are not as many.
    #[must_use]
    pub fn of(from: u64, until: u64, hashes: &[Hash]) -> Option<Self> {
        let cover = cover(from, until);
        let nodes = cover.iter().copied().zip(hashes.iter().copied()).collect();
        (from <= until && cover.len() == hashes.len()).then_some(Self { from, until, nodes })
    }

    /// Behind its last leaf.
    #[must_use]
    pub fn until(&self) -> u64 {
        self.until
    }

    /// Takes the next leaf.
    pub fn push(&mut self, leaf: Hash) {
        self.put(Node { level: 0, index: self.until }, leaf);
    }

    /// Takes the range behind it; whether it was that.
    #[must_use]
    pub fn join(&mut self, behind: &Self) -> bool {
        if behind.from != self.until {
            return false;
        }
        for (node, hash) in &behind.nodes {
            self.put(*node, *hash);
        }
        true
    }

    fn put(&mut self, mut node: Node, mut hash: Hash) {
        self.until = (node.index + 1) << node.level;
        // A right-hand child whose sibling is here makes their parent.
        while node.index % 2 == 1
            && let Some((left, left_hash)) = self.nodes.last().copied()
            && (left.level, left.index + 1) == (node.level, node.index)
        {
            self.nodes.pop();
            node = Node { level: node.level + 1, index: node.index / 2 };
            hash = node_hash(left_hash, hash);
        }
        self.nodes.push((node, hash));
    }

    /// The root of the whole tree; None where the range does not begin with the first leaf.
    #[must_use]
    pub fn root(&self) -> Option<Hash> {
        if self.from != 0 {
            return None;
        }
        let hashes = self.nodes.iter().map(|(_, hash)| *hash);
        Some(hashes.rev().reduce(|right, left| node_hash(left, right)).unwrap_or(EMPTY_HASH))
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use proptest::prelude::*;
    use sha2::Sha256;
    use tlog_tiles::record_hash;

    use super::*;

    fn leaf(number: u64) -> Hash {
        record_hash(number.to_string().as_bytes())
    }

    fn hashes(range: &Range) -> Vec<Hash> {
        range.nodes.iter().map(|(_, hash)| *hash).collect()
    }

    fn range(from: u64, until: u64) -> Range {
        let mut range = Range::empty(from);
        (from..until).for_each(|number| range.push(leaf(number)));
        range
    }

    /// The leaves and roots of the test vectors of the Certificate Transparency project.
    #[test]
    fn roots_are_those_of_rfc_6962() {
        let leaves: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut range = Range::empty(0);
        assert_eq!(range.root(), Some(EMPTY_HASH));
        for (leaf, root) in leaves.into_iter().zip(roots) {
            range.push(record_hash(leaf));
            assert_eq!(crate::value::hex(&range.root().unwrap().0), root);
        }
    }

    #[test]
    fn roots_are_those_of_another_implementation() {
        let mut other = ct_merkle::mem_backed_tree::MemoryBackedTree::<Sha256, String>::new();
        let mut own = Range::empty(0);
        for number in 0..300_u64 {
            other.push(number.to_string());
            own.push(leaf(number));
            assert_eq!(own.root().unwrap().0.as_slice(), other.root().as_bytes().as_slice(), "{number}");
        }
    }

    #[test]
    fn a_range_that_does_not_begin_with_the_first_leaf_has_no_root() {
        assert_eq!(range(1, 5).root(), None);
        assert!(!range(0, 3).join(&range(4, 5)));
        assert_eq!(Range::of(0, 3, &hashes(&range(0, 2))), None);
        // For people who look at one: base64 as in checkpoints.
        let root = base64::engine::general_purpose::STANDARD.encode(range(0, 1).root().unwrap().0);
        assert_eq!(root.len(), 44);
    }

    proptest! {
        #[test]
        fn ranges_that_were_hashed_apart_join_to_what_one_pass_gives(
            cuts in prop::collection::vec(0_u64..200, 0..6), until in 0_u64..200,
        ) {
            let mut cuts: Vec<u64> = cuts.into_iter().filter(|cut| *cut <= until).chain([0, until]).collect();
            cuts.sort_unstable();
            let mut joined = Range::empty(0);
            for pair in cuts.windows(2) {
                let part = range(pair[0], pair[1]);
                prop_assert_eq!(Range::of(pair[0], pair[1], &hashes(&part)), Some(part.clone()));
                prop_assert!(joined.join(&part));
            }
            prop_assert_eq!(joined, range(0, until));
        }
    }
}
