//! *Verify*: was this signed by genuine hardware, and do its parts belong together?
//!
//! For SEV-SNP, in order: platform, endorsements, root, chain, validity, revocation, signature, reserved fields,
//! product, chip, TCB. For TDX: SPEC, section 8.6. The first failure ends it, since what comes later rests on what
//! came before. What passes is [`Authentic`]: the hardware said it. Whether that is welcome is for policy
//! ([`crate::appraise`]).

use std::sync::Arc;

use crate::appraise::{Hardware, SnpClaims};
use crate::cache::{Kept, VerdictCache};
use crate::eventlog::{EventLog, replay_step};
use crate::evidence::{Body, Endorsements, Evidence, Platform, SIMULATED_NOTICE};
use crate::snp::cache::{ChainKey, VerifiedChain};
use crate::snp::cert_table::CertificateTable;
use crate::snp::chain::{Candidates, Chain};
use crate::snp::crl::{Revocation, appraise_revocation};
use crate::snp::report::{Report, SigningKey};
use crate::snp::tcb::{Product, TcbVersion};
use crate::tdx;
use crate::time::Time;
use crate::verdict::{Finding, Halt, Reason, Rejected, StepLog};
use crate::x509::{Certificate, Scheme, attribute};

const ORGANISATION_NAME: der::asn1::ObjectIdentifier = der::asn1::ObjectIdentifier::new_unwrap("2.5.4.10");

const PINNED_ARKS: [&[u8]; 3] = [
    include_bytes!("roots/ark-milan.der"),
    include_bytes!("roots/ark-genoa.der"),
    include_bytes!("roots/ark-turin.der"),
];

const PINNED_SGX_ROOT: &[u8] = include_bytes!("roots/intel-sgx-root.der");

/// The roots a verdict rests on.
#[derive(Clone, Debug)]
pub struct TrustAnchors {
    arks: Vec<Certificate>,
    sgx_roots: Vec<Certificate>,
    simulated: bool,
    detail: &'static str,
}

impl TrustAnchors {
    /// AMD's root keys for Milan, Genoa and Turin and Intel's SGX root, as built into this crate.
    #[must_use]
    pub fn pinned() -> Self {
        let parse =
            |der: &&[u8]| Certificate::parse("root", der).expect("the pinned roots parse; a test reads them");
        Self {
            arks: PINNED_ARKS.iter().map(parse).collect(),
            sgx_roots: vec![parse(&PINNED_SGX_ROOT)],
            simulated: false,
            detail: "pinned vendor root",
        }
    }

    /// One root of the caller's choice, DER, instead of all vendors'. Whoever holds its key can forge any Evidence. An
    /// RSA key stands in AMD's place, an EC key in Intel's.
    ///
    /// # Errors
    /// `chain` if it is not the certificate of a root, `simulated` if it is a simulator's.
    pub fn dangerous_root(root_der: &[u8]) -> Result<Self, Rejected> {
        let root = parse_anchor(root_der)?;
        if is_simulated(&root) {
            let finding = Finding::new(Reason::Simulated, "the root of a simulator is no hardware root");
            return Err(StepLog::refusal("root", finding));
        }
        let (arks, sgx_roots) = match root.scheme() {
            Scheme::PssSha384 => (vec![root], Vec::new()),
            Scheme::P256Sha256 => (Vec::new(), vec![root]),
        };
        Ok(Self { arks, sgx_roots, simulated: false, detail: "DANGEROUS: root named by the caller" })
    }

    /// The root of a simulator, DER. Evidence under it protects nothing.
    ///
    /// # Errors
    /// `chain` if it is not the certificate of a root, `simulated` if it is not a simulator's.
    pub fn dangerous_simulator(root_der: &[u8]) -> Result<Self, Rejected> {
        let ark = parse_anchor(root_der)?;
        if !is_simulated(&ark) {
            let finding = Finding::new(Reason::Simulated, "not the root of a simulator");
            return Err(StepLog::refusal("root", finding));
        }
        Ok(Self { arks: vec![ark], sgx_roots: Vec::new(), simulated: true, detail: SIMULATED_NOTICE })
    }
}

/// A root is read once and well: it is signed by itself and may sign an intermediate.
fn parse_anchor(der: &[u8]) -> Result<Certificate, Rejected> {
    let parse = || {
        let root = Certificate::parse("root", der)?;
        root.verify_signed_by("root", &root, root.scheme())?;
        root.refuse_unless_ca("root", 1)?;
        Ok(root)
    };
    parse().map_err(|finding| StepLog::refusal("root", finding))
}

