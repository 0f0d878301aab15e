//! The relay: opaque bytes from clients to the enclave and back, with limits and back-pressure.
//!
//! Each direction has one buffer; the next read happens only after the last write was taken, so a slow end slows the
//! other and memory stays bounded: [`BUFFER_LEN`] twice for each connection. Past `max_connections` nothing is accepted
//! and the kernel's queue holds callers back; past `max_connections_per_peer` a connection is closed at once.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::link::Stream;
use crate::metrics::Metrics;
use crate::vm::{Fleet, SERVICE_PORT};

const BUFFER_LEN: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Relays until `stop` turns true, then lets open connections finish for `grace_s`.
pub(crate) async fn run(
    listener: TcpListener,
    config: &Config,
    fleet: Arc<Fleet>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(config.max_connections));
    let peers = Arc::new(Peers::default());
    let idle = Duration::from_secs(config.idle_timeout_s);
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            Some(_) = open.join_next() => continue,
            () = stop.cancelled() => break,
        };
        let (client, peer, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors or the like: wait for connections to end rather than spin.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(peer_slot) = peers.enter(peer.ip(), config.max_connections_per_peer) else {
            metrics.refused.inc();
            continue;
        };
        let (fleet, metrics) = (fleet.clone(), metrics.clone());
        open.spawn(async move {
            carry(client, &fleet, idle, &metrics).await;
            drop((slot, peer_slot));
        });
    }
    drop(listener);
    let finished =
        timeout(Duration::from_secs(config.grace_s), async { while open.join_next().await.is_some() {} });
    if finished.await.is_err() {
        tracing::info!(connections = open.len(), "closing connections that did not finish in time");
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, slot))
}

/// Carries one connection to its end.
async fn carry(client: TcpStream, fleet: &Fleet, idle: Duration, metrics: &Metrics) {
    let begun = Instant::now();
    metrics.connections.inc();
    metrics.open.inc();
    match fleet.pick() {
        Some(link) => match timeout(CONNECT_TIMEOUT, link.connect(SERVICE_PORT)).await {
            Ok(Ok(server)) => carry_both(client, server, idle, metrics).await,
            Ok(Err(error)) => tracing::warn!(%error, "the enclave cannot be reached; closing a connection"),
            Err(_) => tracing::warn!("the enclave does not answer; closing a connection"),
        },
        None => tracing::warn!("no enclave is up; closing a connection"),
    }
    metrics.open.dec();
    metrics.seconds.observe(begun.elapsed().as_secs_f64());
}

async fn carry_both(client: TcpStream, server: Stream, idle: Duration, metrics: &Metrics) {
    // Small records must not wait for each other; the ends decide what to batch.
    let _ = client.set_nodelay(true);
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = tokio::io::split(server);
    let activity = Activity::default();
    let inwards = pump(client_read, server_write, idle, &activity, |bytes| {
        metrics.to_enclave.inc_by(bytes);
    });
    let outwards = pump(server_read, client_write, idle, &activity, |bytes| {
        metrics.to_clients.inc_by(bytes);
    });
    // A half-closed direction lets the other finish; an error or an idle timeout on either ends both.
    let _ = tokio::try_join!(inwards, outwards);
}

/// When a byte last moved, in either direction.
struct Activity(Mutex<Instant>);

