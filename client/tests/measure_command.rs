//! `adyton measure tdx`, `snp` and `diff` by the command line, on a small firmware that is made here.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const PAGE: usize = 4096;

fn adyton(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adyton"));
    command.args(arguments).current_dir(folder).env_remove("ADYTON_JSON").output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error} in {output:?}"))
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// Two pages: code that is measured, then TDX metadata with a variable store, a TD HOB and temporary memory.
fn firmware(code: u8) -> Vec<u8> {
    let sections: [(u32, u32, u64, u64, [u32; 2]); 4] = [
        (0, 0x1000, 0xffff_f000, 0x1000, [0, 1]),
        (0x1000, 0x1000, 0xffff_e000, 0x1000, [1, 0]),
        (0, 0, 0x80_9000, 0x2000, [2, 0]),
        (0, 0, 0x80_0000, 0x6000, [3, 0]),
    ];
    let mut metadata = b"TDVF".to_vec();
    metadata.extend([16 + 32 * 4, 1, 4].map(u32::to_le_bytes).concat());
    for (offset, raw_len, gpa, len, kind) in sections {
        metadata.extend([offset, raw_len].map(u32::to_le_bytes).concat());
        metadata.extend([gpa, len].map(u64::to_le_bytes).concat());
        metadata.extend(kind.map(u32::to_le_bytes).concat());
    }
    let mut footer = u32::try_from(PAGE).unwrap().to_le_bytes().to_vec();
    footer.extend(22_u16.to_le_bytes());
    footer.extend(hex::decode("35657ae44a989847865e4685a7bf8ec2").unwrap());
    footer.extend(40_u16.to_le_bytes());
    footer.extend(hex::decode("de82b596b21ff745baeaa366c55a082d").unwrap());
    let mut image = vec![code; 2 * PAGE];
    image[PAGE..PAGE + metadata.len()].copy_from_slice(&metadata);
    let end = image.len() - 32;
    image[end - footer.len()..end].copy_from_slice(&footer);
    image
}

/// A PE image with no sections that is also a kernel of protocol 2.15.
fn kernel() -> Vec<u8> {
    let mut kernel = vec![0x11; 0x1000];
    let mut put = |at: usize, bytes: &[u8]| kernel[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &0x40_u32.to_le_bytes());
    put(0x40, b"PE\0\0");
    put(0x46, &0_u16.to_le_bytes()); // sections
    put(0x54, &0xa0_u16.to_le_bytes());
    put(0x58, &0x20b_u16.to_le_bytes());
    put(0x58 + 60, &0x1000_u32.to_le_bytes());
    put(0x58 + 108, &6_u32.to_le_bytes());
    put(0x58 + 112 + 32, &[0; 8]); // no certificates
    put(0x202, b"HdrS");
    put(0x206, &0x20f_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x236, &[0x3f, 0]);
    kernel
}

fn acpi_loader() -> Vec<u8> {
    let command = |name: &str| {
        let mut command = [&[1, 0, 0, 0], name.as_bytes()].concat();
        command.resize(128, 0);
        command
    };
    [command("etc/acpi/rsdp"), command("etc/acpi/tables")].concat()
}

/// A folder with all files of a launch.
fn launch() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("fw", firmware(1)),
        ("fw2", firmware(2)),
        ("kernel", kernel()),
        ("initrd", b"initrd".to_vec()),
        ("tables", b"tables".to_vec()),
        ("rsdp", b"rsdp".to_vec()),
        ("loader", acpi_loader()),
    ] {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

const PLATFORM: [&str; 10] = [
    "--firmware",
    "fw",
    "--memory",
    "2G",
    "--acpi-tables",
    "tables",
    "--acpi-rsdp",
    "rsdp",
    "--acpi-loader",
    "loader",
];
const KERNEL: [&str; 10] = [
    "--kernel",
    "kernel",
    "--kernel-form",
    "patched",
    "--initrd",
    "initrd",
    "--initrd-argument",
    "after",
    "--cmdline",
    "quiet",
];

fn tdx<'a>(parts: &[&[&'a str]]) -> Vec<&'a str> {
    [&["measure", "tdx", "--json"], parts.concat().as_slice()].concat()
}