/// A simulator's certificates carry the notice as organisation, so they cannot pass for another root.
fn is_simulated(ark: &Certificate) -> bool {
    attribute(ark.subject(), ORGANISATION_NAME).as_deref() == Some(SIMULATED_NOTICE)
}

/// The TCB versions of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tcbs {
    /// Running now.
    pub current: TcbVersion,
    /// What the host chose to report: the certificate is made for it.
    pub reported: TcbVersion,
    /// The lowest that the platform can still be rolled back to.
    pub committed: TcbVersion,
    /// Running when the guest was launched.
    pub launch: TcbVersion,
}

/// Evidence that genuine hardware (or the simulator named) signed. Not yet appraised by any policy, not fresh.
#[derive(Debug)]
#[must_use = "authentic evidence is welcome only after a policy appraised it"]
pub struct Authentic {
    pub(crate) hardware: Hardware,
    /// The time it was verified at.
    pub(crate) at: Time,
    pub(crate) log: StepLog,
}

impl Authentic {
    /// Compares the registers of a TD with the event log beside its quote, register by register; a log that does not
    /// lead to them is refused by [`appraise`](Self::appraise). Evidence of other platforms has no such registers.
    pub fn with_event_log(mut self, events: &EventLog) -> Self {
        match &self.hardware {
            Hardware::Tdx(claims) => self.log.extend(&replay_step(events, &claims.rtmrs())),
            Hardware::Snp(_) => self.log.skip("event-log", "only a TD has registers that a log leads to"),
        }
        self
    }
}

impl Evidence {
    /// Verifies that hardware under `anchors` signed this Evidence, with certificates valid at `now`.
    ///
    /// `endorsements` need not be trusted; `anchors` and `now` must be the caller's own.
    ///
    /// # Errors
    /// The [`Reason`] of the first step that failed, with the steps before it.
    pub fn verify(
        self,
        anchors: &TrustAnchors,
        endorsements: &Endorsements,
        now: Time,
    ) -> Result<Authentic, Rejected> {
        self.verify_inner(anchors, endorsements, now, None)
    }

    /// As [`Evidence::verify`], and remembers in `cache` what holds for other Evidence of the same machine: with the same
    /// certificates or collateral it then costs one signature verification. The verdict and its steps are the same as
    /// without the cache.
    ///
    /// # Errors
    /// As [`Evidence::verify`].
    pub fn verify_cached(
        self,
        anchors: &TrustAnchors,
        endorsements: &Endorsements,
        now: Time,
        cache: &mut VerdictCache,
    ) -> Result<Authentic, Rejected> {
        self.verify_inner(anchors, endorsements, now, Some(cache))
    }

    fn verify_inner(
        self,
        anchors: &TrustAnchors,
        endorsements: &Endorsements,
        now: Time,
        cache: Option<&mut VerdictCache>,
    ) -> Result<Authentic, Rejected> {
        let mut log = StepLog::default();
        let platform = self.platform();
        let (chains, collaterals) = match cache {
            Some(cache) => (Some(&mut cache.chains), Some(&mut cache.collateral)),
            None => (None, None),
        };
        let outcome = match self.body {
            Body::Snp { report, table, .. } => {
                log.pass("format", format!("report version {}, 1184 bytes", report.version()));
                log.step("platform", refuse_other_platform(platform, anchors)).and_then(|()| {
                    let candidates = CertificateTable::parse(&table)
                        .and_then(|table| Candidates::select(&report, table, endorsements))
                        .map(|candidates| {
                            let detail = format!("{:?} and its intermediate supplied", report.signing_key());
                            (candidates, detail)
                        });
                    let candidates = log.step("endorsements", candidates)?;
                    let verified = verified_chain(&mut log, candidates, anchors, now, chains)?;
                    verify_snp(&mut log, platform, report, &verified).map(Hardware::Snp)
                })
            }
            Body::Tdx { quote, collateral } => {
                log.pass("format", format!("quote version {}, {}", quote.version(), quote.body_name()));
                log.step("platform", refuse_other_platform(platform, anchors)).and_then(|()| {
                    log.pass("trust-anchor", anchors.detail);
                    let roots = &anchors.sgx_roots;
                    tdx::verify::verify(
                        &mut log,
                        *quote,
                        collateral.as_deref(),
                        roots,
                        endorsements,
                        now,
                        collaterals,
                    )
                    .map(|claims| Hardware::Tdx(Box::new(claims)))
                })
            }
        };
        match outcome {
            Ok(hardware) => Ok(Authentic { hardware, at: now, log }),
            Err(halt) => Err(log.into_rejected(halt)),
        }
    }
}

