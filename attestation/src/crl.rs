//! X.509 certificate revocation lists (RFC 5280, section 5), DER.
//!
//! A revocation is believed for ever: an authentic list that is out of date still revokes what it names, it only
//! cannot show that nothing was added since.

use der::asn1::{ObjectIdentifier, UintRef};
use der::{Decode, Encode};
use x509_cert::crl::CertificateList;

use crate::time::Time;
use crate::verdict::{Finding, Reason};
use crate::x509::{Certificate, Scheme, moment, refuse_critical, refuse_duplicates};

/// Lists of either vendor are below 8 KiB; thousands of entries fit below this.
pub(crate) const MAX_CRL_LEN_BYTES: usize = 256 * 1024;
const CRL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.20");

/// A parsed list; its signature is not verified by parsing.
pub(crate) struct Crl {
    list: CertificateList,
    tbs: Vec<u8>,
}

impl Crl {
    /// Reads one list.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, Finding> {
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

    /// True if the list names `issuer` as its maker.
    pub(crate) fn is_of(&self, issuer: &Certificate) -> bool {
        self.list.tbs_cert_list.issuer == *issuer.subject()
    }

    /// Verifies the signature by `issuer`, and that nothing critical is unknown.
    pub(crate) fn verify_signed_by(&self, issuer: &Certificate, scheme: Scheme) -> Result<(), Finding> {
        let refuse = |what: &str| Finding::new(Reason::CrlSignature, format!("CRL: {what}"));
        let tbs = &self.list.tbs_cert_list;
        if tbs.signature != self.list.signature_algorithm {
            return Err(refuse("inner and outer signature algorithm differ"));
        }
        issuer
            .verify(scheme, &self.list.signature_algorithm, &self.tbs, self.list.signature.as_bytes())
            .map_err(refuse)?;
        refuse_critical(tbs.crl_extensions.as_ref()).map_err(refuse)?;
        refuse_duplicates(tbs.crl_extensions.as_deref().unwrap_or(&[])).map_err(refuse)?;
        for entry in tbs.revoked_certificates.iter().flatten() {
            refuse_critical(entry.crl_entry_extensions.as_ref()).map_err(refuse)?;
        }
        Ok(())
    }

    pub(crate) fn this_update(&self) -> Time {
        moment(self.list.tbs_cert_list.this_update)
    }

    /// A list without nextUpdate is never current.
    pub(crate) fn next_update(&self) -> Time {
        self.list.tbs_cert_list.next_update.map_or_else(|| self.this_update(), moment)
    }

    /// True if the list names the certificate's serial.
    pub(crate) fn revokes(&self, certificate: &Certificate) -> bool {
        let revoked = self.list.tbs_cert_list.revoked_certificates.iter().flatten();
        revoked.into_iter().any(|entry| entry.serial_number.as_bytes() == certificate.serial())
    }

    /// True if the list and the certificate were ever valid at the same time.
    pub(crate) fn overlaps(&self, certificate: &Certificate) -> bool {
        self.next_update() >= certificate.not_before() && self.this_update() <= certificate.not_after()
    }

    /// cRLNumber (RFC 5280, 5.2.3), big-endian without leading zeros; none if it is absent or malformed.
    pub(crate) fn number(&self) -> Option<&[u8]> {
        let extensions = self.list.tbs_cert_list.crl_extensions.as_deref().unwrap_or(&[]);
        let number = extensions.iter().find(|extension| extension.extn_id == CRL_NUMBER)?;
        UintRef::from_der(number.extn_value.as_bytes()).ok().map(|number| number.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_capped() {
        let refusal = |len: usize| Crl::parse(&vec![0x30; len]).err().unwrap().detail;
        for (len, too_long) in [(100, false), (MAX_CRL_LEN_BYTES, false), (MAX_CRL_LEN_BYTES + 1, true)] {
            assert_eq!(refusal(len).ends_with("is too long"), too_long, "{len}");
        }
    }
}
