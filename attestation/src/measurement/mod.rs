//! Launch measurements computed from files alone, so that anybody can say what a launch must measure.
//!
//! [`measure_process`] is the measurement of a simulated guest, [`snp::measure`] that of an SNP guest; both chain the
//! same PAGE_INFO records. [`tdx::measure`] gives MRTD and the RTMRs of a TD. Nothing here is trusted input: firmware
//! comes from whoever operates the host, and a wrong firmware file gives an error or a digest that no policy lists.

mod acpi;
mod authenticode;
mod chain;
mod linux_boot;
mod mrtd;
pub mod ovmf;
mod process;
pub mod snp;
mod td_hob;
pub mod tdvf;
pub mod tdx;
mod vmsa;

pub use process::measure_process;
