//! The trustworthiness vector: eight numbers that say how far to trust what.
//!
//! Values are those of draft-ietf-rats-ar4si: 2 and 3 affirm, 32 to 95 warn, 96 and above advise against. A component
//! that no step looked at is left out, so a skipped comparison never looks like trust.

use super::Judgement;
use crate::evidence::Platform;
use crate::verdict::{Reason, Step, StepResult};

/// How far a component, or the whole, is to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Nothing is said.
    None,
    /// In order.
    Affirming,
    /// Genuine, with known weaknesses.
    Warning,
    /// Not to be relied on.
    Contraindicated,
}

impl Tier {
    /// The name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Affirming => "affirming",
            Self::Warning => "warning",
            Self::Contraindicated => "contraindicated",
        }
    }

    /// The number in CBOR.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Affirming => 2,
            Self::Warning => 32,
            Self::Contraindicated => 96,
        }
    }

    pub(super) fn all() -> [Self; 4] {
        [Self::None, Self::Affirming, Self::Warning, Self::Contraindicated]
    }

    /// The tier that a component's value lies in.
    const fn of_value(value: u8) -> Self {
        match value {
            2..=31 => Self::Affirming,
            32..=95 => Self::Warning,
            96..=127 => Self::Contraindicated,
            _ => Self::None,
        }
    }
}

/// Names of the components in JSON; the index is the key in CBOR.
pub(super) const COMPONENTS: [&str; 8] = [
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
];

const INSTANCE: usize = 0;
const CONFIGURATION: usize = 1;
const EXECUTABLES: usize = 2;
const HARDWARE: usize = 4;
const RUNTIME: usize = 5;

const RECOGNISED_INSTANCE: u8 = 2;
const UNRECOGNISED_INSTANCE: u8 = 97;
const APPROVED_CONFIGURATION: u8 = 2;
const NO_KNOWN_VULNERABILITIES: u8 = 3;
const UNSUPPORTABLE_CONFIGURATION: u8 = 96;
const APPROVED_AT_BOOT: u8 = 3;
const UNRECOGNISED_EXECUTABLES: u8 = 33;
const GENUINE_HARDWARE: u8 = 2;
const CONTRAINDICATED_HARDWARE: u8 = 96;
const UNRECOGNISED_HARDWARE: u8 = 97;
const ENCRYPTED_MEMORY: u8 = 2;
const VISIBLE_MEMORY: u8 = 96;

/// Components that were judged; what is absent was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrustVector(pub(super) [Option<u8>; 8]);

impl TrustVector {
    /// The value of a component by its name, such as `hardware`.
    #[must_use]
    pub fn get(&self, component: &str) -> Option<u8> {
        let index = COMPONENTS.iter().position(|name| *name == component)?;
        self.0.get(index).copied().flatten()
    }

    /// Components that were judged, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u8)> + '_ {
        COMPONENTS.into_iter().zip(self.0).filter_map(|(name, value)| Some((name, value?)))
    }

    /// The worst tier of all components.
    #[must_use]
    pub fn worst(&self) -> Tier {
        self.0.iter().flatten().map(|value| Tier::of_value(*value)).max().unwrap_or(Tier::None)
    }

    pub(super) fn of(judgement: &Judgement<'_>) -> Self {
        let steps = judgement.steps;
        let simulated = judgement.platform == Platform::Simulated;
        let mut vector = [None; 8];
        vector[INSTANCE] = judge(steps, is_identity, RECOGNISED_INSTANCE, UNRECOGNISED_INSTANCE);
        let configured =
            if passed(steps, is_launch_document) { APPROVED_CONFIGURATION } else { NO_KNOWN_VULNERABILITIES };
        vector[CONFIGURATION] = judge(steps, is_configuration, configured, UNSUPPORTABLE_CONFIGURATION);
        vector[EXECUTABLES] = judge(steps, is_executable, APPROVED_AT_BOOT, UNRECOGNISED_EXECUTABLES);
        let weak = if failed_reason(steps).is_some_and(Reason::is_policy) {
            CONTRAINDICATED_HARDWARE
        } else {
            UNRECOGNISED_HARDWARE
        };
        vector[HARDWARE] = if simulated {
            Some(UNRECOGNISED_HARDWARE)
        } else {
            judge(steps, is_hardware, GENUINE_HARDWARE, weak)
        };
        vector[RUNTIME] = if simulated {
            Some(VISIBLE_MEMORY)
        } else {
            judge(steps, is_debug, ENCRYPTED_MEMORY, VISIBLE_MEMORY)
        };
        Self(vector)
    }
}