fn refuse_other_platform(claimed: Platform, anchors: &TrustAnchors) -> Result<((), String), Finding> {
    if (claimed == Platform::Simulated) != anchors.simulated {
        let anchored = if anchors.simulated { "a simulator" } else { "hardware" };
        let detail = format!("evidence is {claimed}, the trust anchors are for {anchored}");
        return Err(Finding::new(Reason::Simulated, detail));
    }
    let notice = if claimed == Platform::Simulated { format!("; {SIMULATED_NOTICE}") } else { String::new() };
    Ok(((), format!("{claimed}{notice}")))
}

fn verify_snp(
    log: &mut StepLog,
    platform: Platform,
    report: Report,
    verified: &VerifiedChain,
) -> Result<SnpClaims, Halt> {
    let VerifiedChain { chain, product: root_product, revocation } = verified;
    let signed = chain.verify_report(&report).map(|()| ((), "ECDSA P-384 SHA-384 by the leaf".to_owned()));
    log.step("signature", signed)?;
    let reserved = report.refuse_reserved().map(|()| ((), "as the specification says".to_owned()));
    log.step("reserved-fields", reserved)?;
    let product =
        chain.leaf.product().and_then(|leaf| product_of(&report, chain.leaf.kind, leaf, *root_product));
    let product = log.step("product", product)?;
    let chip = chain.leaf.refuse_other_chip(&report.chip_id(), product).map(|detail| ((), detail));
    log.step("hwid", chip)?;
    let tcbs = log.step("tcb-binding", bound_tcbs(&report, chain, product))?;
    log.step("tcb-order", tcb_order(&tcbs, &report))?;
    Ok(SnpClaims { platform, signing_key: chain.leaf.kind, report, product, tcbs, revocation: *revocation })
}

/// Chain and revocation: from the cache, or verified now and kept.
fn verified_chain(
    log: &mut StepLog,
    candidates: Candidates<'_>,
    anchors: &TrustAnchors,
    now: Time,
    cache: Option<&mut Kept<ChainKey, VerifiedChain>>,
) -> Result<Arc<VerifiedChain>, Halt> {
    let key = cache.is_some().then(|| candidates.key());
    let found = cache
        .as_ref()
        .zip(key.as_ref())
        .and_then(|(cache, key)| cache.find(&anchors.arks, |kept| kept == key, now));
    if let Some((verified, steps)) = found {
        log.pass("root", anchors.detail);
        log.extend(steps);
        return Ok(verified);
    }
    let crls = candidates.crls.clone();
    let chain = candidates.anchor(&anchors.arks).map(|chain| (chain, anchors.detail.to_owned()));
    let chain = log.step("root", chain)?;
    let before = log.len();
    let product = chain.verify().map(|product| (product, format!("{product} chain, RSASSA-PSS SHA-384")));
    let product = log.step("chain", product)?;
    let valid = chain.refuse_outside_validity(now).map(|()| ((), "every certificate is valid".to_owned()));
    log.step("validity", valid)?;
    let revocation = revocation_step(log, &crls, &chain, now)?;
    let verified = Arc::new(VerifiedChain { chain, product, revocation });
    if let (Some(cache), Some(key)) = (cache, key)
        && let Some(window) = verified.window(now)
    {
        cache.keep(key, verified.chain.ark.der(), window, (&verified, log.since(before)), now);
    }
    Ok(verified)
}

fn revocation_step(log: &mut StepLog, crls: &[&[u8]], chain: &Chain, now: Time) -> Result<Revocation, Halt> {
    const NAME: &str = "revocation";
    match appraise_revocation(crls, &chain.ark, &chain.revocable(), now) {
        Ok(revocation) => {
            match revocation {
                Revocation::Fresh { next_update } => {
                    log.pass(NAME, format!("not on a list that is current until {next_update}"));
                }
                Revocation::Unrelated => {
                    log.skip(NAME, "not on the list supplied, but that ran out before the leaf was issued");
                }
                Revocation::NotSupplied => log.skip(NAME, "no revocation list was supplied"),
            }
            Ok(revocation)
        }
        Err(finding) => log.step(NAME, Err(finding)),
    }
}

