//! *Appraise*: is what genuine hardware said what this policy accepts, for this challenge?
//!
//! Unlike verification, appraisal does every step even after one failed: the verdict lists all violations with
//! the values seen, so that an operator can mend them together and an auditor can replay the decision.

use core::fmt::{Debug, Display};

use crate::commit::{ReportData, hash};
use crate::evidence::Platform;
use crate::policy::{BitRule, Policy, RevocationRule, Rule};
use crate::snp::crl::Revocation;
use crate::snp::leaf::hex_string;
use crate::snp::report::{GuestPolicy, PlatformInfo, Report, SigningKey};
use crate::snp::tcb::{Product, TcbVersion};
use crate::snp::tcb_table;
use crate::tdx;
use crate::tdx::claims::TdxClaims;
use crate::verdict::{Reason, Rejected, Step, StepLog};
use crate::verify::{Authentic, Tcbs};
use crate::waiver::Waivers;

/// The claims of accepted Evidence, every one signed: what all platforms have, and what only one has.
#[derive(Clone, Debug)]
pub struct Claims {
    hardware: Hardware,
    policy_name: &'static str,
    steps: Vec<Step>,
}

/// The claims of one platform.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Hardware {
    /// An SEV-SNP report, or a simulated one.
    Snp(SnpClaims),
    /// A TDX quote.
    Tdx(Box<TdxClaims>),
}

impl Claims {
    /// Where the Evidence was made.
    #[must_use]
    pub const fn platform(&self) -> Platform {
        self.hardware.platform()
    }

    /// True if a simulator made it: nothing is confidential, and every screen must say so.
    #[must_use]
    pub fn simulated(&self) -> bool {
        self.platform() == Platform::Simulated
    }

    /// The claims of the platform.
    #[must_use]
    pub const fn hardware(&self) -> &Hardware {
        &self.hardware
    }

    /// The claims of an SEV-SNP or simulated report.
    #[must_use]
    pub const fn snp(&self) -> Option<&SnpClaims> {
        match &self.hardware {
            Hardware::Snp(claims) => Some(claims),
            Hardware::Tdx(_) => None,
        }
    }

    /// The claims of a TDX quote.
    #[must_use]
    pub fn tdx(&self) -> Option<&TdxClaims> {
        match &self.hardware {
            Hardware::Snp(_) => None,
            Hardware::Tdx(claims) => Some(claims),
        }
    }

    /// What was launched: MEASUREMENT, or MRTD.
    #[must_use]
    pub fn measurement(&self) -> [u8; 48] {
        match &self.hardware {
            Hardware::Snp(claims) => claims.report.measurement(),
            Hardware::Tdx(claims) => claims.mr_td(),
        }
    }

    /// SHA-256 of the launch document: HOST_DATA, or the first 32 bytes of MRCONFIGID.
    #[must_use]
    pub fn host_data(&self) -> [u8; 32] {
        match &self.hardware {
            Hardware::Snp(claims) => claims.report.host_data(),
            Hardware::Tdx(claims) => claims.mr_config_id().first_chunk().copied().unwrap_or_default(),
        }
    }

    /// REPORT_DATA: what the guest asked to have signed.
    #[must_use]
    pub fn report_data(&self) -> ReportData {
        self.hardware.report_data()
    }

    /// SHA-256 of CHIP_ID or PPID: names the machine without giving its serial away.
    #[must_use]
    pub fn platform_id(&self) -> [u8; 32] {
        match &self.hardware {
            Hardware::Snp(claims) => hash(&claims.report.chip_id()),
            Hardware::Tdx(claims) => claims.platform_id(),
        }
    }

    /// Name of the policy that accepted.
    #[must_use]
    pub const fn policy_name(&self) -> &'static str {
        self.policy_name
    }

    /// Every step of verification and appraisal, in order; none failed, some may be skipped.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// The claims of an SEV-SNP report.
#[derive(Clone, Debug)]
pub struct SnpClaims {
    pub(crate) platform: Platform,
    pub(crate) report: Report,
    pub(crate) signing_key: SigningKey,
    pub(crate) product: Product,
    pub(crate) tcbs: Tcbs,
    pub(crate) revocation: Revocation,
}

