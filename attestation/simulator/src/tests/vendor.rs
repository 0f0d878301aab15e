//! A whole fake vendor: keys, certificates and reports that are honest until a case changes them.

use std::path::Path;

use adyton_attestation::{
    Authentic, Claims, Endorsements, Evidence, Policy, Reason, Rejected, StepResult, Time, TrustAnchors,
    VerifiedReport,
};
use ring::digest::{SHA256, digest};
use ring::signature::{EcdsaKeyPair, KeyPair as _, RsaKeyPair};

use crate::cert::{Template, Validity, chip_extensions, revocation_list};
use crate::processor::{LaunchContext, Simulator, sign};
use crate::setup::{self, PRODUCT, TCB};

pub(super) const NOW: Time = Time::from_unix_seconds(1_790_000_000);
const YEAR_S: u64 = 365 * 86_400;
pub(super) const REPORT_DATA: [u8; 64] = [0x5a; 64];
pub(super) const VALIDITY: Validity = Validity { not_before: at(-1), not_after: at(1) };

/// So many years from now.
pub(super) const fn at(years: i64) -> Time {
    Time::from_unix_seconds(NOW.as_unix_seconds().saturating_add_signed(years * YEAR_S as i64))
}

/// The last second that is over.
pub(super) const SECOND_AGO: Time = Time::from_unix_seconds(NOW.as_unix_seconds() - 1);

/// A vendor that does not carry the simulator's mark, as AMD's own certificates do not.
pub(super) struct Vendor {
    pub(super) root_key: RsaKeyPair,
    pub(super) intermediate_key: RsaKeyPair,
    pub(super) chip_key: EcdsaKeyPair,
    pub(super) simulator: Simulator,
    pub(super) context: LaunchContext,
    pub(super) chain: Chain,
    pub(super) root_der: Vec<u8>,
}

#[derive(Clone, PartialEq)]
pub(super) struct Chain {
    pub(super) root: Template,
    pub(super) intermediate: Template,
    pub(super) leaf: Template,
    pub(super) revoked: Option<Vec<u8>>,
    pub(super) crl_validity: Validity,
}

impl Chain {
    /// Root, intermediate and leaf.
    pub(super) const PLACES: [fn(&mut Self) -> &mut Template; 3] =
        [|chain| &mut chain.root, |chain| &mut chain.intermediate, |chain| &mut chain.leaf];
}

/// One case: a chain and a report, honest until changed.
pub(super) struct Case<'a> {
    pub(super) vendor: &'a Vendor,
    pub(super) chain: Chain,
    pub(super) report: Vec<u8>,
    pub(super) tamper: fn(&mut Vec<u8>, &mut Endorsements),
}

impl Vendor {
    pub(super) fn new(dir: &Path) -> Self {
        setup::setup(dir, NOW).unwrap();
        let key = |file| RsaKeyPair::from_pkcs8(&setup::read(dir, file).unwrap()).unwrap();
        let (root_key, intermediate_key) = (key("ark.key"), key("ask.key"));
        let chip_key = setup::load_chip_key(&setup::read(dir, "vcek.key").unwrap()).unwrap();
        let simulator = Simulator::load(dir).unwrap();
        let context = LaunchContext::new(b"program", b"document", &["argument"]).unwrap();
        let point = chip_key.public_key().as_ref();
        let mut chain = Chain {
            root: Template::authority(1, "ARK-Genoa", &root_key, VALIDITY),
            intermediate: Template::authority(2, "SEV-Genoa", &intermediate_key, VALIDITY),
            leaf: Template::chip(point, chip_extensions(TCB, simulator.chip_id(), PRODUCT), VALIDITY),
            revoked: Some(vec![]),
            crl_validity: VALIDITY,
        };
        for template in [&mut chain.root, &mut chain.intermediate, &mut chain.leaf] {
            template.organisation = "Some Vendor".into();
        }
        let root_der = chain.root.issue(&chain.root, &root_key).unwrap();
        Self { root_key, intermediate_key, chip_key, simulator, context, chain, root_der }
    }

