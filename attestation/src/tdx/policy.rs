//! The part of an appraisal policy that is about TDX; launch measurement, launch document and machine are rules of the
//! whole policy (MRTD, MRCONFIGID, PPID).

use crate::policy::Rule;

const ZERO: [u8; 48] = [0; 48];
/// The lowest tcbEvaluationDataNumber that production takes: older documents call known holes up to date.
const MIN_EVALUATION_NUMBER: u32 = 20;
/// SEPT_VE_DISABLE and nothing else.
const PRODUCTION_ATTRIBUTES: u64 = 1 << 28;

/// Reference values of a TD beside its launch measurement. An empty list accepts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TdxReferences {
    /// MRTD and RTMR0 to RTMR2 of whole launches: a TD that has all four values of one of them needs no other list for
    /// these. Values of different launches do not add up to one, so that the firmware of an old release with known holes
    /// does not start the kernel of a new one.
    pub launches: Vec<[[u8; 48]; 4]>,
    /// XFAM.
    pub xfam: Vec<u64>,
    /// RTMR0: firmware configuration.
    pub rtmr0: Vec<[u8; 48]>,
    /// RTMR1: boot loader and kernel.
    pub rtmr1: Vec<[u8; 48]>,
    /// RTMR2: command line and initial file system.
    pub rtmr2: Vec<[u8; 48]>,
    /// RTMR3: what ran after that. `None` takes zero, and what an event log beside the quote accounts for.
    pub rtmr3: Option<Vec<[u8; 48]>>,
    /// MRSEAM: TDX modules.
    pub mr_seam: Vec<[u8; 48]>,
}

/// What a TDX quote must say.
#[derive(Clone, Debug)]
pub(crate) struct TdxPolicy {
    pub(crate) evaluation_number: Rule<u32>,
    pub(crate) debug: Rule<bool>,
    pub(crate) migratable: Rule<bool>,
    pub(crate) sept_ve_disable: Rule<bool>,
    pub(crate) reserved_attributes: Rule<u64>,
    pub(crate) attributes: Rule<u64>,
    pub(crate) servtd_ext: Rule<bool>,
    pub(crate) mr_service_td: Rule<[u8; 48]>,
    pub(crate) mr_signer_seam: Rule<[u8; 48]>,
    pub(crate) mr_seam: Rule<[u8; 48]>,
    /// Whether the TDX module must be of the versions that `strict` asks for.
    pub(crate) module_floor: bool,
    pub(crate) xfam: Rule<u64>,
    pub(crate) rtmrs: [Rule<[u8; 48]>; 4],
    /// MRTD and RTMR0 to RTMR2 of whole launches, in place of the rules for each.
    pub(crate) launches: Vec<[[u8; 48]; 4]>,
    /// Whether an event log may account for RTMR3, in place of its rule.
    pub(crate) rtmr3_by_event_log: bool,
    pub(crate) mr_config_id: Rule<[u8; 48]>,
    pub(crate) mr_owner: Rule<[u8; 48]>,
    pub(crate) mr_owner_config: Rule<[u8; 48]>,
}

impl TdxPolicy {
    /// The rules of `standard`, and with `strict` of `strict`; they accept nothing before references are named.
    pub(crate) fn production(strict: bool) -> Self {
        let policy = Self {
            evaluation_number: Rule::AtLeast(MIN_EVALUATION_NUMBER),
            attributes: Rule::Exactly(PRODUCTION_ATTRIBUTES),
            mr_signer_seam: Rule::Exactly(ZERO),
            module_floor: strict,
            mr_config_id: Rule::OneOf(Vec::new()),
            ..Self::vendor()
        };
        policy.with_references(TdxReferences::default())
    }

    /// Safe by Intel's documents: current, not open to the host, no service TD. No floors, no reference values.
    pub(crate) fn vendor() -> Self {
        Self {
            evaluation_number: Rule::Any,
            debug: Rule::Exactly(false),
            migratable: Rule::Exactly(false),
            sept_ve_disable: Rule::Exactly(true),
            reserved_attributes: Rule::Exactly(0),
            attributes: Rule::Any,
            servtd_ext: Rule::Exactly(false),
            mr_service_td: Rule::Exactly(ZERO),
            mr_signer_seam: Rule::Any,
            mr_seam: Rule::Any,
            module_floor: false,
            xfam: Rule::Any,
            rtmrs: [const { Rule::Any }; 4],
            launches: Vec::new(),
            rtmr3_by_event_log: false,
            mr_config_id: Rule::Any,
            mr_owner: Rule::Any,
            mr_owner_config: Rule::Any,
        }
    }

    pub(crate) fn with_references(mut self, references: TdxReferences) -> Self {
        let TdxReferences { launches, xfam, rtmr0, rtmr1, rtmr2, rtmr3, mr_seam } = references;
        self.launches = launches;
        self.xfam = Rule::OneOf(xfam);
        self.rtmr3_by_event_log = rtmr3.is_none();
        self.rtmrs = [rtmr0, rtmr1, rtmr2, rtmr3.unwrap_or_else(|| vec![ZERO])].map(Rule::OneOf);
        self.mr_seam = Rule::OneOf(mr_seam);
        self
    }
}
