//! Replay: the registers that a log leads to, and how they compare with registers that somebody signed.

use super::event::{DataState, Event, sha384};
use super::{DIGEST_LEN_BYTES, EventLog, EventLogError};
use crate::hex_string;
use crate::verdict::{Finding, Reason, Rejected, Step, StepLog};

const STEPS: [&str; 4] = ["rtmr0-replay", "rtmr1-replay", "rtmr2-replay", "rtmr3-replay"];

/// A register after one more digest: `SHA-384(register || digest)` (TDX module 1.5 ABI, TDG.MR.RTMR.EXTEND).
pub(crate) fn extend(register: &[u8; 48], digest: &[u8; 48]) -> [u8; 48] {
    sha384(&[*register, *digest].concat())
}

/// The registers, from zero.
pub(super) fn replay(events: &[Event]) -> [[u8; 48]; 4] {
    let mut registers = [[0; DIGEST_LEN_BYTES]; 4];
    for event in events.iter().filter(|event| event.is_extended()) {
        if let Some(register) = event.rtmr().and_then(|index| registers.get_mut(index)) {
            *register = extend(register, &event.digest());
        }
    }
    registers
}

/// Compares a log with RTMR0 to RTMR3 of a quote: one step for each register, and one for the data beside the digests.
///
/// A register that differs fails with [`Reason::RtmrReplay`]; a log of another boot as a rule agrees in the first
/// registers and differs in a later one. A register that the log has no event for passes if it is zero. If it is not
/// zero the step is a skip, since such a log says nothing about it: a log of firmware ends before RTMR3 is used, and
/// whether that is enough is for policy. Data that contradicts its digest fails with [`Reason::EventLog`].
///
/// The registers are worth what the caller knows of them: this function verifies no quote.
#[must_use]
pub fn replay_step(log: &EventLog, rtmrs: &[[u8; 48]; 4]) -> Vec<Step> {
    steps(log, &rtmrs.map(Some)).into_steps()
}

/// As [`replay_step`], for registers that nobody signed; a register without a value is a skip.
///
/// # Errors
/// `rtmr-replay` if a register differs, `event-log` if data contradicts its digest.
pub fn replay_against(log: &EventLog, rtmrs: &[Option<[u8; 48]>; 4]) -> Result<Vec<Step>, Rejected> {
    steps(log, rtmrs).finish()
}

fn steps(log: &EventLog, rtmrs: &[Option<[u8; 48]>; 4]) -> StepLog {
    let mut steps = StepLog::default();
    for (index, ((name, replayed), given)) in STEPS.into_iter().zip(log.replay()).zip(rtmrs).enumerate() {
        match given {
            Some(given) => register_step(&mut steps, log, index, name, (&replayed, given)),
            None => steps.skip(name, format!("nothing to compare RTMR{index} with")),
        }
    }
    data_step(&mut steps, log);
    steps
}

impl From<EventLogError> for Rejected {
    fn from(error: EventLogError) -> Self {
        StepLog::refusal("event-log", Finding::new(Reason::EventLog, error.to_string()))
    }
}

fn register_step(
    steps: &mut StepLog,
    log: &EventLog,
    index: usize,
    name: &'static str,
    (replayed, given): (&[u8; 48], &[u8; 48]),
) {
    let count =
        log.events().iter().filter(|event| event.rtmr() == Some(index) && event.is_extended()).count();
    match (count, replayed == given) {
        (0, true) => steps.pass(name, format!("no event is for RTMR{index}, and it is zero")),
        (_, true) => steps.pass(name, format!("{count} events lead to RTMR{index} {}", hex_string(given))),
        // Without events the register replays to zero, so it is not zero here.
        (0, false) => {
            let held = hex_string(given);
            steps.skip(name, format!("the log says nothing about RTMR{index}, which holds {held}"));
        }
        (_, false) => {
            let (replayed, given) = (hex_string(replayed), hex_string(given));
            let detail =
                format!("RTMR{index} does not replay: {count} events lead to {replayed}, it holds {given}");
            steps.fail(name, Reason::RtmrReplay, detail);
        }
    }
}

