//! `image.toml`: the files of an image with their hashes, and the one command line they are started with.
//!
//! The launcher takes kernel, initramfs and command line from here and nowhere else; whoever computes the measurement
//! reads the same file. It is not signed: what it says shows in the measurement, and signed reference values are made
//! from it.

use serde::{Deserialize, Serialize};

/// The only version of this format.
pub const VERSION: u32 = 1;
/// Name of the file.
pub const FILE: &str = "image.toml";
/// Name of the kernel's file.
pub const KERNEL: &str = "vmlinuz";
/// Name of the initramfs's file.
pub const INITRD: &str = "guest.cpio";

/// What the kernel is told. Each word has its reason in the enclave's `guest/cmdline.rs`, which knows no others.
pub const COMMAND_LINE: &str = "quiet panic=-1 random.trust_cpu=off random.trust_bootloader=off";
/// Beside that, on machines that are emulated.
pub const EMULATED: &str = "no_timer_check";

/// For whom an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// Machines with SEV-SNP or TDX.
    Production,
    /// Any machine: the kernel can ask a secure processor in software. SIMULATED, NOT CONFIDENTIAL.
    Test,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// [`VERSION`].
    pub version: u32,
    /// Version of the program inside.
    pub release: String,
    /// For whom.
    pub variant: Variant,
    /// SHA-256 of [`KERNEL`].
    pub kernel_sha256: String,
    /// SHA-256 of [`INITRD`].
    pub initrd_sha256: String,
    /// What the kernel is told.
    pub cmdline: String,
}

impl Description {
    /// Describes an image of this release.
    #[must_use]
    pub fn new(variant: Variant, kernel: &[u8], initrd: &[u8]) -> Self {
        let cmdline = match variant {
            Variant::Production => COMMAND_LINE.to_owned(),
            Variant::Test => format!("{COMMAND_LINE} {EMULATED}"),
        };
        Self {
            version: VERSION,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            variant,
            kernel_sha256: crate::sha256(kernel),
            initrd_sha256: crate::sha256(initrd),
            cmdline,
        }
    }

    /// As it is written to the file.
    ///
    /// # Panics
    /// Never: strings and a number always encode.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("strings and a number encode")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_more() {
        let description = Description::new(Variant::Test, b"kernel", b"initrd");
        let text = description.to_toml();
        assert_eq!(toml::from_str::<Description>(&text).unwrap(), description);
        assert!(toml::from_str::<Description>(&format!("{text}firmware = 'x'\n")).is_err());
        assert!(text.contains("variant = \"test\"") && text.contains("no_timer_check"));
        let production = Description::new(Variant::Production, b"kernel", b"initrd");
        assert_eq!(production.cmdline, COMMAND_LINE, "nothing for emulators in production");
    }
}
