//! TLS 1.3 as both ends of an Adyton session speak it.
//!
//! TLS gives a private channel to *somebody*; who that is, evidence says afterwards, over the channel's own exporter
//! (SPEC, section 4). So certificates here are self-signed keys, names mean nothing, and nothing of one connection
//! survives into another: no tickets, no resumption, no early data. TLS 1.2 is not compiled in.
//!
//! Key exchange is the hybrid `X25519MLKEM768` first and `X25519` second; see [`hybrid`].
#![forbid(unsafe_code)]

pub mod http;
pub mod hybrid;
mod tls;

pub use tls::{ALPN_H2, ChannelError, Peer, TlsIdentity, client_config, exporter, peer_spki, server_config};
