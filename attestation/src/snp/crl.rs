//! Certificate revocation lists signed by the ARK.
//!
//! Every VCEK has serial zero, so a list can revoke an ASK, an ASVK or a VLEK, never one chip. A revocation is
//! believed for ever: an authentic list that is out of date still revokes what it names, it only cannot show that
//! nothing was added since.

use crate::crl::Crl;
use crate::time::Time;
use crate::verdict::{Finding, Reason};
use crate::x509::{Certificate, Scheme};

/// What revocation data showed. Policy decides whether it is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Revocation {
    /// An authentic list, current at the time of verification, names no certificate of the chain.
    Fresh {
        /// When the next list is due.
        next_update: Time,
    },
    /// The only authentic list ran out before the leaf was issued, or begins after it expires: it is a leftover
    /// of another time and says nothing about whether this chain is still good.
    Unrelated,
    /// No list was supplied.
    NotSupplied,
}

/// Looks `chain` (role and certificate, leaf last) up in the supplied lists at `now`.
///
/// # Errors
/// `crl-signature` if a list of this root is not authentic or none is of this root, `revoked` if an authentic one
/// names a certificate of the chain, `crl-stale` if the newest is not current.
pub(crate) fn appraise_revocation(
    crls: &[&[u8]],
    ark: &Certificate,
    chain: &[(&str, &Certificate)],
    now: Time,
) -> Result<Revocation, Finding> {
    if crls.is_empty() {
        return Ok(Revocation::NotSupplied);
    }
    let mut newest: Option<Crl> = None;
    for der in crls {
        let crl = Crl::parse(der)?;
        // A caller's store may hold the lists of other products.
        if !crl.is_of(ark) {
            continue;
        }
        crl.verify_signed_by(ark, Scheme::PssSha384)?;
        if let Some((role, _)) = chain.iter().find(|(_, certificate)| crl.revokes(certificate)) {
            return Err(Finding::new(Reason::Revoked, format!("{role} is on the revocation list")));
        }
        if newest.as_ref().is_none_or(|other| crl.this_update() > other.this_update()) {
            newest = Some(crl);
        }
    }
    let Some(crl) = newest else {
        return Err(Finding::new(Reason::CrlSignature, "no CRL supplied is of the root of this chain"));
    };
    let (this_update, next_update) = (crl.this_update(), crl.next_update());
    if (this_update..=next_update).contains(&now) {
        return Ok(Revocation::Fresh { next_update });
    }
    if chain.last().is_some_and(|(_, leaf)| !crl.overlaps(leaf)) {
        return Ok(Revocation::Unrelated);
    }
    let detail = format!("CRL is current from {this_update} to {next_update}, it is {now}");
    Err(Finding::new(Reason::CrlStale, detail))
}
