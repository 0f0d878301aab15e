//! Intel TDX: the quote, the certificates and documents it needs, and its TCB.
//!
//! Sources: Intel TDX DCAP Quoting Library API (quote formats, appendix A), Intel SGX PCK Certificate and CRL Profile
//! Specification 1.5, Intel SGX and TDX Provisioning Certification Service API version 4 (TCB info, enclave identity
//! and how a TCB level is chosen), Intel TDX Module ABI Specification 348551 (attributes, TEE_TCB_SVN).
//!
//! The order of trust: pinned root, PCK chain and signed documents, QE report, attestation key ([`certify`]), quote and TCB
//! ([`verify`]). Everything up to the attestation key can be verified once for many quotes ([`crate::cache`]).

pub(crate) mod appraise;
pub(crate) mod certify;
pub(crate) mod claims;
pub(crate) mod collateral;
pub(crate) mod document;
pub(crate) mod json;
pub(crate) mod pck;
pub(crate) mod policy;
pub(crate) mod qe;
pub(crate) mod quote;
pub(crate) mod tcb;
pub(crate) mod tcb_info;
pub(crate) mod td_report;
pub(crate) mod verify;
