//! What the host may count: connections, bytes and seconds. No label ever comes from a peer.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// The counters of one host process.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) connections: Counter,
    pub(crate) refused: Counter,
    pub(crate) open: Gauge,
    pub(crate) to_enclave: Counter<u64, AtomicU64>,
    pub(crate) to_clients: Counter<u64, AtomicU64>,
    pub(crate) seconds: Histogram,
    pub(crate) files: Counter,
    pub(crate) restarts: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("adyton_host");
        let connections = Counter::default();
        registry.register("connections", "Client connections relayed", connections.clone());
        let refused = Counter::default();
        registry.register("connections_refused", "Client connections closed at a limit", refused.clone());
        let open = Gauge::default();
        registry.register("connections_open", "Client connections open now", open.clone());
        let to_enclave = Counter::default();
        registry.register_with_unit(
            "to_enclave",
            "Ciphertext carried inwards",
            Unit::Bytes,
            to_enclave.clone(),
        );
        let to_clients = Counter::default();
        registry.register_with_unit(
            "to_clients",
            "Ciphertext carried outwards",
            Unit::Bytes,
            to_clients.clone(),
        );
        let seconds = Histogram::new([0.01, 0.1, 1.0, 10.0, 60.0, 600.0]);
        registry.register_with_unit("connection", "Life of a connection", Unit::Seconds, seconds.clone());
        let files = Counter::default();
        registry.register("files", "Sealed files and certificates handed out", files.clone());
        let restarts = Counter::default();
        registry.register("enclave_restarts", "Times the enclave was started again", restarts.clone());
        Self { registry, connections, refused, open, to_enclave, to_clients, seconds, files, restarts }
    }

    /// The exposition text of OpenMetrics.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail; an empty page is the honest answer if it ever did.
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }
}
