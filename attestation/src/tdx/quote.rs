//! ECDSA quotes of version 4 and 5 (TDX DCAP Quoting Library API, A.3 and A.4), little-endian throughout.
//!
//! ```text
//! header 48 | [v5: u16 body type, u32 body length] | body | u32 length | signature data
//! signature data: quote signature 64 | attestation key 64 | u16 6 | u32 length | QE certification data
//! QE certification data: QE report 384 | signature 64 | u16 length | authentication data | u16 5 | u32 length | PEM
//! ```
//!
//! Parsing believes nothing; it fixes what the bytes mean. Every length must be exactly what it holds. Zero bytes after
//! the signature data are what quoting stacks pad with: they are cut off, so a quote has one spelling here.

use core::ops::Range;

use crate::tdx::qe::{QE_REPORT_LEN_BYTES, QeReport};
use crate::tdx::td_report::{TD10_LEN_BYTES, TD15_LEN_BYTES, TdReport};
use crate::verdict::{Finding, Reason};

/// Real quotes are 5 kB, with padding at most 8 KiB.
pub(crate) const MAX_QUOTE_LEN_BYTES: usize = 16 * 1024;

const HEADER_LEN_BYTES: usize = 48;
const SGX_BODY_LEN_BYTES: usize = 384;
/// Attestation key type 2: ECDSA P-256 with SHA-256.
const ECDSA_P256: u16 = 2;
const TEE_SGX: u32 = 0;
const TEE_TDX: u32 = 0x81;
/// Intel's quoting enclave, 939a7233-f79c-4ca9-940a-0db3957f0607.
const INTEL_QE_VENDOR: [u8; 16] =
    [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];
const BODY_SGX: u16 = 1;
const BODY_TD10: u16 = 2;
const BODY_TD15: u16 = 3;
/// Certification data that wraps a QE report around other certification data.
const CERTIFICATION_QE_REPORT: u16 = 6;
/// Certification data that is a PCK chain in PEM.
const CERTIFICATION_PCK_CHAIN: u16 = 5;

/// A well-formed TDX quote. Nobody believes it yet.
#[derive(Clone, Debug)]
pub(crate) struct Quote {
    bytes: Vec<u8>,
    version: u16,
    body: Range<usize>,
    signature: [u8; 64],
    attestation_key: [u8; 64],
    qe_report: Range<usize>,
    qe_report_signature: [u8; 64],
    qe_authentication: Range<usize>,
    pck_chain: Range<usize>,
}

/// What the header announces.
struct Kind {
    version: u16,
    body: Range<usize>,
}

impl Quote {
    /// Reads a quote that came from anywhere.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Finding> {
        if bytes.len() > MAX_QUOTE_LEN_BYTES {
            return Err(size(format!(
                "quote is {} bytes, at most {MAX_QUOTE_LEN_BYTES} are read",
                bytes.len()
            )));
        }
        let kind = kind(bytes)?;
        let mut reader = Reader { bytes, at: kind.body.end, end: bytes.len() };
        let signed_data = reader.counted_u32("signature data")?;
        let padding = bytes.get(reader.at..).unwrap_or_default();
        if padding.iter().any(|byte| *byte != 0) {
            return Err(size("bytes that are not zero follow the signature data".into()));
        }
        let end = reader.at;

        let mut reader = Reader { bytes, at: signed_data.start, end: signed_data.end };
        let signature = reader.array("quote signature")?;
        let attestation_key = reader.array("attestation key")?;
        let certification = reader.certification(CERTIFICATION_QE_REPORT, "QE certification data")?;
        reader.finish("signature data")?;

