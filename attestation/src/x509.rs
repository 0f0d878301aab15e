//! The X.509 profiles of the two vendors, and nothing wider: DER, v3; AMD's RSASSA-PSS with SHA-384, Intel's ECDSA
//! P-256 with SHA-256.
//!
//! A certificate is re-encoded after parsing and compared, so what is verified is what was read: no second
//! encoding of a certificate passes. Extensions that are critical and unknown are refused by the caller, who
//! knows which ones it understands.

use der::asn1::ObjectIdentifier;
use der::{Decode, Encode};
use ring::signature::{ECDSA_P256_SHA256_ASN1, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::ext::{Extension, Extensions};
use x509_cert::name::Name;
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::time::Time;
use crate::verdict::{Finding, Reason};

/// Certificates of either vendor are below 2 KiB; the cap leaves room for longer names.
pub(crate) const MAX_CERTIFICATE_LEN_BYTES: usize = 8 * 1024;
/// `04`, X, Y.
pub(crate) const P256_POINT_LEN_BYTES: usize = 65;
const P384_POINT_LEN_BYTES: usize = 97;
/// All of AMD's signing keys are RSA-4096.
const RSA_4096_SIGNATURE_LEN_BYTES: usize = 512;

const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
pub(crate) const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");

/// RSASSA-PSS-params (RFC 4055, 3.1) with SHA-384, MGF1 with SHA-384 and a salt of 48 bytes; AMD's own tools
/// write the default trailer field in some certificates and leave it out in others.
const PSS_SHA384_PARAMS: &[u8] = &[
    0x30, 0x34, 0xa0, 0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02,
    0x05, 0x00, 0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08,
    0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0xa2, 0x03,
    0x02, 0x01, 0x30,
];
const TRAILER_FIELD: &[u8] = &[0xa3, 0x03, 0x02, 0x01, 0x01];

/// How a vendor's authorities sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// AMD: RSASSA-PSS with SHA-384 and a salt of 48 bytes, RSA-4096.
    PssSha384,
    /// Intel: ECDSA P-256 with SHA-256.
    P256Sha256,
}

/// A certificate in canonical DER. Its signature is not verified by parsing.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    der: Vec<u8>,
    tbs: Vec<u8>,
    inner: x509_cert::Certificate,
}

impl Certificate {
    /// Reads one certificate; `role` names it in findings.
    pub(crate) fn parse(role: &str, der: &[u8]) -> Result<Self, Finding> {
        let refuse = |what: String| Finding::new(Reason::Chain, format!("{role}: {what}"));
        if der.len() > MAX_CERTIFICATE_LEN_BYTES {
            return Err(refuse(format!("{} bytes is too long for a certificate", der.len())));
        }
        let inner = x509_cert::Certificate::from_der(der).map_err(|e| refuse(format!("not DER: {e}")))?;
        if inner.to_der().ok().as_deref() != Some(der) {
            return Err(refuse("encoding is not canonical".into()));
        }
        let tbs = inner.tbs_certificate().to_der().map_err(|e| refuse(format!("not DER: {e}")))?;
        let certificate = Self { der: der.to_vec(), tbs, inner };
        certificate.refuse_profile().map_err(|what| refuse(what.into()))?;
        Ok(certificate)
    }

