//! Flow S: a client makes sure who is at the other end of its TLS connection (SPEC, section 4).
//!
//! After the handshake the client sends a challenge (S1); the enclave answers with its key set, evidence, the owner's
//! admission and a signature (S2). All of it is bound to this connection by the TLS exporter and the key seen in the
//! handshake, so a relay that ends TLS elsewhere has nothing to show, even with a copied TLS key. Only
//! [`Asking::verify`] makes a [`Session`], and only a [`Session`] lets a client send anything.

use ring::signature::Ed25519KeyPair;

use crate::VerifiedReport;
use crate::appraiser::Appraiser;
use crate::commit::{Digest, ReportData, Transcript, commit, hash, sigmsg};
use crate::cose::{self, PublicKey};
use crate::evidence::{Evidence, Platform};
use crate::keyset::{self, KeySet, keyset_id};
use crate::owner::Admission;
use crate::policy::Rule;
use crate::verdict::{Finding, Halt, Reason, Rejected, Step, StepLog};
use crate::wire::{self, Blob, Bytes, WireError};

/// Longest S1.
pub const MAX_HELLO_LEN: usize = 8 << 10;
/// Longest S2; evidence with its certificates is the longest part.
pub const MAX_ANSWER_LEN: usize = 256 << 10;

const MAX_KNOWN: usize = 64;
const BIND_LABEL: &str = "adyton/v1/sig/bind";
/// Role byte of the side that signs the binding.
const ROLE_SERVER: u8 = 2;
/// How far the end of a key set may lie from its begin (SPEC, section 3), with an hour for clocks.
const MAX_KEYSET_LIFE_S: u64 = 25 * 3600;
/// How far ahead of the verifier's clock a key set may begin.
const CLOCK_TOLERANCE_S: u64 = 300;

/// Whether hardware signs for this very session, or signed once for the key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Evidence is made for this challenge and connection.
    Fresh = 1,
    /// Evidence was made when the key set was; the client verified this key set freshly before.
    Delegated = 2,
}

/// The two values that name a connection, computed by each side for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// `EXP`: TLS exporter, 32 bytes.
    pub exporter: [u8; 32],
    /// `H(SPKI)` of the certificate shown in this handshake.
    pub tls_spki: Digest,
}

/// What a client asks with (S1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// `nonce_c`: fresh random bytes, the client's challenge.
    pub challenge: [u8; 32],
    /// The evidence the client wants.
    pub mode: Mode,
    /// Key sets the client has verified freshly; empty for a client that wants its connections unlinkable.
    pub known: Vec<Digest>,
    /// Platforms whose evidence the client can judge.
    pub platforms: Vec<Platform>,
    /// The model the client wants, if it wants one in particular.
    pub manifest_id: Option<Digest>,
}

type S1 = (u8, Bytes<32>, u8, Vec<Bytes<32>>, Vec<u8>, Vec<Bytes<32>>);
/// Key set, mode, boot nonce, evidence, admission, signature, log proofs.
type S2 = (Blob, u8, Bytes<32>, Blob, Blob, Bytes<64>, Vec<Blob>);

impl Hello {
    fn encode(&self) -> Vec<u8> {
        let wire: S1 = (
            1,
            Bytes(self.challenge),
            self.mode as u8,
            self.known.iter().copied().map(Bytes).collect(),
            self.platforms.iter().map(|platform| platform.code()).collect(),
            self.manifest_id.iter().copied().map(Bytes).collect(),
        );
        wire::encode(&wire)
    }

    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (version, challenge, mode, known, platforms, wanted): S1 = wire::decode(bytes, MAX_HELLO_LEN)?;
        let mode = mode_from(mode)?;
        let platforms: Option<Vec<_>> = platforms.into_iter().map(Platform::from_code).collect();
        match (version, platforms, wanted.as_slice()) {
            (1, Some(platforms), [] | [_]) if known.len() <= MAX_KNOWN => Ok(Self {
                challenge: challenge.0,
                mode,
                known: known.into_iter().map(|id| id.0).collect(),
                platforms,
                manifest_id: wanted.first().map(|id| id.0),
            }),
            _ => Err(WireError::WrongShape),
        }
    }
}

fn mode_from(code: u8) -> Result<Mode, WireError> {
    match code {
        1 => Ok(Mode::Fresh),
        2 => Ok(Mode::Delegated),
        _ => Err(WireError::WrongShape),
    }
}

fn first_message(hello: &[u8]) -> Transcript {
    Transcript::new("session").then(1, hello)
}

/// What evidence for the whole life of a key set commits to.
#[must_use]
pub fn keyset_commitment(keyset: &[u8], boot_nonce: &[u8; 32]) -> ReportData {
    commit("adyton/v1/ev/keyset", &[keyset, boot_nonce])
}