/// The product, on which root, leaf and (from version 3) the signed CPUID must agree.
fn product_of(
    report: &Report,
    signing_key: SigningKey,
    leaf: Product,
    root: Product,
) -> Result<(Product, String), Finding> {
    let refuse = |what: String| Err(Finding::new(Reason::Product, what));
    if leaf != root {
        return refuse(format!("the certificate is for {leaf}, its root for {root}"));
    }
    let Some([family, model, stepping]) = report.cpuid() else {
        // Version 2 does not say which CPU signed, and Turin never spoke it.
        // With a provider's key and no chip id nothing else names the product. (A chip's key must name its chip.)
        let nameless = signing_key == SigningKey::Vlek && report.chip_id() == [0; 64];
        if root == Product::Turin || nameless {
            return refuse("version 2 report: the product cannot be known".into());
        }
        return Ok((root, format!("{root} by its certificates; version 2 has no CPUID")));
    };
    let cpuid = format!("family {family:#04x} model {model:#04x} stepping {stepping}");
    match Product::from_cpuid(family, model) {
        Some(product) if product == root => Ok((product, format!("{product}, {cpuid}"))),
        Some(product) => refuse(format!("{cpuid} is {product}, the certificates are for {root}")),
        None => refuse(format!("{cpuid} is no known product")),
    }
}

/// Reads the TCBs and refuses a certificate made for another than REPORTED_TCB.
fn bound_tcbs(report: &Report, chain: &Chain, product: Product) -> Result<(Tcbs, String), Finding> {
    let tcbs = Tcbs {
        current: report.current_tcb(product)?,
        reported: report.reported_tcb(product)?,
        committed: report.committed_tcb(product)?,
        launch: report.launch_tcb(product)?,
    };
    chain.leaf.refuse_other_tcb(&tcbs.reported)?;
    Ok((tcbs, format!("certified and reported {}", tcbs.reported)))
}

