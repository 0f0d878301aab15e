//! AMD SEV-SNP: the report, its certificates and its TCB.
//!
//! Sources: SEV Secure Nested Paging Firmware ABI Specification (56860) 1.58, VCEK Certificate and KDS Interface
//! Specification (57230), GHCB specification (56421) for the certificate table.

pub(crate) mod cache;
pub(crate) mod cert_table;
pub(crate) mod chain;
pub(crate) mod crl;
pub(crate) mod hcl;
pub(crate) mod leaf;
pub(crate) mod report;
pub(crate) mod tcb;
pub mod tcb_table;
