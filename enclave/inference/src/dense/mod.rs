//! Dense networks: `[batch, inputs]` f32 in, `[batch, outputs]` f32 out, row-major.
//!
//! Flow: [`Network::new`] folds batch normalisation into matrices; [`Network::verify_rows`] refuses rows that are not
//! numbers; [`Network::forward`] computes. The bits of a row's outputs do not depend on the rows beside it: every sum
//! over inputs has one fixed order, whatever the batch.

pub mod activation;
mod int8;
pub mod math;
mod network;

pub use network::{ForwardError, Network, RowError, Scratch};
