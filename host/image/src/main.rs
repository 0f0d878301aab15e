//! `adyton-image`: the steps of `scripts/image` and `scripts/reproduce` that are more than a shell's.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use adyton_image::description::{self, Description, Variant};
use adyton_image::materials::{self, Other};
use adyton_image::{ImageError, compare, newc, read, write};
use clap::{Args, Parser, Subcommand};

/// Put a guest image together, or compare two.
#[derive(Parser)]
#[command(name = "adyton-image", version, after_help = "Called by scripts/image and scripts/reproduce.")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Write initramfs, description and bill of materials beside a kernel.
    Assemble(AssembleArgs),
    /// Say what differs between the images in two folders; exit status 1 if anything does.
    Compare {
        /// One folder.
        left: PathBuf,
        /// The other.
        right: PathBuf,
    },
}

#[derive(Args)]
struct AssembleArgs {
    /// The kernel.
    #[arg(long)]
    kernel: PathBuf,
    /// The static program that becomes PID 1.
    #[arg(long)]
    program: PathBuf,
    /// The image is for machines without a secure processor: SIMULATED, NOT CONFIDENTIAL.
    #[arg(long)]
    test: bool,
    /// Version of the kernel's source.
    #[arg(long)]
    kernel_version: String,
    /// SHA-256 of the kernel's source.
    #[arg(long)]
    kernel_source_sha256: String,
    /// What `cargo metadata --locked --filter-platform` says for the guest's target.
    #[arg(long)]
    metadata: PathBuf,
    /// The lock file, with the toolchain's beside it.
    #[arg(long)]
    lock: PathBuf,
    /// Folder for the image.
    #[arg(long)]
    out: PathBuf,
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Assemble(args) => assemble(&args).map(|()| ExitCode::SUCCESS),
        Verb::Compare { left, right } => report(&left, &right),
    };
    done.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "adyton-image: {error}");
        ExitCode::FAILURE
    })
}

fn assemble(args: &AssembleArgs) -> Result<(), ImageError> {
    let kernel = read(&args.kernel)?;
    let initrd = newc::initramfs(read(&args.program)?)?;
    let variant = if args.test { Variant::Test } else { Variant::Production };
    let source = Other {
        name: "linux".into(),
        version: args.kernel_version.clone(),
        kind: "operating-system",
        sha256: Some(args.kernel_source_sha256.clone()),
        license: "GPL-2.0-only WITH Linux-syscall-note",
    };
    let text = |path: &Path| Ok::<_, ImageError>(String::from_utf8_lossy(&read(path)?).into_owned());
    let library = materials::standard_library(&text(&args.lock.with_file_name(materials::TOOLCHAIN))?)?;
    let lock = text(&args.lock)?;
    let bill = materials::bill("adyton-enclave", &read(&args.metadata)?, &lock, &[source, library])?;
    write(&args.out.join(description::KERNEL), &kernel)?;
    write(&args.out.join(description::INITRD), &initrd)?;
    write(&args.out.join(materials::FILE), bill.as_bytes())?;
    let description = Description::new(variant, &kernel, &initrd).to_toml();
    // Last, since whoever reads the folder begins with it.
    write(&args.out.join(description::FILE), description.as_bytes())
}

fn report(left: &Path, right: &Path) -> Result<ExitCode, ImageError> {
    let found = compare::compare(left, right)?;
    for difference in &found {
        let _ = writeln!(std::io::stdout(), "{difference}");
    }
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