fn session_commitment(
    keyset: &[u8],
    challenge: &[u8; 32],
    connection: &Connection,
    transcript: &Transcript,
) -> ReportData {
    let Connection { exporter, tls_spki } = connection;
    commit("adyton/v1/ev/session", &[keyset, challenge, exporter, tls_spki, transcript.digest()])
}

fn bind_message(
    keyset_id: &Digest,
    challenge: &[u8; 32],
    connection: &Connection,
    transcript: &Transcript,
    evidence: &[u8],
    admission: &[u8],
) -> Vec<u8> {
    let Connection { exporter, tls_spki } = connection;
    let (evidence, admission) = (hash(evidence), hash(admission));
    let role = [ROLE_SERVER];
    let th = transcript.digest();
    sigmsg(BIND_LABEL, &[&role, keyset_id, challenge, exporter, tls_spki, th, &evidence, &admission])
}

/// Enclave side: S1 as received.
#[must_use]
#[derive(Debug)]
pub struct Received {
    hello: Hello,
    transcript: Transcript,
}

/// Enclave side: what S2 is made of.
pub struct Answer<'a> {
    /// The key set as encoded.
    pub keyset: &'a [u8],
    /// The evidence, for this session or for the key set, and which of the two it is.
    pub evidence: &'a [u8],
    /// See `evidence`.
    pub mode: Mode,
    /// The nonce inside evidence for the key set.
    pub boot_nonce: &'a [u8; 32],
    /// The owner's admission; empty before the owner admitted this key set.
    pub admission: &'a [u8],
    /// `EIK`.
    pub identity_key: &'a Ed25519KeyPair,
    /// This connection.
    pub connection: &'a Connection,
}

impl Received {
    /// Reads S1 from an untrusted client.
    ///
    /// # Errors
    /// [`WireError`] if it is malformed or over a limit.
    pub fn read(message: &[u8]) -> Result<Self, WireError> {
        Ok(Self { hello: Hello::decode(message)?, transcript: first_message(message) })
    }

    /// What the client asked.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// What hardware has to sign for a fresh session.
    #[must_use]
    pub fn report_data(&self, keyset: &[u8], connection: &Connection) -> ReportData {
        session_commitment(keyset, &self.hello.challenge, connection, &self.transcript)
    }

    /// Makes S2.
    #[must_use]
    pub fn answer(&self, answer: &Answer<'_>) -> Vec<u8> {
        let id = keyset_id(answer.keyset);
        let (challenge, connection) = (&self.hello.challenge, answer.connection);
        let message =
            bind_message(&id, challenge, connection, &self.transcript, answer.evidence, answer.admission);
        let mut signature = [0; 64];
        signature.copy_from_slice(answer.identity_key.sign(&message).as_ref());
        let wire: S2 = (
            Blob::from(answer.keyset.to_vec()),
            answer.mode as u8,
            Bytes(*answer.boot_nonce),
            Blob::from(answer.evidence.to_vec()),
            Blob::from(answer.admission.to_vec()),
            Bytes(signature),
            Vec::new(),
        );
        wire::encode(&wire)
    }
}

/// Whose admission a client asks for.
#[derive(Debug, Clone, Copy)]
pub enum OwnerRule {
    /// The owner with this root key must have admitted the key set.
    Admitted(PublicKey),
    /// Nobody's: a key extracted from any accepted machine then opens this client's channel. For owners, who speak to an
    /// enclave before there can be an admission.
    DangerousUnadmitted,
}

/// What a client judges an enclave by.
#[derive(Debug)]
pub struct Trust<'a> {
    /// How evidence is judged.
    pub appraiser: Appraiser<'a>,
    /// Whose admission is asked for.
    pub owner: OwnerRule,
    /// Which models are accepted.
    pub manifest: &'a Rule<Digest>,
    /// Key sets this client verified freshly, and which are still valid.
    pub known: &'a [Digest],
}

/// Client side: S1 was sent.
#[must_use]
#[derive(Debug)]
pub struct Asking {
    hello: Hello,
    transcript: Transcript,
}

/// Proof that one TLS connection ends in an enclave the client accepts. Not `Clone`: it is for that connection only.
#[must_use = "a session is what lets a client send"]
#[derive(Debug)]
pub struct Session {
    challenge: [u8; 32],
    keyset: KeySet,
    keyset_id: Digest,
    manifest_id: Option<Digest>,
    valid_until_s: u64,
    fresh: bool,
    report: VerifiedReport,
    steps: Vec<Step>,
}

impl Asking {
    /// Makes S1.
    pub fn begin(hello: Hello) -> (Self, Vec<u8>) {
        let message = hello.encode();
        let transcript = first_message(&message);
        (Self { hello, transcript }, message)
    }

