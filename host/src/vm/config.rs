//! `[[vm]]`: one virtual machine of `host.toml`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::HostError;

/// One virtual machine. Relative paths are relative to the configuration file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vm {
    /// Its name, in messages and as a folder: letters, digits and dashes.
    pub name: String,
    /// What measures it and signs for it.
    pub platform: Platform,
    /// What runs its instructions; `kvm` if unset.
    #[serde(default)]
    pub accelerator: Accelerator,
    /// Folder of the image, with `image.toml`.
    pub image: PathBuf,
    /// The firmware.
    pub firmware: PathBuf,
    /// The launch document.
    pub document: PathBuf,
    /// Virtual processors: measured.
    pub vcpus: u32,
    /// QEMU's name of their model: measured on SEV-SNP.
    pub vcpu_type: String,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Its address on vsock: 3 or more, and of no other machine on this host.
    pub cid: u32,
    /// The emulator.
    #[serde(default = "defaults::qemu")]
    pub qemu: PathBuf,
    /// How its streams reach the host; the kernel's vsock if unset.
    #[serde(default)]
    pub vsock: Vsock,
    /// `adyton-simulator`, for `platform = "simulated"`.
    pub simulator: Option<PathBuf>,
    /// Its folder, made with `adyton-simulator setup`.
    pub simulator_dir: Option<PathBuf>,
    /// SEV-SNP guest policy: SMT allowed and the bit that must be one, if unset.
    #[serde(default = "defaults::policy")]
    pub policy: u64,
    /// SEV-SNP ID block and its authentication, base64, if the owner of the image signed any.
    pub id_block: Option<IdBlock>,
    /// Seconds from its start to its first answer.
    #[serde(default = "defaults::boot_limit_s")]
    pub boot_limit_s: u64,
}

/// SEV-SNP ID block: lets the processor refuse a launch that measures differently.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdBlock {
    /// `ID_BLOCK`, 96 bytes in base64.
    pub block: String,
    /// `ID_AUTH`, 4096 bytes in base64.
    pub auth: String,
}

/// What measures a machine and signs for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// AMD SEV-SNP.
    SevSnp,
    /// Intel TDX.
    Tdx,
    /// A secure processor in software: SIMULATED, NOT CONFIDENTIAL.
    Simulated,
}

/// What runs a machine's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor.
    #[default]
    Kvm,
    /// The emulator, instruction by instruction.
    Tcg,
}

/// How a machine's streams reach the host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vsock {
    /// `/dev/vhost-vsock`.
    #[default]
    Kernel,
    /// This program (`vhost-device-vsock`), for hosts without it.
    User(PathBuf),
}

mod defaults {
    use std::path::PathBuf;

    pub(super) fn qemu() -> PathBuf {
        "qemu-system-x86_64".into()
    }
    pub(super) fn policy() -> u64 {
        0x3_0000
    }
    pub(super) fn boot_limit_s() -> u64 {
        180
    }
}

impl Vm {
    /// Makes paths absolute or relative to the working directory; programs without a slash are looked up in PATH.
    pub(crate) fn resolve(&mut self, base: &Path) {
        for path in [&mut self.image, &mut self.firmware, &mut self.document] {
            *path = base.join(&*path);
        }
        let user = match &mut self.vsock {
            Vsock::User(program) => Some(program),
            Vsock::Kernel => None,
        };
        for program in [Some(&mut self.qemu), self.simulator.as_mut(), user].into_iter().flatten() {
            if program.components().count() > 1 {
                *program = base.join(&*program);
            }
        }
        if let Some(folder) = &mut self.simulator_dir {
            *folder = base.join(&*folder);
        }
    }

    /// The files that must be there.
    pub(crate) fn paths(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let always =
            [("vm.image", &self.image), ("vm.firmware", &self.firmware), ("vm.document", &self.document)];
        always.into_iter().chain(self.simulator_dir.iter().map(|path| ("vm.simulator_dir", path)))
    }

