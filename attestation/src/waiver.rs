//! Waivers: a named rule of a policy that is set aside until a day, for a reason, in plain sight.
//!
//! A waiver excuses one step of appraisal, or one of Intel's advisories, and nothing else. What makes evidence genuine,
//! fresh, unreadable by the host, or the program that was expected cannot be waived. Every verdict lists every waiver:
//! used, not needed, or run out.

use crate::tdx::tcb::AdvisoryId;
use crate::time::Time;
use crate::verdict::StepLog;

/// Steps of appraisal that may be set aside: how new and how hardened the machine is.
const WAIVABLE: [&str; 24] = [
    "evaluation-number",
    "mitigations",
    "platform-alias-check",
    "platform-ciphertext-hiding",
    "platform-ecc",
    "platform-iommu-write-safe",
    "platform-rapl-dis",
    "platform-smt",
    "platform-tio",
    "platform-unknown-bits",
    "policy-ciphertext-hiding",
    "policy-cxl",
    "policy-page-swap-disable",
    "policy-rapl-dis",
    "policy-smt",
    "product-accepted",
    "provisional-firmware",
    "report-version",
    "revocation-fresh",
    "signing-key",
    "tcb-minimum",
    "tcb-table",
    "td-attributes",
    "tdx-module-floor",
];

/// Why something is no waiver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaiverError {
    /// The name is neither a step that may be waived nor an advisory.
    #[error("{0:?} cannot be waived; these can: an advisory such as INTEL-SA-00837, or one of {list}", list = WAIVABLE.join(", "))]
    Name(String),
    /// No reason is given.
    #[error("the waiver of {0} has no reason; say why, it is printed in every verdict")]
    Reason(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Step(&'static str),
    Advisory(AdvisoryId),
}

/// One rule set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiver {
    target: Target,
    name: String,
    until: Time,
    why: String,
}

impl Waiver {
    /// Sets `name`, a step of appraisal or an advisory of Intel's, aside until `until`.
    ///
    /// # Errors
    /// [`WaiverError`]: nothing that may be waived, or no reason.
    pub fn new(name: &str, until: Time, why: &str) -> Result<Self, WaiverError> {
        let why = why.trim();
        if why.is_empty() {
            return Err(WaiverError::Reason(name.to_owned()));
        }
        let step = WAIVABLE.into_iter().find(|step| *step == name).map(Target::Step);
        let target = step.or_else(|| name.parse().ok().map(Target::Advisory));
        let target = target.ok_or_else(|| WaiverError::Name(name.to_owned()))?;
        Ok(Self { target, name: name.to_owned(), until, why: why.to_owned() })
    }

    fn holds_at(&self, now: Time) -> bool {
        now < self.until
    }
}

/// The waivers of a policy while one piece of evidence is appraised.
pub(crate) struct Waivers<'a> {
    all: &'a [Waiver],
    now: Time,
    used: Vec<bool>,
}

impl<'a> Waivers<'a> {
    pub(crate) fn new(all: &'a [Waiver], now: Time) -> Self {
        Self { all, now, used: vec![false; all.len()] }
    }

    /// True if every one of `advisories`, at least one, is waived now; those waivers then count as used.
    pub(crate) fn cover(&mut self, advisories: &[AdvisoryId]) -> bool {
        let waiver_of = |advisory: &AdvisoryId| {
            self.all.iter().position(|waiver| {
                waiver.holds_at(self.now) && waiver.target == Target::Advisory(advisory.clone())
            })
        };
        let Some(found) = advisories.iter().map(waiver_of).collect::<Option<Vec<_>>>() else { return false };
        for at in &found {
            self.used[*at] = true;
        }
        !found.is_empty()
    }

