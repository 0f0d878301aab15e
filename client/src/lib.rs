//! The client: verify first, then send.
//!
//! [`Dialed::dial`] opens a TLS connection to *somebody*; [`Dialed::verify`] finds out who it is; only the [`Channel`]
//! that it returns can send. Every answer comes with a receipt that [`Channel`] verifies before it hands the answer out,
//! and that [`ReceiptFile`] keeps for later.
#![forbid(unsafe_code)]

mod channel;
mod error;
mod known;
mod provision;
mod receipts;
mod trust;

pub use channel::{Answered, Channel, Dialed, endpoint};
pub use error::ClientError;
pub use known::KnownKeySets;
pub use provision::provision;
pub use receipts::{Exchange, ReceiptFile, ReceiptVerdict, SavedSession};
pub use trust::TrustFile;
