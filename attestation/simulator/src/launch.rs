//! Launch: measure a program and its document, and start exactly the bytes that were measured.
//!
//! Program and document are read once. What was read is measured, written to sealed memory files, and executed from
//! there: a file changed on disk in between changes nothing. The guest gets an empty environment, `/` as directory,
//! no standard input, a fixed program name, the report port as descriptor 3 and the document as descriptor 4.
//!
//! The processor runs beside the guest as a child of its own ([`serve_port`](crate::serve_port)); the launching process
//! then *becomes* the guest. So signals, exit status and the end of the parent reach the guest without anybody to
//! forward them.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::error::SimulatorError;
use crate::processor::LaunchContext;

/// Descriptor of the report port in the guest.
const PORT_FD: i32 = 3;
/// Descriptor of the launch document in the guest.
const DOCUMENT_FD: i32 = 4;
/// `argv[0]` of every guest: the host does not choose it, so it need not be measured.
const GUEST_NAME: &str = "adyton-guest";

/// What is to be launched, as it was read: nothing is read twice.
pub struct GuestImage {
    program: Vec<u8>,
    document: Vec<u8>,
    argv: Vec<OsString>,
}

impl GuestImage {
    /// Reads program and launch document.
    ///
    /// # Errors
    /// [`SimulatorError::File`] if one cannot be read.
    pub fn read(program: &Path, document: &Path, argv: Vec<OsString>) -> Result<Self, SimulatorError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|source| SimulatorError::File { path: path.to_owned(), source })
        };
        Ok(Self { program: read(program)?, document: read(document)?, argv })
    }

    /// What a report of this guest says.
    ///
    /// # Errors
    /// [`SimulatorError::Crypto`] if the system has no randomness.
    pub fn context(&self) -> Result<LaunchContext, SimulatorError> {
        let argv: Vec<&[u8]> = self.argv.iter().map(|argument| argument.as_bytes()).collect();
        LaunchContext::new(&self.program, &self.document, &argv)
    }
}

/// Starts the processor with `port_command`, which must serve the port on its standard input for the guest's
/// context, and replaces this process with the guest.
///
/// # Errors
/// [`SimulatorError::Launch`] for whatever the system refuses. It returns only in that case.
pub fn launch(image: &GuestImage, mut port_command: Command) -> Result<Infallible, SimulatorError> {
    let (guest_end, processor_end) =
        UnixStream::pair().map_err(SimulatorError::launch("make a socket pair"))?;
    let program = sealed_file("program", &image.program)?;
    let document = sealed_file("launch-document", &image.document)?;
    let reopened = format!("/proc/self/fd/{}", document.as_raw_fd());
    let document = File::open(reopened).map_err(SimulatorError::launch("open the launch document"))?;
    // A group of its own: an interrupt at the terminal is for the guest, which may still want a report. The
    // processor ends when the guest's end of the socket does.
    port_command
        .stdin(Stdio::from(OwnedFd::from(processor_end)))
        .process_group(0)
        .spawn()
        .map_err(SimulatorError::launch("start the secure processor"))?;
    // No command may hold the processor's end open here.
    drop(port_command);
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|error| SimulatorError::launch("tie the guest to its parent")(error.into()))?;
    let mappings = vec![
        FdMapping { parent_fd: guest_end.into(), child_fd: PORT_FD },
        FdMapping { parent_fd: document.into(), child_fd: DOCUMENT_FD },
    ];
    // Above the descriptors that are placed for the guest, or placing them would replace the program.
    let program = rustix::io::fcntl_dupfd_cloexec(&program, DOCUMENT_FD + 1)
        .map_err(|error| SimulatorError::launch("move the program file")(error.into()))?;
    let mut guest = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    guest.arg0(GUEST_NAME).args(&image.argv).env_clear().current_dir("/").stdin(Stdio::null());
    guest.fd_mappings(mappings).map_err(|_| {
        SimulatorError::launch("place the descriptors")(std::io::ErrorKind::InvalidInput.into())
    })?;
    Err(SimulatorError::launch("execute the program")(guest.exec()))
}

/// A memory file with these bytes that nobody can change any more.
pub(crate) fn sealed_file(name: &str, bytes: &[u8]) -> Result<File, SimulatorError> {
    let failed = SimulatorError::launch("make a sealed memory file");
    let make = || -> std::io::Result<File> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(rustix::fs::memfd_create(name, flags)?);
        file.write_all(bytes)?;
        file.rewind()?;
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        Ok(file)
    };
    make().map_err(failed)
}
