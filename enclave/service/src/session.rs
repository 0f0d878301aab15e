//! One connection: nothing but flow S is answered before flow S, and each answer gets a receipt after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use adyton_attestation::commit::{Digest, hash};
use adyton_attestation::receipt::{Receipt, parameters, request_bytes, request_hash};
use adyton_attestation::session::{Answer, Connection, Mode, Received};
use tokio::sync::Mutex;

use crate::EnclaveError;
use crate::enclave::Shared;
use crate::load::{Model, Served};
use crate::release::Push;

/// Fresh evidence costs a hardware call: one connection gets so many.
const MAX_ATTESTATIONS: u32 = 16;
/// Answers on one connection before the client has to attest again (SPEC, section 4).
const MAX_ANSWERS: u64 = 10_000;

/// The state of one connection.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    /// A number of this connection alone: nothing computed for it is used for another.
    pub(crate) tenant: u64,
    connection: Connection,
    state: Mutex<State>,
    push: Mutex<Push>,
}

#[derive(Default)]
struct State {
    challenge: Option<[u8; 32]>,
    attestations: u32,
    answers: u64,
    last_receipt: Digest,
}

/// Why S1 is not answered.
pub(crate) enum AttestRefusal {
    Malformed,
    TooMany,
    WrongModel,
    OtherPlatform,
    Failed,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, connection: Connection) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let tenant = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { shared, tenant, connection, state: Mutex::default(), push: Mutex::default() }
    }

    /// Flow S: answers S1 with S2. A later S1 on the same connection begins anew, with its own chain of receipts.
    pub(crate) async fn attest(&self, message: &[u8]) -> Result<Vec<u8>, AttestRefusal> {
        let received = Received::read(message).map_err(|_| AttestRefusal::Malformed)?;
        let (shared, hello) = (&self.shared, received.hello());
        if hello.manifest_id.is_some_and(|wanted| wanted != *shared.manifest.id()) {
            return Err(AttestRefusal::WrongModel);
        }
        if !hello.platforms.contains(&shared.platform()) {
            return Err(AttestRefusal::OtherPlatform);
        }
        let mut state = self.state.lock().await;
        if state.attestations >= MAX_ATTESTATIONS {
            return Err(AttestRefusal::TooMany);
        }
        state.attestations += 1;
        let keys = &shared.keys;
        let delegated = hello.mode == Mode::Delegated && hello.known.contains(&keys.keyset_id);
        let (mode, evidence) = if delegated {
            (Mode::Delegated, shared.keyset_evidence.clone())
        } else {
            let report_data = received.report_data(&keys.keyset_bytes, &self.connection);
            let (evidence, _) = shared.attest(report_data).await.map_err(|error| {
                tracing::warn!("no evidence for a session: {error}");
                AttestRefusal::Failed
            })?;
            (Mode::Fresh, evidence)
        };
        let answer = received.answer(&Answer {
            keyset: &keys.keyset_bytes,
            evidence: &evidence,
            mode,
            boot_nonce: &keys.boot_nonce,
            admission: &shared.admission(),
            identity_key: &keys.identity,
            connection: &self.connection,
        });
        let attestations = state.attestations;
        *state = State { challenge: Some(hello.challenge), attestations, ..State::default() };
        Ok(answer)
    }

    /// Whether flow S was answered on this connection, recently enough.
    pub(crate) async fn is_attested(&self) -> bool {
        let state = self.state.lock().await;
        state.challenge.is_some() && state.answers < MAX_ANSWERS
    }

    /// Signs the receipt of one answer to a `POST` of `body` to `path` and links it to the one before.
    pub(crate) async fn receipt(
        &self,
        served: &Served,
        (path, body): (&str, &[u8]),
        response: &[u8],
    ) -> Option<Vec<u8>> {
        let request = request_bytes("POST", path, body);
        let mut state = self.state.lock().await;
        let receipt = Receipt {
            keyset_id: self.shared.keys.keyset_id,
            manifest_id: served.manifest_id,
            request: request_hash(&state.challenge?, &request),
            response: hash(response),
            parameters: parameters(path),
            sequence: state.answers,
            previous: state.last_receipt,
        }
        .sign(&self.shared.keys.receipt);
        state.answers += 1;
        state.last_receipt = hash(&receipt);
        Some(receipt)
    }

    /// Flow R in push form: one message.
    pub(crate) async fn push(&self, verb: &str, message: &[u8]) -> Result<Vec<u8>, EnclaveError> {
        let mut push = self.push.lock().await;
        let (reply, opened) = push.step(&self.shared, verb, message, &self.connection.exporter).await?;
        if let Some(opened) = opened {
            self.shared.install(opened).await?;
        }
        Ok(reply)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let model = self.shared.model();
        if let Some(Model::Language(language)) = model.as_ref().map(|served| &served.model) {
            language.forget(self.tenant);
        }
    }
}