    fn refuse_profile(&self) -> Result<(), &'static str> {
        let tbs = self.inner.tbs_certificate();
        if tbs.version() != x509_cert::Version::V3 {
            return Err("not an X.509 v3 certificate");
        }
        if tbs.signature() != self.inner.signature_algorithm() {
            return Err("inner and outer signature algorithm differ");
        }
        if tbs.issuer_unique_id().is_some() || tbs.subject_unique_id().is_some() {
            return Err("unique identifiers are obsolete and not part of this profile");
        }
        refuse_duplicates(self.extensions())
    }

    /// The bytes as they came.
    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(crate) fn subject(&self) -> &Name {
        self.inner.tbs_certificate().subject()
    }

    pub(crate) fn issuer(&self) -> &Name {
        self.inner.tbs_certificate().issuer()
    }

    pub(crate) fn serial(&self) -> &[u8] {
        self.inner.tbs_certificate().serial_number().as_bytes()
    }

    pub(crate) fn extensions(&self) -> &[Extension] {
        self.inner.tbs_certificate().extensions().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn not_before(&self) -> Time {
        moment(self.inner.tbs_certificate().validity().not_before)
    }

    pub(crate) fn not_after(&self) -> Time {
        moment(self.inner.tbs_certificate().validity().not_after)
    }

    /// The one common name of the subject.
    pub(crate) fn common_name(&self) -> Option<String> {
        attribute(self.subject(), COMMON_NAME)
    }

    /// How the holder of this certificate's key would sign.
    pub(crate) fn scheme(&self) -> Scheme {
        let key = &self.inner.tbs_certificate().subject_public_key_info().algorithm;
        if key.oid == EC_PUBLIC_KEY { Scheme::P256Sha256 } else { Scheme::PssSha384 }
    }

    /// True if `issuer` is named as issuer and its key made the signature.
    pub(crate) fn verify_signed_by(&self, role: &str, issuer: &Self, scheme: Scheme) -> Result<(), Finding> {
        let refuse = |what: &str| Finding::new(Reason::Chain, format!("{role}: {what}"));
        if self.issuer() != issuer.subject() {
            return Err(refuse("issuer name is not the subject of the certificate above it"));
        }
        let (algorithm, signature) = (self.inner.signature_algorithm(), self.inner.signature().as_bytes());
        issuer
            .verify(scheme, algorithm, &self.tbs, signature)
            .map_err(|what| Finding::new(Reason::Chain, format!("{role}: {what}")))
    }

    /// Verifies a signature by this certificate's key under `scheme`, which the caller chooses.
    pub(crate) fn verify(
        &self,
        scheme: Scheme,
        algorithm: &AlgorithmIdentifierOwned,
        message: &[u8],
        signature: Option<&[u8]>,
    ) -> Result<(), &'static str> {
        match scheme {
            Scheme::PssSha384 => self.verify_pss(algorithm, message, signature),
            Scheme::P256Sha256 => self.verify_p256(algorithm, message, signature),
        }
    }

    /// ECDSA P-256 with SHA-256 (FIPS 186-5), the signature as DER.
    fn verify_p256(
        &self,
        algorithm: &AlgorithmIdentifierOwned,
        message: &[u8],
        signature: Option<&[u8]>,
    ) -> Result<(), &'static str> {
        // RFC 5758, 3.2: the parameters are absent.
        if algorithm.oid != ECDSA_WITH_SHA256 || algorithm.parameters.is_some() {
            return Err("signature algorithm is not ECDSA with SHA-256");
        }
        let point = self.ec_point(SECP256R1, P256_POINT_LEN_BYTES);
        let point = point.ok_or("key of the signer is not an uncompressed P-256 point")?;
        let signature = signature.ok_or("signature is not whole bytes")?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
            .verify(message, signature)
            .map_err(|_| "signature does not verify under the certificate above it")
    }

    /// RSASSA-PSS with SHA-384 (RFC 8017, 8.1) by this certificate's RSA-4096 key.
    fn verify_pss(
        &self,
        algorithm: &AlgorithmIdentifierOwned,
        message: &[u8],
        signature: Option<&[u8]>,
    ) -> Result<(), &'static str> {
        if !is_pss_sha384(algorithm) {
            return Err("signature algorithm is not RSASSA-PSS with SHA-384 and a salt of 48 bytes");
        }
        let spki = self.inner.tbs_certificate().subject_public_key_info();
        if spki.algorithm.oid != RSA_ENCRYPTION {
            return Err("key of the signer is not RSA");
        }
        let key = spki.subject_public_key.as_bytes().ok_or("key of the signer is not whole bytes")?;
        let signature = signature.ok_or("signature is not whole bytes")?;
        // A signature is as long as the modulus, so this also fixes the size of the key.
        if signature.len() != RSA_4096_SIGNATURE_LEN_BYTES {
            return Err("signature is not of RSA-4096");
        }
        UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, key)
            .verify(message, signature)
            .map_err(|_| "signature does not verify under the certificate above it")
    }

    /// The uncompressed P-384 point of a leaf.
    pub(crate) fn p384_point(&self, role: &str) -> Result<&[u8], Finding> {
        self.ec_point(SECP384R1, P384_POINT_LEN_BYTES).ok_or_else(|| {
            Finding::new(Reason::Chain, format!("{role}: key is not an uncompressed P-384 point"))
        })
    }

    /// The uncompressed P-256 point of a leaf.
    pub(crate) fn p256_point(&self, role: &str) -> Result<[u8; P256_POINT_LEN_BYTES], Finding> {
        let point = self.ec_point(SECP256R1, P256_POINT_LEN_BYTES).and_then(|point| point.try_into().ok());
        point.ok_or_else(|| {
            Finding::new(Reason::Chain, format!("{role}: key is not an uncompressed P-256 point"))
        })
    }

    fn ec_point(&self, curve: ObjectIdentifier, len: usize) -> Option<&[u8]> {
        let spki = self.inner.tbs_certificate().subject_public_key_info();
        let named = spki.algorithm.parameters.as_ref().and_then(|any| any.decode_as().ok());
        if spki.algorithm.oid != EC_PUBLIC_KEY || named != Some(curve) {
            return None;
        }
        spki.subject_public_key.as_bytes().filter(|point| point.len() == len && point.first() == Some(&4))
    }

    /// A certificate that may sign others: basicConstraints CA, keyCertSign, room below it, nothing critical that
    /// is unknown. `below` is how many CA certificates follow it.
    pub(crate) fn refuse_unless_ca(&self, role: &str, below: u8) -> Result<(), Finding> {
        let refuse = |what: &str| Finding::new(Reason::Chain, format!("{role}: {what}"));
        self.refuse_unknown_critical(role)?;
        let constraints: BasicConstraints =
            self.extension(BASIC_CONSTRAINTS).ok_or_else(|| refuse("no basicConstraints: not a CA"))?;
        if !constraints.ca {
            return Err(refuse("basicConstraints says CA:FALSE"));
        }
        if constraints.path_len_constraint.is_some_and(|max| max < below) {
            return Err(refuse("pathLenConstraint is too short for this chain"));
        }
        let usage: KeyUsage = self.extension(KEY_USAGE).ok_or_else(|| refuse("no keyUsage"))?;
        if !usage.key_cert_sign() {
            return Err(refuse("keyUsage does not allow signing certificates"));
        }
        Ok(())
    }

    /// A CA certificate that may also sign revocation lists.
    pub(crate) fn refuse_unless_crl_signer(&self, role: &str) -> Result<(), Finding> {
        match self.extension::<KeyUsage>(KEY_USAGE) {
            Some(usage) if usage.crl_sign() => Ok(()),
            _ => Err(Finding::new(Reason::Chain, format!("{role}: keyUsage does not allow signing CRLs"))),
        }
    }

    /// A certificate that may sign data and no certificates.
    pub(crate) fn refuse_unless_leaf(&self, role: &str) -> Result<(), Finding> {
        let refuse = |what: &str| Finding::new(Reason::Chain, format!("{role}: {what}"));
        self.refuse_unknown_critical(role)?;
        if self.extension::<BasicConstraints>(BASIC_CONSTRAINTS).is_some_and(|constraints| constraints.ca) {
            return Err(refuse("is a CA"));
        }
        if self.extension::<KeyUsage>(KEY_USAGE).is_some_and(|usage| !usage.digital_signature()) {
            return Err(refuse("keyUsage does not allow signing"));
        }
        Ok(())
    }

    fn refuse_unknown_critical(&self, role: &str) -> Result<(), Finding> {
        let unknown =
            |ext: &&Extension| ext.critical && ext.extn_id != BASIC_CONSTRAINTS && ext.extn_id != KEY_USAGE;
        if let Some(extension) = self.extensions().iter().find(unknown) {
            let detail = format!("{role}: critical extension {} is unknown", extension.extn_id);
            return Err(Finding::new(Reason::Chain, detail));
        }
        // An extension that is understood must also be readable, or it would be skipped in silence.
        let unreadable = self.extensions().iter().any(|ext| match ext.extn_id {
            BASIC_CONSTRAINTS => BasicConstraints::from_der(ext.extn_value.as_bytes()).is_err(),
            KEY_USAGE => KeyUsage::from_der(ext.extn_value.as_bytes()).is_err(),
            _ => false,
        });
        if unreadable {
            return Err(Finding::new(
                Reason::Chain,
                format!("{role}: basicConstraints or keyUsage is malformed"),
            ));
        }
        Ok(())
    }

    fn extension<'a, T: Decode<'a>>(&'a self, oid: ObjectIdentifier) -> Option<T> {
        let extension = self.extensions().iter().find(|ext| ext.extn_id == oid)?;
        T::from_der(extension.extn_value.as_bytes()).ok()
    }

    /// Refuses a certificate that is not valid at `now`; both ends count as valid (RFC 5280, 4.1.2.5).
    pub(crate) fn refuse_outside_validity(&self, role: &str, now: Time) -> Result<(), Finding> {
        if now < self.not_before() {
            let detail = format!("{role}: not valid before {}, it is {now}", self.not_before());
            return Err(Finding::new(Reason::NotYetValid, detail));
        }
        if now > self.not_after() {
            let detail = format!("{role}: expired at {}, it is {now}", self.not_after());
            return Err(Finding::new(Reason::Expired, detail));
        }
        Ok(())
    }
}

