//! Launch of a whole machine: measure what it boots from, and start exactly those bytes in an emulator.
//!
//! Firmware, kernel, initramfs and launch document are read once. The launch digest is computed over what was read, as
//! the firmware of a processor computes it, and the emulator gets sealed memory files with the same bytes, the same
//! command line and the same processors. Whatever else the machine has (devices, memory, clock) is the launcher's
//! choice and shows nowhere, as on real hardware.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use adyton_attestation::measurement::snp::{Kernel, Launch, VcpuSignature, Vmm, measure};
use command_fds::{CommandFdExt as _, FdMapping};

use crate::error::SimulatorError;
use crate::launch::sealed_file;
use crate::processor::LaunchContext;

/// SEV_FEATURES: SNP active, and nothing else.
const GUEST_FEATURES: u64 = 1;
/// Where the emulator finds firmware, kernel and initramfs.
const FIRST_FD: i32 = 10;
/// Options of the emulator that decide what is measured, and are this module's alone.
const MEASURED_OPTIONS: [&str; 10] =
    ["-bios", "-kernel", "-initrd", "-append", "-smp", "-cpu", "-pflash", "-dtb", "-drive", "-readconfig"];

/// The files and settings that decide a machine's measurement.
#[derive(Clone, Debug)]
pub struct MachineFiles {
    /// The firmware.
    pub firmware: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// What the kernel is told.
    pub cmdline: String,
    /// How many vCPUs.
    pub vcpus: u32,
    /// QEMU's name of their model.
    pub vcpu_type: String,
    /// The launch document; its SHA-256 is HOST_DATA.
    pub document: PathBuf,
}

/// What is to be launched, as it was read: nothing is read twice.
pub struct MachineImage {
    firmware: Vec<u8>,
    kernel: Vec<u8>,
    initrd: Vec<u8>,
    document: Vec<u8>,
    files: MachineFiles,
}

impl MachineImage {
    /// Reads all files.
    ///
    /// # Errors
    /// [`SimulatorError::File`] if one cannot be read.
    pub fn read(files: MachineFiles) -> Result<Self, SimulatorError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|source| SimulatorError::File { path: path.to_owned(), source })
        };
        Ok(Self {
            firmware: read(&files.firmware)?,
            kernel: read(&files.kernel)?,
            initrd: read(&files.initrd)?,
            document: read(&files.document)?,
            files,
        })
    }

    /// What a report of this machine says.
    ///
    /// # Errors
    /// [`SimulatorError::Measure`] for what no processor launches, [`SimulatorError::Crypto`] without randomness.
    pub fn context(&self) -> Result<LaunchContext, SimulatorError> {
        let files = &self.files;
        let vcpu_signature = VcpuSignature::from_model_name(&files.vcpu_type)
            .ok_or_else(|| SimulatorError::Measure(format!("unknown vCPU type {}", files.vcpu_type)))?;
        let measurement = measure(&Launch {
            firmware: &self.firmware,
            svsm: None,
            kernel: Some(Kernel { kernel: &self.kernel, initrd: &self.initrd, cmdline: &files.cmdline }),
            vcpus: files.vcpus,
            vcpu_signature,
            guest_features: GUEST_FEATURES,
            vmm: Vmm::Qemu,
        });
        let measurement = measurement.map_err(|error| SimulatorError::Measure(error.to_string()))?;
        LaunchContext::measured(measurement.digest, &self.document)
    }

    /// Starts the processor with `port_command`, which must serve the listener on its standard input for this
    /// machine's context, and replaces this process with the emulator: `emulator[0]` with the measured parts and then
    /// the rest of `emulator`.
    ///
    /// # Errors
    /// [`SimulatorError::Launch`] for whatever the system refuses, [`SimulatorError::Measure`] if `emulator` contains
    /// what decides the measurement. It returns only in these cases.
    pub fn launch(
        &self,
        emulator: &[OsString],
        port: &Path,
        mut port_command: Command,
    ) -> Result<Infallible, SimulatorError> {
        let [program, options @ ..] = emulator else {
            return Err(SimulatorError::Measure("no emulator was named".into()));
        };
        if let Some(option) = options.iter().find(|option| decides_measurement(option)) {
            return Err(SimulatorError::Measure(format!(
                "{} is not the launcher's to choose",
                option.display()
            )));
        }
        let listener = UnixListener::bind(port)
            .map_err(|source| SimulatorError::File { path: port.to_owned(), source })?;
        port_command
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .process_group(0)
            .spawn()
            .map_err(SimulatorError::launch("start the secure processor"))?;
        // No command may hold the listener open here.
        drop(port_command);
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .map_err(|error| SimulatorError::launch("tie the machine to its parent")(error.into()))?;
        let mut command = Command::new(program);
        let mut mappings = Vec::new();
        let parts = [("-bios", &self.firmware), ("-kernel", &self.kernel), ("-initrd", &self.initrd)];
        for (child_fd, (option, bytes)) in (FIRST_FD..).zip(parts) {
            let file = sealed_file(option.trim_start_matches('-'), bytes)?;
            // Above the descriptors that are placed, or placing one would replace another.
            let parent_fd = rustix::io::fcntl_dupfd_cloexec(&file, FIRST_FD + 8)
                .map_err(|error| SimulatorError::launch("move a file of the machine")(error.into()))?;
            debug_assert!(parent_fd.as_raw_fd() >= FIRST_FD + 8);
            mappings.push(FdMapping { parent_fd, child_fd });
            command.arg(option).arg(format!("/proc/self/fd/{child_fd}"));
        }
        let files = &self.files;
        command.arg("-append").arg(&files.cmdline);
        command.arg("-smp").arg(files.vcpus.to_string()).arg("-cpu").arg(&files.vcpu_type);
        command.args(options).stdin(Stdio::null());
        command.fd_mappings(mappings).map_err(|_| {
            SimulatorError::launch("place the descriptors")(std::io::ErrorKind::InvalidInput.into())
        })?;
        Err(SimulatorError::launch("execute the emulator")(command.exec()))
    }
}

/// QEMU takes its options with one dash or two.
fn decides_measurement(option: &OsString) -> bool {
    let text = option.to_string_lossy();
    let option = text.strip_prefix('-').filter(|rest| rest.starts_with('-')).unwrap_or(&text);
    MEASURED_OPTIONS.contains(&option)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launcher_cannot_choose_what_is_measured() {
        for option in ["-kernel", "--kernel", "-append", "-bios", "--cpu"] {
            assert!(decides_measurement(&option.into()), "{option}");
        }
        for option in ["-m", "-device", "kernel", "-accel"] {
            assert!(!decides_measurement(&option.into()), "{option}");
        }
    }
}
