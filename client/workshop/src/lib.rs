//! The model owner's bench: prepare, train, convert, quantise, prune, evaluate.
//!
//! A CSV becomes a [`Table`], a split and prepared [`Dataset`], a trained network, and at last a model file that an
//! enclave can serve. Everything is deterministic: the same table, options and seed give the same bytes.
//!
//! The arithmetic is written by hand on `ndarray` (whose products run on `matrixmultiply`): forward, backward and the
//! optimisers fit on a few screens and are checked against finite differences.
#![forbid(unsafe_code)]

pub mod cli;
mod curve;
mod dataset;
mod error;
mod files;
mod language;
mod metrics;
mod network;
mod optimizer;
mod random;
mod shrink;
mod table;
mod train;

pub use dataset::{Dataset, Impute, Preparation, Split, Targets};
pub use error::WorkshopError;
pub use language::{Contents, Precision, contents, requantize};
pub use metrics::{Metrics, evaluate};
pub use optimizer::Method;
pub use shrink::{prune, quantize};
pub use table::{Columns, Table};
pub use train::{Epoch, Options, Trained, train};