impl Default for Activity {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Activity {
    fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
    fn since(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    idle: Duration,
    activity: &Activity,
    count: impl Fn(u64),
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        let len = match timeout(idle, from.read(&mut buffer)).await {
            Ok(len) => len?,
            // The other direction may still be busy, as while a long answer streams.
            Err(_) if activity.since() < idle => continue,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        let Some(bytes) = buffer.get(..len).filter(|bytes| !bytes.is_empty()) else {
            return to.shutdown().await;
        };
        timeout(idle, to.write_all(bytes)).await??;
        activity.touch();
        count(len as u64);
    }
}

/// How many connections each peer address holds.
#[derive(Default)]
struct Peers(Mutex<HashMap<IpAddr, usize>>);

struct PeerSlot {
    peers: Arc<Peers>,
    address: IpAddr,
}

impl Peers {
    fn enter(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<PeerSlot> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(PeerSlot { peers: self.clone(), address })
    }
}

impl Drop for PeerSlot {
    fn drop(&mut self) {
        let mut held = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::TcpLink;

    struct Running {
        address: SocketAddr,
        enclave: TcpListener,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    async fn start(change: impl FnOnce(&mut Config)) -> Running {
        let enclave = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut config = Config {
            listen: address,
            enclave: Some(enclave.local_addr().unwrap()),
            files_listen: address,
            sealed_dir: ".".into(),
            certificates_dir: None,
            metrics_listen: None,
            max_connections: 8,
            max_connections_per_peer: 8,
            idle_timeout_s: 60,
            grace_s: 1,
            launch: None,
            vm: Vec::new(),
            broker: None,
            runtime_dir: ".".into(),
        };
        change(&mut config);
        let stop = CancellationToken::new();
        let metrics = Arc::new(Metrics::new());
        let (for_task, stopped) = (metrics.clone(), stop.clone());
        let fleet = Arc::new(Fleet::of(Arc::new(TcpLink(config.enclave.unwrap()))));
        let task = tokio::spawn(async move { run(listener, &config, fleet, for_task, stopped).await });
        Running { address, enclave, metrics, stop, task }
    }

    #[tokio::test]
    async fn bytes_and_half_closes_pass_both_ways_and_are_counted() {
        let host = start(|_| ()).await;
        let mut client = TcpStream::connect(host.address).await.unwrap();
        let (mut server, _) = host.enclave.accept().await.unwrap();
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut seen = Vec::new();
        server.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"question");
        server.write_all(b"a longer answer").await.unwrap();
        drop(server);
        seen.clear();
        client.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"a longer answer");
        host.stop.cancel();
        host.task.await.unwrap();
        assert_eq!((host.metrics.to_enclave.get(), host.metrics.to_clients.get()), (8, 15));
        assert_eq!(host.metrics.open.get(), 0);
    }

    #[tokio::test]
    async fn a_peer_over_its_limit_is_closed_and_others_go_on() {
        let host = start(|config| config.max_connections_per_peer = 1).await;
        let first = TcpStream::connect(host.address).await.unwrap();
        let (_server, _) = host.enclave.accept().await.unwrap();
        let mut second = TcpStream::connect(host.address).await.unwrap();
        assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed without a byte");
        assert_eq!(host.metrics.refused.get(), 1);
        drop(first);
    }

    #[tokio::test]
    async fn a_slow_reader_holds_the_writer_back() {
        let host = start(|_| ()).await;
        let mut client = TcpStream::connect(host.address).await.unwrap();
        let (_server, _) = host.enclave.accept().await.unwrap();
        let block = vec![7; 1 << 20];
        let mut written = 0usize;
        // Nobody reads on the enclave's side: writing must stop once socket buffers and one relay buffer are full.
        while let Ok(result) = timeout(Duration::from_millis(300), client.write(&block)).await {
            written += result.unwrap();
            assert!(written < 256 << 20, "the relay swallows data without bound");
        }
        assert!(host.metrics.to_enclave.get() <= written as u64);
    }

    #[tokio::test]
    async fn idle_connections_end() {
        let host = start(|config| config.idle_timeout_s = 1).await;
        let mut client = TcpStream::connect(host.address).await.unwrap();
        let (_server, _) = host.enclave.accept().await.unwrap();
        let closed = timeout(Duration::from_secs(5), client.read(&mut [0; 1])).await;
        assert!(matches!(closed, Ok(Ok(0) | Err(_))), "the connection outlives its idle timeout");
    }

    #[tokio::test]
    async fn an_absent_enclave_closes_the_connection_cleanly() {
        let host = start(|config| config.enclave = "127.0.0.1:1".parse().ok()).await;
        let mut client = TcpStream::connect(host.address).await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }
}
