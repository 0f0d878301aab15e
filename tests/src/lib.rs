//! A whole deployment in a temporary folder: owner, sealed model, simulator, broker, host and enclave, as real programs.
//!
//! Every test makes its own [`Site`], so tests run side by side and leave nothing. Programs are the ones of this build:
//! `cargo build --workspace --bins` first, as `scripts/test` does.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test harness: a failed step is a failed test")]

mod language;
mod machine;
mod process;
mod search;
mod site;
mod stolen;
mod tap;

pub use language::{greedy_answer, language_canary, language_model};
pub use machine::{Machine, Tools, change_description, change_file};
pub use process::{Outcome, Running, children, program};
pub use search::{holds, memory};
pub use site::{CANARY_VERSION, FEATURES, Site, canary_weights, free_port};
pub use stolen::{relay, run_enclave};
pub use tap::Tap;
