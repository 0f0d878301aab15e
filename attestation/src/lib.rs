//! Evidence in, verdict out: the protocol and the verification logic of Adyton.
//!
//! This crate is pure: no files, no network, no clock, no threads, no randomness. Time and challenges are arguments, so
//! a verdict can be replayed from files years later. Nothing that comes from outside is believed before the step that
//! verifies it; each step consumes the last and is the only maker of the next.
//!
//! The wire formats are described byte by byte in `SPEC.md` beside this crate.
#![forbid(unsafe_code)]

pub mod appraise;
pub mod appraiser;
mod cache;
pub mod commit;
pub mod cose;
mod crl;
pub mod ear;
pub mod eventlog;
pub mod evidence;
pub mod keyset;
pub mod manifest;
pub mod measurement;
mod own;
pub mod owner;
pub mod pem;
pub mod policy;
pub mod receipt;
pub mod reference;
pub mod release;
pub mod session;
mod shape;
mod snp;
mod tdx;
pub mod time;
pub mod verdict;
pub mod verify;
mod waiver;
pub mod wire;
mod x509;

pub use appraise::{Claims, Hardware, SnpClaims, VerifiedReport};
pub use appraiser::Appraiser;
pub use cache::VerdictCache;
pub use evidence::{Endorsements, Evidence, Platform, SIMULATED_NOTICE};
pub use policy::{Policy, Rule};
pub use shape::{SnpSigner, crl_window, is_certificate};
pub use snp::crl::Revocation;
pub use snp::leaf::hex_string;
pub use snp::report::{GuestPolicy, PlatformInfo, REPORT_LEN_BYTES, SigningKey};
pub use snp::tcb::{Product, TcbFloor, TcbFloorSyntax, TcbVersion};
pub use snp::tcb_table;
pub use tdx::claims::TdxClaims;
pub use tdx::collateral::{
    Collateral, CollateralParts, MAX_COLLATERAL_JSON_LEN_BYTES, MAX_COLLATERAL_LEN_BYTES, SignedDocument,
};
pub use tdx::policy::TdxReferences;
pub use tdx::tcb::{AdvisoryId, AdvisorySyntax, Standing, TcbStatus};
pub use tdx::tcb_info::PlatformStanding;
pub use tdx::td_report::TdAttributes;
pub use time::Time;
pub use verdict::{Reason, Rejected, Step, StepResult};
pub use verify::{Authentic, Tcbs, TrustAnchors};
pub use waiver::{Waiver, WaiverError};
