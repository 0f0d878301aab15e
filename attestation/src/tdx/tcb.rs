//! TCB status: what Intel says of a set of security versions.

use core::fmt;
use core::str::FromStr;

use crate::tdx::document::Object;
use crate::time::Time;
use crate::verdict::{Finding, Reason};

/// The status of a TCB level (PCS API v4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TcbStatus {
    /// Current.
    UpToDate,
    /// Current, but software inside must defend itself.
    SwHardeningNeeded,
    /// Current, but the platform must be configured otherwise.
    ConfigurationNeeded,
    /// Both.
    ConfigurationAndSwHardeningNeeded,
    /// Below what is current.
    OutOfDate,
    /// Below what is current, and to be configured otherwise.
    OutOfDateConfigurationNeeded,
    /// No longer trusted at all.
    Revoked,
}

impl TcbStatus {
    const ALL: [Self; 7] = [
        Self::UpToDate,
        Self::SwHardeningNeeded,
        Self::ConfigurationNeeded,
        Self::ConfigurationAndSwHardeningNeeded,
        Self::OutOfDate,
        Self::OutOfDateConfigurationNeeded,
        Self::Revoked,
    ];

    /// The status as Intel spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UpToDate => "UpToDate",
            Self::SwHardeningNeeded => "SWHardeningNeeded",
            Self::ConfigurationNeeded => "ConfigurationNeeded",
            Self::ConfigurationAndSwHardeningNeeded => "ConfigurationAndSWHardeningNeeded",
            Self::OutOfDate => "OutOfDate",
            Self::OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
            Self::Revoked => "Revoked",
        }
    }

    /// The class of refusal where a policy wants it to be current.
    pub(crate) const fn reason(self) -> Reason {
        match self {
            Self::UpToDate | Self::SwHardeningNeeded => Reason::TcbSwHardeningNeeded,
            Self::ConfigurationNeeded | Self::ConfigurationAndSwHardeningNeeded => {
                Reason::TcbConfigurationNeeded
            }
            Self::OutOfDate | Self::OutOfDateConfigurationNeeded => Reason::TcbOutOfDate,
            Self::Revoked => Reason::TcbRevoked,
        }
    }

    /// True for the two statuses that only a whole platform can have.
    pub(crate) const fn needs_hardening(self) -> bool {
        matches!(self, Self::SwHardeningNeeded | Self::ConfigurationAndSwHardeningNeeded)
    }

    /// The platform's status together with that of its TDX module or quoting enclave, as Intel merges them: a part that
    /// is out of date or revoked takes the whole with it.
    #[must_use]
    pub const fn merged_with(self, part: Self) -> Self {
        match (self, part) {
            (Self::Revoked, _) | (_, Self::Revoked) => Self::Revoked,
            (Self::UpToDate | Self::SwHardeningNeeded | Self::OutOfDate, Self::OutOfDate) => Self::OutOfDate,
            (
                Self::ConfigurationNeeded
                | Self::ConfigurationAndSwHardeningNeeded
                | Self::OutOfDateConfigurationNeeded,
                Self::OutOfDate,
            )
            | (_, Self::OutOfDateConfigurationNeeded) => Self::OutOfDateConfigurationNeeded,
            (Self::UpToDate, part) => part,
            (Self::OutOfDate, Self::ConfigurationNeeded | Self::ConfigurationAndSwHardeningNeeded) => {
                Self::OutOfDateConfigurationNeeded
            }
            (
                Self::SwHardeningNeeded,
                Self::ConfigurationNeeded | Self::ConfigurationAndSwHardeningNeeded,
            )
            | (
                Self::ConfigurationNeeded,
                Self::SwHardeningNeeded | Self::ConfigurationAndSwHardeningNeeded,
            ) => Self::ConfigurationAndSwHardeningNeeded,
            (whole, _) => whole,
        }
    }
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of an Intel security advisory, such as `INTEL-SA-00960`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdvisoryId(String);

impl AdvisoryId {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is not of the form `INTEL-SA-00960`.
#[derive(Debug, thiserror::Error)]
#[error("not an advisory of the form INTEL-SA-00960")]
#[non_exhaustive]
pub struct AdvisorySyntax;

impl FromStr for AdvisoryId {
    type Err = AdvisorySyntax;

