//! Flow R: the release of a model key to an attested enclave (SPEC, section 6).
//!
//! Five messages: the enclave asks (R1), the owner's side challenges (R2), the enclave shows evidence that commits to the
//! whole exchange (R3), the owner's side grants and wraps the key for it alone (R4), the enclave confirms (R5). Pull
//! (enclave calls broker) and push (owner calls enclave) differ only in who opens the connection.
//!
//! Both sides are chains of types: each step consumes the one before, so none can be left out or done twice. Random
//! values, the TLS exporter and the time are arguments; wrapping and unwrapping the key itself is the vault's.

use ring::hmac;
use ring::signature::Ed25519KeyPair;

use crate::VerifiedReport;
use crate::appraiser::Appraiser;
use crate::commit::{Digest, ReportData, Transcript, commit, sigmsg};
use crate::cose::{self, PublicKey, SignedError};
use crate::evidence::Evidence;
use crate::keyset::{KeySet, keyset_id};
use crate::owner::{Admission, BrokerCertificate, Grant, OwnerError};
use crate::session::keyset_life;
use crate::verdict::{Finding, Reason, Rejected, StepLog};
use crate::wire::{self, Blob, Bytes, WireError};

/// Longest message of the flow; evidence with its certificates is the longest.
pub const MAX_MESSAGE_LEN: usize = 128 << 10;

const CHALLENGE_LABEL: &str = "adyton/v1/sig/challenge";
const MAX_MANIFESTS: usize = 64;

/// HPKE `info` for the wrapped key: `lp("adyton/v1/wrap/release") || TH3`.
#[must_use]
pub fn wrap_info(transcript: &Digest) -> Vec<u8> {
    let mut info = Vec::new();
    crate::commit::push_lp(&mut info, b"adyton/v1/wrap/release");
    info.extend_from_slice(transcript);
    info
}

/// HPKE exporter context of the confirmation key.
pub const CONFIRM_CONTEXT: &[u8] = b"adyton/v1/confirm";

/// Who opened the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The enclave called the broker.
    Pull = 1,
    /// The owner called the enclave.
    Push = 2,
}

/// Why the exchange ends without a release.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// A message is malformed.
    #[error("release message is malformed: {0}")]
    Malformed(#[from] WireError),
    /// A message belongs to another exchange, direction, key set or machine.
    #[error("release message does not belong to this exchange: {0}")]
    Mismatch(&'static str),
    /// The owner's certificate, challenge, grant or admission does not verify.
    #[error("the owner's side does not verify: {0}")]
    Owner(#[from] OwnerError),
    /// The evidence was refused.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The enclave could not open the key: its confirmation does not match.
    #[error("the enclave did not confirm the key it was sent")]
    NotConfirmed,
}

impl From<SignedError> for ReleaseError {
    fn from(error: SignedError) -> Self {
        Self::Owner(error.into())
    }
}

type R1 = (u8, u8, Blob, Vec<Bytes<32>>, Bytes<32>, Blob);
type R2 = (Bytes<32>, Bytes<16>, String, Blob, Bytes<64>);
type R4 = (Blob, Blob, Blob);

fn challenge_message(transcript: &Digest, nonce: &[u8; 32], exporter: &[u8; 32]) -> Vec<u8> {
    sigmsg(CHALLENGE_LABEL, &[transcript, nonce, exporter])
}

fn evidence_commitment(
    transcript: &Digest,
    exporter: &[u8; 32],
    direction: Direction,
    keyset: &[u8],
    kem_key: &[u8],
) -> ReportData {
    commit("adyton/v1/ev/release", &[transcript, exporter, &[direction as u8], keyset, kem_key])
}

fn confirmation(key: &[u8; 32], transcript: &Digest) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), transcript)
}

