//! The owner pushes a model key into an attested enclave: flow R over a verified session (SPEC, section 6).

use adyton_attestation::release::{Direction, MAX_MESSAGE_LEN};
use adyton_attestation::session::Trust;
use adyton_broker::{EVIDENCE_DEADLINE, ReleaseRecord, Releaser, Store};
use hyper::StatusCode;
use tokio::time::timeout;

use crate::channel::status_error;
use crate::{Channel, ClientError, Dialed};

/// Verifies the enclave at `address`, then releases the key to it. `trust` asks for no admission: this makes it.
///
/// # Errors
/// [`ClientError`]: refused by either side; the store tells whether a key had left by then.
pub async fn provision(
    address: &str,
    trust: &Trust<'_>,
    releaser: &Releaser,
    store: &Store,
) -> Result<ReleaseRecord, ClientError> {
    let mut channel = Dialed::dial(address).await?.verify(trust, None).await?;
    let request = step(&mut channel, "begin", Vec::new()).await?;
    let exporter = channel.call.connection().exporter;
    let (awaiting, challenge) = releaser.challenge(&request, Direction::Push, &exporter)?;
    let proving = timeout(EVIDENCE_DEADLINE, step(&mut channel, "challenge", challenge));
    let evidence =
        proving.await.map_err(|_| ClientError::Provision("it gave no evidence in time".into()))??;
    let (release, grant) = releaser.release(awaiting, &evidence, store)?;
    let confirmation = step(&mut channel, "grant", grant).await?;
    Ok(release.confirmed(&confirmation, store)?)
}

async fn step(channel: &mut Channel, verb: &str, message: Vec<u8>) -> Result<Vec<u8>, ClientError> {
    let path = format!("/.well-known/adyton/release/{verb}");
    let reply = channel.call.post(&path, message, MAX_MESSAGE_LEN).await?;
    match (reply.status, status_error(&reply)) {
        (StatusCode::OK, _) => Ok(reply.body.to_vec()),
        (_, ClientError::Status { message, .. }) => Err(ClientError::Provision(message)),
        (_, error) => Err(error),
    }
}
