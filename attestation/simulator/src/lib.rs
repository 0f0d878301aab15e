//! A secure processor in software, for development and tests: **SIMULATED, NOT CONFIDENTIAL**.
//!
//! It does what the firmware of an SEV-SNP machine does: measures what it launches, and signs reports of the real
//! format for that guest and no other. It protects nothing: its keys lie in files, and whoever runs it can read the
//! guest. Verifiers accept it only after naming its root file and saying `dangerous`.
//!
//! The flow: [`setup`] makes a root once; [`launch`] measures a program and its launch document, starts exactly the
//! bytes it measured, and leaves a port behind that answers report requests ([`serve_port`]). [`MachineImage`] does the
//! same for a whole virtual machine.
//!
//! What is trusted: nothing. The enclave and the production clients never link this crate.
#![forbid(unsafe_code)]

mod cert;
mod error;
mod firmware;
mod launch;
mod machine;
mod port;
mod processor;
mod setup;
#[cfg(test)]
mod tests;

pub use adyton_attestation::SIMULATED_NOTICE;
pub use adyton_attestation::measurement::measure_process;
pub use error::SimulatorError;
pub use firmware::with_kernel_hashes;
pub use launch::{GuestImage, launch};
pub use machine::{MachineFiles, MachineImage};
pub use port::{PORT_VERSION, serve_port, serve_ports};
pub use processor::{LaunchContext, Simulator};
pub use setup::{ROOT_FILE, Setup, setup};
