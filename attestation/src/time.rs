//! Time as an argument: seconds since the Unix epoch.
//!
//! A verdict must be replayable from files, so no code in this crate reads a clock. The caller says what time it
//! is, and should keep it monotone: a clock set back revives expired certificates and revocation lists.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

/// A moment, in whole seconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    /// The moment `seconds` after the Unix epoch.
    #[must_use]
    pub const fn from_unix_seconds(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Seconds since the Unix epoch.
    #[must_use]
    pub const fn as_unix_seconds(self) -> u64 {
        self.0
    }
}

/// The text was not a moment of the form `2026-01-31T23:59:59Z`.
#[derive(Debug, thiserror::Error)]
#[error("not a UTC time of the form 2026-01-31T23:59:59Z")]
#[non_exhaustive]
pub struct TimeSyntax;

impl FromStr for Time {
    type Err = TimeSyntax;

    /// Reads an RFC 3339 time in UTC with whole seconds.
    fn from_str(text: &str) -> Result<Self, TimeSyntax> {
        let date = der::DateTime::from_str(text).map_err(|_| TimeSyntax)?;
        Ok(Self(date.unix_duration().as_secs()))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match der::DateTime::from_unix_duration(Duration::from_secs(self.0)) {
            Ok(date) => write!(f, "{date}"),
            Err(_) => write!(f, "{} s after 1970", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip() {
        let time: Time = "2025-11-07T18:19:33Z".parse().unwrap();
        assert_eq!(time.as_unix_seconds(), 1_762_539_573);
        assert_eq!(time.to_string(), "2025-11-07T18:19:33Z");
        assert!("2025-11-07".parse::<Time>().is_err());
        assert!("2025-13-07T18:19:33Z".parse::<Time>().is_err());
    }
}
