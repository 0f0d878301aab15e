//! The plaintext root: a Merkle tree in the shape of RFC 9162, section 2.1.1, over the chunks of a model file.
//!
//! Why: the owner's signed manifest names a file by this root, so whoever opened the file knows that it holds the
//! named weights and not merely something that was sealed under the right key. Leaves and inner nodes are hashed
//! with different first bytes (`00`, `01`), so that a node can never pass for a leaf (second preimages).
//!
//! Leaf `i` is `H(00 || "adyton/v1/seal/leaf" || u64(i) || plaintext)`, over the chunk without padding; an inner
//! node is `H(01 || left || right)`. The tree of no leaves is `H("")`, as in the RFC; sealed files have at least one.

use ring::digest::{Context, SHA256};

/// A SHA-256 digest: a leaf, a node, or a root.
pub type Digest = [u8; 32];

const LEAF_LABEL: &[u8] = b"adyton/v1/seal/leaf";

/// SHA-256 over the concatenation of `parts`.
pub(crate) fn sha256(parts: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// Leaf of chunk `index` with its unpadded `plaintext`.
#[must_use]
pub fn leaf(index: u64, plaintext: &[u8]) -> Digest {
    sha256(&[&[0], LEAF_LABEL, &index.to_be_bytes(), plaintext])
}

fn node(left: &Digest, right: &Digest) -> Digest {
    sha256(&[&[1], left, right])
}

/// Builds a root from leaves given in order, in memory that grows with the logarithm of their number.
#[derive(Default)]
pub struct Tree {
    /// Roots of the full subtrees seen so far, largest first; their sizes are the bits set in `len`.
    roots: Vec<Digest>,
    len: u64,
}

impl Tree {
    /// Appends the next leaf.
    pub fn push(&mut self, leaf: Digest) {
        let mut root = leaf;
        // Each trailing one bit of the length is a full subtree of that height, now joined with its equal.
        for _ in 0..self.len.trailing_ones() {
            if let Some(left) = self.roots.pop() {
                root = node(&left, &root);
            }
        }
        self.roots.push(root);
        self.len = self.len.saturating_add(1);
    }

    /// Root over all leaves pushed so far.
    #[must_use]
    pub fn root(&self) -> Digest {
        let mut roots = self.roots.iter().rev();
        match roots.next() {
            None => sha256(&[]),
            Some(&last) => roots.fold(last, |right, left| node(left, &right)),
        }
    }
}

impl FromIterator<Digest> for Tree {
    fn from_iter<I: IntoIterator<Item = Digest>>(leaves: I) -> Self {
        let mut tree = Self::default();
        leaves.into_iter().for_each(|leaf| tree.push(leaf));
        tree
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition of RFC 9162, word for word: split at the largest power of two below `n`.
    fn naive(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => sha256(&[]),
            [one] => *one,
            _ => {
                let k = leaves.len().next_power_of_two() / 2;
                node(&naive(&leaves[..k]), &naive(&leaves[k..]))
            }
        }
    }

    #[test]
    fn leaf_zero_is_the_golden_value() {
        assert_eq!(
            hex::encode(leaf(0, b"abc")),
            "35c31bbd0fc1de52f94c3adab3e70a72fe5196a1aa71af2d3d194e266c111ea1"
        );
    }

    #[test]
    fn every_small_size_matches_the_definition() {
        let leaves: Vec<_> = (0..70).map(|i| leaf(i, b"x")).collect();
        for n in 0..leaves.len() {
            assert_eq!(
                leaves[..n].iter().copied().collect::<Tree>().root(),
                naive(&leaves[..n]),
                "{n} leaves"
            );
        }
    }

    proptest! {
        #[test]
        fn incremental_root_matches_the_definition(leaves in prop::collection::vec(any::<[u8; 32]>(), 0..300)) {
            prop_assert_eq!(leaves.iter().copied().collect::<Tree>().root(), naive(&leaves));
        }

        #[test]
        fn any_changed_leaf_changes_the_root(
            mut leaves in prop::collection::vec(any::<[u8; 32]>(), 1..40), at in any::<prop::sample::Index>(), bit in 0u8..8
        ) {
            let before = leaves.iter().copied().collect::<Tree>().root();
            let at = at.index(leaves.len());
            leaves[at][5] ^= 1 << bit;
            prop_assert_ne!(leaves.into_iter().collect::<Tree>().root(), before);
        }
    }
}
