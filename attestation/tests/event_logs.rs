//! Recorded event logs lead to the registers of their quotes, read in place.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests read files and stop at the first surprise"
)]

use std::fs;
use std::path::{Path, PathBuf};

use adyton_attestation::eventlog::{DataState, EventLog, replay_step};
use adyton_attestation::{Reason, Step, StepResult};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;

mod shared;

/// Folders with an event log.
fn samples() -> Option<Vec<PathBuf>> {
    let folders = fs::read_dir(shared::samples()?).unwrap().map(|entry| entry.unwrap().path());
    Some(folders.filter(|folder| log_file(folder).is_some()).collect())
}

fn log_file(folder: &Path) -> Option<PathBuf> {
    ["ccel.bin", "event-log.json"].map(|name| folder.join(name)).into_iter().find(|path| path.exists())
}

fn log(folder: &Path) -> EventLog {
    EventLog::parse(&fs::read(log_file(folder).unwrap()).unwrap()).unwrap()
}

fn manifest(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap()
}

/// RTMR0 to RTMR3 of a quote of version 4 (Intel TDX DCAP quote library API 0.9, A.3.2): after the header of 48 bytes,
/// at 328 of the TD report body. A test helper: nothing is verified.
fn rtmrs_of_quote(folder: &Path) -> Option<[[u8; 48]; 4]> {
    let quote = fs::read(folder.join("quote.bin")).ok()?;
    let register = |index: usize| quote[48 + 328 + 48 * index..][..48].try_into().unwrap();
    Some([0, 1, 2, 3].map(register))
}

fn failed(steps: &[Step]) -> Vec<(&'static str, Reason)> {
    let failed = |step: &Step| match step.result {
        StepResult::Fail(reason) => Some((step.name, reason)),
        _ => None,
    };
    steps.iter().filter_map(failed).collect()
}

/// The samples, or a loud word that they are missing.
fn each(mut look: impl FnMut(&Path)) {
    let Some(folders) = samples() else { return };
    assert!(!folders.is_empty(), "no sample has an event log");
    folders.iter().for_each(|folder| look(folder));
}

#[test]
fn every_recorded_log_replays() {
    each(|folder| {
        let (log, manifest) = (log(folder), manifest(folder));
        if let Some(count) = manifest["expect"]["event_count"].as_u64() {
            assert_eq!(log.events().len() as u64, count, "{}", folder.display());
        }
        if let Some(expected) = manifest["expect"]["rtmr"].as_object() {
            for (index, value) in expected {
                let replayed = log.replay()[index.parse::<usize>().unwrap()];
                assert_eq!(hex::encode(replayed), value.as_str().unwrap(), "{}", folder.display());
            }
        }
        let Some(rtmrs) = rtmrs_of_quote(folder) else { return };
        let expected = &manifest["fields"]["rtmr"];
        assert_eq!(serde_json::json!(rtmrs.map(hex::encode)), *expected, "the offsets are right");
        let steps = replay_step(&log, &rtmrs);
        assert_eq!(failed(&steps), [], "{}: {steps:#?}", folder.display());
    });
}

#[test]
fn a_log_of_another_machine_is_refused_by_register() {
    let (mut logs, mut quotes) = (Vec::new(), Vec::new());
    each(|folder| {
        logs.push(log(folder));
        quotes.extend(rtmrs_of_quote(folder).map(|rtmrs| (logs.len() - 1, rtmrs)));
    });
    for (own, rtmrs) in &quotes {
        for (_, log) in logs.iter().enumerate().filter(|(index, _)| index != own) {
            let steps = replay_step(log, rtmrs);
            let failed = failed(&steps);
            assert!(failed.contains(&("rtmr1-replay", Reason::RtmrReplay)), "{steps:#?}");
            for (index, register) in ["rtmr0-replay", "rtmr1-replay", "rtmr2-replay"].iter().enumerate() {
                let agrees = log.replay()[index] == rtmrs[index];
                assert_eq!(failed.contains(&(register, Reason::RtmrReplay)), !agrees, "{register}");
            }
        }
    }
}

#[test]
fn what_is_known_of_each_event() {
    each(|folder| {
        for event in log(folder).events() {
            assert_ne!(event.data_state(), DataState::Differs, "{}: {event}", folder.display());
            assert_ne!(event.type_name(), "unknown", "{}: {event}", folder.display());
            assert!(event.to_string().chars().all(|c| !c.is_control()), "{event}");
        }
    });
}

/// Trustee's own parser reads the same events from the binary log.
#[test]
fn another_parser_reads_the_same_events() {
    each(|folder| {
        let Ok(json) = fs::read(folder.join("parsed-upstream.json")) else { return };
        assert_eq!(EventLog::parse(&json).unwrap(), log(folder));
        let json: Value = serde_json::from_slice(&json).unwrap();
        for (theirs, ours) in json["uefi_event_logs"].as_array().unwrap().iter().zip(log(folder).events()) {
            // Theirs knows only digests over all of the data.
            if theirs["digest_matches_event"] == true {
                assert_eq!(ours.data_state(), DataState::Matches, "{ours}");
            }
        }
    });
}

#[test]
fn no_change_of_a_recorded_log_panics_and_no_cut_replays_alike() {
    each(|folder| {
        let bytes = fs::read(log_file(folder).unwrap()).unwrap();
        let rtmrs = log(folder).replay();
        let used = bytes.iter().rposition(|byte| *byte != 0xff).unwrap();
        let strategy = (0..used, any::<u8>(), any::<bool>());
        let mut runner = TestRunner::new(Config { cases: 64, ..Config::default() });
        let look = |(at, value, cut): (usize, u8, bool)| {
            let mut changed = bytes.clone();
            if cut {
                changed.truncate(at);
            } else {
                changed[at] = value;
            }
            if let Ok(log) = EventLog::parse(&changed) {
                log.events().iter().for_each(|event| drop(event.to_string()));
                prop_assert!(!cut || log.replay() != rtmrs);
            }
            Ok(())
        };
        runner.run(&strategy, look).unwrap();
    });
}