/// `bad` if one of the steps meant failed, `good` if one passed, nothing if none was looked at.
fn judge(steps: &[Step], meant: impl Fn(&str) -> bool, good: u8, bad: u8) -> Option<u8> {
    let failed = steps.iter().any(|step| meant(step.name) && matches!(step.result, StepResult::Fail(_)));
    if failed { Some(bad) } else { passed(steps, meant).then_some(good) }
}

fn passed(steps: &[Step], meant: impl Fn(&str) -> bool) -> bool {
    steps.iter().any(|step| meant(step.name) && step.result == StepResult::Pass)
}

fn failed_reason(steps: &[Step]) -> Option<Reason> {
    steps.iter().find_map(|step| match step.result {
        StepResult::Fail(reason) => Some(reason),
        _ => None,
    })
}

fn is_identity(step: &str) -> bool {
    step == "chip-allowlist"
}

fn is_debug(step: &str) -> bool {
    matches!(step, "policy-debug" | "td-debug")
}

fn is_launch_document(step: &str) -> bool {
    matches!(step, "host-data" | "mr-config-id")
}

fn is_executable(step: &str) -> bool {
    matches!(step, "measurement" | "id-key" | "author-key") || step.starts_with("rtmr")
}

/// How the guest was launched: everything about its policy, attributes and owner.
fn is_configuration(step: &str) -> bool {
    const NAMES: [&str; 8] = [
        "vmpl",
        "guest-svn",
        "xfam",
        "mr-owner",
        "mr-owner-config",
        "sept-ve-disable",
        "servtd-ext",
        "service-td",
    ];
    is_launch_document(step)
        || NAMES.contains(&step)
        || step.starts_with("td-")
        || (step.starts_with("policy-") && step != "policy-platform")
}

/// What is left: signatures, certificates, firmware, and how the machine is set up.
fn is_hardware(step: &str) -> bool {
    !is_identity(step) && !is_executable(step) && !is_configuration(step) && step != "report-data"
}

#[cfg(test)]
mod tests {
    use super::super::tests::{sample, step};
    use super::*;

    #[test]
    fn what_was_not_looked_at_is_not_in_the_vector() {
        let steps = [
            step("signature", StepResult::Pass),
            step("measurement", StepResult::Skip),
            step("chip-allowlist", StepResult::Skip),
        ];
        let result = sample(None, &steps);
        assert_eq!(result.vector.iter().collect::<Vec<_>>(), [("hardware", GENUINE_HARDWARE)]);
    }

    #[test]
    fn each_component_follows_its_steps() {
        let pass = StepResult::Pass;
        let all = ["signature", "policy-debug", "host-data", "measurement", "chip-allowlist"];
        let steps = all.map(|name| step(name, pass));
        let vector = sample(None, &steps).vector;
        let expected = [2, 2, 3, 2, 2];
        assert_eq!(vector.iter().map(|(_, value)| value).collect::<Vec<_>>(), expected);
        for (failing, component, value) in [
            ("signature", "hardware", 97),
            ("policy-debug", "configuration", 96),
            ("policy-debug", "runtime-opaque", 96),
            ("host-data", "configuration", 96),
            ("measurement", "executables", 33),
            ("chip-allowlist", "instance-identity", 97),
        ] {
            let fail = |name: &'static str| {
                let reason = if name == "signature" { Reason::Signature } else { Reason::Measurement };
                step(name, if name == failing { StepResult::Fail(reason) } else { pass })
            };
            let vector = sample(Some(Reason::Measurement), &all.map(fail)).vector;
            assert_eq!(vector.get(component), Some(value), "{failing}");
        }
    }

    #[test]
    fn a_simulator_is_never_affirmed() {
        let steps = [step("signature", StepResult::Pass), step("policy-debug", StepResult::Pass)];
        let vector = TrustVector::of(&Judgement {
            platform: Platform::Simulated,
            policy: "dangerous-simulated",
            refused: None,
            steps: &steps,
            claims: &[],
            nonce: None,
            at: crate::time::Time::from_unix_seconds(0),
        });
        assert_eq!(vector.worst(), Tier::Contraindicated);
    }
}
