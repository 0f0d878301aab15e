//! ARK, ASK or ASVK, VCEK or VLEK: choosing the certificates and verifying the chain.
//!
//! Certificates may come beside the report (from the host) or from the caller's files. Neither is believed: the
//! root is the caller's anchor and a supplied ARK is only ever compared with it, never used as one.

use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

use crate::evidence::Endorsements;
use crate::snp::cache::ChainKey;
use crate::snp::cert_table::CertificateTable;
use crate::snp::leaf::Leaf;
use crate::snp::report::{Report, SigningKey};
use crate::snp::tcb::Product;
use crate::time::Time;
use crate::verdict::{Finding, Reason};
use crate::x509::{Certificate, Scheme};

/// The certificates to verify a report with, none verified yet.
pub(crate) struct Candidates<'a> {
    ark: Vec<&'a [u8]>,
    intermediate: &'a [u8],
    leaf: &'a [u8],
    kind: SigningKey,
    /// Revocation lists of either source.
    pub(crate) crls: Vec<&'a [u8]>,
}

impl<'a> Candidates<'a> {
    /// Picks the certificates for the key the report says it was signed with. The caller's files come first: a
    /// host may hand out the certificate of an earlier TCB.
    pub(crate) fn select(
        report: &Report,
        table: CertificateTable<'a>,
        endorsements: &'a Endorsements,
    ) -> Result<Self, Finding> {
        let vcek = endorsements.vcek.as_deref().or(table.vcek);
        let vlek = endorsements.vlek.as_deref().or(table.vlek);
        // A table has one place for the intermediate of either kind, and callers name the file as they like: the
        // chain, not the place, decides what it is.
        let (ask, asvk) = (endorsements.ask.as_deref(), endorsements.asvk.as_deref());
        let (ask, asvk) = (ask.or(table.ask).or(asvk), asvk.or(table.ask).or(ask));
        let kind = report.signing_key();
        let (leaf, other, intermediate, names) = match kind {
            SigningKey::Vcek => (vcek, vlek, ask, ["VCEK", "ASK"]),
            SigningKey::Vlek => (vlek, vcek, asvk, ["VLEK", "ASVK"]),
            SigningKey::Other(code) => {
                let detail = format!("SIGNING_KEY {code} is neither VCEK nor VLEK");
                return Err(Finding::new(Reason::SigningKey, detail));
            }
        };
        let missing =
            |role: &str| Finding::new(Reason::EndorsementMissing, format!("no {role} was supplied"));
        let leaf = match (leaf, other) {
            (Some(leaf), _) => leaf,
            (None, Some(_)) => {
                let detail =
                    format!("the report is signed by a {}, a certificate of the other kind came", names[0]);
                return Err(Finding::new(Reason::SigningKey, detail));
            }
            (None, None) => return Err(missing(names[0])),
        };
        Ok(Self {
            ark: endorsements.ark.as_deref().into_iter().chain(table.ark).collect(),
            intermediate: intermediate.ok_or_else(|| missing(names[1]))?,
            leaf,
            kind,
            crls: endorsements.crls.iter().map(Vec::as_slice).chain(table.crl).collect(),
        })
    }

    /// What a verdict on these certificates is found by.
    pub(crate) fn key(&self) -> ChainKey {
        let owned = |files: &[&[u8]]| files.iter().map(|der| der.to_vec()).collect();
        ChainKey {
            kind: self.kind,
            leaf: self.leaf.to_vec(),
            intermediate: self.intermediate.to_vec(),
            roots: owned(&self.ark),
            crls: owned(&self.crls),
        }
    }

