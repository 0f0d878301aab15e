//! Commitments, signature messages and transcripts: how fields become hash inputs.
//!
//! Every input is length-prefixed (`lp`), every use has its own label, and the number of fields is part of the input,
//! so no two different field lists ever give the same bytes (SPEC, section 1). The CBOR library takes no part.

use ring::digest::{Context, SHA256, SHA512, digest};

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// 64 bytes as they go, unchanged, into SNP `REPORT_DATA` or TDX `REPORTDATA`.
pub type ReportData = [u8; 64];

/// `H = SHA-256`.
#[must_use]
pub fn hash(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// Appends `lp(x) = u32(len(x)) || x`, big-endian.
///
/// # Panics
/// If `field` is longer than 4 GiB; every object that reaches a hash has a far lower cap.
pub fn push_lp(out: &mut Vec<u8>, field: &[u8]) {
    let len = u32::try_from(field.len()).expect("fields of the protocol are capped far below 4 GiB");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(field);
}

/// `sigmsg(label, f1..fn) = lp(label) || u8(n) || lp(f1) || .. || lp(fn)`: what Ed25519 signs.
///
/// # Panics
/// If there are more than 255 fields: the longest list of the protocol has eight.
#[must_use]
pub fn sigmsg(label: &str, fields: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + fields.iter().map(|field| field.len() + 4).sum::<usize>());
    push_lp(&mut out, label.as_bytes());
    out.push(u8::try_from(fields.len()).expect("field lists of the protocol are short"));
    for field in fields {
        push_lp(&mut out, field);
    }
    out
}

/// `commit(label, f1..fn) = SHA-512(sigmsg(label, f1..fn))`: what hardware evidence carries.
#[must_use]
pub fn commit(label: &str, fields: &[&[u8]]) -> ReportData {
    let mut out = [0; 64];
    out.copy_from_slice(digest(&SHA512, &sigmsg(label, fields)).as_ref());
    out
}

/// `H(lp(label) || bytes)`: the identifiers of key sets, manifests and policies.
#[must_use]
pub fn labelled_hash(label: &str, bytes: &[u8]) -> Digest {
    let mut input = Vec::with_capacity(label.len() + 4 + bytes.len());
    push_lp(&mut input, label.as_bytes());
    input.extend_from_slice(bytes);
    hash(&input)
}

/// The running hash of a flow: `TH0 = H(lp("adyton/v1/th/" || flow))`, `THi = H(TH(i-1) || u8(type) || lp(message))`.
///
/// Both sides add the bytes as they were carried, never a re-encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transcript(Digest);

impl Transcript {
    /// Starts the transcript of `flow`, such as `session` or `release`.
    #[must_use]
    pub fn new(flow: &str) -> Self {
        let mut input = Vec::new();
        push_lp(&mut input, format!("adyton/v1/th/{flow}").as_bytes());
        Self(hash(&input))
    }

    /// The transcript after one more message.
    #[must_use]
    pub fn then(&self, message_type: u8, message: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&self.0);
        context.update(&[message_type]);
        let mut framed = Vec::with_capacity(message.len() + 4);
        push_lp(&mut framed, message);
        context.update(&framed);
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        Self(out)
    }

    /// The hash so far.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The golden values of SPEC, section 14.
    #[test]
    fn golden_values() {
        let th0 = Transcript::new("session");
        assert_eq!(
            hex::encode(th0.digest()),
            "24bff397fa7589a4f09e3262dd6255a7947043932abdfffb6a5dd7c0f61d81f7"
        );
        let th1 = th0.then(1, &[0x81, 0x01]);
        assert_eq!(
            hex::encode(th1.digest()),
            "dba7f2b25a234bc3269e7532ebbb427b424ea0e1313274a6a82cbc17f80358f5"
        );
        let keyset = [0xa0; 8];
        assert_eq!(
            hex::encode(labelled_hash("adyton/v1/keyset", &keyset)),
            "684217f6270935c0bad0ad1851b4352e6e78e06a499784c6f60233b0c4420193"
        );
        let nonce: Vec<u8> = (0..32).collect();
        let session =
            commit("adyton/v1/ev/session", &[&keyset, &nonce, &[0x11; 32], &[0x22; 32], th1.digest()]);
        assert_eq!(
            hex::encode(session),
            "e0d32a2d6f1e95288a74b5ba785ece247641d293aa9701350fd21f81f69606af\
             da592963166880dd2b4f967b67a7f998021a49d36178a82d32603fbbd74882a5"
        );
    }

    #[test]
    fn moving_a_byte_between_fields_changes_the_commitment() {
        assert_ne!(commit("l", &[b"ab", b"c"]), commit("l", &[b"a", b"bc"]));
        assert_ne!(commit("l", &[b"ab", b""]), commit("l", &[b"ab"]));
        assert_ne!(commit("l", &[b"ab"]), commit("la", &[b"b"]));
    }

    #[test]
    fn type_and_length_are_part_of_a_transcript() {
        let start = Transcript::new("session");
        assert_ne!(start.then(1, b"x"), start.then(2, b"x"));
        assert_ne!(start.then(1, b"x"), start.then(1, b"x\0"));
        assert_ne!(start, Transcript::new("release"));
    }
}
