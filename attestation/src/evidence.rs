//! Evidence: what an Attester hands out, and the Endorsements that may come from elsewhere.
//!
//! On the wire Evidence is the deterministic CBOR array `[1, platform, report, certificate table]`. Decoding shows
//! that it is well formed and nothing else; [`Evidence::verify`](crate::verify) is the next step and the only one.

use crate::snp::cert_table::{CertificateTable, MAX_TABLE_LEN_BYTES};
use crate::snp::hcl;
use crate::snp::report::{REPORT_LEN_BYTES, Report};
use crate::verdict::{Finding, Reason, Rejected, StepLog};
use crate::wire::{self, Blob};

/// Version of the Evidence encoding.
const EVIDENCE_VERSION: u8 = 1;
/// Report and table with their CBOR heads.
pub const MAX_EVIDENCE_LEN_BYTES: usize = MAX_TABLE_LEN_BYTES + REPORT_LEN_BYTES + 16;

/// What every screen, log line and response header of a simulated session says, and the organisation name in
/// every certificate of a simulator.
pub const SIMULATED_NOTICE: &str = "SIMULATED, NOT CONFIDENTIAL";

/// Where Evidence was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Platform {
    /// AMD SEV-SNP.
    SevSnp,
    /// Intel TDX: named on the wire, not verified yet.
    Tdx,
    /// A secure processor in software. It protects nothing.
    Simulated,
}

impl Platform {
    /// The platform's number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::SevSnp => 1,
            Self::Tdx => 2,
            // Far from the others: no slip of one makes hardware of it.
            Self::Simulated => 0xff,
        }
    }

    /// The platform with this number on the wire, if it is one.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::SevSnp, Self::Tdx, Self::Simulated].into_iter().find(|platform| platform.code() == code)
    }

    /// `sev-snp`, `tdx` or `simulated`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SevSnp => "sev-snp",
            Self::Tdx => "tdx",
            Self::Simulated => "simulated",
        }
    }
}

impl core::fmt::Display for Platform {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Well-formed Evidence. Nobody believes it yet.
#[derive(Debug)]
#[must_use = "evidence proves nothing until it is verified and appraised"]
pub struct Evidence {
    platform: Platform,
    pub(crate) report: Report,
    table: Vec<u8>,
}

impl Evidence {
    /// Decodes the wire form; the bytes come from the peer and are not trusted.
    ///
    /// # Errors
    /// [`Reason::Encoding`] for bytes that are not the one encoding of an Evidence, [`Reason::ForeignTee`] for a
    /// platform that is not verified here, and the reasons of a malformed report: `size`, `version`, `algorithm`,
    /// `signature-encoding`, `reserved`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Rejected> {
        Self::decode_inner(bytes).map_err(|finding| StepLog::refusal("format", finding))
    }

    fn decode_inner(bytes: &[u8]) -> Result<Self, Finding> {
        let (version, code, report, table): (u8, u8, Blob, Blob) =
            wire::decode(bytes, MAX_EVIDENCE_LEN_BYTES)
                .map_err(|error| Finding::new(Reason::Encoding, error.to_string()))?;
        if version != EVIDENCE_VERSION {
            return Err(Finding::new(Reason::Encoding, format!("evidence version {version} is unknown")));
        }
        match Platform::from_code(code) {
            Some(Platform::Tdx) => {
                Err(Finding::new(Reason::ForeignTee, "Intel TDX evidence is not verified by this release"))
            }
            Some(platform) => Self::from_parts(platform, &report, &table),
            None => Err(Finding::new(Reason::ForeignTee, format!("platform {code} is unknown"))),
        }
    }

    fn from_parts(platform: Platform, report: &[u8], table: &[u8]) -> Result<Self, Finding> {
        let report = Report::parse(report)?;
        CertificateTable::parse(table)?;
        Ok(Self { platform, report, table: table.to_vec() })
    }

