//! Collateral: the documents, certificates and revocation lists that a quote is judged by, exactly as Intel served them.
//!
//! Beside a quote it travels as the deterministic CBOR array of SPEC section 8.5; in files it may also be the JSON that
//! quoting tools write. None of it is believed before it is verified, wherever it came from.

use crate::pem::certificates;
use crate::tdx::document::{MAX_DOCUMENT_LEN_BYTES, decode_hex, split_served};
use crate::tdx::json::{Json, Value};
use crate::verdict::{Finding, Reason, Rejected, StepLog};
use crate::wire::{self, Blob, Bytes};

/// Version of the encoding.
const COLLATERAL_VERSION: u8 = 1;
/// Real collateral is 15 kB; the cap lets evidence fit into each message that carries it.
pub const MAX_COLLATERAL_LEN_BYTES: usize = 96 * 1024;
/// The JSON form spends two characters on a byte of a list and escapes line ends.
pub const MAX_COLLATERAL_JSON_LEN_BYTES: usize = 512 * 1024;

/// A document as it was served, and who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedDocument {
    /// The exact bytes that are signed: the JSON object, without the envelope around it.
    pub document: Vec<u8>,
    /// R and S, each 32 bytes big-endian.
    pub signature: [u8; 64],
    /// The signer's certificate and the root's, DER.
    pub issuer_chain: Vec<Vec<u8>>,
}

impl SignedDocument {
    /// Splits an answer of Intel's service, `{"tcbInfo": {…}, "signature": "…"}`; `name` is the first key. The chain is
    /// the PEM of the answer's header, already URL-decoded.
    ///
    /// # Errors
    /// `encoding` for another shape, or if it is longer than is read here.
    pub fn from_served(name: &str, body: &[u8], issuer_chain_pem: &[u8]) -> Result<Self, Rejected> {
        let refuse = |what: &str| {
            StepLog::refusal("format", Finding::new(Reason::Encoding, format!("{name}: {what}")))
        };
        if body.len() > MAX_DOCUMENT_LEN_BYTES {
            return Err(refuse("too long"));
        }
        let (document, signature) =
            split_served(name, body).ok_or_else(|| refuse("not a signed document as Intel serves it"))?;
        let issuer_chain = certificates(issuer_chain_pem).ok_or_else(|| refuse("issuer chain is not PEM"))?;
        Ok(Self { document, signature, issuer_chain })
    }
}

/// What a quote is judged by. Nobody believes it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collateral {
    /// TCB info of the platform's FMSPC.
    pub tcb_info: SignedDocument,
    /// Identity of the quoting enclave of TDs.
    pub qe_identity: SignedDocument,
    /// Revocation list of the root, DER.
    pub root_crl: Vec<u8>,
    /// Revocation list of the CA that issued the PCK certificate, DER.
    pub pck_crl: Vec<u8>,
    /// That CA's certificate and the root's, DER.
    pub pck_crl_issuer_chain: Vec<Vec<u8>>,
}

type Chain = Vec<Blob>;
type Wire = (u8, Blob, Bytes<64>, Chain, Blob, Bytes<64>, Chain, Blob, Blob, Chain);

impl Collateral {
    /// Decodes the wire form.
    ///
    /// # Errors
    /// `encoding` for bytes that are not the one encoding of some collateral.
    pub fn decode(bytes: &[u8]) -> Result<Self, Rejected> {
        Self::decode_inner(bytes).map_err(|finding| StepLog::refusal("format", finding))
    }

    pub(crate) fn decode_inner(bytes: &[u8]) -> Result<Self, Finding> {
        let refuse = |what: String| Finding::new(Reason::Encoding, format!("collateral: {what}"));
        let wire: Wire =
            wire::decode(bytes, MAX_COLLATERAL_LEN_BYTES).map_err(|error| refuse(error.to_string()))?;
        let (version, tcb_info, tcb_signature, tcb_chain, identity, identity_signature, identity_chain, ..) =
            wire;
        let (.., root_crl, pck_crl, pck_crl_chain) = (wire.7, wire.8, wire.9);
        if version != COLLATERAL_VERSION {
            return Err(refuse(format!("version {version} is unknown")));
        }
        let certificates = |chain: Chain| chain.into_iter().map(Blob::into_vec).collect();
        let document = |document: Blob, signature: Bytes<64>, chain| SignedDocument {
            document: document.into_vec(),
            signature: signature.0,
            issuer_chain: certificates(chain),
        };
        Ok(Self {
            tcb_info: document(tcb_info, tcb_signature, tcb_chain),
            qe_identity: document(identity, identity_signature, identity_chain),
            root_crl: root_crl.into_vec(),
            pck_crl: pck_crl.into_vec(),
            pck_crl_issuer_chain: certificates(pck_crl_chain),
        })
    }

