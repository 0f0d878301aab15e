//! `adyton-host check`: what this machine can do, and what is missing, one line each.
//!
//! Nothing is started and nothing is changed. A line says `ok` or `missing`, what was looked at, and what to do.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Config;
use crate::vm::{self, Platform, Vsock};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it is there.
    pub ok: bool,
    /// What was looked at.
    pub what: String,
    /// What was found, or what to do.
    pub detail: String,
}

/// What the machine looks like; the defaults are the real one's.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Where `/proc`, `/sys` and `/dev` hang.
    pub root: std::path::PathBuf,
    /// The emulator to ask.
    pub qemu: std::path::PathBuf,
}

impl Default for Machine {
    fn default() -> Self {
        Self { root: "/".into(), qemu: "qemu-system-x86_64".into() }
    }
}

/// Whether a platform can be served here: its name, and whether nothing that it needs is missing.
pub type Ability = (&'static str, bool);

const SEV_SNP: &str = "sev-snp";
const TDX: &str = "tdx";

/// Looks at the machine: the lines, and what follows from them.
#[must_use]
pub fn machine(machine: &Machine) -> (Vec<Finding>, Vec<Ability>) {
    let read = |path: &str| fs::read_to_string(machine.root.join(path)).unwrap_or_default();
    let there = |path: &str| machine.root.join(path).exists();
    let (cpuinfo, objects) = (read("proc/cpuinfo"), emulator(&machine.qemu, &["-object", "help"]));
    let version = emulator(&machine.qemu, &["--version"]);
    let yes = |text: String| matches!(text.trim(), "Y" | "y" | "1");
    let flag = |name: &str| {
        cpuinfo
            .lines()
            .any(|line| line.starts_with("flags") && line.split_whitespace().any(|flag| flag == name))
    };
    let finding = |ok: bool, what: &str, found: &str, otherwise: &str| Finding {
        ok,
        what: what.to_owned(),
        detail: if ok { found } else { otherwise }.to_owned(),
    };
    let lines = vec![
        finding(
            flag("sev_snp"),
            "processor: SEV-SNP",
            "present",
            "this processor or its firmware has none, or the kernel does not know it",
        ),
        finding(
            yes(read("sys/module/kvm_amd/parameters/sev_snp")),
            "kernel: kvm_amd with SEV-SNP",
            "enabled",
            "turn SEV-SNP on in the firmware's setup and use Linux 6.11 or later with kvm_amd.sev_snp=1",
        ),
        finding(
            there("dev/sev"),
            "secure processor: /dev/sev",
            "present",
            "the ccp driver found no secure processor",
        ),
        finding(
            objects.contains("sev-snp-guest"),
            "emulator: sev-snp-guest",
            "present",
            "use QEMU 9.1 or later",
        ),
        finding(
            flag("tdx_host_platform"),
            "processor: TDX",
            "present",
            "this processor or its firmware has none, or the kernel does not know it",
        ),
        finding(
            yes(read("sys/module/kvm_intel/parameters/tdx")),
            "kernel: kvm_intel with TDX",
            "enabled",
            "turn TDX on in the firmware's setup and use Linux 6.16 or later with kvm_intel.tdx=1",
        ),
        finding(objects.contains("tdx-guest"), "emulator: tdx-guest", "present", "use QEMU 10.1 or later"),
        finding(
            there("dev/kvm"),
            "kernel: /dev/kvm",
            "present",
            "load kvm_amd or kvm_intel; without it only emulation is left",
        ),
        finding(
            there("dev/vhost-vsock"),
            "kernel: /dev/vhost-vsock",
            "present",
            "load vhost_vsock, or use vhost-device-vsock for tests",
        ),
        finding(
            !version.is_empty(),
            "emulator",
            version.lines().next().unwrap_or_default(),
            "install QEMU (Debian: qemu-system-x86)",
        ),
        finding(
            on_path("vhost-device-vsock"),
            "vsock in user space: vhost-device-vsock",
            "present",
            "only for tests: cargo install vhost-device-vsock --version 0.3.0",
        ),
    ];
    let all = |wanted: &[usize]| wanted.iter().all(|at| lines.get(*at).is_some_and(|line| line.ok));
    let abilities = vec![
        (SEV_SNP, all(&[0, 1, 2, 3, 7, 8])),
        (TDX, all(&[4, 5, 6, 7, 8])),
        ("simulated (NOT CONFIDENTIAL)", all(&[9]) && (all(&[8]) || all(&[10]))),
    ];
    (lines, abilities)
}

/// Looks at what a configuration names, on a machine with these abilities.
#[must_use]
pub fn configuration(config: &Config, abilities: &[Ability]) -> Vec<Finding> {
    let mut lines = Vec::new();
    for vm in &config.vm {
        // Under a simulator a machine needs its programs and nothing else.
        if let Some(platform) = hardware(vm.platform) {
            let ok = abilities.contains(&(platform, true));
            let detail = if ok { "this machine can" } else { "this machine cannot; the lines above say why" };
            lines.push(Finding { ok, what: format!("vm {}: {platform}", vm.name), detail: detail.into() });
        }
        let (ok, detail) = match vm::verify(vm) {
            Ok(()) => (true, "image and firmware are what they should be".to_owned()),
            Err(error) => (false, error.to_string()),
        };
        lines.push(Finding { ok, what: format!("vm {}", vm.name), detail });
        let mut programs = vec![&vm.qemu];
        programs.extend(&vm.simulator);
        if let Vsock::User(program) = &vm.vsock {
            programs.push(program);
        }
        for program in programs {
            let there = program.exists() || on_path(&program.to_string_lossy());
            let detail = if there { "present" } else { "there is no such program" };
            lines.push(Finding {
                ok: there,
                what: format!("vm {}: {}", vm.name, program.display()),
                detail: detail.into(),
            });
        }
        if hardware(vm.platform).is_some() && config.certificates_dir.is_none() {
            lines.push(Finding {
                ok: false,
                what: format!("vm {}: certificates_dir", vm.name),
                detail: "guests and clients want the vendor's certificates from somewhere".into(),
            });
        }
    }
    lines
}

fn hardware(platform: Platform) -> Option<&'static str> {
    match platform {
        Platform::SevSnp => Some(SEV_SNP),
        Platform::Tdx => Some(TDX),
        Platform::Simulated => None,
    }
}