/// What the enclave asks with; see [`Request::begin`].
#[derive(Debug, Clone)]
pub struct Request {
    /// Who opened the connection.
    pub direction: Direction,
    /// The key set as encoded.
    pub keyset: Vec<u8>,
    /// The models whose key is wanted.
    pub manifest_ids: Vec<Digest>,
    /// Fresh random bytes.
    pub nonce: [u8; 32],
    /// One-use HPKE public key (X-Wing).
    pub kem_key: Vec<u8>,
}

/// Enclave side, after R1.
#[must_use]
#[derive(Debug)]
pub struct Requested {
    request: Request,
    transcript: Transcript,
}

impl Request {
    /// Makes R1.
    pub fn begin(self) -> (Requested, Vec<u8>) {
        let wire: R1 = (
            1,
            self.direction as u8,
            Blob::from(self.keyset.clone()),
            self.manifest_ids.iter().copied().map(Bytes).collect(),
            Bytes(self.nonce),
            Blob::from(self.kem_key.clone()),
        );
        let message = wire::encode(&wire);
        let transcript = Transcript::new("release").then(1, &message);
        (Requested { request: self, transcript }, message)
    }
}

/// Enclave side, after R2: the owner's side proved itself on this connection.
#[must_use]
#[derive(Debug)]
pub struct Challenged {
    request: Request,
    broker_key: PublicKey,
    transcript: Transcript,
    report_data: ReportData,
}

impl Requested {
    /// Verifies R2: the broker is the owner's, and its challenge is for this very connection.
    ///
    /// # Errors
    /// [`ReleaseError::Malformed`] or [`ReleaseError::Owner`].
    pub fn challenged(
        self,
        message: &[u8],
        owner_root: &PublicKey,
        exporter: &[u8; 32],
    ) -> Result<Challenged, ReleaseError> {
        let (nonce, _session, _policy, certificate, signature): R2 = wire::decode(message, MAX_MESSAGE_LEN)?;
        let broker = BrokerCertificate::verify(owner_root, &certificate, None)?;
        let signed = challenge_message(self.transcript.digest(), &nonce.0, exporter);
        cose::verify_raw(&broker.broker_key, &signed, &signature.0)?;
        let transcript = self.transcript.then(2, message);
        let Request { direction, keyset, kem_key, .. } = &self.request;
        let report_data = evidence_commitment(transcript.digest(), exporter, *direction, keyset, kem_key);
        Ok(Challenged { request: self.request, broker_key: broker.broker_key, transcript, report_data })
    }
}

/// Enclave side, after R3.
#[must_use]
#[derive(Debug)]
pub struct Evidenced {
    request: Request,
    broker_key: PublicKey,
    transcript: Transcript,
}

impl Challenged {
    /// What the hardware has to sign.
    #[must_use]
    pub fn report_data(&self) -> &ReportData {
        &self.report_data
    }

    /// Adds the evidence, which is R3 as it is.
    pub fn evidenced(self, evidence: &[u8]) -> Evidenced {
        let transcript = self.transcript.then(3, evidence);
        Evidenced { request: self.request, broker_key: self.broker_key, transcript }
    }
}

/// Enclave side: the terms and the wrapped key, all checked but for opening the key.
#[must_use]
#[derive(Debug)]
pub struct Granted {
    /// The signed terms.
    pub grant: Grant,
    /// The terms as signed: AAD of the wrapped key.
    pub grant_bytes: Vec<u8>,
    /// The wrapped key.
    pub wrapped: Vec<u8>,
    /// The owner's admission of this key set, for clients.
    pub admission: Vec<u8>,
    /// HPKE `info` of the wrapped key.
    pub info: Vec<u8>,
    transcript: Transcript,
}

