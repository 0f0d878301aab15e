//! Launch measurements computed from files alone, so that anybody can say what a launch must measure.
//!
//! [`measure_process`] is the measurement of a simulated guest, [`snp::measure`] that of an SNP guest. Both chain the
//! same PAGE_INFO records. Nothing here is trusted input: firmware comes from whoever operates the host, and a wrong
//! firmware file gives an error or a digest that no policy lists.

mod chain;
pub mod ovmf;
mod process;
pub mod snp;
mod vmsa;

pub use process::measure_process;