    pub(super) fn case(&self) -> Case<'_> {
        let report = self.simulator.report(&self.context, &REPORT_DATA).unwrap();
        Case { vendor: self, chain: self.chain.clone(), report, tamper: |_, _| {} }
    }

    /// An honest root, intermediate and leaf.
    pub(super) fn honest(&self) -> [Vec<u8>; 3] {
        let (_, made) = self.case().made();
        [made.ark, made.ask, made.vcek].map(Option::unwrap)
    }

    /// The honest report under these certificates.
    pub(super) fn verify(
        &self,
        [root, ask, vcek]: [Vec<u8>; 3],
        crls: Vec<Vec<u8>>,
    ) -> Result<Authentic, Rejected> {
        let anchors = TrustAnchors::dangerous_root(&root)?;
        let endorsements =
            Endorsements { ark: Some(root), ask: Some(ask), vcek: Some(vcek), crls, ..Default::default() };
        Evidence::snp_from_parts(&self.case().report, &[])?.verify(&anchors, &endorsements, NOW)
    }

    /// The policy that names this vendor's guest and chip.
    pub(super) fn named(&self, policy: Policy) -> Policy {
        let chip = digest(&SHA256, self.simulator.chip_id()).as_ref().try_into().unwrap();
        policy
            .measurements([self.context.measurement])
            .host_data([self.context.host_data])
            .chip_allowlist([chip])
    }
}

impl Case<'_> {
    /// Writes into the report; it is signed again before it is judged.
    pub(super) fn field(mut self, offset: usize, value: &[u8]) -> Self {
        self.report[offset..offset + value.len()].copy_from_slice(value);
        self
    }

    /// Changes the certificates before they are issued.
    pub(super) fn chain(mut self, change: impl FnOnce(&mut Chain)) -> Self {
        change(&mut self.chain);
        self
    }

    /// Changes what is already signed.
    pub(super) fn tamper(mut self, tamper: fn(&mut Vec<u8>, &mut Endorsements)) -> Self {
        self.tamper = tamper;
        self
    }

    /// Replaces the chip's extensions.
    pub(super) fn extensions(self, extensions: Vec<Vec<u8>>) -> Self {
        self.chain(|chain| chain.leaf.extensions = extensions)
    }

    /// The signed report and the issued certificates.
    pub(super) fn made(&self) -> (Vec<u8>, Endorsements) {
        let (vendor, chain) = (self.vendor, &self.chain);
        let mut report = self.report.clone();
        sign(&vendor.chip_key, &mut report).unwrap();
        let crl = |serials: &Vec<u8>| {
            revocation_list(&chain.root, &vendor.root_key, chain.crl_validity, serials).unwrap()
        };
        let ark = if chain.root == vendor.chain.root {
            vendor.root_der.clone()
        } else {
            chain.root.issue(&chain.root, &vendor.root_key).unwrap()
        };
        let mut endorsements = Endorsements {
            ark: Some(ark),
            crls: chain.revoked.iter().map(crl).collect(),
            ..Endorsements::default()
        };
        let intermediate = chain.intermediate.issue(&chain.root, &vendor.root_key).unwrap();
        let leaf = chain.leaf.issue(&chain.intermediate, &vendor.intermediate_key).unwrap();
        if chain.leaf.common_name == "SEV-VLEK" {
            (endorsements.asvk, endorsements.vlek) = (Some(intermediate), Some(leaf));
        } else {
            (endorsements.ask, endorsements.vcek) = (Some(intermediate), Some(leaf));
        }
        (report, endorsements)
    }

    pub(super) fn judge(&self, policy: &Policy) -> Result<VerifiedReport, Rejected> {
        let (mut report, mut endorsements) = self.made();
        let anchors = TrustAnchors::dangerous_root(endorsements.ark.as_ref().unwrap())?;
        (self.tamper)(&mut report, &mut endorsements);
        Evidence::snp_from_parts(&report, &[])?
            .verify(&anchors, &endorsements, NOW)?
            .appraise(policy, &REPORT_DATA)
    }

    #[track_caller]
    pub(super) fn refused(self, policy: &Policy, reason: Reason) {
        let refusal = self.judge(policy).expect_err("must be refused");
        assert_eq!(refusal.reason, reason, "{refusal}");
        let failed = refusal.steps.iter().find(|step| matches!(step.result, StepResult::Fail(_)));
        assert_eq!(failed.unwrap().result, StepResult::Fail(reason));
    }

    #[track_caller]
    pub(super) fn accepted(self, policy: &Policy) -> Claims {
        self.judge(policy).unwrap_or_else(|refusal| panic!("{refusal}")).claims().clone()
    }
}
