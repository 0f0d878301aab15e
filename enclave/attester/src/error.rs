//! Why there is no Evidence.

use crate::configfs_tsm::TsmError;
use crate::sev_guest::SevGuestError;
use crate::simulator_port::SimulatorError;

/// Why an [`crate::Attester`] gave no Evidence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttestError {
    /// From configfs-tsm.
    #[error("configfs-tsm: {0}")]
    Tsm(#[from] TsmError),
    /// From `/dev/sev-guest`.
    #[error("sev-guest: {0}")]
    SevGuest(#[from] SevGuestError),
    /// From the simulator.
    #[error("simulator: {0}")]
    Simulator(#[from] SimulatorError),
    /// From Intel's library.
    #[cfg(feature = "tdx-attest-rs")]
    #[error("tdx-attest-rs: {0}")]
    TdxAttest(#[from] crate::tdx_attest::TdxAttestError),
    /// The report is over other report data than was asked for.
    #[error(
        "the report carries other report data than was asked for: another process may use the same report entry"
    )]
    OtherReportData,
    /// The report cannot be one.
    #[error(
        "the platform gave a report of {got} bytes, which none of its reports has: update the guest kernel"
    )]
    ReportLength {
        /// Its length.
        got: usize,
    },
}