/// The digests may be right and the data beside them a lie.
fn data_step(steps: &mut StepLog, log: &EventLog) {
    let numbered = || (1_usize..).zip(log.events());
    let lies: Vec<String> = numbered()
        .filter(|(_, event)| event.data_state() == DataState::Differs)
        .take(8) // enough to look at
        .map(|(number, event)| format!("event {number} ({})", event.type_name()))
        .collect();
    if lies.is_empty() {
        let proven = log.events().iter().filter(|event| event.data_state() == DataState::Matches).count();
        let all = log.events().len();
        steps.pass("event-data", format!("the data of {proven} of {all} events is what was measured"));
    } else {
        let detail = format!("the data is not what was measured: {}", lies.join(", "));
        steps.fail("event-data", Reason::EventLog, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventlog::event::EV_NO_ACTION;
    use crate::verdict::StepResult;
    use proptest::prelude::*;

    fn event(rtmr: usize, fill: u8) -> Event {
        Event::new(Some(rtmr), 0xd, [fill; 48], Vec::new(), None)
    }

    fn log(events: &[(usize, u8)]) -> EventLog {
        EventLog { events: events.iter().map(|(rtmr, fill)| event(*rtmr, *fill)).collect() }
    }

    fn failed(steps: &[Step]) -> Vec<(&'static str, Reason)> {
        let failed = |step: &Step| match step.result {
            StepResult::Fail(reason) => Some((step.name, reason)),
            _ => None,
        };
        steps.iter().filter_map(failed).collect()
    }

    #[test]
    fn extension_starts_at_zero_and_keeps_order() {
        let good = log(&[(0, 1), (2, 2), (0, 3)]);
        let once = sha384(&[[0; 48], [1; 48]].concat());
        let twice = sha384(&[once, [3; 48]].concat());
        let replayed = good.replay();
        assert_eq!(replayed[0], twice);
        assert_eq!((replayed[1], replayed[3]), ([0; 48], [0; 48]));
        assert_eq!(failed(&replay_step(&good, &replayed)), []);
        let swapped = log(&[(0, 3), (2, 2), (0, 1)]);
        assert_eq!(failed(&replay_step(&swapped, &replayed)), [("rtmr0-replay", Reason::RtmrReplay)]);
    }

    /// A log of an earlier boot: the firmware was the same, the kernel was not.
    #[test]
    fn a_stale_log_is_refused_by_register() {
        let rtmrs = log(&[(0, 1), (1, 2), (2, 3)]).replay();
        let stale = log(&[(0, 1), (1, 9), (2, 3), (3, 4)]);
        let steps = replay_step(&stale, &rtmrs);
        assert_eq!(
            failed(&steps),
            [("rtmr1-replay", Reason::RtmrReplay), ("rtmr3-replay", Reason::RtmrReplay)]
        );
        assert!(
            steps[1].detail.starts_with("RTMR1 does not replay: 1 events lead to "),
            "{}",
            steps[1].detail
        );
    }

    #[test]
    fn a_register_without_events_is_never_a_silent_pass() {
        let mut rtmrs = log(&[(0, 1)]).replay();
        assert_eq!(replay_step(&log(&[(0, 1)]), &rtmrs)[3].result, StepResult::Pass);
        rtmrs[3] = [7; 48];
        let step = &replay_step(&log(&[(0, 1)]), &rtmrs)[3];
        assert_eq!(step.result, StepResult::Skip);
        assert!(step.detail.contains("0707"), "{}", step.detail);
        rtmrs[3] = [0; 48];
        assert_eq!(
            failed(&replay_step(&log(&[(0, 1), (3, 1)]), &rtmrs)),
            [("rtmr3-replay", Reason::RtmrReplay)]
        );
    }

    #[test]
    fn a_register_without_a_value_is_skipped_and_a_wrong_one_refused() {
        let good = log(&[(0, 1), (1, 2)]);
        let [first, second, ..] = good.replay();
        let steps = replay_against(&good, &[Some(first), None, None, None]).unwrap();
        let results: Vec<_> = steps.iter().map(|step| step.result.as_str()).collect();
        assert_eq!(results, ["pass", "skip", "skip", "skip", "pass"]);
        let rejected = replay_against(&good, &[Some(second), None, None, None]).unwrap_err();
        assert_eq!((rejected.reason, rejected.by_policy()), (Reason::RtmrReplay, false));
        assert_eq!(Rejected::from(EventLogError::Empty).reason, Reason::EventLog);
    }

    #[test]
    fn what_is_not_extended_does_not_count() {
        let no_action = Event::new(Some(0), EV_NO_ACTION, [1; 48], Vec::new(), None);
        let of_mrtd = Event::new(None, 0xd, [1; 48], Vec::new(), None);
        assert_eq!(replay(&[no_action, of_mrtd]), [[0; 48]; 4]);
    }

    proptest! {
        #[test]
        fn one_flipped_bit_breaks_its_register_and_no_other(
            events in prop::collection::vec((0..4_usize, any::<u8>()), 1..20),
            at in any::<prop::sample::Index>(), bit in 0..384_usize,
        ) {
            let good = log(&events);
            let rtmrs = good.replay();
            let mut bad = good.clone();
            let changed = &mut bad.events[at.index(events.len())];
            let mut digest = changed.digest();
            digest[bit / 8] ^= 1 << (bit % 8);
            let register = changed.rtmr().unwrap();
            *changed = Event::new(Some(register), 0xd, digest, Vec::new(), None);
            prop_assert_eq!(failed(&replay_step(&good, &rtmrs)), []);
            prop_assert_eq!(failed(&replay_step(&bad, &rtmrs)), [(STEPS[register], Reason::RtmrReplay)]);
        }
    }
}
