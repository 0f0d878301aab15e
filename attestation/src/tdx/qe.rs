//! The quoting enclave: its report (an SGX enclave report, 384 bytes) and the identity Intel publishes for it.

use ring::digest::{SHA256, digest};

use crate::snp::leaf::hex_string;
use crate::tdx::document::{Dates, Object};
use crate::tdx::quote::Quote;
use crate::tdx::tcb::{Level, Standing};
use crate::verdict::{Finding, Reason};

/// Length of an enclave report.
pub(crate) const QE_REPORT_LEN_BYTES: usize = 384;
/// ATTRIBUTES bit 1: an enclave that can be debugged.
const SGX_DEBUG: u8 = 1 << 1;

/// The bytes of an enclave report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QeReport<'a> {
    bytes: &'a [u8],
}

impl<'a> QeReport<'a> {
    /// `bytes` have the length: the quote's parser cut them out.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// What the PCK key signed.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        let field = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        field.copied().unwrap_or([0; N])
    }

    /// MISCSELECT, 4 bytes at 16.
    fn misc_select(&self) -> [u8; 4] {
        self.field(16)
    }

    /// ATTRIBUTES, 16 bytes at 48.
    fn attributes(&self) -> [u8; 16] {
        self.field(48)
    }

    /// MRSIGNER, 32 bytes at 128.
    fn mr_signer(&self) -> [u8; 32] {
        self.field(128)
    }

    /// ISVPRODID, 2 bytes at 256.
    fn isv_prod_id(&self) -> u16 {
        u16::from_le_bytes(self.field(256))
    }

    /// ISVSVN, 2 bytes at 258.
    pub(crate) fn isv_svn(&self) -> u16 {
        u16::from_le_bytes(self.field(258))
    }

    /// REPORTDATA, 64 bytes at 320.
    fn report_data(&self) -> [u8; 64] {
        self.field(320)
    }

    /// Refuses unless the report binds the attestation key of `quote`: SHA-256 of key and authentication data, then
    /// zeros. Without it a key of anybody's could sign behind a genuine QE report.
    pub(crate) fn refuse_unbound_key(&self, quote: &Quote) -> Result<(), Finding> {
        let bound = digest(&SHA256, &[quote.attestation_key(), quote.qe_authentication()].concat());
        let report_data = self.report_data();
        let (hash, rest) = report_data.split_at(32);
        if hash != bound.as_ref() {
            return Err(Finding::new(
                Reason::QeReportData,
                "the QE report does not bind the attestation key",
            ));
        }
        if rest.iter().any(|byte| *byte != 0) {
            return Err(Finding::new(
                Reason::QeReportData,
                "bytes 32..64 of the QE report data are not zero",
            ));
        }
        Ok(())
    }
}

/// Intel's published identity of the quoting enclave of TDs (PCS API v4, enclave identity).
#[derive(Clone, Debug)]
pub(crate) struct QeIdentity {
    pub(crate) dates: Dates,
    /// tcbEvaluationDataNumber.
    pub(crate) evaluation_number: u32,
    misc_select: [u8; 4],
    misc_select_mask: [u8; 4],
    attributes: [u8; 16],
    attributes_mask: [u8; 16],
    mr_signer: [u8; 32],
    isv_prod_id: u16,
    levels: Vec<Level<u16>>,
}

impl QeIdentity {
    /// Reads the document, whose signature is verified already: it still must be of the right kind.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, Finding> {
        Object::parse_with("QE identity", Reason::QeIdentity, json, |document| Self::read(&document))
    }

    fn read(document: &Object<'_>) -> Result<Self, Finding> {
        let id = document.text("id")?;
        if id != "TD_QE" {
            return Err(document.refuse(&format!("id is {id:?}, must be \"TD_QE\"")));
        }
        let version = document.number("version")?;
        if version != 2 {
            return Err(document.refuse(&format!("version is {version}, must be 2")));
        }
        let level = |level: &Object<'_>| Level::read(level, level.object("tcb")?.number_as("isvsvn")?);
        let identity = Self {
            dates: Dates::parse(document)?,
            evaluation_number: document.number_as("tcbEvaluationDataNumber")?,
            misc_select: document.hex("miscselect")?,
            misc_select_mask: document.hex("miscselectMask")?,
            attributes: document.hex("attributes")?,
            attributes_mask: document.hex("attributesMask")?,
            mr_signer: document.hex("mrsigner")?,
            isv_prod_id: document.number_as("isvprodid")?,
            levels: document.list("tcbLevels")?.iter().map(level).collect::<Result<_, _>>()?,
        };
        if identity.levels.iter().any(|level| level.standing.status.needs_hardening()) {
            return Err(document.refuse("a TCB level has a status that no enclave has"));
        }
        Ok(identity)
    }

    /// Compares the enclave that signed with this identity.
    pub(crate) fn refuse_other_enclave(&self, report: &QeReport<'_>) -> Result<(), Finding> {
        let refuse = |what: String| Err(Finding::new(Reason::QeIdentity, what));
        if report.mr_signer() != self.mr_signer {
            return refuse(format!("MRSIGNER is {}", hex_string(&report.mr_signer())));
        }
        if report.isv_prod_id() != self.isv_prod_id {
            return refuse(format!("ISVPRODID is {}, must be {}", report.isv_prod_id(), self.isv_prod_id));
        }
        if !masked_equal(&report.misc_select(), &self.misc_select, &self.misc_select_mask) {
            return refuse(format!("MISCSELECT is {}", hex_string(&report.misc_select())));
        }
        if !masked_equal(&report.attributes(), &self.attributes, &self.attributes_mask) {
            return refuse(format!("ATTRIBUTES are {}", hex_string(&report.attributes())));
        }
        // Whatever the mask says.
        if report.attributes().first().is_some_and(|flags| flags & SGX_DEBUG != 0) {
            return refuse("the quoting enclave can be debugged".into());
        }
        Ok(())
    }

    /// The first level that the enclave's ISVSVN reaches.
    pub(crate) fn standing(&self, report: &QeReport<'_>) -> Result<&Standing, Finding> {
        let svn = report.isv_svn();
        let level = self.levels.iter().find(|level| svn >= level.svn);
        level.map(|level| &level.standing).ok_or_else(|| {
            Finding::new(Reason::TcbNoMatch, format!("no TCB level of the quoting enclave for ISVSVN {svn}"))
        })
    }
}

/// True if `got` and `want` agree where `mask` has ones.
pub(crate) fn masked_equal(got: &[u8], want: &[u8], mask: &[u8]) -> bool {
    got.len() == want.len()
        && got.len() == mask.len()
        && got.iter().zip(want).zip(mask).all(|((got, want), mask)| got & mask == want & mask)
}
