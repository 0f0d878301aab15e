//! Where recorded evidence lies.

use std::path::{Path, PathBuf};

/// `../shared/evidence` beside the project root (the folder that holds Cargo.lock). Says so aloud where it is missing.
#[allow(clippy::print_stderr, reason = "a test that is left out says so")]
pub(crate) fn samples() -> Option<PathBuf> {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = crate_folder.ancestors().find(|folder| folder.join("Cargo.lock").exists())?;
    let folder = root.parent()?.join("shared/evidence");
    if !folder.exists() {
        eprintln!("SKIPPED: no folder ../shared/evidence beside the project");
        return None;
    }
    Some(folder)
}