    /// Takes up a saved S1, to judge a saved session again.
    ///
    /// # Errors
    /// [`WireError`] if it is malformed.
    pub fn resume(message: &[u8]) -> Result<Self, WireError> {
        Ok(Self { hello: Hello::decode(message)?, transcript: first_message(message) })
    }

    /// Judges S2 against what this side knows of its own connection.
    ///
    /// In order: evidence and policy with the commitment, the TLS key, the signature that binds the session, the life of
    /// the key set, the launch document, the owner's admission, the model.
    ///
    /// # Errors
    /// [`Rejected`] with every step; nothing may then be sent.
    pub fn verify(
        self,
        answer: &[u8],
        connection: &Connection,
        trust: &Trust<'_>,
    ) -> Result<Session, Rejected> {
        let parsed = Parsed::read(answer).map_err(|error| {
            StepLog::refusal("session-format", Finding::new(Reason::Encoding, error.to_string()))
        })?;
        let id = keyset_id(&parsed.keyset_bytes);
        let expected = match parsed.mode {
            Mode::Fresh => {
                session_commitment(&parsed.keyset_bytes, &self.hello.challenge, connection, &self.transcript)
            }
            Mode::Delegated => keyset_commitment(&parsed.keyset_bytes, &parsed.boot_nonce),
        };
        let report = trust.appraiser.appraise(Evidence::decode(&parsed.evidence)?, &expected)?;
        let mut log = StepLog::from_steps(report.steps());
        match self.bind(&mut log, &parsed, &id, &report, connection, trust) {
            Ok((manifest_id, valid_until_s)) => Ok(Session {
                challenge: self.hello.challenge,
                keyset: parsed.keyset,
                keyset_id: id,
                manifest_id,
                valid_until_s,
                fresh: parsed.mode == Mode::Fresh,
                steps: log.finish()?,
                report,
            }),
            Err(halt) => Err(log.into_rejected(halt)),
        }
    }

    fn bind(
        &self,
        log: &mut StepLog,
        parsed: &Parsed,
        id: &Digest,
        report: &VerifiedReport,
        connection: &Connection,
        trust: &Trust<'_>,
    ) -> Result<(Option<Digest>, u64), Halt> {
        let keyset = &parsed.keyset;
        let now_s = trust.appraiser.now.as_unix_seconds();
        log.step("session-fresh", self.freshness(parsed, id, trust))?;
        log.step("tls-key", tls_key(keyset, connection))?;
        log.step("session-binding", self.binding(parsed, id, connection))?;
        log.step("key-set-life", keyset_life(keyset, now_s))?;
        let bound = keyset.config_digest == report.host_data();
        log.step(
            "launch-document",
            require(bound, Reason::HostData, "the key set's launch document is HOST_DATA"),
        )?;
        let (manifest_id, until) = match trust.owner {
            OwnerRule::Admitted(owner) => {
                let admission = log.step("admission", admission(parsed, id, report, &owner, trust))?;
                (Some(admission.manifest_id), admission.expires.as_unix_seconds())
            }
            OwnerRule::DangerousUnadmitted => {
                log.skip("admission", "DANGEROUS: no owner's admission is asked for");
                (keyset.manifest_ids.first().copied(), u64::MAX)
            }
        };
        log.step("model", model(manifest_id, trust.manifest, &self.hello))?;
        log.skip("log-proofs", "no transparency log is configured");
        Ok((manifest_id, until.min(keyset.not_after.as_unix_seconds())))
    }

    fn freshness(&self, parsed: &Parsed, id: &Digest, trust: &Trust<'_>) -> Result<((), String), Finding> {
        let detail = match parsed.mode {
            Mode::Fresh => "evidence was made for this challenge and connection",
            Mode::Delegated if self.hello.mode == Mode::Fresh => {
                return Err(Finding::new(
                    Reason::NotFresh,
                    "fresh evidence was asked for, older evidence was given",
                ));
            }
            Mode::Delegated if !trust.known.contains(id) => {
                return Err(Finding::new(
                    Reason::NotFresh,
                    "this key set was never verified freshly; ask for fresh evidence",
                ));
            }
            Mode::Delegated => {
                "this key set was verified freshly before; its identity key signed this session"
            }
        };
        Ok(((), detail.into()))
    }

    fn binding(
        &self,
        parsed: &Parsed,
        id: &Digest,
        connection: &Connection,
    ) -> Result<((), String), Finding> {
        let challenge = &self.hello.challenge;
        let message =
            bind_message(id, challenge, connection, &self.transcript, &parsed.evidence, &parsed.admission);
        let valid = cose::verify_raw(&parsed.keyset.identity_key, &message, &parsed.signature).is_ok();
        require(
            valid,
            Reason::SessionBinding,
            "the attested identity key signed this challenge and connection",
        )
    }
}

struct Parsed {
    keyset_bytes: Vec<u8>,
    keyset: KeySet,
    mode: Mode,
    boot_nonce: [u8; 32],
    evidence: Vec<u8>,
    admission: Vec<u8>,
    signature: [u8; 64],
}

