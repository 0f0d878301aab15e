//! What an image says of itself: `image.toml`, and files that must have the hashes written there.
//!
//! A file that was damaged on its way would only show as a refusal at each verifier; here it is an error with a name.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{Platform, Vm};
use crate::HostError;

const VERSION: u32 = 1;

/// `image.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    version: u32,
    #[allow(dead_code, reason = "for readers")]
    release: String,
    variant: Variant,
    kernel_sha256: String,
    initrd_sha256: String,
    cmdline: String,
}

/// For whom an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Variant {
    Production,
    Test,
}

/// An image whose files are what it says.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    pub(crate) cmdline: String,
    pub(crate) variant: Variant,
}

impl Image {
    /// Reads the description in `folder` and compares the files with it.
    pub(crate) fn read(folder: &Path) -> Result<Self, HostError> {
        let path = folder.join("image.toml");
        let wrong = |message: String| HostError::Image { path: path.clone(), message };
        let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
        let description: Description = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if description.version != VERSION {
            return Err(wrong(format!(
                "version {} is unknown, this program knows {VERSION}",
                description.version
            )));
        }
        let (kernel, initrd) = (folder.join("vmlinuz"), folder.join("guest.cpio"));
        for (path, sha256) in [(&kernel, &description.kernel_sha256), (&initrd, &description.initrd_sha256)] {
            let bytes = std::fs::read(path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
            let got = hex(&Sha256::digest(bytes));
            if got != *sha256 {
                return Err(wrong(format!("{} has SHA-256 {got}, not {sha256}", path.display())));
            }
        }
        Ok(Self { kernel, initrd, cmdline: description.cmdline, variant: description.variant })
    }

    /// A test image asks a simulator for its reports, and a production image has no way to.
    pub(crate) fn verify_for(&self, vm: &Vm) -> Result<(), HostError> {
        let wrong = |message: &str| Err(HostError::Vm { name: vm.name.clone(), message: message.to_owned() });
        match (vm.platform == Platform::Simulated, self.variant) {
            (false, Variant::Test) => wrong("a test image is not for hardware: build one with scripts/image"),
            (true, Variant::Production) => {
                wrong("a production image cannot ask a simulator: build one with scripts/image --test")
            }
            _ => Ok(()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::{SIMULATED, hardware, vm};
    use super::*;

    fn image(kernel: &[u8]) -> Result<Image, String> {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "version = 1\nrelease = '0.1.0'\nvariant = 'test'\nkernel_sha256 = '{}'\ninitrd_sha256 = '{}'\ncmdline = 'quiet'\n",
            hex(&Sha256::digest(b"kernel")),
            hex(&Sha256::digest(b"initrd"))
        );
        std::fs::write(folder.path().join("image.toml"), text).unwrap();
        std::fs::write(folder.path().join("vmlinuz"), kernel).unwrap();
        std::fs::write(folder.path().join("guest.cpio"), "initrd").unwrap();
        Image::read(folder.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_damaged_file_is_named() {
        let read = image(b"kernel").unwrap();
        assert_eq!((read.cmdline.as_str(), read.variant), ("quiet", Variant::Test));
        let (simulated, hardware) = (vm(SIMULATED), hardware("sev-snp"));
        assert!(read.verify_for(&simulated).is_ok());
        assert!(read.verify_for(&hardware).unwrap_err().to_string().contains("not for hardware"));
        let production = Image { variant: Variant::Production, ..read };
        assert!(production.verify_for(&hardware).is_ok() && production.verify_for(&simulated).is_err());
        assert!(image(b"kernel, damaged").unwrap_err().contains("vmlinuz"));
        assert!(Image::read(Path::new("/nowhere")).unwrap_err().to_string().contains("image.toml"));
    }
}
