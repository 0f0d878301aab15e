//! What is kept of a certificate chain that was verified.

use crate::cache::Window;
use crate::snp::chain::Chain;
use crate::snp::crl::Revocation;
use crate::snp::report::SigningKey;
use crate::snp::tcb::Product;
use crate::time::Time;

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

impl VerifiedChain {
    /// When the verdict of `now` holds. One that rests on a list of another time holds at no other: what it says depends
    /// on the time of the question.
    pub(crate) fn window(&self, now: Time) -> Option<Window> {
        let leaf = &self.chain.leaf.certificate;
        let mut window = Window { from: leaf.not_before(), until: leaf.not_after() };
        match self.revocation {
            Revocation::Fresh { next_update } => window.narrow(now, next_update),
            Revocation::NotSupplied => (),
            Revocation::Unrelated => return None,
        }
        for certificate in [&self.chain.intermediate, &self.chain.ark] {
            window.narrow(certificate.not_before(), certificate.not_after());
        }
        Some(window)
    }
}
