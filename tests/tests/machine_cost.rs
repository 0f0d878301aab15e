//! What a machine costs over a process: a measurement, not a test, so it is left out unless asked for:
//! `cargo nextest run -p adyton-tests --test machine_cost --run-ignored only --no-capture`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement prints")]

use std::fs;
use std::time::{Duration, Instant};

use adyton_tests::{Machine, Running, Site, children};

const RUNS: usize = 3;
const REQUESTS: usize = 10;

/// Memory in KiB that a process has resident, and those below it.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let own = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let own = own.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    own + children(pid).into_iter().map(resident).sum::<u64>()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Prints what one deployment costs: from the host's start to the first accepted verdict, and from there.
fn cost(name: &str, site: &Site, start: impl Fn() -> Running) {
    let _broker = site.start_broker();
    site.write_rows("rows.csv", "0.5", 1);
    let (mut boots, mut answers, mut memory) = (Vec::new(), Vec::new(), 0);
    for _ in 0..RUNS {
        let begun = Instant::now();
        let host = start();
        while site.adyton(&["verify", &site.url(), "--json"]).code != 0 {
            assert!(begun.elapsed() < Duration::from_secs(180), "{}", host.messages());
        }
        boots.push(begun.elapsed());
        for _ in 0..REQUESTS {
            let begun = Instant::now();
            site.succeed(&["predict", &site.url(), "--input", "rows.csv"]);
            answers.push(begun.elapsed());
        }
        memory = memory.max(resident(host.pid()));
        host.stop();
    }
    println!(
        "{name}: start to first accepted verdict {} ms (median of {RUNS}), one prediction with its program {} ms (median of \
         {}), resident memory of host and all it starts {} MiB",
        median(boots).as_millis(),
        median(answers.clone()).as_millis(),
        answers.len(),
        memory / 1024
    );
}

#[test]
#[ignore = "a measurement: prints what a machine costs over a process"]
fn a_machine_and_a_process() {
    let site = Site::new("pull");
    cost("process", &site, || site.start_host());
    let Some(machine) = Machine::new() else { return };
    cost("machine, emulated", &machine.site, || machine.site.start_host());
}
