//! Certificate revocation lists signed by the ARK.
//!
//! Every VCEK has serial zero, so a list can revoke an ASK, an ASVK or a VLEK, never one chip. A revocation is
//! believed for ever: an authentic list that is out of date still revokes what it names, it only cannot show that
//! nothing was added since.

use der::{Decode, Encode};
use x509_cert::crl::CertificateList;

use crate::snp::x509::{Certificate, moment, refuse_critical, refuse_duplicates};
use crate::time::Time;
use crate::verdict::{Finding, Reason};

/// AMD's lists are below 1 KiB; thousands of entries fit below this.
const MAX_CRL_LEN_BYTES: usize = 256 * 1024;

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

/// A parsed list; its signature is not verified by parsing.
struct Crl {
    list: CertificateList,
    tbs: Vec<u8>,
}

impl Crl {
    fn parse(der: &[u8]) -> Result<Self, Finding> {
        let refuse = |what: String| Finding::new(Reason::CrlSignature, format!("CRL: {what}"));
        if der.len() > MAX_CRL_LEN_BYTES {
            return Err(refuse(format!("{} bytes is too long", der.len())));
        }
        let list = CertificateList::from_der(der).map_err(|e| refuse(format!("not DER: {e}")))?;
        let tbs = list.tbs_cert_list.to_der().map_err(|e| refuse(format!("not DER: {e}")))?;
        if list.to_der().ok().as_deref() != Some(der) {
            return Err(refuse("encoding is not canonical".into()));
        }
        Ok(Self { list, tbs })
    }

    fn verify_signed_by(&self, ark: &Certificate) -> Result<(), Finding> {
        let refuse = |what: &str| Finding::new(Reason::CrlSignature, format!("CRL: {what}"));
        let tbs = &self.list.tbs_cert_list;
        if tbs.signature != self.list.signature_algorithm {
            return Err(refuse("inner and outer signature algorithm differ"));
        }
        ark.verify_pss(&self.list.signature_algorithm, &self.tbs, self.list.signature.as_bytes())
            .map_err(refuse)?;
        refuse_critical(tbs.crl_extensions.as_ref()).map_err(refuse)?;
        refuse_duplicates(tbs.crl_extensions.as_deref().unwrap_or(&[])).map_err(refuse)?;
        for entry in tbs.revoked_certificates.iter().flatten() {
            refuse_critical(entry.crl_entry_extensions.as_ref()).map_err(refuse)?;
        }
        Ok(())
    }

    fn this_update(&self) -> Time {
        moment(self.list.tbs_cert_list.this_update)
    }

    /// A list without nextUpdate is never current.
    fn next_update(&self) -> Time {
        self.list.tbs_cert_list.next_update.map_or_else(|| self.this_update(), moment)
    }

    fn revokes(&self, certificate: &Certificate) -> bool {
        let revoked = self.list.tbs_cert_list.revoked_certificates.iter().flatten();
        revoked.into_iter().any(|entry| entry.serial_number.as_bytes() == certificate.serial())
    }

    /// True if the list and the certificate were ever valid at the same time.
    fn overlaps(&self, certificate: &Certificate) -> bool {
        self.next_update() >= certificate.not_before() && self.this_update() <= certificate.not_after()
    }
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
        if crl.list.tbs_cert_list.issuer != *ark.subject() {
            continue;
        }
        crl.verify_signed_by(ark)?;
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
