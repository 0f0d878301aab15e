//! Appraisal policy: what authentic Evidence must say to be welcome.
//!
//! A policy is data: one [`Rule`] for each claim. There is no "unset means unchecked": a rule that takes anything
//! is [`Rule::Any`] and shows in the verdict as a skipped step, and an empty reference set accepts nothing. Only
//! `dangerous_` functions weaken what a constructor sets up.

use crate::evidence::Platform;
use crate::snp::report::{GuestPolicy, PlatformInfo, SigningKey};
use crate::snp::tcb::{Product, TcbFloor};
use crate::snp::tcb_table;
use crate::tdx::policy::{TdxPolicy, TdxReferences};
use crate::waiver::Waiver;

/// What one claim must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule<T> {
    /// This value.
    Exactly(T),
    /// This value or above.
    AtLeast(T),
    /// This value or below.
    AtMost(T),
    /// One of these; an empty list accepts nothing.
    OneOf(Vec<T>),
    /// Any value; the verdict shows that it was not compared.
    Any,
}

impl<T: PartialOrd> Rule<T> {
    /// True if the rule takes `value`.
    #[must_use]
    pub fn accepts(&self, value: &T) -> bool {
        match self {
            Self::Exactly(want) => value == want,
            Self::AtLeast(floor) => value >= floor,
            Self::AtMost(ceiling) => value <= ceiling,
            Self::OneOf(wanted) => wanted.contains(value),
            Self::Any => true,
        }
    }
}

/// One bit of a bit field that the report carries.
#[derive(Clone, Debug)]
pub(crate) struct BitRule {
    pub(crate) bit: u32,
    pub(crate) name: &'static str,
    pub(crate) rule: Rule<bool>,
    /// Where set, the rule holds for this product only: others cannot have the feature.
    pub(crate) only_for: Option<Product>,
}

impl BitRule {
    fn new(bit: u32, name: &'static str, rule: Rule<bool>) -> Self {
        Self { bit, name, rule, only_for: None }
    }
}

/// What must be known about revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RevocationRule {
    /// A current list.
    Required,
    /// A list is used where there is one, and missed where there is none.
    WhereSupplied,
}

/// Which of the three shapes a policy has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Strict,
    Standard,
    Vendor,
}

/// An appraisal policy; see the constructors for what each demands.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) name: &'static str,
    pub(crate) simulated: bool,
    pub(crate) report_version: Rule<u32>,
    pub(crate) signing_key: Rule<SigningKey>,
    pub(crate) products: Rule<Product>,
    pub(crate) revocation: RevocationRule,
    pub(crate) vmpl: Rule<u32>,
    pub(crate) debug: Rule<bool>,
    pub(crate) migrate: Rule<bool>,
    pub(crate) guest_bits: Vec<BitRule>,
    pub(crate) platform_bits: Vec<BitRule>,
    pub(crate) unknown_platform_bits: Rule<u64>,
    pub(crate) tcb_table: bool,
    pub(crate) min_tcb: Option<TcbFloor>,
    pub(crate) provisional_firmware: Rule<bool>,
    pub(crate) guest_svn: Rule<u32>,
    pub(crate) measurement: Rule<[u8; 48]>,
    pub(crate) host_data: Rule<[u8; 32]>,
    pub(crate) chip: Rule<[u8; 32]>,
    pub(crate) id_key_digest: Rule<[u8; 48]>,
    pub(crate) author_key_digest: Rule<[u8; 48]>,
    pub(crate) tdx: TdxPolicy,
    pub(crate) waivers: Vec<Waiver>,
}

impl Policy {
    /// The tightest: report version 5 with proven mitigations, no SMT, every protection the hardware offers.
    /// Accepts nothing before [`measurements`](Self::measurements), [`host_data`](Self::host_data) and
    /// [`chip_allowlist`](Self::chip_allowlist) are named.
    #[must_use]
    pub fn strict() -> Self {
        Self::production("strict", Level::Strict)
    }

    /// The default for production: current firmware by the TCB table, a fresh revocation list, a known chip and
    /// launch. Accepts nothing before measurements, host data and chips are named.
    #[must_use]
    pub fn standard() -> Self {
        Self::production("standard", Level::Standard)
    }