    fn from_str(text: &str) -> Result<Self, AdvisorySyntax> {
        // Documents may one day number higher, or name other series; case and digits are fixed, so a waiver is exact.
        let digits = text.strip_prefix("INTEL-").ok_or(AdvisorySyntax)?;
        let (series, number) = digits.split_once('-').ok_or(AdvisorySyntax)?;
        let series_good = !series.is_empty() && series.bytes().all(|byte| byte.is_ascii_uppercase());
        let number_good = (4..=8).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
        if series_good && number_good { Ok(Self(text.to_owned())) } else { Err(AdvisorySyntax) }
    }
}

impl fmt::Display for AdvisoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What Intel says of the level that a part reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// The status.
    pub status: TcbStatus,
    /// tcbDate: fixes made public until then are in this level.
    pub tcb_date: Time,
    /// What the status is for.
    pub advisories: Vec<AdvisoryId>,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (TCB of {})", self.status, self.tcb_date)?;
        self.advisories.iter().try_for_each(|advisory| write!(f, " {advisory}"))
    }
}

/// One TCB level: the security versions it asks for, and its standing.
#[derive(Clone, Debug)]
pub(crate) struct Level<T> {
    pub(crate) svn: T,
    pub(crate) standing: Standing,
}

impl<T> Level<T> {
    /// Reads status, date and advisories of a level that asks for `svn`.
    pub(crate) fn read(level: &Object<'_>, svn: T) -> Result<Self, Finding> {
        let status = level.text("tcbStatus")?;
        let known = TcbStatus::ALL.into_iter().find(|known| known.as_str() == status);
        let advisories = level.optional_texts("advisoryIDs")?;
        let advisories = advisories.into_iter().map(str::parse).collect::<Result<_, AdvisorySyntax>>();
        let standing = Standing {
            status: known.ok_or_else(|| level.refuse(&format!("tcbStatus {status:?} is unknown")))?,
            tcb_date: level.time("tcbDate")?,
            advisories: advisories.map_err(|error| level.refuse(&error.to_string()))?,
        };
        Ok(Self { svn, standing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advisories_are_spelt_one_way() {
        for right in ["INTEL-SA-00960", "INTEL-SA-1234", "INTEL-TRA-12345678"] {
            let id: AdvisoryId = right.parse().unwrap();
            assert_eq!((id.as_str(), id.to_string().as_str()), (right, right));
        }
        for wrong in [
            "",
            "SA-00960",
            "INTEL-00960",
            "INTEL--00960",
            "INTEL-sa-00960",
            "INTEL-SA-123",
            "INTEL-SA-123456789",
            "INTEL-SA-0096x",
            "INTEL-SA-00960 ",
        ] {
            assert!(wrong.parse::<AdvisoryId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_standing_in_words() {
        let advisories = vec!["INTEL-SA-00960".parse().unwrap(), "INTEL-SA-00982".parse().unwrap()];
        let tcb_date = Time::from_unix_seconds(0);
        let standing = Standing { status: TcbStatus::OutOfDate, tcb_date, advisories };
        let words = "OutOfDate (TCB of 1970-01-01T00:00:00Z) INTEL-SA-00960 INTEL-SA-00982";
        assert_eq!(standing.to_string(), words);
    }

    #[test]
    fn a_part_never_makes_the_whole_better() {
        for whole in TcbStatus::ALL {
            assert_eq!(whole.merged_with(TcbStatus::UpToDate), whole);
            assert_eq!(whole.merged_with(TcbStatus::Revoked), TcbStatus::Revoked);
            for part in TcbStatus::ALL {
                let merged = whole.merged_with(part);
                assert_eq!(merged == TcbStatus::UpToDate, whole == part && part == TcbStatus::UpToDate);
                assert_eq!(merged, part.merged_with(whole), "{whole} with {part}");
            }
        }
        use TcbStatus::{ConfigurationNeeded, OutOfDate, OutOfDateConfigurationNeeded, SwHardeningNeeded};
        assert_eq!(SwHardeningNeeded.merged_with(OutOfDate), OutOfDate);
        assert_eq!(ConfigurationNeeded.merged_with(OutOfDate), OutOfDateConfigurationNeeded);
    }

    #[test]
    fn advisories_have_one_spelling() {
        assert!("INTEL-SA-00960".parse::<AdvisoryId>().is_ok());
        assert!("INTEL-DOC-0001".parse::<AdvisoryId>().is_ok());
        for wrong in ["", "intel-sa-00960", "INTEL-SA-", "INTEL-SA-1x345", " INTEL-SA-00960", "SA-00960"] {
            assert!(wrong.parse::<AdvisoryId>().is_err(), "{wrong}");
        }
    }
}