/// Firmware never commits to, or reports, more than it runs (56860, SNP_COMMIT and SNP_CONFIG). LAUNCH_TCB may lie
/// above CURRENT_TCB after a roll-back to the committed version; policy looks at that.
fn tcb_order(tcbs: &Tcbs, report: &Report) -> Result<((), String), Finding> {
    for (name, tcb) in [("COMMITTED_TCB", tcbs.committed), ("REPORTED_TCB", tcbs.reported)] {
        if !tcbs.current.at_least(&tcb) {
            let detail = format!("{name} {tcb} is above CURRENT_TCB {}", tcbs.current);
            return Err(Finding::new(Reason::TcbOrder, detail));
        }
    }
    if report.committed_version() > report.current_version() {
        return Err(Finding::new(Reason::TcbOrder, "committed firmware version is above the current one"));
    }
    Ok(((), format!("committed {} and reported are at most current {}", tcbs.committed, tcbs.current)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snp::leaf::hex_string;
    use crate::snp::report::tests::blank;
    use crate::snp::tcb::TcbVersion;

    #[test]
    fn pinned_roots_are_the_ones_in_the_readme() {
        let readme = include_str!("roots/README.md");
        for (der, product) in PINNED_ARKS.iter().zip([Product::Milan, Product::Genoa, Product::Turin]) {
            let hash = ring::digest::digest(&ring::digest::SHA256, der);
            assert!(readme.contains(&hex_string(hash.as_ref())), "{product}");
            let ark = Certificate::parse("ARK", der).unwrap();
            assert_eq!(ark.common_name(), Some(format!("ARK-{product}")));
            ark.verify_signed_by("ARK", &ark, Scheme::PssSha384).unwrap();
            ark.refuse_unless_ca("ARK", 1).unwrap();
        }
    }

    #[test]
    fn a_hardware_root_is_no_simulator_root() {
        let refusal = TrustAnchors::dangerous_simulator(PINNED_ARKS[0]).unwrap_err();
        assert_eq!(refusal.reason, Reason::Simulated);
        assert!(TrustAnchors::dangerous_root(b"").is_err());
        assert_eq!(TrustAnchors::pinned().arks.len(), 3);
    }

    #[test]
    fn the_pinned_intel_root_is_the_one_in_the_readme() {
        let hash = ring::digest::digest(&ring::digest::SHA256, PINNED_SGX_ROOT);
        assert!(include_str!("roots/README.md").contains(&hex_string(hash.as_ref())));
        let root = parse_anchor(PINNED_SGX_ROOT).unwrap();
        assert_eq!(root.common_name().as_deref(), Some("Intel SGX Root CA"));
        let alone = TrustAnchors::dangerous_root(PINNED_SGX_ROOT).unwrap();
        assert!(alone.arks.is_empty() && alone.sgx_roots.len() == 1);
    }

    #[test]
    fn evidence_and_anchors_are_of_one_kind() {
        let simulator = TrustAnchors { simulated: true, ..TrustAnchors::pinned() };
        for (anchors, takes) in
            [(TrustAnchors::pinned(), [true, true, false]), (simulator, [false, false, true])]
        {
            for (platform, taken) in
                [Platform::SevSnp, Platform::Tdx, Platform::Simulated].into_iter().zip(takes)
            {
                match refuse_other_platform(platform, &anchors) {
                    Ok(((), shown)) => {
                        assert!(taken, "{platform}");
                        assert_eq!(shown.contains(SIMULATED_NOTICE), anchors.simulated);
                    }
                    Err(finding) => assert!(!taken && finding.reason == Reason::Simulated, "{platform}"),
                }
            }
        }
    }

    #[test]
    fn root_leaf_and_processor_agree_on_the_product() {
        use Product::{Genoa, Milan, Turin};
        use SigningKey::{Vcek, Vlek};
        let of = |version: u8, cpuid: [u8; 2], chip_id: u8, key: SigningKey, leaf: Product, root: Product| {
            let mut report = blank(version);
            report[0x188..0x18a].copy_from_slice(&cpuid);
            report[0x1a0] = chip_id;
            product_of(&Report::parse(&report).unwrap(), key, leaf, root).ok().map(|(product, _)| product)
        };
        const SILENT: [u8; 2] = [0, 0];
        for (version, cpuid, chip_id, key, leaf, root, product) in [
            (3, [0x19, 0x01], 1, Vcek, Milan, Milan, Some(Milan)),
            (3, [0x19, 0x11], 1, Vcek, Genoa, Genoa, Some(Genoa)),
            (3, [0x19, 0xa0], 0, Vlek, Genoa, Genoa, Some(Genoa)),
            (5, [0x1a, 0x02], 1, Vcek, Turin, Turin, Some(Turin)),
            // One of the three says otherwise.
            (3, [0x19, 0x11], 1, Vcek, Milan, Genoa, None),
            (3, [0x19, 0x11], 1, Vcek, Genoa, Milan, None),
            (3, [0x19, 0x01], 1, Vcek, Genoa, Genoa, None),
            (3, [0x19, 0x20], 1, Vcek, Genoa, Genoa, None),
            // Version 2 has no CPUID: the certificates name the product, unless nothing ties them to the machine.
            (2, SILENT, 1, Vcek, Milan, Milan, Some(Milan)),
            (2, SILENT, 1, Vlek, Milan, Milan, Some(Milan)),
            (2, SILENT, 0, Vcek, Milan, Milan, Some(Milan)),
            (2, SILENT, 0, Vlek, Milan, Milan, None),
            (2, SILENT, 1, Vcek, Turin, Turin, None),
            (2, SILENT, 1, Vcek, Milan, Genoa, None),
        ] {
            let got = of(version, cpuid, chip_id, key, leaf, root);
            assert_eq!(
                got, product,
                "version {version}, {cpuid:x?}, chip {chip_id}, {key:?}, {leaf} under {root}"
            );
        }
    }

    #[test]
    fn nothing_is_above_what_runs() {
        let tcb =
            |svn: u8| TcbVersion { fmc: Some(svn), bootloader: svn, tee: svn, snp: svn, microcode: svn };
        let order = |current: u8, reported: u8, committed: u8, launch: u8, versions: [[u8; 3]; 2]| {
            let mut report = blank(3);
            report[0x1e8..0x1eb].copy_from_slice(&versions[0]);
            report[0x1ec..0x1ef].copy_from_slice(&versions[1]);
            let [current, reported, committed, launch] = [current, reported, committed, launch].map(tcb);
            let tcbs = Tcbs { current, reported, committed, launch };
            tcb_order(&tcbs, &Report::parse(&report).unwrap()).map_err(|finding| finding.reason)
        };
        let (same, older, newer) = ([[5, 55, 1]; 2], [[5, 55, 1], [4, 55, 1]], [[5, 55, 1], [0, 56, 1]]);
        assert!(order(3, 3, 3, 3, same).is_ok());
        assert!(order(3, 2, 1, 4, older).is_ok(), "launched before a roll-back");
        for refused in [order(3, 4, 3, 3, same), order(3, 3, 4, 3, same), order(3, 3, 3, 3, newer)] {
            assert_eq!(refused.err(), Some(Reason::TcbOrder));
        }
    }
}
