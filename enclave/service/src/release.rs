//! The enclave's side of flow R, for both directions (SPEC, section 6).

use std::time::{Duration, Instant};

use adyton_attestation::commit::Digest;
use adyton_attestation::release::{
    CONFIRM_CONTEXT, Challenged, Direction, Evidenced, MAX_MESSAGE_LEN, ReleaseError, Request, Requested,
};
use adyton_channel::Peer;
use adyton_channel::http::{Call, Reply};
use adyton_vault::release::open_for_release;
use adyton_vault::wrap::{Kem, PrivateKey, generate};
use hyper::StatusCode;

use crate::EnclaveError;
use crate::enclave::Shared;
use crate::load::{Prepared, prepare};
use crate::transport::Address;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A key that was granted and shown to be the manifest's, with the terms it came under.
pub(crate) struct Opened {
    pub(crate) prepared: Prepared,
    pub(crate) admission: Vec<u8>,
    pub(crate) lease_s: u64,
    /// From when the lease counts: before the key was asked for.
    pub(crate) since: Instant,
    /// R5.
    pub(crate) confirmation: Vec<u8>,
}

/// Between R1 and R2.
pub(crate) struct Asking {
    requested: Requested,
    key: PrivateKey,
    since: Instant,
}

/// Between R3 and R4.
pub(crate) struct Proven {
    evidenced: Evidenced,
    key: PrivateKey,
    since: Instant,
    platform: Digest,
}

impl Asking {
    /// Draws a one-use key and makes R1.
    pub(crate) fn begin(shared: &Shared, direction: Direction) -> Result<(Self, Vec<u8>), EnclaveError> {
        let (key, kem_key) = generate(Kem::XWing)?;
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce)?;
        let request = Request {
            direction,
            keyset: shared.keys.keyset_bytes.clone(),
            manifest_ids: vec![*shared.manifest.id()],
            nonce,
            kem_key,
        };
        let (requested, message) = request.begin();
        Ok((Self { requested, key, since: Instant::now() }, message))
    }

    /// Verifies R2 and makes R3.
    pub(crate) async fn prove(
        self,
        shared: &Shared,
        message: &[u8],
        exporter: &[u8; 32],
    ) -> Result<(Proven, Vec<u8>), EnclaveError> {
        let challenged: Challenged =
            self.requested.challenged(message, &shared.document.owner_root, exporter)?;
        let (evidence, platform) = shared.attest(*challenged.report_data()).await?;
        let evidenced = challenged.evidenced(&evidence);
        Ok((Proven { evidenced, key: self.key, since: self.since, platform }, evidence))
    }
}

impl Proven {
    /// Verifies R4, opens the key, shows that it is the manifest's, and makes R5.
    pub(crate) async fn open(self, shared: &Shared, message: &[u8]) -> Result<Opened, EnclaveError> {
        let manifest = &shared.manifest;
        let root = &shared.document.owner_root;
        let granted = self.evidenced.granted(message, root, &self.platform, manifest.manifest().counter)?;
        let (kek, confirm_key) = open_for_release(
            self.key,
            &granted.info,
            &granted.grant_bytes,
            CONFIRM_CONTEXT,
            &granted.wrapped,
        )?;
        let prepared = prepare(&shared.document.files, manifest, kek).await?;
        let confirmation = confirm_key.expose(|key| granted.confirm(key));
        Ok(Opened {
            prepared,
            admission: granted.admission,
            lease_s: granted.grant.lease_s,
            since: self.since,
            confirmation,
        })
    }
}

/// The whole exchange with a broker.
pub(crate) async fn pull(shared: &Shared, broker: &Address, spki: &Digest) -> Result<Opened, EnclaveError> {
    let (connecting, name) = (broker.connect(), broker.to_string());
    let mut call = Call::over(connecting, &name, Peer::Pinned(*spki), ANSWER_TIMEOUT).await?;
    let exporter = call.connection().exporter;
    let (asking, request) = Asking::begin(shared, Direction::Pull)?;
    let challenge = accepted(&call.post("/v1/release/ask", request, MAX_MESSAGE_LEN).await?)?;
    let (proven, evidence) = asking.prove(shared, &challenge, &exporter).await?;
    let grant = accepted(&call.post("/v1/release/evidence", evidence, MAX_MESSAGE_LEN).await?)?;
    let opened = proven.open(shared, &grant).await?;
    accepted(&call.post("/v1/release/confirm", opened.confirmation.clone(), MAX_MESSAGE_LEN).await?)?;
    Ok(opened)
}

/// The message of an accepting reply, or the class of the refusal (letters and dashes, nothing else is shown).
fn accepted(reply: &Reply) -> Result<Vec<u8>, EnclaveError> {
    if reply.status == StatusCode::OK {
        return Ok(reply.body.to_vec());
    }
    let plain = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'-';
    let class: String = reply.body.iter().take(40).copied().filter(plain).map(char::from).collect();
    Err(EnclaveError::Refused(class))
}

/// Where a push stands on one connection.
#[derive(Default)]
pub(crate) enum Push {
    #[default]
    Idle,
    Asking(Box<Asking>),
    Proven(Box<Proven>),
}

impl Push {
    /// One message of a push: `begin` makes R1, `challenge` takes R2 and makes R3, `grant` takes R4 and makes R5.
    ///
    /// Whatever goes wrong, the push is over and has to begin again.
    pub(crate) async fn step(
        &mut self,
        shared: &Shared,
        verb: &str,
        message: &[u8],
        exporter: &[u8; 32],
    ) -> Result<(Vec<u8>, Option<Opened>), EnclaveError> {
        match (std::mem::take(self), verb) {
            (_, "begin") => {
                let (asking, request) = Asking::begin(shared, Direction::Push)?;
                *self = Self::Asking(Box::new(asking));
                Ok((request, None))
            }
            (Self::Asking(asking), "challenge") => {
                let (proven, evidence) = asking.prove(shared, message, exporter).await?;
                *self = Self::Proven(Box::new(proven));
                Ok((evidence, None))
            }
            (Self::Proven(proven), "grant") => {
                let opened = proven.open(shared, message).await?;
                Ok((opened.confirmation.clone(), Some(opened)))
            }
            _ => Err(ReleaseError::Mismatch("message out of order").into()),
        }
    }
}