    /// Parses the certificates and finds the anchor that they claim to end in.
    pub(crate) fn anchor(self, anchors: &[Certificate]) -> Result<Chain, Finding> {
        let untrusted = |what: &str| Finding::new(Reason::UntrustedRoot, what.to_owned());
        let named = match self.kind {
            SigningKey::Vlek => ["ASVK", "VLEK"],
            _ => ["ASK", "VCEK"],
        };
        let intermediate = Certificate::parse(named[0], self.intermediate)?;
        let leaf = Leaf { certificate: Certificate::parse(named[1], self.leaf)?, kind: self.kind };
        // With an ARK supplied, that one must be an anchor; otherwise the one the intermediate names.
        let ark = match self.ark.first() {
            Some(der) => anchors.iter().find(|anchor| anchor.der() == *der),
            None => anchors.iter().find(|anchor| anchor.subject() == intermediate.issuer()),
        };
        let ark = ark.ok_or_else(|| untrusted("the root of this chain is not a trust anchor"))?;
        if self.ark.iter().any(|der| ark.der() != *der) {
            return Err(untrusted("two different roots were supplied"));
        }
        Ok(Chain { ark: ark.clone(), intermediate, intermediate_role: named[0], leaf })
    }
}

/// A parsed chain that ends in a trust anchor by name; [`Chain::verify`] makes it true.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub(crate) ark: Certificate,
    pub(crate) intermediate: Certificate,
    intermediate_role: &'static str,
    pub(crate) leaf: Leaf,
}

impl Chain {
    /// Verifies names, constraints and signatures below the anchor, which is good by choice of the caller. Returns
    /// the product of the root.
    pub(crate) fn verify(&self) -> Result<Product, Finding> {
        let refuse = |what: String| Err(Finding::new(Reason::Chain, what));
        self.intermediate.verify_signed_by(self.intermediate_role, &self.ark, Scheme::PssSha384)?;
        self.intermediate.refuse_unless_ca(self.intermediate_role, 0)?;
        self.leaf.certificate.verify_signed_by(self.leaf.role(), &self.intermediate, Scheme::PssSha384)?;
        self.leaf.certificate.refuse_unless_leaf(self.leaf.role())?;
        let ark_name = self.ark.common_name().unwrap_or_default();
        let Some(product) = ark_name.strip_prefix("ARK-").and_then(Product::from_name) else {
            return refuse(format!("ARK: common name {ark_name:?} names no known product"));
        };
        let (intermediate_name, leaf_name) = match self.leaf.kind {
            SigningKey::Vlek => (format!("SEV-VLEK-{product}"), "SEV-VLEK"),
            _ => (format!("SEV-{product}"), "SEV-VCEK"),
        };
        if self.intermediate.common_name().as_deref() != Some(intermediate_name.as_str()) {
            return refuse(format!("{}: common name is not {intermediate_name:?}", self.intermediate_role));
        }
        if self.leaf.certificate.common_name().as_deref() != Some(leaf_name) {
            let detail = format!("{}: common name is not {leaf_name:?}", self.leaf.role());
            return Err(Finding::new(Reason::SigningKey, detail));
        }
        Ok(product)
    }

    /// Refuses unless every certificate is valid at `now`.
    pub(crate) fn refuse_outside_validity(&self, now: Time) -> Result<(), Finding> {
        self.leaf.certificate.refuse_outside_validity(self.leaf.role(), now)?;
        self.intermediate.refuse_outside_validity(self.intermediate_role, now)?;
        self.ark.refuse_outside_validity("ARK", now)
    }

    /// Role and certificate of everything a list could revoke, leaf last.
    pub(crate) fn revocable(&self) -> [(&str, &Certificate); 2] {
        [(self.intermediate_role, &self.intermediate), (self.leaf.role(), &self.leaf.certificate)]
    }

    /// ECDSA P-384 with SHA-384 (FIPS 186-5) by the leaf over the signed bytes of the report.
    pub(crate) fn verify_report(&self, report: &Report) -> Result<(), Finding> {
        let point = self.leaf.certificate.p384_point(self.leaf.role())?;
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)
            .verify(report.signed_bytes(), &report.signature_p1363())
            .map_err(|_| {
                let detail = format!("report signature does not verify under the {}", self.leaf.role());
                Finding::new(Reason::Signature, detail)
            })
    }
}
