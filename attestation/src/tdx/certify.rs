//! From the pinned root over the PCK key and Intel's documents to the attestation key: everything a TD's report rests on
//! that is the same for every quote of a machine.
//!
//! In order: PCK chain, issuers of the documents and lists, their signatures, the documents' kind, dates, validity of
//! certificates, revocation, platform, QE report, attestation key, quoting enclave. The documents' dates come before
//! the lists', so that collateral which is old as a whole is called so. What is learned holds for as long as every
//! part of it does: [`Certified::window`].

use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use crate::cache::Window;
use crate::crl::Crl;
use crate::pem::certificates;
use crate::tdx::collateral::{Collateral, SignedDocument};
use crate::tdx::pck::PckExtensions;
use crate::tdx::qe::QeIdentity;
use crate::tdx::quote::Quote;
use crate::tdx::tcb::Standing;
use crate::tdx::tcb_info::TcbInfo;
use crate::time::Time;
use crate::verdict::{Finding, Halt, Reason, StepLog};
use crate::x509::{Certificate, P256_POINT_LEN_BYTES, Scheme};

const PCK: &str = "PCK certificate";
const PCK_CA: &str = "PCK CA";
const TCB_SIGNER: &str = "TCB info signer";
const QE_SIGNER: &str = "QE identity signer";
const CRL_ISSUER: &str = "PCK CRL issuer";
const ROOT: &str = "root";

/// The bytes that a verdict is found by: attestation key, QE report and PCK chain of the quote, and the collateral.
#[derive(Debug)]
pub(crate) struct CertifiedKey {
    pub(crate) endorsement: Vec<u8>,
    pub(crate) collateral: Collateral,
}

/// What was verified down to the attestation key.
#[derive(Clone, Debug)]
pub(crate) struct Certified {
    pub(crate) pck: PckExtensions,
    /// Standing of the quoting enclave.
    pub(crate) qe: Standing,
    pub(crate) tcb_info: TcbInfo,
    /// tcbEvaluationDataNumber of the QE identity.
    pub(crate) qe_evaluation_number: u32,
    pub(crate) window: Window,
    /// DER of the root that it rests on.
    pub(crate) root: Vec<u8>,
}

/// ECDSA P-256 with SHA-256 (FIPS 186-5), signature R and S of 32 bytes each.
pub(crate) fn verify_p256(point: &[u8], message: &[u8], signature: &[u8; 64]) -> Result<(), ()> {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).map_err(|_| ())
}

/// The parsed certificates, none verified yet.
struct Chains<'a> {
    root: &'a Certificate,
    pck: Certificate,
    pck_ca: Certificate,
    tcb_signer: Certificate,
    qe_signer: Certificate,
    crl_issuer: Certificate,
}

/// Verifies `collateral`, and of `quote` the [endorsing part](Quote::endorsement), under one of `anchors`. Nothing else of
/// the quote is looked at, so what is learned holds for every quote with these bytes.
pub(crate) fn certify(
    log: &mut StepLog,
    anchors: &[Certificate],
    quote: &Quote,
    collateral: &Collateral,
    now: Time,
) -> Result<Certified, Halt> {
    let chains = Chains::anchor(anchors, quote.pck_chain(), collateral);
    let chains =
        log.step("root", chains.map(|chains| (chains, "every chain ends in an anchor".to_owned())))?;
    let chained = chains.verify().map(|point| (point, "ECDSA P-256 SHA-256, down to the PCK".to_owned()));
    let pck_point = log.step("chain", chained)?;
    let pck =
        PckExtensions::of(&chains.pck).map(|pck| (pck, "PCK certificate names its platform".to_owned()));
    let pck = log.step("pck-extensions", pck)?;
    let tcb_info = signed(&collateral.tcb_info, &chains.tcb_signer, TCB_SIGNER, Reason::TcbInfoSignature)
        .and_then(TcbInfo::parse)
        .map(|info| (format!("TDX, evaluation {}", info.evaluation_number), info));
    let tcb_info = log.step("tcb-info", tcb_info.map(|(detail, info)| (info, detail)))?;
    let identity = signed(&collateral.qe_identity, &chains.qe_signer, QE_SIGNER, Reason::QeIdentitySignature)
        .and_then(QeIdentity::parse)
        .map(|identity| (format!("TD_QE, evaluation {}", identity.evaluation_number), identity));
    let qe_identity = log.step("qe-identity", identity.map(|(detail, identity)| (identity, detail)))?;

    let mut window = Window { from: tcb_info.dates.issued, until: tcb_info.dates.next_update };
    window.narrow(qe_identity.dates.issued, qe_identity.dates.next_update);
    let current = tcb_info
        .dates
        .refuse_outside("TCB info", now)
        .and_then(|()| qe_identity.dates.refuse_outside("QE identity", now))
        .map(|()| ((), format!("documents current until {}", window.until)));
    log.step("collateral-current", current)?;
    let valid = chains.refuse_outside_validity(now).map(|()| ((), "every certificate is valid".to_owned()));
    log.step("validity", valid)?;
    for (_, certificate) in chains.all() {
        window.narrow(certificate.not_before(), certificate.not_after());
    }
    let revocation = chains
        .refuse_revoked(collateral, now)
        .map(|lists| (lists, format!("not on a list; lists current until {}", lists.until)));
    let lists = log.step("revocation", revocation)?;
    window.narrow(lists.from, lists.until);
    let platform = tcb_info
        .refuse_other_platform(&pck)
        .map(|()| ((), format!("FMSPC {} on both sides", crate::hex_string(&pck.fmspc))));
    log.step("fmspc", platform)?;
    let qe = quoting_enclave(log, quote, &pck_point, &qe_identity)?;
    let (qe_evaluation_number, root) = (qe_identity.evaluation_number, chains.root.der().to_vec());
    Ok(Certified { pck, qe, tcb_info, qe_evaluation_number, window, root })
}