    /// SEV-SNP Evidence from a bare report (1184 bytes, or an Azure HCL blob around one) and a certificate table
    /// that may be empty.
    ///
    /// # Errors
    /// As [`Evidence::decode`], and `report-data` for an HCL blob whose runtime data the report does not bind.
    pub fn snp_from_parts(report: &[u8], certificate_table: &[u8]) -> Result<Self, Rejected> {
        let report = if hcl::is_hcl(report) { hcl::report_in_hcl(report) } else { Ok(report) };
        report
            .and_then(|report| Self::from_parts(Platform::SevSnp, report, certificate_table))
            .map_err(|finding| StepLog::refusal("format", finding))
    }

    /// Simulated Evidence from the parts that a simulator makes.
    ///
    /// # Errors
    /// As [`Evidence::decode`].
    pub fn simulated_from_parts(report: &[u8], certificate_table: &[u8]) -> Result<Self, Rejected> {
        Self::from_parts(Platform::Simulated, report, certificate_table)
            .map_err(|finding| StepLog::refusal("format", finding))
    }

    /// The wire form; [`Evidence::decode`] takes exactly these bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let report = Blob::from(self.report.bytes().to_vec());
        wire::encode(&(EVIDENCE_VERSION, self.platform.code(), report, Blob::from(self.table.clone())))
    }

    /// Where it says it was made. Not verified.
    #[must_use]
    pub const fn platform(&self) -> Platform {
        self.platform
    }

    /// The report, 1184 bytes. Not verified.
    #[must_use]
    pub fn report_bytes(&self) -> &[u8] {
        self.report.bytes()
    }

    pub(crate) fn certificate_table(&self) -> Result<CertificateTable<'_>, Finding> {
        CertificateTable::parse(&self.table)
    }
}

/// Writes the certificate table that travels beside a report: DER certificates, and the revocation list if any.
#[must_use]
pub fn encode_certificate_table(ark: &[u8], ask: &[u8], vcek: &[u8], crl: Option<&[u8]>) -> Vec<u8> {
    let table = CertificateTable { ark: Some(ark), ask: Some(ask), vcek: Some(vcek), crl, vlek: None };
    table.encode()
}

/// Vendor certificates and revocation lists that the caller has, as DER. Where a role is present both here and in
/// the Evidence, this one is used. None is believed before it is verified.
#[derive(Clone, Debug, Default)]
pub struct Endorsements {
    /// Versioned chip endorsement key.
    pub vcek: Option<Vec<u8>>,
    /// Versioned loaded endorsement key.
    pub vlek: Option<Vec<u8>>,
    /// Intermediate above a VCEK.
    pub ask: Option<Vec<u8>>,
    /// Intermediate above a VLEK.
    pub asvk: Option<Vec<u8>>,
    /// Root; must be a trust anchor, and is never used as one.
    pub ark: Option<Vec<u8>>,
    /// Revocation lists; lists of other roots are passed over.
    pub crls: Vec<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Vec<u8> {
        let mut report = vec![0; REPORT_LEN_BYTES];
        (report[0], report[0x034], report[0x00a]) = (3, 1, 2);
        report
    }

    #[test]
    fn wire_round_trip() {
        let evidence = Evidence::snp_from_parts(&report(), &[]).unwrap();
        let bytes = evidence.encode();
        let decoded = Evidence::decode(&bytes).unwrap();
        assert_eq!(decoded.platform(), Platform::SevSnp);
        assert_eq!(decoded.encode(), bytes);
        let simulated = Evidence::simulated_from_parts(&report(), &[]).unwrap().encode();
        assert_eq!(Evidence::decode(&simulated).unwrap().platform(), Platform::Simulated);
        assert_ne!(simulated, bytes);
    }

    #[test]
    fn other_platforms_and_versions_are_refused_by_name() {
        let encode =
            |version: u8, platform: u8| wire::encode(&(version, platform, Blob::from(report()), Blob::new()));
        let refusal = |bytes: &[u8]| Evidence::decode(bytes).unwrap_err();
        let tdx = refusal(&encode(1, 2));
        assert_eq!(tdx.reason, Reason::ForeignTee);
        assert!(tdx.to_string().contains("TDX"));
        assert_eq!(refusal(&encode(1, 3)).reason, Reason::ForeignTee);
        assert_eq!(refusal(&encode(2, 1)).reason, Reason::Encoding);
        let mut trailing = encode(1, 1);
        trailing.push(0);
        assert_eq!(refusal(&trailing).reason, Reason::Encoding);
    }
}
