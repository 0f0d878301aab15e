//! DER, written byte by byte: as much of it as certificates and lists of Intel's structure need.

use adyton_attestation::Time;

pub(crate) const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
pub(crate) const ENUMERATED: u8 = 0x0a;
const UTF8_STRING: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
pub(crate) const CONTEXT_0: u8 = 0xa0;
pub(crate) const CONTEXT_3: u8 = 0xa3;

/// AlgorithmIdentifier of ECDSA with SHA-256.
pub(crate) const ECDSA_SHA256: [u8; 12] = [0x30, 10, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// AlgorithmIdentifier of a P-256 key.
const P256_KEY: [u8; 21] = [
    0x30, 19, 0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07,
];
/// 2.5.4.3 and 2.5.29.*.
const COMMON_NAME: [u8; 3] = [0x55, 4, 3];
pub(crate) const BASIC_CONSTRAINTS: [u8; 3] = [0x55, 0x1d, 0x13];
pub(crate) const KEY_USAGE: [u8; 3] = [0x55, 0x1d, 0x0f];
pub(crate) const CRL_NUMBER: [u8; 3] = [0x55, 0x1d, 0x14];
/// 1.2.840.113741.1.13.1
pub(crate) const SGX: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01];

pub(crate) fn tlv(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = vec![tag];
    match body.len() {
        len @ 0..=0x7f => out.push(u8::try_from(len).unwrap()),
        len @ 0x80..=0xff => out.extend([0x81, u8::try_from(len).unwrap()]),
        len => {
            out.push(0x82);
            out.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
    }
    out.extend(body);
    out
}

pub(crate) fn integer(value: u32) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(3);
    let mut body = bytes[start..].to_vec();
    if body[0] >= 0x80 {
        body.insert(0, 0);
    }
    tlv(INTEGER, &[body])
}

pub(crate) fn oid(content: &[u8]) -> Vec<u8> {
    tlv(OID, &[content.to_vec()])
}

pub(crate) fn name(common_name: &str) -> Vec<u8> {
    let text = tlv(UTF8_STRING, &[common_name.as_bytes().to_vec()]);
    tlv(SEQUENCE, &[tlv(SET, &[tlv(SEQUENCE, &[oid(&COMMON_NAME), text])])])
}

pub(crate) fn utc_time(time: Time) -> Vec<u8> {
    let digits: String = time.to_string().chars().filter(char::is_ascii_digit).collect();
    tlv(UTC_TIME, &[format!("{}Z", &digits[2..]).into_bytes()])
}

pub(crate) fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let mut parts = vec![oid(id)];
    if critical {
        parts.push(tlv(BOOLEAN, &[vec![0xff]]));
    }
    parts.push(tlv(OCTET_STRING, &[value.to_vec()]));
    tlv(SEQUENCE, &parts)
}

pub(crate) fn basic_constraints(ca: bool) -> Vec<u8> {
    let body = if ca { vec![tlv(BOOLEAN, &[vec![0xff]])] } else { vec![] };
    extension(&BASIC_CONSTRAINTS, true, &tlv(SEQUENCE, &body))
}

/// keyUsage: `0x06` signs certificates and lists, `0x04` certificates only, `0x80` data.
pub(crate) fn key_usage(bits: u8) -> Vec<u8> {
    let unused = u8::try_from(bits.trailing_zeros()).unwrap();
    extension(&KEY_USAGE, true, &tlv(BIT_STRING, &[vec![unused, bits]]))
}

pub(crate) fn spki(point: &[u8]) -> Vec<u8> {
    tlv(SEQUENCE, &[P256_KEY.to_vec(), bit_string(point)])
}

pub(crate) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    tlv(BIT_STRING, &[vec![0], bytes.to_vec()])
}