    /// The wire form; [`Collateral::decode`] takes exactly these bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let blob = |bytes: &[u8]| Blob::from(bytes.to_vec());
        let chain = |chain: &[Vec<u8>]| -> Chain { chain.iter().map(|der| blob(der)).collect() };
        let wire: Wire = (
            COLLATERAL_VERSION,
            blob(&self.tcb_info.document),
            Bytes(self.tcb_info.signature),
            chain(&self.tcb_info.issuer_chain),
            blob(&self.qe_identity.document),
            Bytes(self.qe_identity.signature),
            chain(&self.qe_identity.issuer_chain),
            blob(&self.root_crl),
            blob(&self.pck_crl),
            chain(&self.pck_crl_issuer_chain),
        );
        wire::encode(&wire)
    }

    /// Reads the JSON form that quoting tools write: one object whose texts are the documents, PEM chains, and
    /// signatures and lists in hexadecimal.
    ///
    /// # Errors
    /// `encoding` if it is not such JSON, `endorsement-missing` for a part that is not there, by name.
    pub fn from_json(json: &[u8]) -> Result<Self, Rejected> {
        Self::from_json_inner(json).map_err(|finding| StepLog::refusal("endorsements", finding))
    }

    fn from_json_inner(json: &[u8]) -> Result<Self, Finding> {
        const NAMES: [&str; 9] = [
            "tcb_info",
            "tcb_info_signature",
            "tcb_info_issuer_chain",
            "qe_identity",
            "qe_identity_signature",
            "qe_identity_issuer_chain",
            "root_ca_crl",
            "pck_crl",
            "pck_crl_issuer_chain",
        ];
        /// Written by some tools; the quote's own chain is what is read.
        const PCK_CHAIN: &str = "pck_certificate_chain";
        let refuse = |what: String| Finding::new(Reason::Encoding, format!("collateral: {what}"));
        if json.len() > MAX_COLLATERAL_JSON_LEN_BYTES {
            return Err(refuse(format!("{} bytes are too many", json.len())));
        }
        let json = Json::parse(json).map_err(|error| refuse(error.to_string()))?;
        let Value::Object(members) = &json.value else { return Err(refuse("not an object".into())) };
        if let Some((name, _)) =
            members.iter().find(|(name, _)| !NAMES.contains(&&**name) && name != PCK_CHAIN)
        {
            return Err(refuse(format!("key {name:?} is unknown")));
        }
        let text = |name: &str| match json.get(name).map(|json| &json.value) {
            Some(Value::Text(text)) if !text.is_empty() => Ok(text.as_ref()),
            _ => Err(Finding::new(Reason::EndorsementMissing, format!("collateral has no {name}"))),
        };
        for name in NAMES {
            text(name)?;
        }
        let chain = |name: &str| {
            certificates(text(name)?.as_bytes()).ok_or_else(|| refuse(format!("{name} is not PEM")))
        };
        let bytes =
            |name: &str| decode_hex(text(name)?).ok_or_else(|| refuse(format!("{name} is not hexadecimal")));
        let document = |name: &str| -> Result<SignedDocument, Finding> {
            let signature = format!("{name}_signature");
            let signature =
                bytes(&signature)?.try_into().map_err(|_| refuse(format!("{signature} is not 64 bytes")))?;
            let issuer_chain = chain(&format!("{name}_issuer_chain"))?;
            Ok(SignedDocument { document: text(name)?.as_bytes().to_vec(), signature, issuer_chain })
        };
        Ok(Self {
            tcb_info: document("tcb_info")?,
            qe_identity: document("qe_identity")?,
            root_crl: bytes("root_ca_crl")?,
            pck_crl: bytes("pck_crl")?,
            pck_crl_issuer_chain: chain("pck_crl_issuer_chain")?,
        })
    }
}

/// The parts of collateral as Intel's service hands them out, one by one; for folders and caches that keep them so.
#[derive(Clone, Debug, Default)]
pub struct CollateralParts {
    /// Answer to `/tdx/certification/v4/tcb`: `{"tcbInfo": …, "signature": …}`.
    pub tcb_info: Option<Vec<u8>>,
    /// Its header `TCB-Info-Issuer-Chain`, URL-decoded: PEM.
    pub tcb_info_issuer_chain: Option<Vec<u8>>,
    /// Answer to `/tdx/certification/v4/qe/identity`: `{"enclaveIdentity": …, "signature": …}`.
    pub qe_identity: Option<Vec<u8>>,
    /// Its header `SGX-Enclave-Identity-Issuer-Chain`, URL-decoded: PEM.
    pub qe_identity_issuer_chain: Option<Vec<u8>>,
    /// The root's revocation list, DER.
    pub root_crl: Option<Vec<u8>>,
    /// Answer to `/sgx/certification/v4/pckcrl?encoding=der`.
    pub pck_crl: Option<Vec<u8>>,
    /// Its header `SGX-PCK-CRL-Issuer-Chain`, URL-decoded: PEM.
    pub pck_crl_issuer_chain: Option<Vec<u8>>,
}

