//! Certificates of AMD's structure, written byte by byte.
//!
//! RSASSA-PSS with SHA-384, a salt of 48 bytes, X.509 v3; a VCEK with the TCB and HWID extensions. Every name has
//! the notice as organisation, which is how verifiers know a simulator's root.

use adyton_attestation::{Product, SIMULATED_NOTICE, TcbVersion, Time};
use ring::rand::SystemRandom;
use ring::signature::{KeyPair as _, RSA_PSS_SHA384, RsaKeyPair};

use crate::error::SimulatorError;

pub(crate) const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
pub(crate) const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const IA5_STRING: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
pub(crate) const CONTEXT_0: u8 = 0xa0;
const CONTEXT_3: u8 = 0xa3;

/// AlgorithmIdentifier of RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a salt of 48 bytes (RFC 4055).
pub(crate) const PSS_SHA384: &str = "304106092a864886f70d01010a3034a00f300d06096086480165030402020500a11c301a06092a864886f70d010108\
                          300d06096086480165030402020500a203020130";
/// AlgorithmIdentifier of an RSA key.
const RSA_KEY: &str = "300d06092a864886f70d0101010500";
/// AlgorithmIdentifier of a P-384 key.
const P384_KEY: &str = "301006072a8648ce3d020106052b81040022";
/// keyUsage (critical): keyCertSign and cRLSign.
const KEY_USAGE_CA: &str = "300e0603551d0f0101ff040403020106";
/// basicConstraints (critical): CA.
const BASIC_CONSTRAINTS_CA: &str = "300f0603551d130101ff040530030101ff";

/// Arc of AMD's extensions, 1.3.6.1.4.1.3704.1, as the content of an OID.
const AMD_ARC: [u8; 8] = [0x2b, 0x06, 0x01, 0x04, 0x01, 0x9c, 0x78, 0x01];

/// The first and last moment of a certificate.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Validity {
    pub(crate) not_before: Time,
    pub(crate) not_after: Time,
}

/// A certificate to be issued.
#[derive(Clone, PartialEq)]
pub(crate) struct Template {
    pub(crate) serial: u8,
    pub(crate) organisation: String,
    pub(crate) common_name: String,
    pub(crate) validity: Validity,
    /// SubjectPublicKeyInfo, DER.
    pub(crate) public_key: Vec<u8>,
    /// Each an Extension, DER.
    pub(crate) extensions: Vec<Vec<u8>>,
}

impl Template {
    /// A certificate for a key that signs certificates and lists.
    pub(crate) fn authority(serial: u8, common_name: &str, key: &RsaKeyPair, validity: Validity) -> Self {
        Self {
            serial,
            organisation: SIMULATED_NOTICE.into(),
            common_name: common_name.into(),
            validity,
            public_key: spki(RSA_KEY, key.public_key().as_ref()),
            extensions: vec![hex(KEY_USAGE_CA), hex(BASIC_CONSTRAINTS_CA)],
        }
    }

    /// The VCEK: a P-384 point with the extensions of a chip at one TCB. AMD gives every VCEK the serial 0.
    pub(crate) fn chip(point: &[u8], extensions: Vec<Vec<u8>>, validity: Validity) -> Self {
        Self {
            serial: 0,
            organisation: SIMULATED_NOTICE.into(),
            common_name: "SEV-VCEK".into(),
            validity,
            public_key: spki(P384_KEY, point),
            extensions,
        }
    }

    pub(crate) fn name(&self) -> Vec<u8> {
        distinguished_name(&self.organisation, &self.common_name)
    }

    /// This certificate, signed by `issuer` with `key`.
    pub(crate) fn issue(&self, issuer: &Self, key: &RsaKeyPair) -> Result<Vec<u8>, SimulatorError> {
        let tbs = tlv(
            SEQUENCE,
            &[
                tlv(CONTEXT_0, &[tlv(INTEGER, &[vec![2]])]),
                tlv(INTEGER, &[vec![self.serial]]),
                hex(PSS_SHA384),
                issuer.name(),
                tlv(SEQUENCE, &[utc_time(self.validity.not_before), utc_time(self.validity.not_after)]),
                self.name(),
                self.public_key.clone(),
                tlv(CONTEXT_3, &[tlv(SEQUENCE, &self.extensions)]),
            ],
        );
        sign(tbs, key)
    }
}

/// A revocation list of `issuer` that names the `revoked` serials.
pub(crate) fn revocation_list(
    issuer: &Template,
    key: &RsaKeyPair,
    validity: Validity,
    revoked: &[u8],
) -> Result<Vec<u8>, SimulatorError> {
    let crl_number = extension(&[0x55, 0x1d, 0x14], &tlv(INTEGER, &[vec![1]]));
    let entry = |serial: &u8| tlv(SEQUENCE, &[integer_u8(*serial), utc_time(validity.not_before)]);
    let mut fields = vec![
        tlv(INTEGER, &[vec![1]]),
        hex(PSS_SHA384),
        issuer.name(),
        utc_time(validity.not_before),
        utc_time(validity.not_after),
    ];
    // A list without entries leaves the field out (RFC 5280, 5.1.2.6).
    if !revoked.is_empty() {
        fields.push(tlv(SEQUENCE, &revoked.iter().map(entry).collect::<Vec<_>>()));
    }
    fields.push(tlv(CONTEXT_0, &[tlv(SEQUENCE, &[crl_number])]));
    sign(tlv(SEQUENCE, &fields), key)
}