impl SnpClaims {
    /// CHIP_ID: zero if masked, padded with zeros on Turin.
    #[must_use]
    pub fn chip_id(&self) -> [u8; 64] {
        self.report.chip_id()
    }

    /// The four TCBs.
    #[must_use]
    pub const fn tcbs(&self) -> &Tcbs {
        &self.tcbs
    }

    /// The CPU generation.
    #[must_use]
    pub const fn product(&self) -> Product {
        self.product
    }

    /// CPUID family, model and stepping; none in version 2.
    #[must_use]
    pub fn cpuid(&self) -> Option<[u8; 3]> {
        self.report.cpuid()
    }

    /// The key that signed.
    #[must_use]
    pub const fn signing_key(&self) -> SigningKey {
        self.signing_key
    }

    /// MASK_CHIP_KEY: the host asked for reports without a chip's signature.
    #[must_use]
    pub fn mask_chip_key(&self) -> bool {
        self.report.mask_chip_key()
    }

    /// What revocation data showed.
    #[must_use]
    pub const fn revocation(&self) -> Revocation {
        self.revocation
    }

    /// VERSION of the report.
    #[must_use]
    pub fn report_version(&self) -> u32 {
        self.report.version()
    }

    /// VMPL that asked for the report.
    #[must_use]
    pub fn vmpl(&self) -> u32 {
        self.report.vmpl()
    }

    /// GUEST_SVN.
    #[must_use]
    pub fn guest_svn(&self) -> u32 {
        self.report.guest_svn()
    }

    /// POLICY of the guest.
    #[must_use]
    pub fn guest_policy(&self) -> GuestPolicy {
        self.report.policy()
    }

    /// PLATFORM_INFO.
    #[must_use]
    pub fn platform_info(&self) -> PlatformInfo {
        self.report.platform_info()
    }

    /// FAMILY_ID and IMAGE_ID, which the guest owner chose.
    #[must_use]
    pub fn family_and_image_id(&self) -> ([u8; 16], [u8; 16]) {
        (self.report.family_id(), self.report.image_id())
    }

    /// ID_KEY_DIGEST; zero without an ID block.
    #[must_use]
    pub fn id_key_digest(&self) -> [u8; 48] {
        self.report.id_key_digest()
    }

    /// AUTHOR_KEY_DIGEST, if AUTHOR_KEY_EN says there is one.
    #[must_use]
    pub fn author_key_digest(&self) -> Option<[u8; 48]> {
        self.report.author_key_en().then(|| self.report.author_key_digest())
    }

    /// REPORT_ID: one for each guest and launch.
    #[must_use]
    pub fn report_id(&self) -> [u8; 32] {
        self.report.report_id()
    }

    /// Firmware versions (major, minor, build): current, committed.
    #[must_use]
    pub fn firmware_versions(&self) -> [(u8, u8, u8); 2] {
        [self.report.current_version(), self.report.committed_version()]
    }

    /// LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR, from version 5.
    #[must_use]
    pub fn mitigation_vectors(&self) -> Option<(u64, u64)> {
        self.report.mitigation_vectors()
    }
}

impl Hardware {
    const fn platform(&self) -> Platform {
        match self {
            Self::Snp(claims) => claims.platform,
            Self::Tdx(_) => Platform::Tdx,
        }
    }

    fn report_data(&self) -> ReportData {
        match self {
            Self::Snp(claims) => claims.report.report_data(),
            Self::Tdx(claims) => claims.quote.td_report().report_data(),
        }
    }
}

/// Proof that Evidence is authentic, welcome by policy and made for the expected challenge.
#[derive(Debug)]
#[must_use = "a verified report is the proof that the next step consumes"]
pub struct VerifiedReport(Claims);

impl VerifiedReport {
    /// What the report says.
    #[must_use]
    pub const fn claims(&self) -> &Claims {
        &self.0
    }
}

impl core::ops::Deref for VerifiedReport {
    type Target = Claims;

    fn deref(&self) -> &Claims {
        &self.0
    }
}