impl CollateralParts {
    /// Puts the parts together; none at all is no collateral.
    ///
    /// # Errors
    /// `endorsement-missing` for a part that is not there beside others, by name; `encoding` for a malformed one.
    pub fn assemble(self) -> Result<Option<Collateral>, Rejected> {
        let named = [
            ("TCB info", &self.tcb_info),
            ("TCB info issuer chain", &self.tcb_info_issuer_chain),
            ("QE identity", &self.qe_identity),
            ("QE identity issuer chain", &self.qe_identity_issuer_chain),
            ("root CRL", &self.root_crl),
            ("PCK CRL", &self.pck_crl),
            ("PCK CRL issuer chain", &self.pck_crl_issuer_chain),
        ];
        let missing: Vec<&str> =
            named.iter().filter(|(_, part)| part.is_none()).map(|(name, _)| *name).collect();
        if missing.len() == named.len() {
            return Ok(None);
        }
        let refuse = |reason, what: String| StepLog::refusal("endorsements", Finding::new(reason, what));
        let (
            Some(tcb_info),
            Some(tcb_info_chain),
            Some(qe_identity),
            Some(qe_identity_chain),
            Some(root_crl),
            Some(pck_crl),
            Some(pck_crl_chain),
        ) = (
            self.tcb_info,
            self.tcb_info_issuer_chain,
            self.qe_identity,
            self.qe_identity_issuer_chain,
            self.root_crl,
            self.pck_crl,
            self.pck_crl_issuer_chain,
        )
        else {
            let what = format!("collateral has no {}", missing.join(", no "));
            return Err(refuse(Reason::EndorsementMissing, what));
        };
        let chain = certificates(&pck_crl_chain)
            .ok_or_else(|| refuse(Reason::Encoding, "PCK CRL issuer chain is not PEM".into()))?;
        Ok(Some(Collateral {
            tcb_info: SignedDocument::from_served("tcbInfo", &tcb_info, &tcb_info_chain)?,
            qe_identity: SignedDocument::from_served("enclaveIdentity", &qe_identity, &qe_identity_chain)?,
            root_crl,
            pck_crl,
            pck_crl_issuer_chain: chain,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Collateral {
        let document = |byte: u8| SignedDocument {
            document: vec![byte; 30],
            signature: [byte; 64],
            issuer_chain: vec![vec![byte; 40], vec![9; 40]],
        };
        Collateral {
            tcb_info: document(1),
            qe_identity: document(2),
            root_crl: vec![3; 50],
            pck_crl: vec![4; 50],
            pck_crl_issuer_chain: vec![vec![5; 40], vec![9; 40]],
        }
    }

    #[test]
    fn wire_round_trip_and_nothing_else() {
        let bytes = sample().encode();
        assert_eq!(Collateral::decode(&bytes).unwrap(), sample());
        let mut trailing = bytes.clone();
        trailing.push(0);
        assert_eq!(Collateral::decode(&trailing).unwrap_err().reason, Reason::Encoding);
        let mut other_version = bytes;
        other_version[1] = 2;
        assert_eq!(Collateral::decode(&other_version).unwrap_err().reason, Reason::Encoding);
    }

    #[test]
    fn parts_are_whole_or_not_there() {
        assert!(CollateralParts::default().assemble().unwrap().is_none());
        let some = CollateralParts { root_crl: Some(vec![1]), ..CollateralParts::default() };
        let refusal = some.assemble().unwrap_err();
        assert_eq!(refusal.reason, Reason::EndorsementMissing);
        assert!(refusal.to_string().contains("no TCB info") && !refusal.to_string().contains("root CRL"));
    }

    #[test]
    fn documents_and_collateral_are_capped() {
        let served = |len: usize| {
            let refusal = SignedDocument::from_served("tcbInfo", &vec![b' '; len], b"").unwrap_err();
            refusal.to_string().contains("too long")
        };
        assert_eq!([128 << 10, (128 << 10) + 1].map(served), [false, true]);
        let json = |len: usize| {
            let refusal = Collateral::from_json(&vec![b' '; len]).unwrap_err();
            refusal.to_string().contains("bytes are too many")
        };
        assert_eq!([512 << 10, (512 << 10) + 1].map(json), [false, true]);
    }

    #[test]
    fn an_empty_part_is_a_missing_one() {
        let refusal = Collateral::from_json(b"{\"tcb_info\":\"\"}").unwrap_err();
        assert_eq!(refusal.reason, Reason::EndorsementMissing);
        assert!(refusal.to_string().ends_with("no tcb_info"), "{refusal}");
    }

    #[test]
    fn a_missing_part_is_named() {
        let refusal = Collateral::from_json(b"{\"tcb_info\":\"{}\"}").unwrap_err();
        assert_eq!(refusal.reason, Reason::EndorsementMissing);
        assert!(refusal.to_string().contains("tcb_info_signature"), "{refusal}");
        assert_eq!(Collateral::from_json(b"{\"x\":1}").unwrap_err().reason, Reason::Encoding);
        assert_eq!(Collateral::from_json(b"[]").unwrap_err().reason, Reason::Encoding);
    }
}
