//! The streams between host and guest, behind one trait: who uses a [`Link`] does not know how the guest is reached.
//!
//! - [`KernelVsock`]: AF_VSOCK by way of the kernel's `/dev/vhost-vsock`, for production;
//! - [`UserVsock`]: the same for the guest, with a device in user space behind Unix sockets, for machines without that;
//! - [`TcpLink`]: an enclave that is a process.
//!
//! None of them is authenticated, and none has to be: TLS ends inside the guest.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

/// Connections that wait to be taken; a guest that opens more is held back.
const BACKLOG: usize = 64;
/// Longest answer of the user-space device to a connection request: `OK 4294967295`.
const MAX_REPLY_LEN: usize = 32;

/// Bytes both ways.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A connected stream.
pub(crate) type Stream = Box<dyn Duplex>;
/// What an asynchronous method of a trait object returns.
pub(crate) type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where connections arrive.
pub(crate) trait Accept: Send + Sync {
    /// The next connection.
    fn accept(&self) -> Later<'_, io::Result<Stream>>;
}

/// How one guest is reached, and reaches the host.
pub(crate) trait Link: Send + Sync {
    /// Calls a port of the guest.
    fn connect(&self, port: u32) -> Later<'_, io::Result<Stream>>;
    /// Listens for what the guest calls as a port of its host.
    fn listen(&self, port: u32) -> io::Result<Box<dyn Accept>>;
}

impl Accept for TcpListener {
    fn accept(&self) -> Later<'_, io::Result<Stream>> {
        Box::pin(async {
            let (stream, _) = self.accept().await?;
            // Small records must not wait for each other; the ends decide what to batch.
            let _ = stream.set_nodelay(true);
            Ok(Box::new(stream) as Stream)
        })
    }
}

impl Accept for UnixListener {
    fn accept(&self) -> Later<'_, io::Result<Stream>> {
        Box::pin(async { Ok(Box::new(self.accept().await?.0) as Stream) })
    }
}

/// An enclave that is a process and listens at one address, whatever the port.
pub(crate) struct TcpLink(pub(crate) SocketAddr);

impl Link for TcpLink {
    fn connect(&self, _port: u32) -> Later<'_, io::Result<Stream>> {
        Box::pin(async {
            let stream = TcpStream::connect(self.0).await?;
            let _ = stream.set_nodelay(true);
            Ok(Box::new(stream) as Stream)
        })
    }

    fn listen(&self, _port: u32) -> io::Result<Box<dyn Accept>> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "a process calls the addresses of its launch document",
        ))
    }
}

/// A device in user space (`vhost-device-vsock`): one Unix socket to call the guest, one more for each port it calls.
pub(crate) struct UserVsock(pub(crate) PathBuf);

impl Link for UserVsock {
    fn connect(&self, port: u32) -> Later<'_, io::Result<Stream>> {
        Box::pin(async move {
            let mut stream = UnixStream::connect(&self.0).await?;
            stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
            let mut reply = Vec::new();
            // Byte by byte: what follows the line belongs to the guest.
            while reply.last() != Some(&b'\n') && reply.len() < MAX_REPLY_LEN {
                reply.push(stream.read_u8().await?);
            }
            if !reply.starts_with(b"OK ") {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            Ok(Box::new(stream) as Stream)
        })
    }

    fn listen(&self, port: u32) -> io::Result<Box<dyn Accept>> {
        let mut path = self.0.clone().into_os_string();
        path.push(format!("_{port}"));
        Ok(Box::new(UnixListener::bind(path)?))
    }
}

/// The kernel's AF_VSOCK. A port of the host is one for all guests, so one listener sorts by who calls.
#[derive(Default)]
pub(crate) struct Switch(Arc<Mutex<HashMap<u32, Guests>>>);

/// For each context id the way to whoever serves that guest.
type Guests = HashMap<u32, mpsc::Sender<VsockStream>>;

impl Switch {
    /// Registers one guest for a port, and begins to listen there if nobody has.
    fn register(&self, port: u32, cid: u32) -> io::Result<mpsc::Receiver<VsockStream>> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let mut ports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(guests) = ports.get_mut(&port) {
            guests.insert(cid, sender);
            return Ok(receiver);
        }
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))?;
        ports.insert(port, HashMap::from([(cid, sender)]));
        tokio::spawn(sort(listener, self.0.clone(), port));
        Ok(receiver)
    }
}

async fn sort(listener: VsockListener, ports: Arc<Mutex<HashMap<u32, Guests>>>, port: u32) {
    loop {
        let Ok((stream, address)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let guest = |ports: &HashMap<u32, Guests>| ports.get(&port)?.get(&address.cid()).cloned();
        let guest = guest(&ports.lock().unwrap_or_else(PoisonError::into_inner));
        // A caller nobody serves, or whose queue is full, is closed.
        let _ = guest.map(|guest| guest.try_send(stream));
    }
}

/// One guest behind the kernel's AF_VSOCK.
pub(crate) struct KernelVsock {
    pub(crate) switch: Arc<Switch>,
    pub(crate) cid: u32,
}

impl Link for KernelVsock {
    fn connect(&self, port: u32) -> Later<'_, io::Result<Stream>> {
        Box::pin(async move {
            let stream = VsockStream::connect(VsockAddr::new(self.cid, port)).await?;
            Ok(Box::new(stream) as Stream)
        })
    }

    fn listen(&self, port: u32) -> io::Result<Box<dyn Accept>> {
        let receiver = self.switch.register(port, self.cid)?;
        Ok(Box::new(Sorted(tokio::sync::Mutex::new(receiver))))
    }
}

struct Sorted(tokio::sync::Mutex<mpsc::Receiver<VsockStream>>);

impl Accept for Sorted {
    fn accept(&self) -> Later<'_, io::Result<Stream>> {
        Box::pin(async {
            let next = self.0.lock().await.recv().await;
            next.map(|stream| Box::new(stream) as Stream).ok_or_else(|| io::ErrorKind::NotConnected.into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays the user-space device: takes one connection request and answers it.
    async fn device(listener: UnixListener, reply: &'static str) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 13];
        stream.read_exact(&mut request).await.unwrap();
        assert_eq!(&request, b"CONNECT 8443\n");
        stream.write_all(reply.as_bytes()).await.unwrap();
        let _ = stream.write_all(b"from the guest").await;
    }

    #[tokio::test]
    async fn the_user_space_device_is_asked_for_a_port() {
        let folder = tempfile::tempdir().unwrap();
        for (reply, accepted) in [("OK 1073741824\n", true), ("NO\n", false), ("", false)] {
            let path = folder.path().join(format!("vm{}", reply.len()));
            tokio::spawn(device(UnixListener::bind(&path).unwrap(), reply));
            let connected = UserVsock(path).connect(8443).await;
            assert_eq!(connected.is_ok(), accepted, "{reply:?}");
            if let Ok(mut stream) = connected {
                let mut text = String::new();
                stream.read_to_string(&mut text).await.unwrap();
                assert_eq!(text, "from the guest", "not a byte of it is lost");
            }
        }
    }

    #[tokio::test]
    async fn the_guests_calls_arrive_by_port() {
        let folder = tempfile::tempdir().unwrap();
        let link = UserVsock(folder.path().join("vm"));
        let listener = link.listen(7001).unwrap();
        let mut guest = UnixStream::connect(folder.path().join("vm_7001")).await.unwrap();
        let mut host = listener.accept().await.unwrap();
        guest.write_all(b"hello").await.unwrap();
        guest.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        host.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"hello");
    }
}