    /// What no type says.
    pub(crate) fn verify(&self) -> Result<(), HostError> {
        let wrong = |message: String| Err(HostError::Vm { name: self.name.clone(), message });
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if self.name.is_empty() || self.name.len() > 32 || !self.name.bytes().all(plain) {
            return wrong("a name has 1 to 32 letters, digits and dashes".into());
        }
        if self.cid < 3 || self.cid == u32::MAX {
            return wrong("a cid is 3 or more; lower ones are taken by the system".into());
        }
        if self.vcpus == 0 || self.vcpus > 512 || self.memory_mib < 128 || self.boot_limit_s == 0 {
            return wrong(
                "give 1 to 512 vcpus, 128 MiB or more, and a boot limit of a second or more".into(),
            );
        }
        let simulated = self.platform == Platform::Simulated;
        if simulated != (self.simulator.is_some() && self.simulator_dir.is_some()) {
            return wrong(
                "simulator and simulator_dir go with platform = \"simulated\", both of them".into(),
            );
        }
        if !simulated && self.accelerator == Accelerator::Tcg {
            return wrong("no emulator is a secure processor: use accelerator = \"kvm\"".into());
        }
        if self.id_block.is_some() && self.platform != Platform::SevSnp {
            return wrong("an id_block is SEV-SNP's".into());
        }
        // What the emulator would read as more than one value.
        if self.vcpu_type.is_empty() || !self.vcpu_type.bytes().all(|byte| plain(byte) || byte == b'.') {
            return wrong("vcpu_type is a name of QEMU, such as EPYC-Milan".into());
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const SIMULATED: &str = "name = 'one'\nplatform = 'simulated'\naccelerator = 'tcg'\nimage = 'image'\n\
        firmware = 'OVMF.fd'\ndocument = 'launch.toml'\nvcpus = 1\nvcpu_type = 'EPYC-Milan'\nmemory_mib = 512\ncid = 4\n\
        simulator = 'bin/adyton-simulator'\nsimulator_dir = 'simulator'\nvsock = { user = 'vhost-device-vsock' }\n";

    pub(crate) fn vm(text: &str) -> Vm {
        toml::from_str(text).unwrap()
    }

    /// The same as [`SIMULATED`] on hardware.
    pub(crate) fn hardware(platform: &str) -> Vm {
        let kept = |line: &&str| !line.starts_with("simulator") && !line.starts_with("vsock");
        let lines: Vec<&str> = SIMULATED.lines().filter(kept).collect();
        vm(&lines.join("\n").replace("'simulated'", &format!("'{platform}'")).replace("'tcg'", "'kvm'"))
    }

    #[test]
    fn paths_follow_the_file_and_programs_the_search_path() {
        let mut vm = vm(SIMULATED);
        vm.resolve(Path::new("/etc/adyton"));
        assert_eq!(vm.image, Path::new("/etc/adyton/image"));
        assert_eq!(vm.simulator.as_deref(), Some(Path::new("/etc/adyton/bin/adyton-simulator")));
        assert_eq!(vm.qemu, Path::new("qemu-system-x86_64"));
        assert_eq!(vm.vsock, Vsock::User("vhost-device-vsock".into()));
        assert!(vm.verify().is_ok());
        assert!(hardware("sev-snp").verify().is_ok() && hardware("tdx").verify().is_ok());
    }

    #[test]
    fn what_cannot_be_launched_is_named() {
        for (from, to, named) in [
            ("'one'", "'../one'", "letters"),
            ("cid = 4", "cid = 2", "cid"),
            ("vcpus = 1", "vcpus = 0", "vcpus"),
            ("memory_mib = 512", "memory_mib = 64", "MiB"),
            ("'EPYC-Milan'", "'EPYC-Milan,+sev'", "vcpu_type"),
            ("'simulated'", "'sev-snp'", "simulator"),
            ("simulator_dir = 'simulator'\n", "", "simulator"),
        ] {
            let error = vm(&SIMULATED.replace(from, to)).verify().unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        let mut emulated = hardware("sev-snp");
        emulated.accelerator = Accelerator::Tcg;
        assert!(emulated.verify().unwrap_err().to_string().contains("no emulator"));
    }
}
