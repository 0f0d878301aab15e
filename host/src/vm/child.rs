//! Programs that end with the host: an emulator whose launcher was killed would go on without anybody to stop it.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tokio::process::{Child, Command};

/// Starts `line` so that it ends when this process does, however that ends. Its output comes through pipes.
///
/// The way is by this very program, which ties itself to its parent and then becomes the other: see [`tied`].
pub(crate) fn start(line: &[OsString]) -> io::Result<Child> {
    Command::new("/proc/self/exe")
        .arg("tied")
        .arg(std::process::id().to_string())
        .args(line)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// Becomes the program `line[0]`, which is killed when the process `parent` ends.
///
/// # Errors
/// The system's reason; it returns only then.
pub fn tied(parent: u32, line: &[OsString]) -> io::Result<Infallible> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have ended before the line above.
    let parent = i32::try_from(parent).ok().and_then(Pid::from_raw);
    if parent.is_none() || getppid() != parent {
        return Err(io::Error::other("the parent has ended"));
    }
    let [program, arguments @ ..] = line else { return Err(io::ErrorKind::InvalidInput.into()) };
    Err(std::process::Command::new(Path::new(program)).args(arguments).exec())
}
