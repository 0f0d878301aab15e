//! The streams between enclave and host: TCP for an enclave that is a process, AF_VSOCK for one that is a VM.
//!
//! Above this module nobody knows which it is. Neither is trusted: TLS ends inside, and what is fetched in the clear is
//! verified. In a guest there is no internet and no other way out; whom a vsock port reaches is the host's choice, which
//! is why peers are known by their keys and never by an address.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

/// Most bytes of one write to a vsock stream, the size of a TLS record. Longer writes become buffers of many fragments
/// in Linux 6.12, which the user-space device of test machines does not take: the stream then hangs for ever.
const MAX_VSOCK_WRITE: usize = 16 << 10;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const PREFIX: &str = "vsock:";

/// A place to listen at or to call: `IP:PORT`, `NAME:PORT`, or `vsock:PORT` for a port of this guest or of its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Host and port of TCP.
    Tcp(String),
    /// A port of AF_VSOCK.
    Vsock(u32),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Vsock(port) => write!(f, "{PREFIX}{port}"),
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = match text.strip_prefix(PREFIX) {
            // The highest number means "any port" to the kernel.
            Some(port) => port.parse().ok().filter(|port| *port != u32::MAX).map(Self::Vsock),
            None => text
                .rsplit_once(':')
                .filter(|(name, port)| !name.is_empty() && port.parse::<u16>().is_ok())
                .map(|_| Self::Tcp(text.clone())),
        };
        parsed.ok_or_else(|| {
            serde::de::Error::custom(format!("expected HOST:PORT or {PREFIX}PORT, got {text:?}"))
        })
    }
}

/// Bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A connected stream.
pub type Stream = Box<dyn Duplex>;

impl Address {
    /// Calls this address; a vsock port is the host's.
    ///
    /// # Errors
    /// The system's reason.
    pub async fn connect(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address.as_str()).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Vsock(port) => {
                let stream = VsockStream::connect(VsockAddr::new(VMADDR_CID_HOST, *port)).await?;
                Ok(Box::new(SmallWrites(stream)))
            }
        }
    }

    /// Listens at this address.
    ///
    /// # Errors
    /// The system's reason.
    pub async fn listen(&self) -> io::Result<Listener> {
        match self {
            Self::Tcp(address) => Ok(Listener::Tcp(TcpListener::bind(address.as_str()).await?)),
            Self::Vsock(port) => {
                Ok(Listener::Vsock(VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, *port))?))
            }
        }
    }
}

/// Where connections arrive.
pub enum Listener {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over AF_VSOCK.
    Vsock(VsockListener),
}

impl Listener {
    /// The next connection, or `None` once `stop` is over. Where none can be accepted, as without file descriptors, it
    /// waits for others to end rather than spin.
    pub async fn next(&self, stop: impl Future<Output = ()>) -> Option<Stream> {
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                () = &mut stop => return None,
            };
            match accepted {
                Ok(stream) => return Some(stream),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Vsock(listener) => Ok(Box::new(SmallWrites(listener.accept().await?.0))),
        }
    }
}

/// A stream none of whose writes is longer than [`MAX_VSOCK_WRITE`].
struct SmallWrites<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for SmallWrites<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SmallWrites<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let len = bytes.len().min(MAX_VSOCK_WRITE);
        Pin::new(&mut self.0).poll_write(context, &bytes[..len])
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn parse(text: &str) -> Result<Address, String> {
        #[derive(Deserialize)]
        struct Holder {
            at: Address,
        }
        let toml = format!("at = '{text}'");
        toml::from_str::<Holder>(&toml).map(|holder| holder.at).map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_are_one_of_two_kinds() {
        assert_eq!(parse("vsock:8443"), Ok(Address::Vsock(8443)));
        assert_eq!(parse("127.0.0.1:80"), Ok(Address::Tcp("127.0.0.1:80".into())));
        assert_eq!(parse("broker.example:443"), Ok(Address::Tcp("broker.example:443".into())));
        for wrong in ["", "vsock:", "vsock:-1", "vsock:4294967295", "name", "name:", ":80", "name:65536"] {
            assert!(parse(wrong).unwrap_err().contains("HOST:PORT"), "{wrong}");
        }
        assert_eq!(parse("vsock:8443").unwrap().to_string(), "vsock:8443");
    }

    /// Writes of any length arrive at the device in pieces it takes.
    #[tokio::test]
    async fn no_write_is_longer_than_a_record() {
        struct Lengths(Vec<usize>);
        impl AsyncWrite for Lengths {
            fn poll_write(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                self.0.push(bytes.len());
                Poll::Ready(Ok(bytes.len()))
            }
            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
        let mut stream = SmallWrites(Lengths(Vec::new()));
        stream.write_all(&[7; 100_000]).await.unwrap();
        assert_eq!(stream.0.0.iter().sum::<usize>(), 100_000);
        assert!(stream.0.0.iter().all(|len| *len <= 16 << 10), "{:?}", stream.0.0);
        assert!(!stream.is_write_vectored(), "vectored writes would go round the cap");
    }

    #[tokio::test]
    async fn tcp_carries_both_ways_and_stops() {
        let listener = Address::Tcp("127.0.0.1:0".into()).listen().await.unwrap();
        let Listener::Tcp(tcp) = &listener else { panic!("TCP was asked for") };
        let address = Address::Tcp(tcp.local_addr().unwrap().to_string());
        let mut caller = address.connect().await.unwrap();
        let mut called = listener.next(std::future::pending()).await.unwrap();
        caller.write_all(b"question").await.unwrap();
        let mut bytes = [0; 8];
        called.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"question");
        assert!(listener.next(std::future::ready(())).await.is_none());
    }
}
