//! Verdicts on certificate chains, kept for as long as they hold.
//!
//! Every report of a chip at one TCB has the same chain. An entry is found by the exact bytes of its certificates and
//! lists and by the root it rests on, and only while all of them are current. A verdict that rests on a list of another
//! time is not kept: what it says depends on the time of the question.

use std::sync::Arc;

use crate::snp::chain::Chain;
use crate::snp::crl::Revocation;
use crate::snp::report::SigningKey;
use crate::snp::tcb::Product;
use crate::time::Time;
use crate::verdict::Step;
use crate::x509::Certificate;

/// A chain that was verified, and what it showed.
#[derive(Debug)]
pub(crate) struct VerifiedChain {
    pub(crate) chain: Chain,
    pub(crate) product: Product,
    pub(crate) revocation: Revocation,
}

/// The bytes that a verdict is found by: what was supplied, in each role.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ChainKey {
    pub(crate) kind: SigningKey,
    pub(crate) leaf: Vec<u8>,
    pub(crate) intermediate: Vec<u8>,
    pub(crate) roots: Vec<Vec<u8>>,
    pub(crate) crls: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Entry {
    key: ChainKey,
    from: Time,
    until: Time,
    verified: Arc<VerifiedChain>,
    steps: Vec<Step>,
}

/// What was verified of SEV-SNP chains before.
#[derive(Debug)]
pub(crate) struct ChainCache {
    capacity: usize,
    /// Oldest first.
    entries: Vec<Entry>,
}

impl ChainCache {
    pub(crate) const fn new(capacity: usize) -> Self {
        Self { capacity, entries: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn find(
        &self,
        anchors: &[Certificate],
        key: &ChainKey,
        now: Time,
    ) -> Option<(Arc<VerifiedChain>, &[Step])> {
        let entry = self.entries.iter().find(|entry| {
            (entry.from..=entry.until).contains(&now)
                && entry.key == *key
                && anchors.iter().any(|anchor| anchor.der() == entry.verified.chain.ark.der())
        })?;
        Some((Arc::clone(&entry.verified), &entry.steps))
    }

    /// Keeps what was verified at `now`.
    pub(crate) fn keep(&mut self, key: ChainKey, verified: &Arc<VerifiedChain>, steps: &[Step], now: Time) {
        let (mut from, mut until) = match verified.revocation {
            Revocation::Fresh { next_update } => (now, next_update),
            Revocation::NotSupplied => {
                (Time::from_unix_seconds(0), verified.chain.leaf.certificate.not_after())
            }
            Revocation::Unrelated => return,
        };
        let chain = &verified.chain;
        for certificate in [&chain.leaf.certificate, &chain.intermediate, &chain.ark] {
            from = from.max(certificate.not_before());
            until = until.min(certificate.not_after());
        }
        if self.capacity == 0 {
            return;
        }
        self.entries.retain(|entry| now <= entry.until);
        if self.entries.len() >= self.capacity {
            self.entries.remove(0);
        }
        let verified = Arc::clone(verified);
        self.entries.push(Entry { key, from, until, verified, steps: steps.to_vec() });
    }
}
