//! TCB info: Intel's list of TCB levels for one kind of platform, and how one is chosen (PCS API v4, "Get TDX TCB
//! Info").

use crate::snp::leaf::hex_string;
use crate::tdx::document::{Dates, Object};
use crate::tdx::pck::PckExtensions;
use crate::tdx::qe::masked_equal;
use crate::tdx::tcb::{Level, Standing, TcbStatus};
use crate::tdx::td_report::TdReport;
use crate::verdict::{Finding, Reason};

/// The security versions that a platform's level asks for.
#[derive(Clone, Debug)]
struct PlatformSvn {
    sgx: [u8; 16],
    pce: u16,
    tdx: [u8; 16],
}

/// Who may have signed a TDX module, and how it may be set up.
#[derive(Clone, Debug)]
struct ModuleIdentity {
    /// `TDX_01`; none for the first generation.
    id: Option<String>,
    mr_signer: [u8; 48],
    attributes: [u8; 8],
    attributes_mask: [u8; 8],
    levels: Vec<Level<u8>>,
}

/// The document, read.
#[derive(Clone, Debug)]
pub(crate) struct TcbInfo {
    pub(crate) dates: Dates,
    /// tcbEvaluationDataNumber.
    pub(crate) evaluation_number: u32,
    fmspc: [u8; 6],
    pce_id: [u8; 2],
    module: ModuleIdentity,
    modules: Vec<ModuleIdentity>,
    levels: Vec<Level<PlatformSvn>>,
}

/// The standing of a platform and of its TDX module at one TEE_TCB_SVN.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlatformStanding {
    /// The platform: microcode, firmware, SEAM loader.
    pub platform: Standing,
    /// The TDX module; none in the first generation, which the platform's level covers.
    pub module: Option<Standing>,
}