/// Refuses two extensions of one kind (RFC 5280, 4.2).
pub(crate) fn refuse_duplicates(extensions: &[Extension]) -> Result<(), &'static str> {
    let duplicate = extensions
        .iter()
        .enumerate()
        .any(|(index, ext)| extensions.iter().skip(index + 1).any(|other| other.extn_id == ext.extn_id));
    if duplicate { Err("an extension occurs twice") } else { Ok(()) }
}

/// Refuses extensions that are critical: for structures of which none is understood.
pub(crate) fn refuse_critical(extensions: Option<&Extensions>) -> Result<(), &'static str> {
    let critical = extensions.is_some_and(|all| all.iter().any(|ext| ext.critical));
    if critical { Err("a critical extension is unknown") } else { Ok(()) }
}

/// The text of the one attribute `oid` of a name; none if it is absent, repeated or not text.
pub(crate) fn attribute(name: &Name, oid: ObjectIdentifier) -> Option<String> {
    let mut values = name.iter().filter(|attribute| attribute.oid == oid);
    let value = &values.next()?.value;
    if values.next().is_some() {
        return None;
    }
    core::str::from_utf8(value.value()).ok().map(str::to_owned)
}

pub(crate) fn moment(time: x509_cert::time::Time) -> Time {
    Time::from_unix_seconds(time.to_unix_duration().as_secs())
}

