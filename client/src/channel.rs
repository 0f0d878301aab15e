//! The connection of a client: dialed, verified, and only then able to send.

use std::time::Duration;

use adyton_attestation::Platform;
use adyton_attestation::commit::{Digest, hash};
use adyton_attestation::receipt::{Receipt, parameters, request_bytes, request_hash};
use adyton_attestation::session::{Asking, Hello, MAX_ANSWER_LEN, Mode, Session, Trust};
use adyton_broker::now;
use adyton_channel::Peer;
use adyton_channel::http::{Call, Reply};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};

use crate::{ClientError, Exchange, SavedSession};

const ATTEST_PATH: &str = "/.well-known/adyton/attest";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest answer a client takes.
const MAX_RESPONSE_LEN: usize = 64 << 20;

/// `host:port` out of an address as people write one.
///
/// # Errors
/// [`ClientError::Address`].
pub fn endpoint(address: &str) -> Result<String, ClientError> {
    let wrong = || ClientError::Address(address.to_owned());
    let rest =
        ["https://", "adyton://"].iter().find_map(|scheme| address.strip_prefix(scheme)).unwrap_or(address);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
    let plain = !host.is_empty() && !host.contains(['/', '@', ' ']) && port.parse::<u16>().is_ok();
    plain.then(|| rest.to_owned()).ok_or_else(wrong)
}

/// A TLS connection to somebody. It can be verified and nothing else.
#[must_use = "nobody knows yet who is at the other end"]
pub struct Dialed {
    pub(crate) call: Call,
    endpoint: String,
}

/// A connection that ends in an enclave this client accepts.
pub struct Channel {
    pub(crate) call: Call,
    session: Session,
    saved: SavedSession,
    next_sequence: u64,
    last_receipt: Digest,
}

/// An answer whose receipt was verified.
pub struct Answered {
    /// The body.
    pub body: Vec<u8>,
    /// What to keep to prove it later.
    pub exchange: Exchange,
}

impl Dialed {
    /// Connects. Any key is taken; evidence is asked for next.
    ///
    /// # Errors
    /// [`ClientError`]: not an address, unreachable, or TLS failed.
    pub async fn dial(address: &str) -> Result<Self, ClientError> {
        let endpoint = endpoint(address)?;
        let call = Call::dial(&endpoint, Peer::Attested, ANSWER_TIMEOUT).await?;
        Ok(Self { call, endpoint })
    }

    /// `host:port` that was dialed.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Flow S: challenges the other end and judges its answer.
    ///
    /// With key sets in `trust.known` evidence made earlier is accepted for those; otherwise it must be fresh.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] with every step of the verdict; nothing but the challenge was sent then.
    pub async fn verify(
        mut self,
        trust: &Trust<'_>,
        manifest_id: Option<Digest>,
    ) -> Result<Channel, ClientError> {
        let mut challenge = [0; 32];
        getrandom::fill(&mut challenge)?;
        let mode = if trust.known.is_empty() { Mode::Fresh } else { Mode::Delegated };
        let platforms = vec![Platform::SevSnp, Platform::Tdx, Platform::Simulated];
        let (asking, hello) =
            Asking::begin(Hello { challenge, mode, known: trust.known.to_vec(), platforms, manifest_id });
        let reply = self.call.post(ATTEST_PATH, hello.clone(), MAX_ANSWER_LEN).await?;
        if reply.status != StatusCode::OK {
            return Err(status_error(&reply));
        }
        let connection = *self.call.connection();
        let session = asking.verify(&reply.body, &connection, trust)?;
        let saved = SavedSession::new(hello, reply.body.to_vec(), connection, trust.appraiser.now);
        Ok(Channel { call: self.call, session, saved, next_sequence: 0, last_receipt: [0; 32] })
    }
}

impl Channel {
    /// The verified session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// What to keep of the session to judge it again later.
    #[must_use]
    pub fn saved(&self) -> &SavedSession {
        &self.saved
    }

    fn alive(&self) -> Result<(), ClientError> {
        if now().as_unix_seconds() < self.session.valid_until_s() {
            Ok(())
        } else {
            Err(ClientError::SessionOver)
        }
    }

    /// Asks for something that needs no receipt, such as the metadata of a model.
    ///
    /// # Errors
    /// [`ClientError`]: session over, connection lost, or refused.
    pub async fn get(&mut self, path: &str) -> Result<Vec<u8>, ClientError> {
        self.alive()?;
        let reply = self.call.send(Method::GET, path, HeaderMap::new(), Vec::new(), MAX_RESPONSE_LEN).await?;
        if reply.status == StatusCode::OK { Ok(reply.body.to_vec()) } else { Err(status_error(&reply)) }
    }