    /// Excuses the failed steps that are waived, and lists every waiver.
    pub(crate) fn finish(mut self, log: &mut StepLog) {
        for (waiver, used) in self.all.iter().zip(&mut self.used) {
            let Waiver { target, name, until, why } = waiver;
            if let Target::Step(step) = target
                && waiver.holds_at(self.now)
            {
                *used = log.excuse(step, &format!("WAIVED until {until} ({why})"));
            }
            let state = match (waiver.holds_at(self.now), *used) {
                (false, _) => "RAN OUT, excuses nothing",
                (true, true) => "used",
                (true, false) => "not needed",
            };
            log.skip("waiver", format!("{name} until {until} ({why}): {state}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Reason, StepResult};

    fn time(seconds: u64) -> Time {
        Time::from_unix_seconds(seconds)
    }

    fn judged(waivers: &[Waiver], now: u64) -> Result<Vec<crate::Step>, Reason> {
        let mut log = StepLog::default();
        log.fail("tcb-table", Reason::TcbMinimum, "too old");
        log.pass("vmpl", "0");
        Waivers::new(waivers, time(now)).finish(&mut log);
        log.finish().map_err(|rejected| rejected.reason)
    }

    #[test]
    fn a_waiver_excuses_its_own_step_until_its_day_and_is_always_listed() {
        let waiver = |name| Waiver::new(name, time(100), "new firmware is ordered").unwrap();
        let steps = judged(&[waiver("tcb-table")], 99).unwrap();
        assert_eq!(steps[0].result, StepResult::Skip);
        assert!(steps[0].detail.starts_with("WAIVED until") && steps[0].detail.ends_with("too old"));
        assert!(steps[2].name == "waiver" && steps[2].detail.ends_with("used"), "{steps:?}");
        assert_eq!(judged(&[waiver("tcb-table")], 100), Err(Reason::TcbMinimum));
        assert_eq!(judged(&[waiver("mitigations")], 99), Err(Reason::TcbMinimum));
        assert_eq!(judged(&[], 99), Err(Reason::TcbMinimum));
    }

    #[test]
    fn advisories_are_covered_all_or_not_at_all_and_until_their_day() {
        let advisories =
            |names: &[&str]| -> Vec<AdvisoryId> { names.iter().map(|name| name.parse().unwrap()).collect() };
        let waivers = ["INTEL-SA-00837", "INTEL-SA-00960"]
            .map(|name| Waiver::new(name, time(100), "the machine is to be replaced").unwrap());
        let covered = |names: &[&str], now| Waivers::new(&waivers, time(now)).cover(&advisories(names));
        assert!(covered(&["INTEL-SA-00837"], 99) && covered(&["INTEL-SA-00960", "INTEL-SA-00837"], 99));
        assert!(!covered(&["INTEL-SA-00837"], 100));
        assert!(!covered(&["INTEL-SA-00837", "INTEL-SA-00001"], 99));
        assert!(!covered(&[], 99), "a status without advisories is excused by none");
        let (mut log, mut one) = (StepLog::default(), Waivers::new(&waivers, time(99)));
        assert!(one.cover(&advisories(&["INTEL-SA-00837"])));
        one.finish(&mut log);
        let listed = log.finish().unwrap();
        assert!(listed[0].detail.ends_with(": used") && listed[1].detail.ends_with(": not needed"));
    }

    #[test]
    fn what_makes_evidence_genuine_cannot_be_waived() {
        for step in [
            "signature",
            "root",
            "measurement",
            "host-data",
            "report-data",
            "chip-allowlist",
            "vmpl",
            "policy-debug",
            "td-debug",
            "policy-migrate",
            "policy-platform",
            "revocation",
            "sept-ve-disable",
            "service-td",
            "rtmr0",
            "",
            "everything",
        ] {
            assert_eq!(Waiver::new(step, time(1), "why"), Err(WaiverError::Name(step.into())), "{step}");
        }
        assert!(matches!(Waiver::new("tcb-table", time(1), "  "), Err(WaiverError::Reason(_))));
        assert!(Waiver::new("INTEL-SA-00837", time(1), "why").is_ok());
    }
}
