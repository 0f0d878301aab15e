//! Machine, host and relay killed at random moments: clients get a clean error, the service comes back by itself, and
//! nothing is lost or exposed.
//!
//! `ADYTON_KILLS` says how many (default 4, since each costs a boot under emulation; 50 before a release).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use adyton_tests::{Machine, Outcome, Running, canary_weights};

/// A small generator, so that a failed run can be repeated: the seed is printed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// The children of a process, whatever they are now.
fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn kill(pid: u32) {
    // It may have ended by itself in this moment.
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
}

fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
}

/// Whether a process still runs: one that only waits to be taken leave of does not.
fn alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z') && !line.contains('X'))
}

/// A client that is cut off may see one of these, and nothing else: no answer, no half answer, no crash.
fn clean(outcome: &Outcome) {
    assert!([0, 20, 30].contains(&outcome.code), "not a clean end: {outcome:?}");
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
    if outcome.code == 0 {
        assert_eq!(outcome.json()["receipts_verified"], 1, "an answer is whole or it is none: {outcome:?}");
    } else {
        assert!(outcome.json()["error"].is_string() || outcome.json()["reason"].is_string(), "{outcome:?}");
    }
}

#[test]
fn killed_machines_and_hosts_come_back() {
    let Some(machine) = Machine::new() else { return };
    let kills: u32 = std::env::var("ADYTON_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let seed = u64::from(std::process::id()) << 20 | 1;
    let mut random = Random(seed);
    println!("seed {seed}, {kills} kills");
    let site = &machine.site;
    site.write_rows("rows.csv", "0.5", 3);
    let _broker = site.start_broker();
    let mut host: Running = site.start_host();
    machine.wait_until_accepted(&host);
    let mut keysets = BTreeSet::new();
    for round in 0..kills {
        let predicting = thread::scope(|scope| {
            let client =
                scope.spawn(|| site.adyton(&["predict", &site.url(), "--input", "rows.csv", "--json"]));
            thread::sleep(Duration::from_millis(random.below(400)));
            match random.below(3) {
                // The host and all that hangs on it; whoever runs it starts it again, as systemd does.
                0 => {
                    let orphans = children(host.pid());
                    kill(host.pid());
                    host = site.start_host();
                    let deadline = Instant::now() + Duration::from_secs(30);
                    while orphans.iter().any(|orphan| alive(*orphan)) {
                        assert!(Instant::now() < deadline, "a machine outlived its host");
                        thread::sleep(Duration::from_millis(50));
                    }
                }
                // The machine, or the device its streams go through.
                target => {
                    let all = children(host.pid());
                    let wanted = if target == 1 { "qemu" } else { "vhost" };
                    all.iter().filter(|pid| name(**pid).starts_with(wanted)).for_each(|pid| kill(*pid));
                }
            }
            client.join().unwrap()
        });
        clean(&predicting);
        // At some moment in the middle of a boot, too.
        if round % 5 == 4 {
            thread::sleep(Duration::from_millis(random.below(3000)));
            children(host.pid()).into_iter().take(1).for_each(kill);
        }
        machine.wait_until_accepted(&host);
        let verified = site.succeed(&["verify", &site.url(), "--json"]).json();
        assert!(keysets.insert(verified["keyset_id"].to_string()), "a new life has new keys");
        let answer = site.succeed(&["predict", &site.url(), "--input", "rows.csv", "--json"]);
        assert_eq!(answer.json()["receipts_verified"], 1);
        println!("{} of {kills}: back", round + 1);
    }
    // Nothing of what is secret lies where the host writes.
    let weight = canary_weights()[0].to_le_bytes();
    let weights: Vec<u8> = canary_weights().iter().flat_map(|weight| weight.to_le_bytes()).collect();
    for entry in fs::read_dir(site.folder.path()).unwrap().map(|entry| entry.unwrap().path()) {
        let written = entry.extension().is_some_and(|end| end == "log");
        let bytes = if written { fs::read(&entry).unwrap() } else { continue };
        assert!(!bytes.windows(weights.len()).any(|window| window == weights), "{}", entry.display());
        assert_eq!(weight.len(), 4);
    }
    println!("{kills} kills survived");
}
