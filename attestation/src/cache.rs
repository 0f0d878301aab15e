//! What was verified before and still holds: certificate chains of SEV-SNP, collateral and attestation keys of TDX.

use crate::snp::cache::ChainCache;
use crate::tdx::cache::CollateralCache;

/// Verdicts that [`Evidence::verify_cached`](crate::Evidence::verify_cached) keeps and answers from.
///
/// It grants nothing by itself: what is found in it was verified under the same root from the same bytes, and holds at
/// the time of the question. Nothing in it outlives the earliest end of the certificates, documents and lists it rests
/// on, and refusals are never kept.
#[derive(Debug)]
pub struct VerdictCache {
    pub(crate) chains: ChainCache,
    pub(crate) collateral: CollateralCache,
}

impl VerdictCache {
    /// A cache for at most `capacity` machines of each vendor, some 30 kB each; the oldest entry makes room.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self { chains: ChainCache::new(capacity), collateral: CollateralCache::new(capacity) }
    }

    /// How many verdicts are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chains.len() + self.collateral.len()
    }

    /// True if none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