impl Authentic {
    /// Appraises by `policy`, for Evidence that must carry `expected_report_data`: the caller's own computation
    /// of the commitment, never a value the peer sent.
    ///
    /// # Errors
    /// The [`Reason`] of the first step that failed, and all steps, the other failures among them.
    pub fn appraise(
        self,
        policy: &Policy,
        expected_report_data: &ReportData,
    ) -> Result<VerifiedReport, Rejected> {
        self.appraise_inner(policy, Some(expected_report_data)).map(VerifiedReport)
    }

    /// Appraises saved Evidence whose challenge is not known. It shows what was once true: nothing here proves
    /// that it is fresh, so the result opens no channel and releases no key.
    ///
    /// # Errors
    /// As [`Authentic::appraise`].
    pub fn appraise_saved(self, policy: &Policy) -> Result<Claims, Rejected> {
        self.appraise_inner(policy, None)
    }

    fn appraise_inner(self, policy: &Policy, expected: Option<&ReportData>) -> Result<Claims, Rejected> {
        let Self { hardware, at, mut log } = self;
        let mut waivers = Waivers::new(&policy.waivers, at);
        appraise_platform(&mut log, policy, hardware.platform());
        match &hardware {
            Hardware::Snp(claims) => appraise_snp(&mut log, policy, claims),
            Hardware::Tdx(claims) => tdx::appraise::appraise(&mut log, policy, &mut waivers, claims),
        }
        appraise_report_data(&mut log, &hardware.report_data(), expected);
        waivers.finish(&mut log);
        Ok(Claims { hardware, policy_name: policy.name(), steps: log.finish()? })
    }
}

impl StepLog {
    /// One claim against one rule, with `shown` as the claim's text.
    pub(crate) fn rule<T: PartialOrd + Debug>(
        &mut self,
        name: &'static str,
        reason: Reason,
        rule: &Rule<T>,
        claim: &T,
        shown: impl Display,
    ) {
        if *rule == Rule::Any {
            self.skip(name, format!("policy takes any; it is {shown}"));
        } else if rule.accepts(claim) {
            self.pass(name, shown.to_string());
        } else {
            self.fail(name, reason, format!("it is {shown}, policy wants {}", wanted(rule)));
        }
    }

    /// One digest against one rule; digests are shown in hex and reference sets by their size.
    pub(crate) fn digest<const N: usize>(
        &mut self,
        name: &'static str,
        reason: Reason,
        rule: &Rule<[u8; N]>,
        claim: &[u8; N],
    ) {
        let shown = hex_string(claim);
        match rule {
            Rule::OneOf(set) if !set.contains(claim) => {
                self.fail(name, reason, format!("{shown} is none of the {} accepted", set.len()));
            }
            _ => self.rule(name, reason, rule, claim, shown),
        }
    }
}

fn appraise_platform(log: &mut StepLog, policy: &Policy, platform: Platform) {
    if policy.is_for(platform) {
        log.pass("policy-platform", format!("{platform}, policy {}", policy.name()));
    } else {
        let want = if policy.simulated { "simulators" } else { "hardware" };
        let detail = format!("evidence is {platform}, policy {} takes {want} only", policy.name());
        log.fail("policy-platform", Reason::Simulated, detail);
    }
}

fn appraise_report_data(log: &mut StepLog, got: &ReportData, expected: Option<&ReportData>) {
    match expected {
        None => log.skip("report-data", "not compared: freshness is not shown"),
        Some(want) if want == got => log.pass("report-data", hex_string(got)),
        Some(want) => {
            let detail = format!("it is {}, expected {}", hex_string(got), hex_string(want));
            log.fail("report-data", Reason::ReportData, detail);
        }
    }
}

fn appraise_snp(log: &mut StepLog, policy: &Policy, claims: &SnpClaims) {
    let SnpClaims { report, product, tcbs, .. } = claims;
    let mut appraisal = Appraisal { log, policy, report, product: *product, tcbs };
    appraisal.origin(claims.signing_key, claims.revocation);
    appraisal.guest();
    appraisal.platform_info();
    appraisal.firmware();
    appraisal.identity();
}