impl Parsed {
    fn read(answer: &[u8]) -> Result<Self, WireError> {
        let (keyset, mode, boot_nonce, evidence, admission, signature, proofs): S2 =
            wire::decode(answer, MAX_ANSWER_LEN)?;
        if keyset.len() > keyset::MAX_LEN || !proofs.is_empty() {
            return Err(WireError::WrongShape);
        }
        Ok(Self {
            keyset: KeySet::decode(&keyset)?,
            keyset_bytes: keyset.into_vec(),
            mode: mode_from(mode)?,
            boot_nonce: boot_nonce.0,
            evidence: evidence.into_vec(),
            admission: admission.into_vec(),
            signature: signature.0,
        })
    }
}

fn require(holds: bool, reason: Reason, claim: &str) -> Result<((), String), Finding> {
    if holds { Ok(((), claim.into())) } else { Err(Finding::new(reason, format!("not so: {claim}"))) }
}

fn tls_key(keyset: &KeySet, connection: &Connection) -> Result<((), String), Finding> {
    let same = keyset.tls_spki == connection.tls_spki;
    require(same, Reason::TlsKey, "the key shown in the handshake is the attested one")
}

pub(crate) fn keyset_life(keyset: &KeySet, now_s: u64) -> Result<((), String), Finding> {
    let (begin, end) = (keyset.not_before.as_unix_seconds(), keyset.not_after.as_unix_seconds());
    let detail = format!("valid from {} to {}", keyset.not_before, keyset.not_after);
    if end - begin > MAX_KEYSET_LIFE_S {
        Err(Finding::new(Reason::KeySetLife, format!("{detail}: longer than a day")))
    } else if now_s.saturating_add(CLOCK_TOLERANCE_S) < begin {
        Err(Finding::new(Reason::NotYetValid, format!("{detail}: not yet")))
    } else if now_s >= end {
        Err(Finding::new(Reason::Expired, format!("{detail}: over")))
    } else {
        Ok(((), detail))
    }
}

fn admission(
    parsed: &Parsed,
    id: &Digest,
    report: &VerifiedReport,
    owner: &PublicKey,
    trust: &Trust<'_>,
) -> Result<(Admission, String), Finding> {
    if parsed.admission.is_empty() {
        return Err(Finding::new(Reason::Admission, "the owner has not admitted this enclave (yet)"));
    }
    let admission = Admission::verify(owner, &parsed.admission, Some(trust.appraiser.now))
        .map_err(|error| Finding::new(Reason::Admission, error.to_string()))?;
    let for_this = admission.keyset_id == *id
        && admission.platform == report.platform_id()
        && parsed.keyset.manifest_ids.contains(&admission.manifest_id);
    if !for_this {
        return Err(Finding::new(
            Reason::Admission,
            "the admission is for another key set, machine or model",
        ));
    }
    let detail = format!(
        "the owner admitted this key set under policy {} until {}",
        admission.policy_id, admission.expires
    );
    Ok((admission, detail))
}

fn model(manifest_id: Option<Digest>, rule: &Rule<Digest>, hello: &Hello) -> Result<((), String), Finding> {
    let Some(id) = manifest_id else {
        return match (rule, hello.manifest_id) {
            (Rule::Any, None) => Ok(((), "no model is loaded and none is asked for".into())),
            _ => Err(Finding::new(Reason::Manifest, "no model is loaded")),
        };
    };
    let shown = crate::hex_string(&id);
    if !rule.accepts(&id) || hello.manifest_id.is_some_and(|wanted| wanted != id) {
        return Err(Finding::new(Reason::Manifest, format!("manifest {shown} is not the one asked for")));
    }
    Ok(((), format!("manifest {shown}")))
}

impl Session {
    /// The client's challenge: the salt of request hashes in receipts.
    #[must_use]
    pub fn challenge(&self) -> &[u8; 32] {
        &self.challenge
    }

    /// The attested keys.
    #[must_use]
    pub fn keyset(&self) -> &KeySet {
        &self.keyset
    }

    /// Identifier of the key set.
    #[must_use]
    pub fn keyset_id(&self) -> &Digest {
        &self.keyset_id
    }

    /// The model the owner admitted; none only in a session without admission.
    #[must_use]
    pub fn manifest_id(&self) -> Option<&Digest> {
        self.manifest_id.as_ref()
    }

    /// Seconds since 1970 at which key set or admission end; the session must be closed by then.
    #[must_use]
    pub fn valid_until_s(&self) -> u64 {
        self.valid_until_s
    }

    /// Whether hardware signed for this very session.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// What the hardware said.
    pub fn report(&self) -> &VerifiedReport {
        &self.report
    }

    /// Every step of the verdict, in order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}