    /// Authentic, valid now, and safe by the vendor's documents: no debugging, no migration, VMPL 0. No minimum
    /// TCB, product choice, allow-list or reference value: it says that hardware signed, not what runs on it.
    #[must_use]
    pub fn vendor() -> Self {
        let mut policy = Self::production("vendor", Level::Vendor);
        policy.report_version = Rule::AtLeast(2);
        policy.signing_key = Rule::OneOf(vec![SigningKey::Vcek, SigningKey::Vlek]);
        policy.products = Rule::Any;
        policy.revocation = RevocationRule::WhereSupplied;
        policy.unknown_platform_bits = Rule::Any;
        policy.tcb_table = false;
        policy.provisional_firmware = Rule::Any;
        policy.measurement = Rule::Any;
        policy.host_data = Rule::Any;
        policy.chip = Rule::Any;
        policy.tdx = TdxPolicy::vendor();
        policy
    }

    /// The only policy that accepts a simulator, and it accepts nothing else: [`Policy::standard`] without the
    /// demand for a known chip and a fresh revocation list. What it accepts is not confidential.
    #[must_use]
    pub fn dangerous_simulated(
        measurements: impl IntoIterator<Item = [u8; 48]>,
        host_data: impl IntoIterator<Item = [u8; 32]>,
    ) -> Self {
        let mut policy = Self::production("dangerous-simulated", Level::Standard);
        policy.simulated = true;
        policy.revocation = RevocationRule::WhereSupplied;
        policy.chip = Rule::Any;
        policy.measurements(measurements).host_data(host_data)
    }

    fn production(name: &'static str, level: Level) -> Self {
        Self {
            name,
            simulated: false,
            report_version: Rule::AtLeast(if level == Level::Strict { 5 } else { 3 }),
            signing_key: Rule::Exactly(SigningKey::Vcek),
            products: Rule::OneOf(tcb_table::ACCEPTED_PRODUCTS.to_vec()),
            revocation: RevocationRule::Required,
            vmpl: Rule::Exactly(0),
            debug: Rule::Exactly(false),
            migrate: Rule::Exactly(false),
            guest_bits: guest_bits(level),
            platform_bits: platform_bits(level),
            unknown_platform_bits: Rule::Exactly(0),
            tcb_table: true,
            min_tcb: None,
            provisional_firmware: Rule::Exactly(false),
            guest_svn: Rule::Any,
            measurement: Rule::OneOf(Vec::new()),
            host_data: Rule::OneOf(Vec::new()),
            chip: Rule::OneOf(Vec::new()),
            id_key_digest: Rule::Any,
            author_key_digest: Rule::Any,
            tdx: TdxPolicy::production(level == Level::Strict),
            waivers: Vec::new(),
        }
    }

    /// Name of the constructor, for the verdict.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// True if this policy appraises Evidence of `platform`: hardware of either vendor, or a simulator and nothing else.
    #[must_use]
    pub fn is_for(&self, platform: Platform) -> bool {
        self.simulated == (platform == Platform::Simulated)
    }

    /// Accepts these launch measurements (SNP MEASUREMENT, TDX MRTD) and no others; none at all accepts nothing.
    #[must_use]
    pub fn measurements(mut self, measurements: impl IntoIterator<Item = [u8; 48]>) -> Self {
        self.measurement = Rule::OneOf(measurements.into_iter().collect());
        self
    }

    /// Accepts these launch documents (SHA-256: HOST_DATA, or MRCONFIGID with zeros after it) and no others.
    #[must_use]
    pub fn host_data(mut self, host_data: impl IntoIterator<Item = [u8; 32]>) -> Self {
        let hashes: Vec<[u8; 32]> = host_data.into_iter().collect();
        self.tdx.mr_config_id = Rule::OneOf(hashes.iter().map(mr_config_id).collect());
        self.host_data = Rule::OneOf(hashes);
        self
    }

    /// Accepts TDs with these reference values and no others.
    #[must_use]
    pub fn tdx_references(mut self, references: TdxReferences) -> Self {
        self.tdx = self.tdx.with_references(references);
        self
    }