/// The quoting enclave and the attestation key it vouches for.
fn quoting_enclave(
    log: &mut StepLog,
    quote: &Quote,
    pck_point: &[u8],
    identity: &QeIdentity,
) -> Result<Standing, Halt> {
    let report = quote.qe_report();
    let signed = verify_p256(pck_point, report.bytes(), quote.qe_report_signature())
        .map(|()| ((), "ECDSA P-256 SHA-256 by the PCK key".to_owned()))
        .map_err(|()| Finding::new(Reason::QeReportSignature, "the PCK key did not sign the QE report"));
    log.step("qe-report-signature", signed)?;
    let bound = report.refuse_unbound_key(quote).map(|()| ((), "binds the attestation key".to_owned()));
    log.step("qe-report-data", bound)?;
    let enclave = identity.refuse_other_enclave(&report);
    let enclave = enclave.map(|()| ((), format!("Intel's, ISVSVN {}", report.isv_svn())));
    log.step("qe-enclave", enclave)?;
    let standing = identity.standing(&report).cloned();
    log.step("qe-tcb-level", standing.map(|standing| (standing, "a TCB level is reached".to_owned())))
}

/// The bytes of a document that `signer` signed.
fn signed<'a>(
    signed: &'a SignedDocument,
    signer: &Certificate,
    role: &str,
    reason: Reason,
) -> Result<&'a [u8], Finding> {
    let point = signer.p256_point(role)?;
    verify_p256(&point, &signed.document, &signed.signature)
        .map_err(|()| Finding::new(reason, format!("the {role} did not sign these bytes")))?;
    Ok(&signed.document)
}

impl<'a> Chains<'a> {
    /// Parses every chain and finds the anchor that all of them end in.
    fn anchor(
        anchors: &'a [Certificate],
        pck_chain: &[u8],
        collateral: &Collateral,
    ) -> Result<Self, Finding> {
        let pck_chain = certificates(pck_chain)
            .ok_or_else(|| Finding::new(Reason::Chain, "the PCK chain of the quote is not PEM"))?;
        let [pck, pck_ca, root] = pck_chain.as_slice() else {
            let detail = format!("the PCK chain has {} certificates, must have 3", pck_chain.len());
            return Err(Finding::new(Reason::Chain, detail));
        };
        let anchor = anchors.iter().find(|anchor| anchor.der() == root.as_slice());
        let root = anchor.ok_or_else(|| untrusted("the PCK chain"))?;
        Ok(Self {
            root,
            pck: Certificate::parse(PCK, pck)?,
            pck_ca: Certificate::parse(PCK_CA, pck_ca)?,
            tcb_signer: below(root, &collateral.tcb_info.issuer_chain, TCB_SIGNER)?,
            qe_signer: below(root, &collateral.qe_identity.issuer_chain, QE_SIGNER)?,
            crl_issuer: below(root, &collateral.pck_crl_issuer_chain, CRL_ISSUER)?,
        })
    }

