//! Waivers: a named rule of a policy that is set aside until a day, for a reason, in plain sight.
//!
//! A waiver excuses one step of appraisal, or one of Intel's advisories, and nothing else. What makes evidence genuine,
//! fresh, unreadable by the host, or the program that was expected cannot be waived. Every verdict lists every waiver:
//! used, not needed, or run out.

use crate::policy::Policy;
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

/// The policy with the advisories that are waived at `now`.
pub(crate) fn with_advisories(policy: &Policy, now: Time) -> Policy {
    let holding = policy.waivers.iter().filter(|waiver| waiver.holds_at(now));
    let advisories = holding.filter_map(|waiver| match &waiver.target {
        Target::Advisory(advisory) => Some(advisory.clone()),
        Target::Step(_) => None,
    });
    let mut policy = policy.clone();
    let advisories: Vec<AdvisoryId> = advisories.collect();
    policy.tdx.tdx_advisory_waivers.extend(advisories);
    policy
}

/// Excuses what is waived at `now`, and lists every waiver.
pub(crate) fn apply(log: &mut StepLog, waivers: &[Waiver], now: Time) {
    for waiver in waivers {
        let Waiver { target, name, until, why } = waiver;
        let state = if !waiver.holds_at(now) {
            "RAN OUT, excuses nothing"
        } else {
            let used = match target {
                Target::Step(step) => log.excuse(step, &format!("WAIVED until {until} ({why})")),
                Target::Advisory(advisory) => log.mentions("WAIVED", &advisory.to_string()),
            };
            if used { "used" } else { "not needed" }
        };
        log.skip("waiver", format!("{name} until {until} ({why}): {state}"));
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
        apply(&mut log, waivers, time(now));
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
