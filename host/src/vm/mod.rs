//! Virtual machines: what they are started with, and how they are kept running.
//!
//! [`config`] is the operator's side, [`image`] what the image says, [`firmware`] what the firmware can do; [`command`]
//! turns the three into a command line, which is a pure function and tested as text. [`machine`] is one life of one
//! machine, [`supervise`] what happens when it ends.

mod child;
pub(crate) mod command;
pub(crate) mod config;
pub(crate) mod console;
mod events;
pub(crate) mod firmware;
pub(crate) mod image;
mod machine;
mod supervise;

pub use child::tied;
pub use config::{Accelerator, Platform, Vm, Vsock};
pub(crate) use supervise::{Fleet, Site, supervise};

/// What has to be right before anything is started, and is wrong for good otherwise.
pub(crate) fn verify(vm: &Vm) -> Result<(), crate::HostError> {
    image::Image::read(&vm.image)?.verify_for(vm)?;
    firmware::verify(&vm.firmware, vm.platform)
}

/// Port of the host at which the guest reads its launch document.
pub const DOCUMENT_PORT: u32 = 7001;
/// Port of the host at which manifest and sealed files are handed out.
pub const FILES_PORT: u32 = 7002;
/// Port of the host that leads to the model owner's broker.
pub const BROKER_PORT: u32 = 7003;
/// Port of the host at which the kernel of a test image asks the simulator for reports.
pub const REPORT_PORT: u32 = 7004;
/// Port of the guest at which any connection asks it to stop.
pub const STOP_PORT: u32 = 7005;
/// Port of the guest at which it serves.
pub const SERVICE_PORT: u32 = 8443;
