//! The program, end to end: what it launches is what it measured, and the guest's port signs for that guest only.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adyton_attestation::{Endorsements, Evidence, Policy, Time, TrustAnchors};
use adyton_simulator::{LaunchContext, SIMULATED_NOTICE, Simulator, measure_process, serve_port, setup};
use ring::digest::{SHA256, digest};

const SHELL: &str = "/bin/sh";
const DOCUMENT: &[u8] = b"the launch document";
const NO_ARGUMENTS: [&str; 0] = [];

fn now() -> Time {
    Time::from_unix_seconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

fn simulator(dir: &Path, verb: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adyton-simulator"));
    command.arg(verb).env("ADYTON_SIMULATOR_DIR", dir).env("CANARY", "unmeasured");
    command
}

/// `launch` of the shell with this script.
fn launch(dir: &Path, script: &str) -> Command {
    let document = dir.join("document");
    fs::write(&document, DOCUMENT).unwrap();
    let mut command = simulator(dir, "launch");
    command.args(["--program", SHELL, "--document"]).arg(document).args(["--", "-c", script]);
    command
}

fn stdout(output: &Output) -> String {
    assert!(String::from_utf8_lossy(&output.stderr).contains(SIMULATED_NOTICE));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_guest_is_what_was_measured() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let set_up = simulator(dir, "setup").output().unwrap();
    assert!(set_up.status.success() && stdout(&set_up).is_empty());

    // The guest asks for a report over 64 zeros (the digit) and prints the response.
    let script = r#"printf '\001%064d' 0 >&3; exec /usr/bin/head -c 1189 <&3"#;
    let output = launch(dir, script).output().unwrap();
    assert_eq!(output.stdout.len(), 1189, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout[..5], [1, 0, 0, 0x04, 0xa0]);
    let loaded = Simulator::load(dir).unwrap();
    let evidence = Evidence::simulated_from_parts(&output.stdout[5..], loaded.certificate_table()).unwrap();
    let anchors = TrustAnchors::dangerous_simulator(loaded.root_der()).unwrap();
    let measurement = measure_process(&fs::read(SHELL).unwrap(), DOCUMENT, &["-c", script]);
    let host_data = digest(&SHA256, DOCUMENT).as_ref().try_into().unwrap();
    let policy = Policy::dangerous_simulated([measurement], [host_data]);
    let authentic = evidence.verify(&anchors, &Endorsements::default(), now()).unwrap();
    assert!(authentic.appraise(&policy, &[b'0'; 64]).unwrap().simulated());

    // `measure` predicts the same.
    let mut measure = simulator(dir, "measure");
    measure.args(["--program", SHELL, "--document"]).arg(dir.join("document")).args(["--", "-c", script]);
    assert_eq!(stdout(&measure.output().unwrap()).trim(), hex::encode(measurement));

    the_guest_is_alone(dir);
    the_guest_is_the_process(dir);
}

/// No environment, no directory, no input of the host's; a document that cannot be changed.
fn the_guest_is_alone(dir: &Path) {
    let output = launch(dir, "/usr/bin/env; pwd; /bin/cat <&4; /bin/cat; echo $0").output().unwrap();
    let text = stdout(&output);
    assert!(!text.contains("CANARY") && !text.contains("PATH="), "{text}");
    assert!(text.contains("\n/\nthe launch documentadyton-guest\n"), "{text}");
    let output = launch(dir, "echo changed >&4").output().unwrap();
    assert!(!output.status.success());
}

/// Exit status and signals need nobody to pass them on.
fn the_guest_is_the_process(dir: &Path) {
    assert_eq!(launch(dir, "exit 7").status().unwrap().code(), Some(7));
    let mut guest = launch(dir, "trap 'exit 9' TERM; echo ready; while :; do /bin/sleep 0.05; done")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    guest.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let pid = guest.id().to_string();
    assert!(Command::new("/bin/sh").args(["-c", &format!("kill -TERM {pid}")]).status().unwrap().success());
    assert_eq!(guest.wait().unwrap().code(), Some(9));
    // A guest that never asked leaves no processor behind: the port ends with the guest.
    let children = format!("port --dir {}", dir.display()).replace(' ', "\0");
    let deadline = Instant::now() + Duration::from_secs(5);
    while processes().iter().any(|command_line| command_line.contains(&children)) {
        assert!(Instant::now() < deadline, "a port outlived its guest");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn processes() -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect()
}

#[test]
fn the_port_answers_requests_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    setup(dir.path(), now()).unwrap();
    let loaded = Simulator::load(dir.path()).unwrap();
    let context = LaunchContext::new(b"program", DOCUMENT, &NO_ARGUMENTS).unwrap();
    let (mut guest, port) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| serve_port(port, &loaded, &context));
        for filler in [3, 4] {
            guest.write_all(&[&[1], &[filler; 64][..]].concat()).unwrap();
            let mut head = [0; 5];
            guest.read_exact(&mut head).unwrap();
            assert_eq!(head, [1, 0, 0, 0x04, 0xa0]);
            let mut report = vec![0; 1184];
            guest.read_exact(&mut report).unwrap();
            assert_eq!(report[0x050..0x090], [filler; 64]);
            assert_eq!(report[0x090..0x0c0], context.measurement);
            let mut len = [0; 4];
            guest.read_exact(&mut len).unwrap();
            let mut table = vec![0; usize::try_from(u32::from_be_bytes(len)).unwrap()];
            guest.read_exact(&mut table).unwrap();
            assert_eq!(table, loaded.certificate_table());
        }
        // Another version: the port closes and answers nothing.
        guest.write_all(&[2; 65]).unwrap();
        assert_eq!(guest.read(&mut [0; 1]).unwrap(), 0);
        serving.join().unwrap().unwrap();
    });
}