impl TcbInfo {
    /// Reads the document, whose signature is verified already: it still must be of the right kind.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, Finding> {
        Object::parse_with("TCB info", Reason::TcbInfo, json, |document| Self::read(&document))
    }

    fn read(document: &Object<'_>) -> Result<Self, Finding> {
        let id = document.text("id")?;
        if id != "TDX" {
            return Err(document.refuse(&format!("id is {id:?}, must be \"TDX\"")));
        }
        for (field, want) in [("version", 3), ("tcbType", 0)] {
            let got = document.number(field)?;
            if got != want {
                return Err(document.refuse(&format!("{field} is {got}, must be {want}")));
            }
        }
        let modules = if document.has("tdxModuleIdentities") {
            let identities = document.list("tdxModuleIdentities")?;
            identities.iter().map(|identity| module(identity, true)).collect::<Result<_, _>>()?
        } else {
            Vec::new()
        };
        Ok(Self {
            dates: Dates::parse(document)?,
            evaluation_number: document.number_as("tcbEvaluationDataNumber")?,
            fmspc: document.hex("fmspc")?,
            pce_id: document.hex("pceId")?,
            module: module(&document.object("tdxModule")?, false)?,
            modules,
            levels: document.list("tcbLevels")?.iter().map(platform_level).collect::<Result<_, _>>()?,
        })
    }

    /// Refuses a document for another kind of platform than the PCK certificate's.
    pub(crate) fn refuse_other_platform(&self, pck: &PckExtensions) -> Result<(), Finding> {
        for (name, got, want) in
            [("FMSPC", &self.fmspc[..], &pck.fmspc[..]), ("PCE-ID", &self.pce_id[..], &pck.pce_id[..])]
        {
            if got != want {
                let (got, want) = (hex_string(got), hex_string(want));
                let detail = format!("TCB info is for {name} {got}, the PCK certificate says {want}");
                return Err(Finding::new(Reason::Fmspc, detail));
            }
        }
        Ok(())
    }

    /// The module generation's identity: by TEE_TCB_SVN\[1\], where it is not zero.
    fn module_for(&self, tee_tcb_svn: &[u8; 16]) -> Result<&ModuleIdentity, Finding> {
        let generation = tee_tcb_svn[1];
        if generation == 0 {
            return Ok(&self.module);
        }
        let id = format!("TDX_{generation:02X}");
        let found = self.modules.iter().find(|module| module.id.as_deref() == Some(id.as_str()));
        found.ok_or_else(|| Finding::new(Reason::TdxModule, format!("TCB info knows no TDX module {id}")))
    }

    /// Refuses a TDX module that is not signed or set up as Intel's are.
    pub(crate) fn refuse_other_module(&self, report: &TdReport<'_>) -> Result<(), Finding> {
        let refuse = |what: String| Err(Finding::new(Reason::TdxModule, what));
        let identity = self.module_for(&report.tee_tcb_svn())?;
        if report.mr_signer_seam() != identity.mr_signer {
            return refuse(format!("MRSIGNERSEAM is {}", hex_string(&report.mr_signer_seam())));
        }
        let attributes = report.seam_attributes();
        let stray = attributes.iter().zip(&identity.attributes_mask).any(|(bits, mask)| bits & !mask != 0);
        if stray || !masked_equal(&attributes, &identity.attributes, &identity.attributes_mask) {
            return refuse(format!("SEAMATTRIBUTES are {}", hex_string(&attributes)));
        }
        Ok(())
    }

    /// The standing of a platform with this PCK certificate at this TEE_TCB_SVN: the first level that it reaches.
    pub(crate) fn standing(
        &self,
        pck: &PckExtensions,
        tee_tcb_svn: &[u8; 16],
    ) -> Result<PlatformStanding, Finding> {
        let no_match = |what: String| Finding::new(Reason::TcbNoMatch, what);
        // From the second generation on, the first two bytes are the module's, and its identity judges them.
        let skipped = if tee_tcb_svn[1] == 0 { 0 } else { 2 };
        let reached = |got: &[u8], want: &[u8]| got.iter().zip(want).all(|(got, want)| got >= want);
        let level = self.levels.iter().find(|Level { svn, .. }| {
            reached(&pck.components, &svn.sgx)
                && pck.pce_svn >= svn.pce
                && reached(
                    tee_tcb_svn.get(skipped..).unwrap_or_default(),
                    svn.tdx.get(skipped..).unwrap_or_default(),
                )
        });
        let level = level.ok_or_else(|| {
            no_match(format!(
                "no TCB level for components {}, PCESVN {}, TEE_TCB_SVN {}",
                hex_string(&pck.components),
                pck.pce_svn,
                hex_string(tee_tcb_svn)
            ))
        })?;
        let module = if skipped == 0 {
            None
        } else {
            let level = self.module_for(tee_tcb_svn)?.levels.iter().find(|level| tee_tcb_svn[0] >= level.svn);
            let missing = || no_match(format!("no TCB level for TDX module version {}", tee_tcb_svn[0]));
            Some(level.ok_or_else(missing)?.standing.clone())
        };
        Ok(PlatformStanding { platform: level.standing.clone(), module })
    }
}

fn module(identity: &Object<'_>, generations: bool) -> Result<ModuleIdentity, Finding> {
    let level = |level: &Object<'_>| Level::read(level, level.object("tcb")?.number_as("isvsvn")?);
    let levels: Vec<Level<u8>> = if generations {
        identity.list("tcbLevels")?.iter().map(level).collect::<Result<_, _>>()?
    } else {
        Vec::new()
    };
    let module_status =
        |status| matches!(status, TcbStatus::UpToDate | TcbStatus::OutOfDate | TcbStatus::Revoked);
    if !levels.iter().all(|level| module_status(level.standing.status)) {
        return Err(identity.refuse("a TDX module has a status that no module has"));
    }
    Ok(ModuleIdentity {
        id: if generations { Some(identity.text("id")?.to_owned()) } else { None },
        mr_signer: identity.hex("mrsigner")?,
        attributes: identity.hex("attributes")?,
        attributes_mask: identity.hex("attributesMask")?,
        levels,
    })
}

fn platform_level(level: &Object<'_>) -> Result<Level<PlatformSvn>, Finding> {
    let tcb = level.object("tcb")?;
    let svn = PlatformSvn {
        sgx: components(&tcb, "sgxtcbcomponents")?,
        pce: tcb.number_as("pcesvn")?,
        tdx: components(&tcb, "tdxtcbcomponents")?,
    };
    Level::read(level, svn)
}

fn components(tcb: &Object<'_>, field: &str) -> Result<[u8; 16], Finding> {
    let svns = tcb
        .list(field)?
        .iter()
        .map(|component| component.number_as("svn"))
        .collect::<Result<Vec<u8>, _>>()?;
    svns.try_into().map_err(|_| tcb.refuse(&format!("{field} are not sixteen")))
}
