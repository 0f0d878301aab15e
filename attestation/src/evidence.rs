//! Evidence: what an Attester hands out, and the Endorsements that may come from elsewhere.
//!
//! On the wire Evidence is the deterministic CBOR array `[1, platform, report, certificate table]`, for TDX `[1, 2,
//! quote, collateral]`. Decoding shows that it is well formed and nothing else; [`Evidence::verify`](crate::verify)
//! is the next step and the only one.

use crate::snp::cert_table::{CertificateTable, MAX_TABLE_LEN_BYTES};
use crate::snp::hcl;
use crate::snp::report::{REPORT_LEN_BYTES, Report};
use crate::tdx::collateral::{Collateral, MAX_COLLATERAL_LEN_BYTES};
use crate::tdx::quote::{MAX_QUOTE_LEN_BYTES, Quote, looks_like_quote};
use crate::verdict::{Finding, Reason, Rejected, StepLog};
use crate::wire::{self, Blob};

/// Version of the Evidence encoding.
const EVIDENCE_VERSION: u8 = 1;
/// The larger of report with table and quote with collateral, and their CBOR heads.
pub const MAX_EVIDENCE_LEN_BYTES: usize = {
    let (snp, tdx) = (MAX_TABLE_LEN_BYTES + REPORT_LEN_BYTES, MAX_COLLATERAL_LEN_BYTES + MAX_QUOTE_LEN_BYTES);
    (if snp > tdx { snp } else { tdx }) + 16
};

/// What every screen, log line and response header of a simulated session says, and the organisation name in
/// every certificate of a simulator.
pub const SIMULATED_NOTICE: &str = "SIMULATED, NOT CONFIDENTIAL";

/// Where Evidence was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Platform {
    /// AMD SEV-SNP.
    SevSnp,
    /// Intel TDX.
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
    pub(crate) body: Body,
}

/// What Evidence is made of.
#[derive(Debug)]
pub(crate) enum Body {
    /// An SEV-SNP report, of hardware or of a simulator, and the certificate table beside it.
    Snp { simulated: bool, report: Report, table: Vec<u8> },
    /// A TDX quote, and the collateral beside it, if any.
    Tdx { quote: Box<Quote>, collateral: Option<Box<Collateral>> },
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
            Some(Platform::SevSnp) => Self::from_parts(false, &report, &table),
            Some(Platform::Simulated) => Self::from_parts(true, &report, &table),
            Some(Platform::Tdx) => {
                let evidence = Self::tdx_inner(&report, &table)?;
                if evidence.report_bytes().len() != report.len() {
                    return Err(Finding::new(Reason::Encoding, "a quote travels without padding"));
                }
                Ok(evidence)
            }
            None => Err(Finding::new(Reason::ForeignTee, format!("platform {code} is unknown"))),
        }
    }

    fn from_parts(simulated: bool, report: &[u8], table: &[u8]) -> Result<Self, Finding> {
        let report = Report::parse(report)?;
        CertificateTable::parse(table)?;
        Ok(Self { body: Body::Snp { simulated, report, table: table.to_vec() } })
    }

    fn tdx_inner(quote: &[u8], collateral: &[u8]) -> Result<Self, Finding> {
        let quote = Box::new(Quote::parse(quote)?);
        let collateral =
            if collateral.is_empty() { None } else { Some(Box::new(Collateral::decode_inner(collateral)?)) };
        Ok(Self { body: Body::Tdx { quote, collateral } })
    }

    /// TDX Evidence from a quote, as a quoting stack pads it with zeros or not, and collateral in its wire form that may
    /// be empty.
    ///
    /// # Errors
    /// As [`Evidence::decode`], and `foreign-tee` for a quote of Intel SGX.
    pub fn tdx_from_parts(quote: &[u8], collateral: &[u8]) -> Result<Self, Rejected> {
        Self::tdx_inner(quote, collateral).map_err(|finding| StepLog::refusal("format", finding))
    }

    /// True if `bytes` begin as quotes of Intel do: an SEV-SNP report never does.
    #[must_use]
    pub fn looks_like_quote(bytes: &[u8]) -> bool {
        looks_like_quote(bytes)
    }

    /// SEV-SNP Evidence from a bare report (1184 bytes, or an Azure HCL blob around one) and a certificate table
    /// that may be empty.
    ///
    /// # Errors
    /// As [`Evidence::decode`], and `report-data` for an HCL blob whose runtime data the report does not bind.
    pub fn snp_from_parts(report: &[u8], certificate_table: &[u8]) -> Result<Self, Rejected> {
        let report = if hcl::is_hcl(report) { hcl::report_in_hcl(report) } else { Ok(report) };
        report
            .and_then(|report| Self::from_parts(false, report, certificate_table))
            .map_err(|finding| StepLog::refusal("format", finding))
    }

    /// Simulated Evidence from the parts that a simulator makes.
    ///
    /// # Errors
    /// As [`Evidence::decode`].
    pub fn simulated_from_parts(report: &[u8], certificate_table: &[u8]) -> Result<Self, Rejected> {
        Self::from_parts(true, report, certificate_table)
            .map_err(|finding| StepLog::refusal("format", finding))
    }

    /// The wire form; [`Evidence::decode`] takes exactly these bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let endorsements = match &self.body {
            Body::Snp { table, .. } => table.clone(),
            Body::Tdx { collateral, .. } => collateral.as_ref().map_or(Vec::new(), |it| it.encode()),
        };
        let report = Blob::from(self.report_bytes().to_vec());
        wire::encode(&(EVIDENCE_VERSION, self.platform().code(), report, Blob::from(endorsements)))
    }

    /// Where it says it was made. Not verified.
    #[must_use]
    pub const fn platform(&self) -> Platform {
        match &self.body {
            Body::Snp { simulated: false, .. } => Platform::SevSnp,
            Body::Snp { simulated: true, .. } => Platform::Simulated,
            Body::Tdx { .. } => Platform::Tdx,
        }
    }

    /// The report, 1184 bytes, or the quote without padding. Not verified.
    #[must_use]
    pub fn report_bytes(&self) -> &[u8] {
        match &self.body {
            Body::Snp { report, .. } => report.bytes(),
            Body::Tdx { quote, .. } => quote.bytes(),
        }
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
    /// Revocation lists of AMD; lists of other roots are passed over.
    pub crls: Vec<Vec<u8>>,
    /// What a TDX quote is judged by.
    pub tdx_collateral: Option<Collateral>,
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
        assert_eq!(refusal(&encode(1, 2)).reason, Reason::ForeignTee, "no quote but a report of version 3");
        assert_eq!(refusal(&encode(1, 3)).reason, Reason::ForeignTee);
        assert_eq!(refusal(&encode(2, 1)).reason, Reason::Encoding);
        let mut trailing = encode(1, 1);
        trailing.push(0);
        assert_eq!(refusal(&trailing).reason, Reason::Encoding);
    }
}