    fn all(&self) -> [(&'static str, &Certificate); 6] {
        [
            (PCK, &self.pck),
            (PCK_CA, &self.pck_ca),
            (TCB_SIGNER, &self.tcb_signer),
            (QE_SIGNER, &self.qe_signer),
            (CRL_ISSUER, &self.crl_issuer),
            (ROOT, self.root),
        ]
    }

    /// Verifies names, constraints and signatures below the root, which is good by choice of the caller. Returns the
    /// PCK key.
    fn verify(&self) -> Result<[u8; P256_POINT_LEN_BYTES], Finding> {
        // One certificate often stands in two places; it is verified once.
        let mut verified: Vec<&[u8]> = Vec::new();
        let by_root = |role: &str, certificate: &Certificate| {
            certificate.verify_signed_by(role, self.root, Scheme::P256Sha256)
        };
        for (role, certificate) in [(PCK_CA, &self.pck_ca), (CRL_ISSUER, &self.crl_issuer)] {
            if !verified.contains(&certificate.der()) {
                by_root(role, certificate)?;
                verified.push(certificate.der());
            }
            certificate.refuse_unless_ca(role, 0)?;
            certificate.refuse_unless_crl_signer(role)?;
            named(role, certificate, &["Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA"])?;
        }
        for (role, certificate) in [(TCB_SIGNER, &self.tcb_signer), (QE_SIGNER, &self.qe_signer)] {
            if !verified.contains(&certificate.der()) {
                by_root(role, certificate)?;
                verified.push(certificate.der());
            }
            certificate.refuse_unless_leaf(role)?;
            named(role, certificate, &["Intel SGX TCB Signing"])?;
        }
        self.root.refuse_unless_crl_signer(ROOT)?;
        self.pck.verify_signed_by(PCK, &self.pck_ca, Scheme::P256Sha256)?;
        self.pck.refuse_unless_leaf(PCK)?;
        named(PCK, &self.pck, &["Intel SGX PCK Certificate"])?;
        if self.crl_issuer.subject() != self.pck_ca.subject() {
            return Err(Finding::new(Reason::Chain, "the PCK CRL is of another CA than the PCK certificate"));
        }
        self.pck.p256_point(PCK)
    }

    fn refuse_outside_validity(&self, now: Time) -> Result<(), Finding> {
        self.all()
            .into_iter()
            .try_for_each(|(role, certificate)| certificate.refuse_outside_validity(role, now))
    }

    /// Looks every certificate up in the two lists; both must be there, authentic and current. A revocation counts even
    /// on a list that is out of date.
    fn refuse_revoked(&self, collateral: &Collateral, now: Time) -> Result<Window, Finding> {
        let root_crl = list("root CRL", &collateral.root_crl, self.root)?;
        let pck_crl = list("PCK CRL", &collateral.pck_crl, &self.crl_issuer)?;
        let of_root = [
            (PCK_CA, &self.pck_ca),
            (TCB_SIGNER, &self.tcb_signer),
            (QE_SIGNER, &self.qe_signer),
            (CRL_ISSUER, &self.crl_issuer),
        ];
        let revoked = of_root.into_iter().find(|(_, certificate)| root_crl.revokes(certificate));
        let revoked = revoked.or_else(|| pck_crl.revokes(&self.pck).then_some((PCK, &self.pck)));
        if let Some((role, _)) = revoked {
            return Err(Finding::new(Reason::Revoked, format!("{role} is on the revocation list")));
        }
        let mut window = Window { from: root_crl.this_update(), until: root_crl.next_update() };
        for (name, crl) in [("root CRL", &root_crl), ("PCK CRL", &pck_crl)] {
            let (from, until) = (crl.this_update(), crl.next_update());
            if !(from..=until).contains(&now) {
                let detail = format!("{name} is current from {from} to {until}, it is {now}");
                return Err(Finding::new(Reason::CrlStale, detail));
            }
            window.narrow(from, until);
        }
        Ok(window)
    }
}

/// The certificate of a two-link chain that ends in `root`.
fn below(root: &Certificate, chain: &[Vec<u8>], role: &'static str) -> Result<Certificate, Finding> {
    let [certificate, top] = chain else {
        let detail = format!("{role}: chain has {} certificates, must have 2", chain.len());
        return Err(Finding::new(Reason::Chain, detail));
    };
    if top != root.der() {
        return Err(untrusted(role));
    }
    Certificate::parse(role, certificate)
}

fn untrusted(what: &str) -> Finding {
    Finding::new(Reason::UntrustedRoot, format!("{what} does not end in the trust anchor"))
}

fn named(role: &str, certificate: &Certificate, names: &[&str]) -> Result<(), Finding> {
    match certificate.common_name() {
        Some(name) if names.contains(&name.as_str()) => Ok(()),
        other => {
            let detail = format!("{role}: common name is {other:?}, must be one of {names:?}");
            Err(Finding::new(Reason::Chain, detail))
        }
    }
}

/// An authentic list of `issuer`.
fn list(name: &str, der: &[u8], issuer: &Certificate) -> Result<Crl, Finding> {
    let refuse = |what: &str| Finding::new(Reason::CrlSignature, format!("{name}: {what}"));
    let crl = Crl::parse(der)?;
    if !crl.is_of(issuer) {
        return Err(refuse("is of another issuer"));
    }
    crl.verify_signed_by(issuer, Scheme::P256Sha256)?;
    if crl.number().is_none() {
        return Err(refuse("has no readable CRL number"));
    }
    Ok(crl)
}