/// One appraisal: the claims, the policy, and the steps so far.
struct Appraisal<'a> {
    log: &'a mut StepLog,
    policy: &'a Policy,
    report: &'a Report,
    product: Product,
    tcbs: &'a Tcbs,
}

impl Appraisal<'_> {
    /// Who signed, and whether that key is still good.
    fn origin(&mut self, signing_key: SigningKey, revocation: Revocation) {
        let (policy, version, product) = (self.policy, self.report.version(), self.product);
        self.log.rule("report-version", Reason::Version, &policy.report_version, &version, version);
        let shown = format!("{signing_key:?}");
        self.log.rule("signing-key", Reason::SigningKey, &policy.signing_key, &signing_key, shown);
        self.log.rule("product-accepted", Reason::Product, &policy.products, &product, product);
        match (policy.revocation, revocation) {
            (_, Revocation::Fresh { next_update }) => {
                self.log.pass("revocation-fresh", format!("revocation list current until {next_update}"));
            }
            (RevocationRule::WhereSupplied, _) => {
                self.log.skip("revocation-fresh", "policy does not ask for a current revocation list");
            }
            (RevocationRule::Required, Revocation::NotSupplied) => {
                self.log.fail("revocation-fresh", Reason::CrlMissing, "policy asks for a revocation list");
            }
            (RevocationRule::Required, Revocation::Unrelated) => {
                self.log.fail("revocation-fresh", Reason::CrlStale, "the revocation list is of another time");
            }
        }
    }

    /// How the guest was launched.
    fn guest(&mut self) {
        let (policy, report) = (self.policy, self.report);
        let (guest, vmpl) = (report.policy(), report.vmpl());
        let shown = if vmpl == u32::MAX { "host-requested".into() } else { format!("VMPL {vmpl}") };
        self.log.rule("vmpl", Reason::Vmpl, &policy.vmpl, &vmpl, shown);
        let debug = guest.bit(GuestPolicy::DEBUG);
        self.log.rule("policy-debug", Reason::PolicyDebug, &policy.debug, &debug, debug);
        let migrate = guest.bit(GuestPolicy::MIGRATE_MA);
        self.log.rule("policy-migrate", Reason::PolicyMigrate, &policy.migrate, &migrate, migrate);
        for bit in &policy.guest_bits {
            self.bit(bit, Reason::PolicyBits, guest.bit(bit.bit));
        }
        let (want, (major, minor, _)) = (guest.abi(), report.current_version());
        let shown = format!("guest asks for ABI {}.{}, firmware is {major}.{minor}", want.0, want.1);
        if want <= (major, minor) {
            self.log.pass("policy-abi", shown);
        } else {
            self.log.fail("policy-abi", Reason::PolicyAbi, shown);
        }
        let svn = report.guest_svn();
        self.log.rule("guest-svn", Reason::GuestSvn, &policy.guest_svn, &svn, svn);
    }

    fn bit(&mut self, bit: &BitRule, reason: Reason, set: bool) {
        let shown = if set { "on" } else { "off" };
        match bit.only_for {
            Some(product) if product != self.product => {
                self.log.skip(bit.name, format!("asked of {product} only; it is {shown}"));
            }
            _ => self.log.rule(bit.name, reason, &bit.rule, &set, shown),
        }
    }

    /// How the machine is set up.
    fn platform_info(&mut self) {
        let (policy, info) = (self.policy, self.report.platform_info());
        for bit in &policy.platform_bits {
            self.bit(bit, Reason::PlatformInfo, info.bit(bit.bit));
        }
        let unknown = info.unknown_bits();
        let rule = &policy.unknown_platform_bits;
        self.log.rule("platform-unknown-bits", Reason::PlatformInfo, rule, &unknown, format!("{unknown:#x}"));
    }

    /// Which firmware ran, and whether it is good enough.
    fn firmware(&mut self) {
        let (policy, report, tcbs) = (self.policy, self.report, self.tcbs);
        let provisional = tcbs.committed != tcbs.current
            || report.committed_version() != report.current_version()
            || !tcbs.current.at_least(&tcbs.launch);
        let shown = format!("{provisional}: committed {}, current {}", tcbs.committed, tcbs.current);
        let rule = &policy.provisional_firmware;
        self.log.rule("provisional-firmware", Reason::ProvisionalFirmware, rule, &provisional, shown);
        match &policy.min_tcb {
            None => self.log.skip("tcb-minimum", "policy names no minimum"),
            Some(floor) => self.floor("tcb-minimum", &floor.to_string(), |tcb| floor.is_met_by(tcb)),
        }
        if policy.tcb_table {
            self.tcb_table();
        } else {
            self.log.skip("tcb-table", "policy does not ask for the TCB table");
            self.log.skip("mitigations", "policy does not ask for the TCB table");
        }
    }

    /// The table row of the CPU that signed.
    fn tcb_table(&mut self) {
        let Some(row) = self.report.cpuid().and_then(tcb_table::row) else {
            let detail = format!("CPUID {:02x?} has no row", self.report.cpuid());
            self.log.fail("tcb-table", Reason::TcbUnknownCpu, detail);
            self.log.skip("mitigations", "no row for this CPU");
            return;
        };
        let want = format!("{} ({}, revision {})", row.floor, row.name, tcb_table::REVISION);
        self.floor("tcb-table", &want, |tcb| tcb.at_least(&row.floor));
        if row.mitigations == 0 {
            self.log.skip("mitigations", "the table names none for this CPU");
            return;
        }
        match self.report.mitigation_vectors() {
            None => self.log.skip("mitigations", "unproven: a report before version 5 does not show them"),
            Some((launch, current)) => {
                let shown =
                    format!("launch {launch:#x}, current {current:#x}, wanted {:#x}", row.mitigations);
                if launch & current & row.mitigations == row.mitigations {
                    self.log.pass("mitigations", shown);
                } else {
                    self.log.fail("mitigations", Reason::Mitigation, shown);
                }
            }
        }
    }

    /// All four TCBs against one minimum.
    fn floor(&mut self, name: &'static str, want: &str, met: impl Fn(&TcbVersion) -> bool) {
        let tcbs = self.tcbs;
        let named = [
            ("reported", &tcbs.reported),
            ("current", &tcbs.current),
            ("committed", &tcbs.committed),
            ("launch", &tcbs.launch),
        ];
        match named.into_iter().find(|(_, tcb)| !met(tcb)) {
            None => self.log.pass(name, format!("all four are at least {want}")),
            Some((which, tcb)) => {
                self.log.fail(name, Reason::TcbMinimum, format!("{which} TCB {tcb} is below {want}"));
            }
        }
    }

    /// What was launched, where and by whom.
    fn identity(&mut self) {
        let (policy, report) = (self.policy, self.report);
        self.log.digest("measurement", Reason::Measurement, &policy.measurement, &report.measurement());
        self.log.digest("host-data", Reason::HostData, &policy.host_data, &report.host_data());
        let chip_id = report.chip_id();
        if policy.chip != Rule::Any && chip_id == [0; 64] {
            self.log.fail("chip-allowlist", Reason::ChipAllowlist, "CHIP_ID is masked");
        } else {
            self.log.digest("chip-allowlist", Reason::ChipAllowlist, &policy.chip, &hash(&chip_id));
        }
        self.log.digest("id-key", Reason::IdKey, &policy.id_key_digest, &report.id_key_digest());
        let author = if report.author_key_en() { report.author_key_digest() } else { [0; 48] };
        self.log.digest("author-key", Reason::IdKey, &policy.author_key_digest, &author);
    }
}

/// A rule in words.
fn wanted<T: Debug>(rule: &Rule<T>) -> String {
    match rule {
        Rule::Exactly(want) => format!("{want:?}"),
        Rule::AtLeast(floor) => format!("at least {floor:?}"),
        Rule::AtMost(ceiling) => format!("at most {ceiling:?}"),
        Rule::OneOf(set) => format!("one of {set:?}"),
        Rule::Any => "any".into(),
    }
}

#[cfg(test)]
mod tests;