#[test]
fn a_register_is_said_only_where_its_files_are() {
    let folder = launch();
    let of = |arguments: &[&str]| json(&adyton(folder.path(), arguments));
    let bare = of(&tdx(&[&["--firmware", "fw"]]));
    assert_eq!(bare["mrtd"].as_str().unwrap().len(), 96);
    assert!(bare["rtmr0"].is_null() && bare["rtmr1"].is_null() && bare["rtmr2"].is_null());
    assert_eq!(bare["rtmr3"], "0".repeat(96));
    let all = of(&tdx(&[&PLATFORM, &KERNEL]));
    assert_eq!(all["mrtd"], bare["mrtd"]);
    for register in ["rtmr0", "rtmr1", "rtmr2"] {
        assert_eq!(all[register].as_str().unwrap().len(), 96, "{register}");
        assert_eq!(all["sources"][register], "the files");
    }
    let two_pass = of(&tdx(&[&["--firmware", "fw", "--page-order", "two-pass"]]));
    assert_eq!(
        (&two_pass["mrtd"], &two_pass["mrtd_other_order"]),
        (&bare["mrtd_other_order"], &bare["mrtd"])
    );
}

#[test]
fn text_is_toml_and_explains_in_comments() {
    let folder = launch();
    let arguments = [&["measure", "tdx", "--explain"][..], &PLATFORM, &KERNEL].concat();
    let output = adyton(folder.path(), &arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    let parsed: toml::Table = toml::from_str(&text).unwrap();
    assert_eq!(parsed.keys().collect::<Vec<_>>(), ["mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"]);
    for part in
        ["# MRTD: boot firmware volume", "# RTMR0: TD HOB", "# RTMR1: kernel", "# RTMR2: load options"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn what_cannot_be_known_is_asked_for() {
    let folder = launch();
    let refused = |arguments: &[&str], word: &str| {
        let output = adyton(folder.path(), arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(code(&output) != 0 && said.contains(word), "{word}: {output:?}");
    };
    refused(&["measure", "tdx", "--firmware", "initrd"], "footer table");
    refused(&["measure", "tdx", "--firmware", "fw", "--kernel", "kernel"], "--kernel-form");
    refused(&["measure", "tdx", "--firmware", "fw", "--acpi-tables", "tables"], "--acpi-loader");
    refused(&[&["measure", "tdx"], &PLATFORM[..2], &PLATFORM[4..]].concat(), "--memory");
    refused(&[&["measure", "tdx", "--firmware", "fw"], &KERNEL[..]].concat(), "--memory");
    refused(&[&["measure", "tdx"], &PLATFORM[..], &KERNEL[..6], &KERNEL[8..]].concat(), "--initrd-argument");
}

/// dstack's form of a log with `registers` of one event each.
fn log(path: PathBuf, registers: &[(usize, &str)]) {
    let event = |(register, digest): &(usize, &str)| serde_json::json!({ "imr": register, "event_type": 13, "digest": digest, "event": "", "event_payload": "" });
    fs::write(path, Value::from_iter(registers.iter().map(event)).to_string()).unwrap();
}

#[test]
fn a_log_gives_what_files_do_not_and_must_agree_with_what_they_do() {
    let folder = launch();
    let all = json(&adyton(folder.path(), &tdx(&[&PLATFORM, &KERNEL, &["--explain"]])));
    let inputs: Vec<(usize, &str)> = all["steps"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|step| {
            let register = step["register"].as_str()?.strip_prefix("RTMR")?.parse().ok()?;
            Some((register, step["input"].as_str()?))
        })
        .collect();
    log(folder.path().join("good"), &inputs);
    let from_log = json(&adyton(folder.path(), &tdx(&[&["--firmware", "fw", "--event-log", "good"]])));
    for register in ["rtmr0", "rtmr1", "rtmr2"] {
        assert_eq!(from_log[register], all[register]);
        assert_eq!(from_log["sources"][register], "the event log");
    }
    let both = adyton(folder.path(), &tdx(&[&PLATFORM, &KERNEL, &["--event-log", "good"]]));
    assert_eq!(code(&both), 0, "{both:?}");
    let mut other = inputs.clone();
    let wrong = "ab".repeat(48);
    let at = other.iter().position(|(register, _)| *register == 1).unwrap() + 1;
    other[at].1 = &wrong;
    log(folder.path().join("bad"), &other);
    let output = adyton(folder.path(), &tdx(&[&PLATFORM, &KERNEL, &["--event-log", "bad"]]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(code(&output), 40, "{said}");
    assert!(said.contains("RTMR1, at its event 2: computed action"), "{said}");
}

#[test]
fn diff_says_which_steps_differ() {
    let folder = launch();
    let save = |name: &str, arguments: &[&str]| {
        fs::write(folder.path().join(name), adyton(folder.path(), arguments).stdout).unwrap();
    };
    save("a", &tdx(&[&PLATFORM, &KERNEL, &["--explain"]]));
    save("code", &tdx(&[&["--firmware", "fw2"], &PLATFORM[2..], &KERNEL, &["--explain"]]));
    save("cmdline", &tdx(&[&PLATFORM, &KERNEL[..9], &["debug", "--explain"]]));
    save("short", &tdx(&[&PLATFORM, &KERNEL]));
    let diff = |b: &str| adyton(folder.path(), &["measure", "diff", "a", b, "--json"]);
    let differences = |output: &Output| -> Vec<String> {
        let rows = json(output)["differences"].as_array().unwrap().clone();
        rows.iter().map(|row| row["what"].as_str().unwrap().to_owned()).collect()
    };
    let same = diff("a");
    assert_eq!((code(&same), differences(&same).len()), (0, 0));
    let cmdline = diff("cmdline");
    assert_eq!(code(&cmdline), 1);
    assert_eq!(differences(&cmdline), ["rtmr2", "RTMR2: load options, UTF-16 with their zero"]);
    let code_differs = differences(&diff("code"));
    assert!(code_differs.contains(&"mrtd".to_owned()), "{code_differs:?}");
    assert!(
        code_differs.iter().any(|what| what.starts_with("MRTD: boot firmware volume")),
        "{code_differs:?}"
    );
    assert!(!code_differs.iter().any(|what| what.starts_with("RTMR2")), "{code_differs:?}");
    assert_eq!(code(&diff("short")), 2, "one without steps");
    assert_eq!(code(&diff("fw")), 2, "no JSON");
    assert_eq!(code(&diff("missing")), 2);
    let text = adyton(folder.path(), &["measure", "diff", "a", "cmdline"]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("changed  RTMR2: load options"), "{text:?}");
}

/// With firmware of the recorded vectors: the ways to name a vCPU agree, other hypervisors and counts differ, and the
/// steps of two launches show in `diff` what was changed.
#[test]
fn snp_types_hypervisors_and_differences() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/evidence/snp-launch-measurement");
    let Ok(files) = fs::read_dir(&shared) else {
        eprintln!("SKIPPED: no ../shared/evidence/snp-launch-measurement beside the project");
        return;
    };
    let firmwares: Vec<PathBuf> = files
        .map(|file| file.unwrap().path())
        .filter(|path| {
            path.file_name().unwrap().to_string_lossy().starts_with("ovmf") && path.extension().is_some()
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let mut measured = 0;
    for firmware in &firmwares {
        let firmware = firmware.canonicalize().unwrap();
        let snp = |more: &[&str]| {
            let base = ["measure", "snp", "--json", "--explain", "--firmware", firmware.to_str().unwrap()];
            adyton(folder.path(), &[&base[..], more].concat())
        };
        let two = snp(&["--vcpus", "2", "--vcpu-type", "EPYC-Genoa"]);
        if code(&two) != 0 {
            continue; // an image that cannot be launched with two vCPUs
        }
        measured += 1;
        let digest = |output: &Output| json(output)["measurement"].as_str().unwrap().to_owned();
        let parts = ["--vcpu-family", "25", "--vcpu-model", "17", "--vcpu-stepping", "0"];
        assert_eq!(digest(&snp(&[&["--vcpus", "2"], &parts[..]].concat())), digest(&two));
        for other in [
            &["--vcpus", "3", "--vcpu-type", "EPYC-Genoa"][..],
            &["--vcpus", "2", "--vcpu-type", "EPYC-Turin"],
            &["--vcpus", "2", "--vmm", "gce"],
            &["--vcpus", "2", "--vmm", "ec2"],
            &["--vcpus", "2", "--vcpu-type", "EPYC-Genoa", "--guest-features", "0x21"],
        ] {
            assert_ne!(digest(&snp(other)), digest(&two), "{other:?}");
        }
        let three = snp(&["--vcpus", "3", "--vcpu-type", "EPYC-Genoa"]);
        fs::write(folder.path().join("two"), &two.stdout).unwrap();
        fs::write(folder.path().join("three"), &three.stdout).unwrap();
        let diff = adyton(folder.path(), &["measure", "diff", "two", "three", "--json"]);
        let differences = json(&diff)["differences"].clone();
        let what: Vec<_> = differences.as_array().unwrap().iter().map(|row| row["what"].clone()).collect();
        assert_eq!(what, ["measurement", "VMSA of the further vCPUs"]);
    }
    assert!(measured > 0, "no firmware among {firmwares:?}");
}
