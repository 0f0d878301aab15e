//! An event log in any form: what it says, and the registers it leads to.
#![no_main]
use adyton_attestation::eventlog::{EventLog, replay_step};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(log) = EventLog::parse(bytes) {
        for event in log.events() {
            assert!(event.to_string().chars().all(|c| !c.is_control()));
        }
        let steps = replay_step(&log, &log.replay());
        assert!(steps.iter().take(4).all(|step| step.result.as_str() == "pass"));
    }
});