/// What the emulator says, or nothing if there is none.
fn emulator(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// A machine with these files, and an emulator that knows these objects.
    fn look(files: &[(&str, &str)], objects: &str) -> (Vec<Finding>, Vec<Ability>) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let qemu = folder.path().join("qemu");
        fs::write(&qemu, format!("#!/bin/sh\necho '{objects}'\n")).unwrap();
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
        machine(&Machine { root: folder.path().into(), qemu })
    }

    fn able(abilities: &[Ability], name: &str) -> bool {
        abilities.iter().any(|(other, able)| *other == name && *able)
    }

    const AMD: [(&str, &str); 5] = [
        ("proc/cpuinfo", "flags\t\t: fpu sev sev_snp\n"),
        ("sys/module/kvm_amd/parameters/sev_snp", "Y\n"),
        ("dev/sev", ""),
        ("dev/kvm", ""),
        ("dev/vhost-vsock", ""),
    ];

    #[test]
    fn each_missing_part_is_a_line_and_takes_the_ability() {
        let (lines, abilities) = look(&AMD, "sev-snp-guest");
        assert!(able(&abilities, "sev-snp") && !able(&abilities, "tdx"), "{lines:?}");
        for (missing, _) in AMD {
            let some: Vec<_> = AMD.into_iter().filter(|(path, _)| *path != missing).collect();
            let (lines, abilities) = look(&some, "sev-snp-guest");
            assert!(!able(&abilities, "sev-snp"), "without {missing}: {lines:?}");
            assert!(lines.iter().filter(|line| !line.ok).all(|line| !line.detail.is_empty()));
        }
        assert!(!able(&look(&AMD, "sev-guest").1, "sev-snp"), "an older emulator");
    }

    #[test]
    fn tdx_is_told_apart() {
        let intel = [
            ("proc/cpuinfo", "flags : fpu tdx_host_platform\n"),
            ("sys/module/kvm_intel/parameters/tdx", "Y\n"),
            ("dev/kvm", ""),
            ("dev/vhost-vsock", ""),
        ];
        let (_, abilities) = look(&intel, "tdx-guest");
        assert!(able(&abilities, "tdx") && !able(&abilities, "sev-snp"));
    }

    #[test]
    fn a_machine_that_is_configured_and_not_possible_here_is_a_line() {
        use crate::vm::config::tests::SIMULATED;
        let config = |platform: &str| -> Config {
            let vm = SIMULATED.replace("'simulated'", platform);
            let head = "listen = '127.0.0.1:1'\nfiles_listen = '127.0.0.1:3'\nsealed_dir = 'sealed'\n";
            toml::from_str(&format!("{head}[[vm]]\n{vm}")).unwrap()
        };
        let line = |platform: &str, abilities: &[Ability]| {
            let lines = configuration(&config(&format!("'{platform}'")), abilities);
            lines.into_iter().find(|line| line.what == format!("vm one: {platform}"))
        };
        let only_amd = [(SEV_SNP, true), (TDX, false)];
        assert!(line("sev-snp", &only_amd).unwrap().ok);
        assert!(!line("tdx", &only_amd).unwrap().ok);
        assert!(!line("sev-snp", &[(SEV_SNP, false), (TDX, true)]).unwrap().ok);
        assert_eq!(line("simulated", &only_amd), None);
    }
}
