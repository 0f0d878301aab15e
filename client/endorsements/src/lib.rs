//! Endorsements: what a vendor says about its processors, brought here and kept.
//!
//! Nothing in this crate believes a document: it knows where each one is found (AMD KDS, Intel PCS), how long it may
//! be used, and how to keep it. Verification is [`adyton_attestation`]'s, and a document is kept only after evidence
//! was verified with it ([`Fetcher::keep`]).
//!
//! A vendor that is slow, down or rate-limited stops nobody who has the documents already: certificates of chips never
//! run out, revocation lists and collateral are used until the moment they say themselves, and never beyond. Whoever
//! has a folder of kept entries can serve it to others as plain files; [`Sources::mirror`] reads such a place first.
#![forbid(unsafe_code)]

mod bundle;
mod error;
mod fetch;
mod item;
mod store;

pub use bundle::{Folder, MAX_BUNDLE_LEN};
pub use error::EndorsementError;
pub use fetch::{Fetched, Fetcher, Sources};
pub use item::{Item, Need, PckCa};
pub use store::{Entry, Store};
