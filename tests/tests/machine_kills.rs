//! Machine, host and relay killed at random moments: clients get a clean error, the service comes back by itself, and
//! nothing is lost or exposed.
//!
//! `ADYTON_KILLS` says how many (default 4, since each costs a boot under emulation). Before a release:
//! `ADYTON_KILLS=50 cargo nextest run --profile kills -p adyton-tests --test machine_kills --no-capture`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use adyton_tests::{Machine, Outcome, Running, Site, canary_weights, children, holds};

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

fn kill(pid: u32) {
    // It may have ended by itself in this moment.
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
}

/// Every plain file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let below = |entry: fs::DirEntry| match entry.file_type().unwrap() {
        kind if kind.is_dir() => files(&entry.path()),
        kind if kind.is_file() => vec![entry.path()],
        _ => Vec::new(),
    };
    entries.flat_map(below).collect()
}

/// No core file, and nothing secret where the host, the owner's broker or an emulator writes.
fn nothing_is_exposed(site: &Site) {
    let weights: Vec<u8> = canary_weights().iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let model = site.path("model.safetensors");
    assert!(holds(&fs::read(&model).unwrap(), &weights), "the weights are looked for in the form they have");
    let written: Vec<PathBuf> = files(site.folder.path()).into_iter().filter(|file| *file != model).collect();
    assert!(written.len() > 10, "the folder of the deployment was found: {written:?}");
    for file in written {
        assert!(!file.file_name().unwrap().to_string_lossy().starts_with("core"), "{}", file.display());
        assert!(!holds(&fs::read(&file).unwrap(), &weights), "{}", file.display());
    }
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
    let (mut keysets, mut cut_off) = (BTreeSet::new(), 0);
    for round in 0..kills {
        let (predicting, killed) = thread::scope(|scope| {
            let client =
                scope.spawn(|| site.adyton(&["predict", &site.url(), "--input", "rows.csv", "--json"]));
            thread::sleep(Duration::from_millis(random.below(400)));
            let target = random.below(3);
            match target {
                // The host and all that hangs on it; whoever runs it starts it again, as systemd does.
                0 => {
                    let orphans = children(host.pid());
                    host.kill();
                    host = site.start_host();
                    let deadline = Instant::now() + Duration::from_secs(30);
                    while orphans.iter().any(|orphan| alive(*orphan)) {
                        assert!(Instant::now() < deadline, "a machine outlived its host");
                        thread::sleep(Duration::from_millis(50));
                    }
                }
                // The machine, or the device its streams go through.
                _ => {
                    let all = children(host.pid());
                    let wanted = if target == 1 { "qemu" } else { "vhost" };
                    all.iter().filter(|pid| name(**pid).starts_with(wanted)).for_each(|pid| kill(*pid));
                }
            }
            let killed = ["host and relay", "machine", "vsock device"][usize::try_from(target).unwrap()];
            (client.join().unwrap(), killed)
        });
        clean(&predicting);
        cut_off += u32::from(predicting.code != 0);
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
        nothing_is_exposed(site);
        println!("{} of {kills}, {killed}, client ended with {}: back", round + 1, predicting.code);
    }
    println!("{kills} kills survived, {cut_off} of them in the middle of a client's call");
}
