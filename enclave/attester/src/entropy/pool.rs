//! Keys the kernel's generator anew from its pool: one ioctl, and nothing else.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// `RNDRESEEDCRNG`, `_IO('R', 0x07)`; Linux `include/uapi/linux/random.h`.
const RESEED: libc::Ioctl = (b'R' as libc::Ioctl) << 8 | 0x07;

/// What was mixed into the pool counts from now on, not from the kernel's next turn on.
pub(super) fn reseed(device: &File) -> io::Result<()> {
    // SAFETY: the request takes no argument, and `device` is open for the whole call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), RESEED) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
