//! Event logs of a TD: what was measured into RTMR0 to RTMR3 after launch, in a form people can read.
//!
//! The host or the guest hands a log over and nobody vouches for it. What it is worth comes from the quote: replayed,
//! the digests of the log must give the registers that the hardware signed ([`replay_step`]). Even then only the
//! digests are proven. The data beside a digest is bound to it where the digest is over that data, which
//! [`Event::data_state`] says of each event.
//!
//! Forms that are read: the binary log of firmware (TCG PC Client Platform Firmware Profile 1.06, section 10, as in
//! the ACPI table CCEL), and JSON as dstack and as the Trustee parser write it. Registers are named by their RTMR:
//! measurement register 1 of a binary log is RTMR0 (UEFI 2.10, 38.4.1); its register 0, MRTD, is listed and not
//! replayed.

mod binary;
mod describe;
mod device_path;
mod event;
mod json;
mod replay;

pub(crate) use event::sha384;
pub use event::{DataState, Event};
pub(crate) use replay::extend;
pub use replay::{replay_against, replay_step};

/// Firmware reserves 64 to 256 KiB for its log; JSON doubles it.
pub const MAX_LOG_LEN_BYTES: usize = 4 * 1024 * 1024;
/// Logs of long boots have some hundred events.
const MAX_EVENTS: usize = 16 * 1024;
/// SHA-384, the only digest that a TD extends.
const DIGEST_LEN_BYTES: usize = 48;

/// Why bytes are no event log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventLogError {
    /// Longer than any log.
    #[error("event log of {len} bytes is longer than the {MAX_LOG_LEN_BYTES} that are read")]
    TooLong {
        /// Bytes received.
        len: usize,
    },
    /// More events than any log has.
    #[error("event log has more than {MAX_EVENTS} events")]
    TooManyEvents,
    /// A log without events says nothing about any register.
    #[error("event log has no events")]
    Empty,
    /// The bytes end inside an event.
    #[error("event log ends in the middle of an event, at byte {at}")]
    Truncated {
        /// Where the missing bytes would begin.
        at: usize,
    },
    /// The first event does not say what the log is made of.
    #[error("event log does not begin with a Spec ID event of version 2.0: {what}")]
    SpecId {
        /// What is wrong.
        what: &'static str,
    },
    /// An event lacks the one digest that TDX extends, or has it twice.
    #[error("event {number} does not have exactly one SHA-384 digest")]
    Digests {
        /// Position in the log, from 1.
        number: usize,
    },
    /// An event names a digest that the Spec ID event does not.
    #[error("event {number} has a digest of algorithm {algorithm:#x}, which the log does not declare")]
    Algorithm {
        /// Position in the log, from 1.
        number: usize,
        /// TCG algorithm identifier.
        algorithm: u16,
    },
    /// An event names a register that a TD does not have.
    #[error("event {number} is for measurement register {register}, a TD has RTMR0 to RTMR3")]
    Register {
        /// Position in the log, from 1.
        number: usize,
        /// As the log writes it.
        register: u64,
    },
    /// The JSON form is not as it should be.
    #[error("event log is not JSON of events: {what}")]
    Json {
        /// What is wrong.
        what: String,
    },
}

/// A well-formed event log. Nobody vouches for it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an event log says nothing before it is compared with the registers of a quote"]
pub struct EventLog {
    events: Vec<Event>,
}

impl EventLog {
    /// Reads a log in either form: JSON begins with a bracket or brace, a binary log with a register number.
    ///
    /// # Errors
    /// [`EventLogError`], the first thing that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, EventLogError> {
        if bytes.len() > MAX_LOG_LEN_BYTES {
            return Err(EventLogError::TooLong { len: bytes.len() });
        }
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        let events = match first {
            Some(b'[' | b'{') => json::parse(bytes)?,
            _ => binary::parse(bytes)?,
        };
        if events.is_empty() {
            return Err(EventLogError::Empty);
        }
        Ok(Self { events })
    }

    /// The events in order, unproven.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// RTMR0 to RTMR3 as this log would leave them: from zero, each event makes `SHA-384(register || digest)`.
    #[must_use]
    pub fn replay(&self) -> [[u8; 48]; 4] {
        replay::replay(&self.events)
    }
}
