//! The file systems of the kernel, and the console. The root is the initramfs, and is read-only once all is in place.

use std::fs::{self, OpenOptions};
use std::io;

use rustix::mount::{MountFlags, mount, mount_remount};

/// The serial line that the launcher captures. The kernel itself does not use it.
const CONSOLE: &str = "/dev/ttyS0";

/// Source and file system, target, and flags beside those that all have. In this order: each needs the one before.
const MOUNTS: [(&str, &str, MountFlags); 4] = [
    ("proc", "/proc", MountFlags::NOEXEC),
    ("sysfs", "/sys", MountFlags::NOEXEC.union(MountFlags::RDONLY)),
    // Reports are asked for by making directories here.
    ("configfs", "/sys/kernel/config", MountFlags::NOEXEC),
    ("devtmpfs", "/dev", MountFlags::NOEXEC),
];

pub(super) fn mount_all() -> io::Result<()> {
    for (kind, target, flags) in MOUNTS {
        // `/dev` is the only one with device files.
        let devices = if kind == "devtmpfs" { MountFlags::empty() } else { MountFlags::NODEV };
        mount(kind, target, kind, MountFlags::NOSUID | devices | flags, None)?;
    }
    Ok(())
}

/// Points standard output and error at the console, or nowhere if there is none.
pub(super) fn open_console() -> io::Result<()> {
    let console = OpenOptions::new().write(true).open(CONSOLE);
    let console = console.or_else(|_| OpenOptions::new().write(true).open("/dev/null"))?;
    rustix::stdio::dup2_stdout(&console)?;
    rustix::stdio::dup2_stderr(&console)?;
    Ok(())
}

/// Makes the root read-only, and makes sure that it is.
pub(super) fn seal() -> io::Result<()> {
    mount_remount("/", MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV, "")?;
    match fs::write("/written", []) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
        Err(error) => Err(error),
        Ok(()) => Err(io::Error::other("the root can be written to")),
    }
}