    /// Sends a request and verifies the receipt of its answer before handing the answer out.
    ///
    /// # Errors
    /// [`ClientError`]: session over, connection lost, refused, or a receipt that is missing or for something else.
    pub async fn ask(&mut self, path: &str, body: Vec<u8>) -> Result<Answered, ClientError> {
        self.alive()?;
        let reply =
            self.call.send(Method::POST, path, json_headers(), body.clone(), MAX_RESPONSE_LEN).await?;
        self.answered(path, body, &reply)
    }

    /// As [`Channel::ask`] for an answer that comes little by little. `each` sees the pieces as the attested enclave sends
    /// them; only with the receipt is the answer whole.
    ///
    /// # Errors
    /// As [`Channel::ask`].
    pub async fn ask_streaming(
        &mut self,
        path: &str,
        body: Vec<u8>,
        each: impl FnMut(&[u8]),
    ) -> Result<Answered, ClientError> {
        self.alive()?;
        let (method, headers) = (Method::POST, json_headers());
        let reply =
            self.call.send_streaming(method, path, headers, body.clone(), MAX_RESPONSE_LEN, each).await?;
        self.answered(path, body, &reply)
    }

    /// Verifies the receipt of an answer.
    fn answered(&mut self, path: &str, body: Vec<u8>, reply: &Reply) -> Result<Answered, ClientError> {
        if reply.status != StatusCode::OK {
            return Err(status_error(reply));
        }
        let receipt = receipt_of(reply).ok_or(ClientError::Receipt("the answer has none"))?;
        let exchange = Exchange {
            method: "POST".into(),
            path: path.into(),
            request: body,
            response: reply.body.to_vec(),
            receipt,
        };
        exchange
            .verify(&self.session, self.next_sequence, &self.last_receipt)
            .map_err(ClientError::Receipt)?;
        self.next_sequence += 1;
        self.last_receipt = hash(&exchange.receipt);
        Ok(Answered { body: reply.body.to_vec(), exchange })
    }
}

impl Exchange {
    /// Shows that the receipt is by the session's receipt key, for this request, this answer and this place in the
    /// chain.
    pub(crate) fn verify(
        &self,
        session: &Session,
        sequence: u64,
        previous: &Digest,
    ) -> Result<(), &'static str> {
        let receipt = Receipt::verify(&session.keyset().receipt_key, &self.receipt)
            .map_err(|_| "it is not signed by the attested receipt key")?;
        let request = request_bytes(&self.method, &self.path, &self.request);
        let holds = [
            (receipt.keyset_id == *session.keyset_id(), "it names another key set"),
            (Some(&receipt.manifest_id) == session.manifest_id(), "it names another model"),
            (
                receipt.request == request_hash(session.challenge(), &request),
                "it is for another request or session",
            ),
            (receipt.response == hash(&self.response), "it is for another answer"),
            (receipt.parameters == parameters(&self.path), "it is for other parameters"),
            (receipt.sequence == sequence, "its number is not the next one"),
            (receipt.previous == *previous, "it does not follow the one before"),
        ];
        holds.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, why)| Err(why))
    }
}

fn json_headers() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))])
}

fn receipt_of(reply: &Reply) -> Option<Vec<u8>> {
    let value = reply.trailers.as_ref()?.get("adyton-receipt")?;
    BASE64.decode(value.as_bytes()).ok()
}

/// What the service said, without control characters and not longer than a line.
pub(crate) fn status_error(reply: &Reply) -> ClientError {
    let sentence = serde_json::from_slice::<serde_json::Value>(&reply.body)
        .ok()
        .and_then(|value| {
            let error = value.get("error")?;
            // In OpenAI's shape the sentence lies one deeper.
            error.as_str().or_else(|| error.get("message")?.as_str()).map(str::to_owned)
        })
        .unwrap_or_default();
    let message = sentence.chars().filter(|char| !char.is_control()).take(200).collect();
    ClientError::Status { status: reply.status.as_u16(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_people_write_them() {
        assert_eq!(endpoint("https://enclave.example:8443/").unwrap(), "enclave.example:8443");
        assert_eq!(endpoint("adyton://[::1]:8443").unwrap(), "[::1]:8443");
        assert_eq!(endpoint("127.0.0.1:1").unwrap(), "127.0.0.1:1");
        for wrong in
            ["", "enclave", "http://enclave:1/path", "https://enclave:99999", "https://user@enclave:1", ":1"]
        {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }
}