fn is_pss_sha384(algorithm: &AlgorithmIdentifierOwned) -> bool {
    let params = algorithm.parameters.as_ref().and_then(|any| any.to_der().ok());
    let Some(params) = params else { return false };
    if algorithm.oid != RSASSA_PSS {
        return false;
    }
    // The same body behind another length byte when the trailer field is spelt out.
    match params.strip_suffix(TRAILER_FIELD) {
        Some(rest) => rest.get(..2) == Some(&[0x30, 0x39]) && rest.get(2..) == PSS_SHA384_PARAMS.get(2..),
        None => params == PSS_SHA384_PARAMS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ARK: &[u8] = include_bytes!("roots/ark-genoa.der");
    const INTEL_ROOT: &[u8] = include_bytes!("roots/intel-sgx-root.der");

    #[test]
    fn both_spellings_of_the_pss_parameters_and_no_third() {
        let certificate = Certificate::parse("ARK", ARK).unwrap();
        let mut algorithm = certificate.inner.signature_algorithm().clone();
        assert!(is_pss_sha384(&algorithm), "AMD's roots spell the trailer field out");
        let with = |bytes: &[u8]| Some(der::Any::from_der(bytes).unwrap());
        algorithm.parameters = with(PSS_SHA384_PARAMS);
        assert!(is_pss_sha384(&algorithm));
        let mut salt_32 = PSS_SHA384_PARAMS.to_vec();
        *salt_32.last_mut().unwrap() = 32;
        algorithm.parameters = with(&salt_32);
        assert!(!is_pss_sha384(&algorithm));
        let spelt_out = [&[0x30, 0x39], &salt_32[2..], TRAILER_FIELD].concat();
        algorithm.parameters = with(&spelt_out);
        assert!(!is_pss_sha384(&algorithm), "a salt of 32 bytes with the trailer field spelt out");
        algorithm.parameters = None;
        assert!(!is_pss_sha384(&algorithm));
        algorithm.parameters = with(PSS_SHA384_PARAMS);
        algorithm.oid = RSA_ENCRYPTION;
        assert!(!is_pss_sha384(&algorithm));
    }

    #[test]
    fn only_version_3_is_read() {
        let version = [0xa0, 3, 2, 1, 2];
        let at = ARK.windows(5).position(|window| window == version).unwrap();
        let mut der = ARK.to_vec();
        der[at + 4] = 1;
        assert!(Certificate::parse("ARK", &der).unwrap_err().detail.contains("v3"));
    }

    #[test]
    fn a_certificate_is_capped() {
        let refusal = |len: usize| Certificate::parse("x", &vec![0x30; len]).unwrap_err().detail;
        assert!(!refusal(MAX_CERTIFICATE_LEN_BYTES).contains("too long"));
        assert!(refusal(MAX_CERTIFICATE_LEN_BYTES + 1).contains("too long"));
    }

    #[test]
    fn obsolete_identifiers_are_refused() {
        let extensions =
            ARK.windows(4).position(|at| at[0] == 0xa3 && at[2] == 0x30 && at[1] == at[3] + 2).unwrap();
        for tag in [0x81, 0x82] {
            let identifier = [tag, 2, 0, 0xff];
            let mut der = ARK.to_vec();
            der.splice(extensions..extensions, identifier);
            // The lengths of the certificate and of what is signed.
            for at in [2, 6] {
                let len = u16::from_be_bytes([der[at], der[at + 1]]) + 4;
                der[at..at + 2].copy_from_slice(&len.to_be_bytes());
            }
            let refusal = Certificate::parse("ARK", &der).unwrap_err().detail;
            assert!(refusal.contains("unique identifiers"), "{refusal}");
        }
    }

    #[test]
    fn both_ends_of_the_validity_count() {
        let ark = Certificate::parse("ARK", ARK).unwrap();
        let (from, until) = (ark.not_before().as_unix_seconds(), ark.not_after().as_unix_seconds());
        let at = |now: u64| {
            let outcome = ark.refuse_outside_validity("ARK", Time::from_unix_seconds(now));
            outcome.map_err(|finding| finding.reason)
        };
        assert_eq!((at(from), at(until)), (Ok(()), Ok(())));
        assert_eq!((at(from - 1), at(until + 1)), (Err(Reason::NotYetValid), Err(Reason::Expired)));
    }

    #[test]
    fn repeated_and_critical_extensions() {
        let ark = Certificate::parse("ARK", ARK).unwrap();
        let mut extensions = ark.extensions().to_vec();
        assert!(extensions.len() > 1 && refuse_duplicates(&extensions).is_ok());
        extensions.push(extensions[0].clone());
        assert!(refuse_duplicates(&extensions).is_err());
        extensions.iter_mut().for_each(|extension| extension.critical = false);
        assert!(refuse_critical(None).is_ok() && refuse_critical(Some(&extensions)).is_ok());
        extensions[1].critical = true;
        assert!(refuse_critical(Some(&extensions)).is_err());
    }

    #[test]
    fn an_extension_that_is_understood_is_readable() {
        // Up to the value: OID, critical, and the lengths around it.
        for start in [&[0x55, 0x1d, 0x13, 1, 1, 0xff, 4][..], &[0x55, 0x1d, 0x0f, 1, 1, 0xff, 4]] {
            let at = ARK.windows(start.len()).position(|window| window == start).unwrap() + start.len() + 1;
            let mut der = ARK.to_vec();
            der[at] ^= 1;
            let refusal = Certificate::parse("ARK", &der).unwrap().refuse_unless_leaf("ARK").unwrap_err();
            assert!(refusal.detail.contains("malformed"), "{}", refusal.detail);
        }
    }

    #[test]
    fn a_chain_is_no_longer_than_its_root_says() {
        let root = Certificate::parse("root", INTEL_ROOT).unwrap();
        let below = |count| root.refuse_unless_ca("root", count).map_err(|finding| finding.detail);
        assert_eq!((below(0), below(1)), (Ok(()), Ok(())));
        assert!(below(2).unwrap_err().contains("pathLenConstraint"));
    }

    #[test]
    fn a_key_is_a_point_of_its_curve_and_an_algorithm_has_no_parameters() {
        let root = Certificate::parse("root", INTEL_ROOT).unwrap();
        assert!(root.ec_point(SECP256R1, P256_POINT_LEN_BYTES).is_some());
        assert!(root.ec_point(SECP384R1, P256_POINT_LEN_BYTES).is_none());
        assert!(root.ec_point(SECP256R1, P256_POINT_LEN_BYTES + 1).is_none());
        let mut algorithm = root.inner.signature_algorithm().clone();
        let signature = root.inner.signature().as_bytes();
        assert_eq!(root.verify_p256(&algorithm, &root.tbs, signature), Ok(()));
        algorithm.parameters = Some(der::Any::from_der(&[5, 0]).unwrap());
        assert!(root.verify_p256(&algorithm, &root.tbs, signature).is_err());
        algorithm.parameters = None;
        algorithm.oid = RSASSA_PSS;
        assert!(root.verify_p256(&algorithm, &root.tbs, signature).is_err());
    }

    #[test]
    fn an_authority_is_no_leaf() {
        let certificate = Certificate::parse("ARK", ARK).unwrap();
        assert!(certificate.refuse_unless_leaf("ARK").is_err());
        assert!(certificate.p384_point("ARK").is_err());
        assert!(certificate.refuse_unless_ca("ARK", 0).is_ok());
    }

    proptest! {
        #[test]
        fn one_changed_byte_is_refused_or_breaks_the_signature(at in 0..ARK.len(), xor in 1u8..) {
            let mut der = ARK.to_vec();
            der[at] ^= xor;
            let ark = Certificate::parse("ARK", ARK).unwrap();
            if let Ok(changed) = Certificate::parse("ARK", &der) {
                prop_assert!(changed.verify_signed_by("ARK", &ark, Scheme::PssSha384).is_err());
            }
        }

        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Certificate::parse("ARK", &bytes);
        }
    }
}
