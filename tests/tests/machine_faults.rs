//! What ends a machine from inside: no memory left, its program dead, a system call that the program never makes. Each
//! time the machine really ends, the host says why and starts it again, and nothing of it is left on the host. So it is
//! with one that only stands still.
//!
//! The program is the image's, byte for byte; its faults come from outside, as no host of a confidential machine could
//! bring them about: the memory of an emulated one lies open.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use adyton_model::dense::{Dense, DenseModel, Kernel, Layer};
use adyton_tests::{Machine, Running, children};

const PAGE: usize = 4096;
const STOPPED: &str = "it ended (machine: exit status: 0, the guest's kernel stopped); starting it again";

/// The emulator of the host's only machine.
fn emulator(host: &Running) -> u32 {
    let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    children(host.pid()).into_iter().find(|pid| name(pid).starts_with("qemu")).unwrap()
}

/// The pages of the guest's program that hold code, as they lie in its memory.
fn code(machine: &Machine) -> HashSet<Vec<u8>> {
    let initramfs = fs::read(machine.site.path("image/guest.cpio")).unwrap();
    let start = initramfs.windows(6).position(|window| window == b"\x7fELF\x02\x01").unwrap();
    let program = &initramfs[start..];
    let number = |at: usize, len: usize| {
        let bytes = program[at..at + len].iter().rev();
        bytes.fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    // ELF-64: program headers by offset, size and count; of each its flags, offset and length in the file.
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let headers = (0..count).map(|at| table + at * size);
    let executable = headers.filter(|at| number(*at, 4) == 1 && number(at + 4, 4) & 1 == 1);
    let bounds = executable.map(|at| (number(at + 8, 8), number(at + 8, 8) + number(at + 32, 8)));
    let pages = bounds.flat_map(|(start, end)| (start.next_multiple_of(PAGE)..end - PAGE).step_by(PAGE));
    pages.map(|at| program[at..at + PAGE].to_vec()).collect()
}

/// Replaces the program's code in the guest's memory by `instructions`. What the emulator has run before, it goes on
/// to run from its own translation; whatever the program does for the first time comes to `instructions`.
fn replace_code(machine: &Machine, host: &Running, instructions: &[u8]) {
    let links = fs::read_dir(format!("/proc/{}/fd", emulator(host))).unwrap().flatten();
    let is_memory = |path: &PathBuf| {
        fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains("memory-backend-memfd"))
    };
    let memory = links.map(|link| link.path()).find(is_memory).unwrap();
    let memory = File::options().read(true).write(true).open(memory).unwrap();
    // Wherever a page is entered, nothing happens up to its end.
    let mut new = vec![0x90; PAGE - instructions.len()];
    new.extend(instructions);
    let (wanted, mut replaced) = (code(machine), 0);
    let mut part = vec![0; 256 * PAGE];
    let len = memory.metadata().unwrap().len();
    for offset in (0..len).step_by(part.len()) {
        memory.read_exact_at(&mut part, offset).unwrap();
        for (at, page) in (offset..).step_by(PAGE).zip(part.chunks(PAGE)) {
            if wanted.contains(page) {
                memory.write_all_at(&new, at).unwrap();
                replaced += 1;
            }
        }
    }
    assert!(replaced > 100, "of {} pages {replaced} were found", wanted.len());
}

/// Runs a machine whose program comes to `instructions` as soon as a client calls.
fn stops_at(instructions: &[u8]) {
    let Some(machine) = Machine::new() else { return };
    let (_broker, host) = (machine.site.start_broker(), machine.site.start_host());
    machine.wait_for_message(&host, "ready: the model is released");
    replace_code(&machine, &host, instructions);
    let cut_off = machine.site.adyton(&["verify", &machine.site.url(), "--json"]);
    assert_eq!(cut_off.code, 30, "{cut_off:?}");
    machine.wait_for_message(&host, STOPPED);
    machine.wait_until_accepted(&host);
    says_nothing(&machine, &host);
}

/// No report of a crash on the console, and no file of it.
fn says_nothing(machine: &Machine, host: &Running) {
    for unwanted in ["Kernel panic", "Call Trace", "RIP", "seccomp", "Linux version"] {
        assert!(!host.messages().contains(unwanted), "{unwanted} in {}", host.messages());
    }
    let left = |folder: PathBuf| fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name());
    let mut left = left(machine.site.folder.path().into()).chain(left(machine.site.path("run/one")));
    assert!(!left.any(|name| name.to_string_lossy().contains("core")), "a core file");
}