        let mut reader = Reader { bytes, at: certification.start, end: certification.end };
        let qe_report = reader.range(QE_REPORT_LEN_BYTES, "QE report")?;
        let qe_report_signature = reader.array("QE report signature")?;
        let len = u16::from_le_bytes(reader.array("QE authentication data length")?);
        let qe_authentication = reader.range(usize::from(len), "QE authentication data")?;
        let pck_chain = reader.certification(CERTIFICATION_PCK_CHAIN, "PCK chain")?;
        reader.finish("QE certification data")?;
        Ok(Self {
            bytes: bytes.get(..end).unwrap_or_default().to_vec(),
            version: kind.version,
            body: kind.body,
            signature,
            attestation_key,
            qe_report,
            qe_report_signature,
            qe_authentication,
            pck_chain,
        })
    }

    /// The quote without padding.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// 4 or 5.
    pub(crate) fn version(&self) -> u16 {
        self.version
    }

    /// The TD report.
    pub(crate) fn td_report(&self) -> TdReport<'_> {
        TdReport::new(self.part(&self.body))
    }

    /// The body's name.
    pub(crate) fn body_name(&self) -> &'static str {
        if self.body.len() == TD15_LEN_BYTES { "TD report 1.5" } else { "TD report 1.0" }
    }

    /// What the quote signature covers: header, body descriptor and body.
    pub(crate) fn signed_bytes(&self) -> &[u8] {
        self.bytes.get(..self.body.end).unwrap_or_default()
    }

    /// R and S, each 32 bytes big-endian.
    pub(crate) fn signature(&self) -> &[u8; 64] {
        &self.signature
    }

    /// X and Y of the attestation key, each 32 bytes big-endian.
    pub(crate) fn attestation_key(&self) -> &[u8; 64] {
        &self.attestation_key
    }

    /// The quoting enclave's report.
    pub(crate) fn qe_report(&self) -> QeReport<'_> {
        QeReport::new(self.part(&self.qe_report))
    }

    /// R and S of the PCK key's signature over the QE report.
    pub(crate) fn qe_report_signature(&self) -> &[u8; 64] {
        &self.qe_report_signature
    }

    /// What the QE report binds besides the attestation key.
    pub(crate) fn qe_authentication(&self) -> &[u8] {
        self.part(&self.qe_authentication)
    }

    /// The PCK chain as it came: PEM, leaf first.
    pub(crate) fn pck_chain(&self) -> &[u8] {
        self.part(&self.pck_chain)
    }

    /// The signature data after the quote signature: attestation key, QE report, its signature, PCK chain. A machine's
    /// quotes share it for as long as its attestation key lives.
    pub(crate) fn endorsement(&self) -> &[u8] {
        self.bytes.get(self.body.end + 4 + self.signature.len()..).unwrap_or_default()
    }

    /// Refuses reserved fields of the signed header that are not zero.
    pub(crate) fn refuse_reserved(&self) -> Result<(), Finding> {
        match self.bytes.get(8..12) {
            Some([0, 0, 0, 0]) => Ok(()),
            _ => Err(Finding::new(Reason::Reserved, "reserved bytes 8..12 of the header are not zero")),
        }
    }

    fn part(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }
}

/// True if bytes begin like a quote and not like an SNP report: the attestation key type stands where a report has the
/// upper half of its version, which is zero.
pub(crate) fn looks_like_quote(bytes: &[u8]) -> bool {
    matches!(bytes, [3..=5, 0, low, high, ..] if (*low, *high) != (0, 0))
}

fn size(detail: String) -> Finding {
    Finding::new(Reason::Size, detail)
}