    /// Accepts TDs with these MRCONFIGID values and no others, in place of those that
    /// [`host_data`](Self::host_data) set.
    #[must_use]
    pub fn tdx_mr_config_ids(mut self, ids: impl IntoIterator<Item = [u8; 48]>) -> Self {
        self.tdx.mr_config_id = Rule::OneOf(ids.into_iter().collect());
        self
    }

    /// Accepts TDs of these owners (MROWNER) with this configuration (MROWNERCONFIG), and no others.
    #[must_use]
    pub fn tdx_owners(
        mut self,
        owners: impl IntoIterator<Item = [u8; 48]>,
        configurations: impl IntoIterator<Item = [u8; 48]>,
    ) -> Self {
        self.tdx.mr_owner = Rule::OneOf(owners.into_iter().collect());
        self.tdx.mr_owner_config = Rule::OneOf(configurations.into_iter().collect());
        self
    }

    /// Asks for Intel documents of at least this tcbEvaluationDataNumber; never lowers what the policy asks for. The
    /// caller keeps the highest it ever saw, so that an older document does not come back.
    #[must_use]
    pub fn min_tdx_evaluation_number(mut self, floor: u32) -> Self {
        self.tdx.evaluation_number = match self.tdx.evaluation_number {
            Rule::AtLeast(other) => Rule::AtLeast(other.max(floor)),
            _ => Rule::AtLeast(floor),
        };
        self
    }

    /// Sets single rules aside, each until its day; every verdict lists them. A TDX status other than `UpToDate` is excused
    /// if all of its advisories are named: the holes that these describe are then open.
    #[must_use]
    pub fn waivers(mut self, waivers: impl IntoIterator<Item = Waiver>) -> Self {
        self.waivers = waivers.into_iter().collect();
        self
    }

    /// Accepts these machines, by platform id (SHA-256 of CHIP_ID or PPID), and no others.
    #[must_use]
    pub fn chip_allowlist(mut self, platform_ids: impl IntoIterator<Item = [u8; 32]>) -> Self {
        self.chip = Rule::OneOf(platform_ids.into_iter().collect());
        self
    }

    /// Asks for this TCB in every component named, besides what the policy asks for already.
    #[must_use]
    pub const fn min_tcb(mut self, floor: TcbFloor) -> Self {
        self.min_tcb = Some(floor);
        self
    }

    /// Accepts guests of this security version or above.
    #[must_use]
    pub fn min_guest_svn(mut self, floor: u32) -> Self {
        self.guest_svn = Rule::AtLeast(floor);
        self
    }

    /// Accepts these products and no others; each must still have a row in the TCB table where that is asked for.
    #[must_use]
    pub fn products(mut self, products: impl IntoIterator<Item = Product>) -> Self {
        self.products = Rule::OneOf(products.into_iter().collect());
        self
    }

    /// Asks for launches whose ID block was signed by one of these keys (SHA-384 of the key).
    #[must_use]
    pub fn id_key_digests(mut self, digests: impl IntoIterator<Item = [u8; 48]>) -> Self {
        self.id_key_digest = Rule::OneOf(digests.into_iter().collect());
        self
    }

    /// Asks for ID keys certified by one of these author keys (SHA-384 of the key).
    #[must_use]
    pub fn author_key_digests(mut self, digests: impl IntoIterator<Item = [u8; 48]>) -> Self {
        self.author_key_digest = Rule::OneOf(digests.into_iter().collect());
        self
    }

    /// Refuses Evidence without a current revocation list.
    #[must_use]
    pub const fn require_revocation(mut self) -> Self {
        self.revocation = RevocationRule::Required;
        self
    }

    /// Accepts any chip. What falls with it: a key extracted from one machine then speaks for all.
    #[must_use]
    pub fn dangerous_any_chip(mut self) -> Self {
        self.chip = Rule::Any;
        self
    }

    /// Accepts any HOST_DATA. What falls with it: the launch document is then unknown.
    #[must_use]
    pub fn dangerous_any_host_data(mut self) -> Self {
        self.host_data = Rule::Any;
        self.tdx.mr_config_id = Rule::Any;
        self
    }

