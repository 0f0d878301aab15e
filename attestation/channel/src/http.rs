//! HTTP/2 inside the channel: a caller that knows its connection's exporter, and an acceptor that does.
//!
//! Evidence is exchanged as ordinary requests of the connection it is about, so both ends need the HTTP connection and
//! the exporter of the TLS connection below it together. Bodies are read up to a cap, never beyond.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use adyton_attestation::commit::Digest;
use adyton_attestation::session::Connection;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::tls::{ALPN_H2, ChannelError, Peer, TlsIdentity, client_config, exporter, peer_spki};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Why a request over a channel has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Nobody listens, or the network does not reach it.
    #[error("cannot reach {address}: {source}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The peer does not answer in time.
    #[error("{address} did not answer within {seconds} s")]
    Timeout {
        /// Host and port.
        address: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// TLS failed, as when the peer shows another key than the pinned one.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The connection was lost or broke the protocol.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The answer is longer than it may be.
    #[error("the answer is longer than the {0} bytes allowed")]
    TooLong(usize),
}

/// A connection to an enclave or broker, with what names it.
pub struct Call {
    sender: SendRequest<Full<Bytes>>,
    connection: Connection,
    address: String,
    timeout: Duration,
}

/// A whole answer.
pub struct Reply {
    /// HTTP status.
    pub status: StatusCode,
    /// HTTP headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// What came after the body.
    pub trailers: Option<HeaderMap>,
}

impl Call {
    /// Connects to `address` (`host:port`), shakes hands and waits for HTTP/2 to be ready.
    ///
    /// # Errors
    /// [`CallError`]: unreachable, too slow, or TLS failed.
    pub async fn dial(address: &str, peer: Peer, answer_timeout: Duration) -> Result<Self, CallError> {
        let connecting = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        Self::over(connecting, address, peer, answer_timeout).await
    }

    /// [`Call::dial`] over any byte stream; `address` is what messages call its other end.
    ///
    /// # Errors
    /// As [`Call::dial`].
    pub async fn over<S>(
        connecting: impl Future<Output = io::Result<S>>,
        address: &str,
        peer: Peer,
        answer_timeout: Duration,
    ) -> Result<Self, CallError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let handshake = async {
            let unreachable = |source| CallError::Unreachable { address: address.to_owned(), source };
            let stream = connecting.await.map_err(unreachable)?;
            // The name is not an identity and is not sent; rustls wants one all the same.
            let name =
                ServerName::try_from("adyton.invalid").map_err(|error| CallError::Lost(error.to_string()))?;
            let connector = TlsConnector::from(client_config(peer)?);
            let stream = connector.connect(name, stream).await.map_err(|error| tls_error(address, error))?;
            let tls = stream.get_ref().1;
            if tls.alpn_protocol() != Some(ALPN_H2) {
                return Err(CallError::Lost("the peer does not speak HTTP/2".into()));
            }
            let connection = Connection { exporter: exporter(tls)?, tls_spki: peer_spki(tls)? };
            let (sender, driver) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(PING_INTERVAL)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(|error| CallError::Lost(error.to_string()))?;
            // It ends when the sender is dropped or the peer goes; requests then report it.
            tokio::spawn(driver);
            Ok(Self { sender, connection, address: address.to_owned(), timeout: answer_timeout })
        };
        let seconds = HANDSHAKE_TIMEOUT.as_secs();
        timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| CallError::Timeout { address: address.to_owned(), seconds })?
    }

    /// Exporter and key of this connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Sends one request and reads its whole answer of at most `max_len` bytes.
    ///
    /// # Errors
    /// [`CallError`]: lost, too slow, or too long.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: impl Into<Bytes>,
        max_len: usize,
    ) -> Result<Reply, CallError> {
        let limit = self.timeout;
        let late = self.late();
        let exchange = async {
            let (parts, body) = self.begin(method, path, headers, body.into()).await?.into_parts();
            let (body, trailers) = read_body(body, max_len).await?;
            Ok(Reply { status: parts.status, headers: parts.headers, body, trailers })
        };
        timeout(limit, exchange).await.map_err(|_| late)?
    }

    /// [`Call::send`] for an answer that comes little by little: `each` sees every piece of a good one at once, and the
    /// time to answer begins anew with each.
    ///
    /// # Errors
    /// As [`Call::send`].
    pub async fn send_streaming(
        &mut self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: impl Into<Bytes>,
        max_len: usize,
        mut each: impl FnMut(&[u8]),
    ) -> Result<Reply, CallError> {
        let limit = self.timeout;
        let late = self.late();
        let Ok(begun) = timeout(limit, self.begin(method, path, headers, body.into())).await else {
            return Err(late);
        };
        let (parts, mut body) = begun?.into_parts();
        let (mut whole, mut trailers) = (Vec::new(), None);
        loop {
            let Ok(frame) = timeout(limit, body.frame()).await else { return Err(late) };
            let Some(frame) = frame else { break };
            match frame.map_err(|error| CallError::Lost(error.to_string()))?.into_data() {
                Ok(data) if data.len() > max_len - whole.len() => return Err(CallError::TooLong(max_len)),
                Ok(data) => {
                    whole.extend_from_slice(&data);
                    if parts.status == StatusCode::OK {
                        each(&data);
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        Ok(Reply { status: parts.status, headers: parts.headers, body: whole.into(), trailers })
    }

    fn late(&self) -> CallError {
        CallError::Timeout { address: self.address.clone(), seconds: self.timeout.as_secs() }
    }

    async fn begin(
        &mut self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, CallError> {
        let lost = |error: hyper::Error| CallError::Lost(error.to_string());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        *request.uri_mut() = uri(path)?;
        self.sender.ready().await.map_err(lost)?;
        self.sender.send_request(request).await.map_err(lost)
    }

    /// [`Call::send`] for the messages of the flows: `POST`, CBOR in, bytes out.
    ///
    /// # Errors
    /// As [`Call::send`].
    pub async fn post(&mut self, path: &str, body: Vec<u8>, max_len: usize) -> Result<Reply, CallError> {
        self.send(Method::POST, path, HeaderMap::new(), body, max_len).await
    }
}

/// HTTP/2 wants scheme and authority; neither names anything here.
fn uri(path: &str) -> Result<Uri, CallError> {
    let path = PathAndQuery::try_from(path).map_err(|error| CallError::Lost(error.to_string()))?;
    Uri::builder()
        .scheme("https")
        .authority("adyton.invalid")
        .path_and_query(path)
        .build()
        .map_err(|error| CallError::Lost(error.to_string()))
}

fn tls_error(address: &str, error: io::Error) -> CallError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(tls) => CallError::Channel(ChannelError::Tls(tls.clone())),
        None => CallError::Unreachable { address: address.to_owned(), source: error },
    }
}

/// Reads a body of at most `max_len` bytes, and its trailers.
///
/// # Errors
/// [`CallError::TooLong`] as soon as the cap is passed, [`CallError::Lost`] if the stream breaks.
pub async fn read_body<B>(body: B, max_len: usize) -> Result<(Bytes, Option<HeaderMap>), CallError>
where
    B: Body,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let collected = Limited::new(body, max_len).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            CallError::TooLong(max_len)
        } else {
            CallError::Lost(error.to_string())
        }
    })?;
    let trailers = collected.trailers().cloned();
    Ok((collected.to_bytes(), trailers))
}

