//! Why endorsements are not to be had, by what to do about it.

use adyton_attestation::Time;
use adyton_broker::BrokerError;

/// Why a document could not be fetched or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndorsementError {
    /// A source address is not usable.
    #[error("{0:?} is not an http or https address")]
    Address(String),
    /// Neither the store nor any source had it in time.
    #[error("{item} is not to be had: {reason}")]
    Unavailable {
        /// The document.
        item: String,
        /// What each source said.
        reason: String,
    },
    /// It is in the store but ran out, and no source is asked or has a newer one.
    #[error("{item} ran out at {expired} and is not used any more; {reason}")]
    Expired {
        /// The document.
        item: String,
        /// When.
        expired: Time,
        /// Why there is no newer one.
        reason: String,
    },
    /// A source answered with something that is not the document.
    #[error("{item}: the answer is not what was asked for: {what}")]
    Wrong {
        /// The document.
        item: String,
        /// What is wrong with it.
        what: String,
    },
    /// The evidence does not say which endorsements it needs.
    #[error("the evidence does not name its endorsements: {0}")]
    Unnamed(&'static str),
    /// A bundle does not parse.
    #[error("not a bundle: {0}")]
    Bundle(String),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] BrokerError),
}