    /// Accepts Evidence without a current revocation list.
    #[must_use]
    pub const fn dangerous_without_revocation(mut self) -> Self {
        self.revocation = RevocationRule::WhereSupplied;
        self
    }

    /// Accepts reports from this VMPL or a more privileged one (a lower number).
    #[must_use]
    pub fn dangerous_max_vmpl(mut self, vmpl: u8) -> Self {
        // Beyond 3 lie no privilege levels but the mark of a report that the host asked for.
        self.vmpl = Rule::AtMost(u32::from(vmpl.min(3)));
        self
    }

    /// Accepts guests that the host may debug: it can then read all their memory.
    #[must_use]
    pub fn dangerous_allow_debug(mut self) -> Self {
        self.debug = Rule::Any;
        self.tdx.debug = Rule::Any;
        self
    }
}

/// MRCONFIGID of a TD that is launched for a document with this SHA-256.
fn mr_config_id(hash: &[u8; 32]) -> [u8; 48] {
    let mut id = [0; 48];
    let (head, _) = id.split_at_mut(hash.len());
    head.copy_from_slice(hash);
    id
}

/// Guest policy bits other than debug and migration.
fn guest_bits(level: Level) -> Vec<BitRule> {
    let required_if_strict = if level == Level::Strict { Rule::Exactly(true) } else { Rule::Any };
    let off = if level == Level::Vendor { Rule::Any } else { Rule::Exactly(false) };
    let smt = if level == Level::Strict { Rule::Exactly(false) } else { Rule::Any };
    vec![
        BitRule::new(GuestPolicy::SMT, "policy-smt", smt),
        BitRule::new(GuestPolicy::SINGLE_SOCKET, "policy-single-socket", Rule::Any),
        BitRule::new(GuestPolicy::CXL, "policy-cxl", off),
        BitRule::new(GuestPolicy::MEM_AES_256_XTS, "policy-mem-aes-256-xts", Rule::Any),
        BitRule::new(GuestPolicy::RAPL_DIS, "policy-rapl-dis", required_if_strict.clone()),
        BitRule::new(GuestPolicy::CIPHERTEXT_HIDING, "policy-ciphertext-hiding", required_if_strict.clone()),
        BitRule::new(GuestPolicy::PAGE_SWAP_DISABLE, "policy-page-swap-disable", required_if_strict),
    ]
}