/// Reads the header and finds the body.
fn kind(bytes: &[u8]) -> Result<Kind, Finding> {
    let mut reader = Reader { bytes, at: 0, end: bytes.len() };
    let version = u16::from_le_bytes(reader.array("version")?);
    let key_type = u16::from_le_bytes(reader.array("attestation key type")?);
    let tee = u32::from_le_bytes(reader.array("TEE type")?);
    reader.range(4, "reserved bytes")?;
    let vendor: [u8; 16] = reader.array("QE vendor id")?;
    reader.range(20, "user data")?;
    if version == 3 {
        return Err(Finding::new(Reason::ForeignTee, "quote version 3 is Intel SGX"));
    }
    if !matches!(version, 4 | 5) {
        return Err(Finding::new(
            Reason::Version,
            format!("quote version {version} is unknown; 4 and 5 are known"),
        ));
    }
    let descriptor = if version == 5 {
        let body_type = u16::from_le_bytes(reader.array("body type")?);
        Some((body_type, u32::from_le_bytes(reader.array("body length")?)))
    } else {
        None
    };
    let len = body_len(bytes, tee, descriptor)?;
    if key_type != ECDSA_P256 {
        return Err(Finding::new(
            Reason::Algorithm,
            format!("attestation key type is {key_type}, must be 2 (ECDSA P-256)"),
        ));
    }
    if vendor != INTEL_QE_VENDOR {
        return Err(Finding::new(Reason::QeVendor, "the quoting enclave is not Intel's"));
    }
    Ok(Kind { version, body: reader.range(len, "body")? })
}

/// How long the TD report is; refuses other TEEs by name.
fn body_len(bytes: &[u8], tee: u32, descriptor: Option<(u16, u32)>) -> Result<usize, Finding> {
    let foreign = || Finding::new(Reason::ForeignTee, "the body is an Intel SGX enclave report");
    let wrong_tee = |what: String| Finding::new(Reason::TeeType, what);
    let Some((body_type, announced)) = descriptor else {
        return match tee {
            TEE_TDX => Ok(TD10_LEN_BYTES),
            TEE_SGX if is_sgx_v4(bytes) => Err(foreign()),
            TEE_SGX => Err(wrong_tee("the TEE type says SGX, the body is no enclave report".into())),
            other => Err(wrong_tee(format!("TEE type {other:#x} is neither SGX nor TDX"))),
        };
    };
    let len = match (tee, body_type) {
        (TEE_SGX, BODY_SGX) => return Err(foreign()),
        (TEE_TDX, BODY_TD10) => TD10_LEN_BYTES,
        (TEE_TDX, BODY_TD15) => TD15_LEN_BYTES,
        (TEE_SGX | TEE_TDX, _) => {
            return Err(wrong_tee(format!("TEE type {tee:#x} with body type {body_type}")));
        }
        (other, _) => return Err(wrong_tee(format!("TEE type {other:#x} is neither SGX nor TDX"))),
    };
    if usize::try_from(announced) != Ok(len) {
        return Err(size(format!("body type {body_type} has {len} bytes, the descriptor says {announced}")));
    }
    Ok(len)
}

/// True if signature data of a possible length stands where it does behind an enclave report.
fn is_sgx_v4(bytes: &[u8]) -> bool {
    let at = HEADER_LEN_BYTES + SGX_BODY_LEN_BYTES;
    let mut reader = Reader { bytes, at, end: bytes.len() };
    reader.counted_u32("signature data").is_ok_and(|data| data.len() > 128)
}

/// Takes parts of `bytes[at..end]` in order.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl Reader<'_> {
    fn range(&mut self, len: usize, what: &str) -> Result<Range<usize>, Finding> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.end);
        let end = end.ok_or_else(|| size(format!("quote ends inside the {what}")))?;
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Finding> {
        let range = self.range(N, what)?;
        let bytes = self.bytes.get(range).and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| size(format!("quote ends inside the {what}")))
    }

    fn counted_u32(&mut self, what: &str) -> Result<Range<usize>, Finding> {
        let len = u32::from_le_bytes(self.array(what)?);
        self.range(usize::try_from(len).unwrap_or(usize::MAX), what)
    }

    fn certification(&mut self, want: u16, what: &str) -> Result<Range<usize>, Finding> {
        let kind = u16::from_le_bytes(self.array(what)?);
        if kind != want {
            let detail = format!("certification data of type {kind} where the {what} (type {want}) belongs");
            return Err(Finding::new(Reason::EndorsementMissing, detail));
        }
        self.counted_u32(what)
    }

    fn finish(self, what: &str) -> Result<(), Finding> {
        if self.at == self.end { Ok(()) } else { Err(size(format!("bytes follow the end of the {what}"))) }
    }
}