/// The next connection, or `None` once `stop` is over. Where none can be accepted, as without file descriptors, it waits
/// for others to end rather than spin.
pub async fn next_connection(listener: &TcpListener, stop: impl Future<Output = ()>) -> Option<TcpStream> {
    tokio::pin!(stop);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Small records must not wait for each other; a stream that cannot do that works all the same.
                    let _ = stream.set_nodelay(true);
                    return Some(stream);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = &mut stop => return None,
        }
    }
}

/// The TLS stream of an accepted connection over `S`.
pub type ServerStream<S> = tokio_rustls::server::TlsStream<S>;

/// Shakes hands as the serving end and tells what names the connection.
///
/// # Errors
/// [`CallError`]: too slow, TLS failed, or the caller does not speak HTTP/2.
pub async fn accept<S>(
    stream: S,
    config: Arc<ServerConfig>,
    own_spki: Digest,
) -> Result<(ServerStream<S>, Connection), CallError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let lost = |error: io::Error| CallError::Lost(error.to_string());
    let handshake = timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream));
    let stream = handshake
        .await
        .map_err(|_| CallError::Timeout { address: "client".into(), seconds: HANDSHAKE_TIMEOUT.as_secs() })?
        .map_err(lost)?;
    let tls = stream.get_ref().1;
    if tls.alpn_protocol() != Some(ALPN_H2) {
        return Err(CallError::Lost("the caller does not speak HTTP/2".into()));
    }
    let exporter = exporter(tls)?;
    Ok((stream, Connection { exporter, tls_spki: own_spki }))
}

/// The serving end's configuration and key hash in one.
///
/// # Errors
/// [`ChannelError`] if the identity is refused.
pub fn serving(identity: &TlsIdentity) -> Result<(Arc<ServerConfig>, Digest), ChannelError> {
    Ok((crate::tls::server_config(identity)?, *identity.spki()))
}