/// Platform bits. RAPL_DIS and ciphertext hiding are asked of the guest policy and of the platform alike.
fn platform_bits(level: Level) -> Vec<BitRule> {
    let required = if level == Level::Vendor { Rule::Any } else { Rule::Exactly(true) };
    let required_if_strict = if level == Level::Strict { Rule::Exactly(true) } else { Rule::Any };
    let off = if level == Level::Vendor { Rule::Any } else { Rule::Exactly(false) };
    let smt = if level == Level::Strict { Rule::Exactly(false) } else { Rule::Any };
    vec![
        BitRule::new(PlatformInfo::SMT_EN, "platform-smt", smt),
        BitRule::new(PlatformInfo::TSME_EN, "platform-tsme", Rule::Any),
        BitRule::new(PlatformInfo::ECC_EN, "platform-ecc", required.clone()),
        BitRule::new(PlatformInfo::RAPL_DIS, "platform-rapl-dis", required_if_strict.clone()),
        BitRule::new(
            PlatformInfo::CIPHERTEXT_HIDING_DRAM_EN,
            "platform-ciphertext-hiding",
            required_if_strict,
        ),
        // Without it, DRAM modules that lie about their size give the host a second way to guest memory (BadRAM).
        BitRule::new(PlatformInfo::ALIAS_CHECK_COMPLETE, "platform-alias-check", required.clone()),
        // On Genoa the same is shown by mitigation bit 2.
        BitRule {
            only_for: Some(Product::Turin),
            ..BitRule::new(PlatformInfo::IOMMU_WRITE_SAFE, "platform-iommu-write-safe", required)
        },
        BitRule::new(PlatformInfo::TIO_EN, "platform-tio", off),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        assert!(Rule::Exactly(2).accepts(&2) && !Rule::Exactly(2).accepts(&3));
        assert!(
            Rule::AtLeast(2).accepts(&2) && Rule::AtLeast(2).accepts(&3) && !Rule::AtLeast(2).accepts(&1)
        );
        assert!(Rule::AtMost(2).accepts(&2) && Rule::AtMost(2).accepts(&1) && !Rule::AtMost(2).accepts(&3));
        assert!(Rule::OneOf(vec![1, 3]).accepts(&3) && !Rule::OneOf(vec![1, 3]).accepts(&2));
        assert!(!Rule::OneOf(vec![]).accepts(&0), "an empty set accepts nothing");
        assert!(Rule::Any.accepts(&0));
    }

    #[test]
    fn only_one_policy_is_for_simulators() {
        for policy in [Policy::strict(), Policy::standard(), Policy::vendor()] {
            let accepted = [Platform::SevSnp, Platform::Tdx, Platform::Simulated].map(|p| policy.is_for(p));
            assert_eq!(accepted, [true, true, false], "{}", policy.name());
        }
        let simulated = Policy::dangerous_simulated([], []);
        let accepted = [Platform::SevSnp, Platform::Tdx, Platform::Simulated].map(|p| simulated.is_for(p));
        assert_eq!(accepted, [false, false, true]);
    }

    /// Section 10 of the specification, bit by bit: `1` must be set, `0` must be clear, `.` is not compared.
    #[test]
    fn the_bits_are_those_of_the_specification() {
        let rule = |bit: &BitRule| match bit.rule {
            Rule::Exactly(true) => '1',
            Rule::Exactly(false) => '0',
            _ => '.',
        };
        let bits = |policy: &Policy| -> (String, String) {
            (policy.guest_bits.iter().map(rule).collect(), policy.platform_bits.iter().map(rule).collect())
        };
        // Guest: SMT, single socket, CXL, AES-256, RAPL off, ciphertext hiding, no page swap.
        // Platform: SMT, TSME, ECC, RAPL off, ciphertext hiding, alias check, IOMMU write-safe, TIO.
        for (policy, guest, platform) in [
            (Policy::strict(), "0.0.111", "0.111110"),
            (Policy::standard(), "..0....", "..1..110"),
            (Policy::vendor(), ".......", "........"),
            (Policy::dangerous_simulated([], []), "..0....", "..1..110"),
        ] {
            assert_eq!(bits(&policy), (guest.to_owned(), platform.to_owned()), "{}", policy.name());
            let turin_only: Vec<&str> = policy
                .platform_bits
                .iter()
                .filter(|bit| bit.only_for == Some(Product::Turin))
                .map(|bit| bit.name)
                .collect();
            assert_eq!(turin_only, ["platform-iommu-write-safe"]);
        }
        let versions =
            [Policy::strict(), Policy::standard(), Policy::vendor()].map(|policy| policy.report_version);
        assert_eq!(versions, [5, 3, 2].map(Rule::AtLeast));
        let names = [Policy::strict(), Policy::standard(), Policy::vendor()].map(|policy| policy.name());
        assert_eq!(names, ["strict", "standard", "vendor"]);
    }

    #[test]
    fn production_policies_leave_no_identity_open() {
        for policy in [Policy::strict(), Policy::standard()] {
            assert_eq!(policy.measurement, Rule::OneOf(vec![]));
            assert_eq!(policy.host_data, Rule::OneOf(vec![]));
            assert_eq!(policy.chip, Rule::OneOf(vec![]));
            let tdx = policy.tdx;
            assert_eq!(tdx.xfam, Rule::OneOf(vec![]));
            assert_eq!([&tdx.mr_seam, &tdx.mr_config_id], [&Rule::OneOf(vec![]); 2]);
            assert_eq!(tdx.rtmrs[..3], [const { Rule::OneOf(vec![]) }; 3]);
            assert_eq!(tdx.rtmrs[3], Rule::OneOf(vec![[0; 48]]));
            assert_eq!(tdx.mr_signer_seam, Rule::Exactly([0; 48]), "Intel's own module");
            assert!(tdx.launches.is_empty());
        }
    }
}