impl Evidenced {
    /// Verifies R4: signed by the same broker, for this exchange, this key set, this machine and a wanted model.
    ///
    /// # Errors
    /// [`ReleaseError`]: malformed, not signed by the broker, or for something else.
    pub fn granted(
        self,
        message: &[u8],
        owner_root: &PublicKey,
        platform: &Digest,
        least_counter: u64,
    ) -> Result<Granted, ReleaseError> {
        let (grant_bytes, wrapped, admission): R4 = wire::decode(message, MAX_MESSAGE_LEN)?;
        let grant = Grant::verify(&self.broker_key, &grant_bytes)?;
        let id = keyset_id(&self.request.keyset);
        let same = |what, equal: bool| if equal { Ok(()) } else { Err(ReleaseError::Mismatch(what)) };
        same("the grant is for another transcript", &grant.transcript == self.transcript.digest())?;
        same("the grant is for another key set", grant.keyset_id == id)?;
        same("the grant is for another machine", &grant.platform == platform)?;
        same("the grant is for another model", self.request.manifest_ids.contains(&grant.manifest_id))?;
        same("the grant is for an older model version", grant.counter >= least_counter)?;
        let admitted = Admission::verify(owner_root, &admission, None)?;
        same("the admission is for another key set", admitted.keyset_id == id)?;
        same("the admission is for another machine", &admitted.platform == platform)?;
        same("the admission is for another model", admitted.manifest_id == grant.manifest_id)?;
        Ok(Granted {
            grant,
            grant_bytes: grant_bytes.into_vec(),
            wrapped: wrapped.into_vec(),
            admission: admission.into_vec(),
            info: wrap_info(self.transcript.digest()),
            transcript: self.transcript.then(4, message),
        })
    }
}

impl Granted {
    /// R5: proof that the wrapped key was opened. `confirm_key` is the HPKE export under [`CONFIRM_CONTEXT`].
    #[must_use]
    pub fn confirm(&self, confirm_key: &[u8; 32]) -> Vec<u8> {
        confirmation(confirm_key, self.transcript.digest()).as_ref().to_vec()
    }
}

/// Owner side, after R1: well formed, nothing believed.
#[must_use]
#[derive(Debug)]
pub struct Asked {
    direction: Direction,
    keyset_bytes: Vec<u8>,
    keyset: KeySet,
    manifest_ids: Vec<Digest>,
    kem_key: Vec<u8>,
    transcript: Transcript,
}

impl Asked {
    /// Reads R1.
    ///
    /// # Errors
    /// [`ReleaseError`] if it is malformed or made for the other direction.
    pub fn read(message: &[u8], direction: Direction) -> Result<Self, ReleaseError> {
        let (version, tag, keyset_bytes, manifest_ids, _nonce, kem_key): R1 =
            wire::decode(message, MAX_MESSAGE_LEN)?;
        if version != 1 || manifest_ids.len() > MAX_MANIFESTS {
            return Err(WireError::WrongShape.into());
        }
        if tag != direction as u8 {
            return Err(ReleaseError::Mismatch("the request is for the other direction"));
        }
        Ok(Self {
            direction,
            keyset: KeySet::decode(&keyset_bytes)?,
            keyset_bytes: keyset_bytes.into_vec(),
            manifest_ids: manifest_ids.into_iter().map(|id| id.0).collect(),
            kem_key: kem_key.into_vec(),
            transcript: Transcript::new("release").then(1, message),
        })
    }

    /// The models asked for.
    #[must_use]
    pub fn manifest_ids(&self) -> &[Digest] {
        &self.manifest_ids
    }

    /// The key set as the enclave tells it; not believed yet.
    #[must_use]
    pub fn keyset(&self) -> &KeySet {
        &self.keyset
    }

    /// Makes R2 for this connection.
    pub fn challenge(self, challenge: &Challenge<'_>) -> (AwaitingEvidence, Vec<u8>) {
        let signed = challenge_message(self.transcript.digest(), &challenge.nonce, challenge.exporter);
        let mut signature = [0; 64];
        signature.copy_from_slice(challenge.broker_key.sign(&signed).as_ref());
        let wire: R2 = (
            Bytes(challenge.nonce),
            Bytes(challenge.session_id),
            challenge.policy_id.to_owned(),
            Blob::from(challenge.broker_certificate.to_vec()),
            Bytes(signature),
        );
        let message = wire::encode(&wire);
        let transcript = self.transcript.then(2, &message);
        let report_data = evidence_commitment(
            transcript.digest(),
            challenge.exporter,
            self.direction,
            &self.keyset_bytes,
            &self.kem_key,
        );
        (AwaitingEvidence { asked: self, transcript, report_data }, message)
    }
}