/// SEQUENCE of `tbs`, the algorithm and the signature: the frame of certificates and lists alike.
pub(crate) fn sign(tbs: Vec<u8>, issuer: &RsaKeyPair) -> Result<Vec<u8>, SimulatorError> {
    let mut signature = vec![0; issuer.public().modulus_len()];
    issuer
        .sign(&RSA_PSS_SHA384, &SystemRandom::new(), &tbs, &mut signature)
        .map_err(|_| SimulatorError::Crypto("sign a certificate"))?;
    Ok(tlv(SEQUENCE, &[tbs, hex(PSS_SHA384), bit_string(&signature)]))
}

/// The extensions of a VCEK in the order AMD writes them.
pub(crate) fn chip_extensions(tcb: TcbVersion, hwid: &[u8], product: Product) -> Vec<Vec<u8>> {
    let mut extensions = tcb_extensions(tcb, product.as_str());
    extensions.push(amd_extension(&[4], hwid));
    extensions
}

/// The extensions that VCEK and VLEK share.
pub(crate) fn tcb_extensions(tcb: TcbVersion, product_name: &str) -> Vec<Vec<u8>> {
    let spl = |last: u8, value: u8| amd_extension(&[3, last], &integer_u8(value));
    // Turin has a component more in the place of one of the reserved ones.
    let first = tcb.fmc.map_or_else(|| spl(4, 0), |fmc| spl(9, fmc));
    let mut extensions = vec![
        amd_extension(&[1], &integer_u8(0)),
        amd_extension(&[2], &tlv(IA5_STRING, &[product_name.into()])),
        first,
        spl(1, tcb.bootloader),
        spl(2, tcb.tee),
        spl(3, tcb.snp),
    ];
    extensions.extend([5, 6, 7].map(|last| spl(last, 0)));
    extensions.push(spl(8, tcb.microcode));
    extensions
}

pub(crate) fn amd_extension(arc: &[u8], value: &[u8]) -> Vec<u8> {
    extension(&[&AMD_ARC[..], arc].concat(), value)
}

pub(crate) fn extension(oid: &[u8], value: &[u8]) -> Vec<u8> {
    tlv(SEQUENCE, &[tlv(OID, &[oid.to_vec()]), tlv(OCTET_STRING, &[value.to_vec()])])
}

/// OU, O and CN.
fn distinguished_name(organisation: &str, common_name: &str) -> Vec<u8> {
    let attribute = |arc: u8, value: &str| {
        let oid = tlv(OID, &[vec![0x55, 0x04, arc]]);
        tlv(SET, &[tlv(SEQUENCE, &[oid, tlv(UTF8_STRING, &[value.into()])])])
    };
    tlv(
        SEQUENCE,
        &[attribute(11, "Adyton simulator"), attribute(10, organisation), attribute(3, common_name)],
    )
}

fn spki(algorithm: &str, key: &[u8]) -> Vec<u8> {
    tlv(SEQUENCE, &[hex(algorithm), bit_string(key)])
}

fn bit_string(bytes: &[u8]) -> Vec<u8> {
    tlv(BIT_STRING, &[vec![0], bytes.to_vec()])
}

/// A non-negative INTEGER of one byte; a zero byte goes before a set top bit.
fn integer_u8(value: u8) -> Vec<u8> {
    let content = if value < 0x80 { vec![value] } else { vec![0, value] };
    tlv(INTEGER, &[content])
}

/// UTCTime, which covers years before 2050 (RFC 5280, 4.1.2.5.1).
pub(crate) fn utc_time(time: Time) -> Vec<u8> {
    // 2026-01-31T23:59:59Z without the century and the punctuation.
    let text: String = time.to_string().chars().skip(2).filter(|c| c.is_ascii_digit() || *c == 'Z').collect();
    tlv(UTC_TIME, &[text.into_bytes()])
}

/// Tag, definite length and the concatenated parts.
pub(crate) fn tlv(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    let content = parts.concat();
    let len = u16::try_from(content.len()).expect("certificates are a few KiB");
    let [high, low] = len.to_be_bytes();
    let head = match len {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [head, content].concat()
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    hex::decode(text).expect("constants of this file are hex")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_in_their_shortest_form() {
        assert_eq!(tlv(4, &[vec![0; 0x7f]])[..2], [4, 0x7f]);
        assert_eq!(tlv(4, &[vec![0; 0x80]])[..3], [4, 0x81, 0x80]);
        assert_eq!(tlv(4, &[vec![0; 0x100]])[..4], [4, 0x82, 1, 0]);
    }

    #[test]
    fn times_are_utc_time() {
        let time = "2026-11-24T08:07:00Z".parse().unwrap();
        assert_eq!(utc_time(time)[2..], *b"261124080700Z");
    }
}
