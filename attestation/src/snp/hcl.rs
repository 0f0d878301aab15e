//! The blob of Azure's paravisor (HCL): a header, the report, and the runtime data that the report binds.
//!
//! Layout, little-endian: signature `HCLA`, version, report size, request type, status, 12 reserved bytes; at 32
//! the report; then data size, version, report type (2 is SNP), hash type (1 SHA-256, 2 SHA-384, 3 SHA-512),
//! length of the runtime JSON, the JSON. REPORT_DATA begins with the hash of the JSON and is zero after it.

use ring::digest;

use crate::snp::report::REPORT_LEN_BYTES;
use crate::verdict::{Finding, Reason};

const HEADER_LEN_BYTES: usize = 32;
const RUNTIME_OFFSET: usize = HEADER_LEN_BYTES + REPORT_LEN_BYTES;
const RUNTIME_HEADER_LEN_BYTES: usize = 20;
const SIGNATURE: &[u8] = b"HCLA";
const REPORT_TYPE_SNP: u32 = 2;

/// True if the bytes begin like an HCL blob.
pub(crate) fn is_hcl(blob: &[u8]) -> bool {
    blob.starts_with(SIGNATURE)
}

/// The report inside an HCL blob whose runtime data hashes to the report's REPORT_DATA.
pub(crate) fn report_in_hcl(blob: &[u8]) -> Result<&[u8], Finding> {
    let size = |what: &str| Finding::new(Reason::Size, format!("HCL blob: {what}"));
    if !is_hcl(blob) {
        return Err(Finding::new(Reason::Encoding, "HCL blob: signature is not HCLA"));
    }
    let report = blob.get(HEADER_LEN_BYTES..RUNTIME_OFFSET).ok_or_else(|| size("report is cut off"))?;
    let word = |index: usize| {
        let at = RUNTIME_OFFSET + 4 * index;
        blob.get(at..).and_then(|rest| rest.first_chunk()).map(|bytes| u32::from_le_bytes(*bytes))
    };
    let (Some(kind), Some(hash), Some(len)) = (word(2), word(3), word(4)) else {
        return Err(size("runtime data is cut off"));
    };
    if kind != REPORT_TYPE_SNP {
        return Err(Finding::new(Reason::ForeignTee, format!("HCL blob: report type {kind} is not SNP")));
    }
    let algorithm = match hash {
        1 => &digest::SHA256,
        2 => &digest::SHA384,
        3 => &digest::SHA512,
        _ => return Err(Finding::new(Reason::Algorithm, format!("HCL blob: hash type {hash} is unknown"))),
    };
    let start = RUNTIME_OFFSET + RUNTIME_HEADER_LEN_BYTES;
    let runtime = usize::try_from(len).ok().and_then(|len| blob.get(start..start.checked_add(len)?));
    let runtime = runtime.ok_or_else(|| size("runtime data is cut off"))?;
    let mut bound = [0; 64];
    let digest = digest::digest(algorithm, runtime);
    bound[..digest.as_ref().len()].copy_from_slice(digest.as_ref());
    if report.get(0x050..0x090) != Some(&bound) {
        let detail = "HCL blob: REPORT_DATA is not the hash of the runtime data";
        return Err(Finding::new(Reason::ReportData, detail));
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blob(runtime: &[u8]) -> Vec<u8> {
        let mut blob = vec![0; RUNTIME_OFFSET];
        blob[..4].copy_from_slice(SIGNATURE);
        let hash = digest::digest(&digest::SHA256, runtime);
        blob[HEADER_LEN_BYTES + 0x050..HEADER_LEN_BYTES + 0x070].copy_from_slice(hash.as_ref());
        for word in [0, 1, 2, 1, u32::try_from(runtime.len()).unwrap()] {
            blob.extend_from_slice(&word.to_le_bytes());
        }
        blob.extend_from_slice(runtime);
        blob
    }

    #[test]
    fn runtime_data_must_be_bound() {
        let mut blob = blob(b"{}");
        assert_eq!(report_in_hcl(&blob).unwrap().len(), REPORT_LEN_BYTES);
        *blob.last_mut().unwrap() ^= 1;
        assert_eq!(report_in_hcl(&blob).unwrap_err().reason, Reason::ReportData);
        blob.pop();
        assert_eq!(report_in_hcl(&blob).unwrap_err().reason, Reason::Size);
    }

    #[test]
    fn every_hash_that_the_format_has() {
        let kind_at = RUNTIME_OFFSET + 8;
        for (hash, algorithm) in [(1, &digest::SHA256), (2, &digest::SHA384), (3, &digest::SHA512)] {
            let mut blob = blob(b"{}");
            blob[kind_at + 4] = hash;
            let digest = digest::digest(algorithm, b"{}");
            let bound = &mut blob[HEADER_LEN_BYTES + 0x050..HEADER_LEN_BYTES + 0x090];
            bound.fill(0);
            bound[..digest.as_ref().len()].copy_from_slice(digest.as_ref());
            assert!(report_in_hcl(&blob).is_ok(), "hash type {hash}");
            blob[kind_at + 4] = hash % 3 + 1;
            assert_eq!(report_in_hcl(&blob).unwrap_err().reason, Reason::ReportData);
            blob[kind_at + 4] = 4;
            assert_eq!(report_in_hcl(&blob).unwrap_err().reason, Reason::Algorithm);
            blob[kind_at] = 4;
            assert_eq!(report_in_hcl(&blob).unwrap_err().reason, Reason::ForeignTee);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
            let mut bytes = bytes;
            bytes.splice(0..0, *b"HCLA");
            let _ = report_in_hcl(&bytes);
        }
    }
}