/// What the owner's side puts into R2.
pub struct Challenge<'a> {
    /// Fresh random bytes, used once.
    pub nonce: [u8; 32],
    /// Names this exchange.
    pub session_id: [u8; 16],
    /// The policy that will be applied.
    pub policy_id: &'a str,
    /// The owner's certificate for `broker_key`.
    pub broker_certificate: &'a [u8],
    /// Signs the challenge.
    pub broker_key: &'a Ed25519KeyPair,
    /// TLS exporter of this connection.
    pub exporter: &'a [u8; 32],
}

/// Owner side, after R2.
#[must_use]
#[derive(Debug)]
pub struct AwaitingEvidence {
    asked: Asked,
    transcript: Transcript,
    report_data: ReportData,
}

/// Owner side, after R3: genuine, fresh, for this connection, and accepted by the policy.
#[must_use]
#[derive(Debug)]
pub struct Accepted {
    asked: Asked,
    report: VerifiedReport,
    transcript: Transcript,
}

impl AwaitingEvidence {
    /// Judges R3.
    ///
    /// # Errors
    /// [`Rejected`] with the steps of the verdict.
    pub fn accept(self, evidence: &[u8], appraiser: &Appraiser<'_>) -> Result<Accepted, Rejected> {
        let decoded = Evidence::decode(evidence)?;
        let report = appraiser.appraise(decoded, &self.report_data)?;
        if report.host_data() != self.asked.keyset.config_digest {
            let finding =
                Finding::new(Reason::HostData, "the key set names another launch document than HOST_DATA");
            return Err(StepLog::refusal("launch-document", finding));
        }
        // An enclave whose clock the host set back would serve nobody, and is not given a key.
        keyset_life(&self.asked.keyset, appraiser.now.as_unix_seconds())
            .map_err(|finding| StepLog::refusal("key-set-life", finding))?;
        Ok(Accepted { asked: self.asked, report, transcript: self.transcript.then(3, evidence) })
    }
}

impl Accepted {
    /// The verified evidence.
    pub fn report(&self) -> &VerifiedReport {
        &self.report
    }

    /// The key set, now believed: the evidence commits to it.
    #[must_use]
    pub fn keyset(&self) -> &KeySet {
        &self.asked.keyset
    }

    /// The identifier of that key set.
    #[must_use]
    pub fn keyset_id(&self) -> Digest {
        keyset_id(&self.asked.keyset_bytes)
    }

    /// `TH3`, for the grant and the wrapped key.
    #[must_use]
    pub fn transcript(&self) -> &Digest {
        self.transcript.digest()
    }

    /// The enclave's one-use public key.
    #[must_use]
    pub fn kem_key(&self) -> &[u8] {
        &self.asked.kem_key
    }

    /// Makes R4 from what was signed and wrapped.
    pub fn release(self, grant: &[u8], wrapped: &[u8], admission: &[u8]) -> (Released, Vec<u8>) {
        let wire: R4 =
            (Blob::from(grant.to_vec()), Blob::from(wrapped.to_vec()), Blob::from(admission.to_vec()));
        let message = wire::encode(&wire);
        (Released { transcript: self.transcript.then(4, &message) }, message)
    }
}

/// Owner side, after R4.
#[must_use]
#[derive(Debug)]
pub struct Released {
    transcript: Transcript,
}

impl Released {
    /// Checks R5 in constant time.
    ///
    /// # Errors
    /// [`ReleaseError::NotConfirmed`] if the enclave did not open the key.
    pub fn confirmed(self, message: &[u8], confirm_key: &[u8; 32]) -> Result<(), ReleaseError> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, confirm_key);
        hmac::verify(&key, self.transcript.digest(), message).map_err(|_| ReleaseError::NotConfirmed)
    }
}