#[test]
fn a_dead_first_program_stops_the_machine() {
    // ud2: no instruction at all
    stops_at(b"\x0f\x0b");
}

#[test]
fn a_forbidden_system_call_stops_the_machine() {
    // mov eax, 59 (execve); syscall; and then, if that were only refused: jmp to itself, a machine that goes on
    stops_at(b"\xb8\x3b\x00\x00\x00\x0f\x05\xeb\xfe");
}

#[test]
fn a_machine_without_memory_stops() {
    let Some(machine) = Machine::new() else { return };
    // More than there is, once it is opened and built: 2 times 64 MiB of 128.
    const WIDTH: usize = 2048;
    let layer = || {
        let kernel = Kernel::F32(vec![0.5; WIDTH * WIDTH]);
        Layer::Dense(Dense { inputs: WIDTH, outputs: WIDTH, kernel, bias: vec![0.0; WIDTH] })
    };
    let model = DenseModel::new(WIDTH, vec![layer(), layer(), layer(), layer()]).unwrap();
    fs::write(machine.site.path("large.safetensors"), model.to_safetensors().unwrap()).unwrap();
    machine.site.seal("large.safetensors");
    let config = fs::read_to_string(machine.site.path("host.toml")).unwrap();
    let small = config.replace("memory_mib = 512", "memory_mib = 128");
    assert_ne!(small, config);
    fs::write(machine.site.path("host.toml"), small).unwrap();
    let (_broker, host) = (machine.site.start_broker(), machine.site.start_host());
    machine.wait_for_message(&host, STOPPED);
    assert!(host.messages().contains("keys drawn"), "it was up before: {}", host.messages());
    assert!(!host.messages().contains("ready: the model is released"), "{}", host.messages());
    says_nothing(&machine, &host);
}

#[test]
fn a_machine_that_stops_answering_is_started_again() {
    let Some(machine) = Machine::new() else { return };
    let (_broker, host) = (machine.site.start_broker(), machine.site.start_host());
    machine.wait_for_message(&host, "one is up");
    let stopped = emulator(&host);
    assert!(Command::new("kill").args(["-STOP", &stopped.to_string()]).status().unwrap().success());
    machine.wait_for_message(&host, "its service does not answer; starting it again");
    machine.wait_until_accepted(&host);
    assert!(!Path::new(&format!("/proc/{stopped}")).exists(), "the old one was ended");
}

/// The image for hardware, where there is none: it boots as far as it must, says whom it asked in vain, and stops.
#[test]
fn a_production_machine_without_a_secure_processor_stops() {
    let Some(machine) = Machine::new() else { return };
    let Some(image) = machine.production_image() else { return };
    let path = |name: &str| image.join(name).display().to_string();
    let same = |name: &str| {
        fs::read(image.join(name)).unwrap() == fs::read(machine.site.path("image").join(name)).unwrap()
    };
    assert!(same("guest.cpio"), "both images have the same program");
    assert!(!same("vmlinuz"), "and not the same kernel");
    let description = fs::read_to_string(image.join("image.toml")).unwrap();
    let told = description.lines().find_map(|line| line.strip_prefix("cmdline = \"")).unwrap();
    // What emulated machines need beside that; PID 1 knows the word.
    let told = format!("{} no_timer_check", told.trim_end_matches('"'));
    let (firmware, kernel, initramfs) = (machine.site.path("OVMF.fd"), path("vmlinuz"), path("guest.cpio"));
    let output = Command::new("qemu-system-x86_64")
        .args([
            "-machine",
            "q35",
            "-accel",
            "tcg",
            "-cpu",
            "EPYC-Milan",
            "-m",
            "512",
            "-nodefaults",
            "-no-reboot",
        ])
        .args(["-display", "none", "-serial", "stdio", "-kernel", &kernel, "-initrd", &initramfs])
        .args(["-append", &told, "-bios"])
        .arg(firmware)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("no way to get Evidence on this machine"), "{said}");
    assert!(!said.contains("Linux version") && !said.contains("keys drawn"), "{said}");
    assert!(output.status.success(), "it turned itself off: {output:?}");
}
