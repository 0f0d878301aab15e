//! `adyton measure`: what a launch will measure, computed from files alone.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use adyton_attestation::commit::hash;
use adyton_attestation::measurement::measure_process;
use adyton_attestation::measurement::ovmf::MAX_FIRMWARE_LEN_BYTES;
use adyton_attestation::measurement::snp::{
    Kernel, Launch, Measurement, Step, Svsm, VcpuSignature, Vmm, measure,
};
use adyton_broker::read_capped;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::measure_diff::{self, DiffArgs};
use super::measure_sign::{self, ReferenceArgs, SignArgs};
use super::measure_tdx::{self, TdxArgs};
use super::{Failure, Printed};

pub(super) const MAX_PROGRAM_LEN: u64 = 1 << 30;
const MAX_DOCUMENT_LEN: u64 = 64 << 10;

#[derive(Subcommand)]
pub(crate) enum MeasureCommand {
    /// An enclave program and its launch document, as the software secure processor measures them.
    Process(ProcessArgs),
    /// A virtual machine under SEV-SNP: firmware, kernel hashes and vCPUs.
    Snp(SnpArgs),
    /// A virtual machine under TDX: MRTD from the firmware, RTMR0 to RTMR2 from what it starts.
    Tdx(Box<TdxArgs>),
    /// What differs between two measurements.
    Diff(DiffArgs),
    /// Sign what a release measures, for relying parties to take their expected measurements from.
    Sign(Box<SignArgs>),
    /// Verify and show signed reference values.
    Reference(ReferenceArgs),
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  adyton measure process --program adyton-enclave --document launch.toml >> trust.toml\n\n\
                  The text form is TOML, ready for an [evidence] table."
)]
pub(crate) struct ProcessArgs {
    /// The enclave program.
    #[arg(long, env = "ADYTON_PROGRAM")]
    program: PathBuf,
    /// The launch document.
    #[arg(long, env = "ADYTON_DOCUMENT")]
    document: PathBuf,
    /// Arguments of the program, if it gets any.
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  adyton measure snp --firmware OVMF.fd --kernel vmlinuz --initrd guest.cpio \\\n    \
                  --cmdline 'console=ttyS0' --vcpus 4 --vcpu-type EPYC-Genoa --explain\n\n\
                  Published calculations disagree about ec2: the result says which one this is."
)]
pub(crate) struct SnpArgs {
    /// The firmware image (OVMF.fd).
    #[arg(long)]
    firmware: PathBuf,
    /// The kernel, if the hypervisor loads one.
    #[arg(long)]
    kernel: Option<PathBuf>,
    /// The initial RAM disk.
    #[arg(long, requires = "kernel")]
    initrd: Option<PathBuf>,
    /// The kernel command line, exactly as given to the hypervisor.
    #[arg(long, requires = "kernel")]
    cmdline: Option<String>,
    /// Number of vCPUs.
    #[arg(long)]
    vcpus: u32,
    /// QEMU's CPU model, such as EPYC-v4 or EPYC-Genoa; ec2 and gce do not measure it.
    #[arg(long)]
    vcpu_type: Option<String>,
    /// CPU family, instead of a model name.
    #[arg(long, requires_all = ["vcpu_model", "vcpu_stepping"], conflicts_with = "vcpu_type")]
    vcpu_family: Option<u32>,
    /// CPU model number.
    #[arg(long, requires = "vcpu_family")]
    vcpu_model: Option<u32>,
    /// CPU stepping.
    #[arg(long, requires = "vcpu_family")]
    vcpu_stepping: Option<u32>,
    /// The hypervisor.
    #[arg(long, default_value = "qemu", value_parser = ["qemu", "ec2", "gce"])]
    vmm: String,
    /// SEV_FEATURES of the guest, hexadecimal.
    #[arg(long, default_value = "0x1", value_parser = hexadecimal)]
    guest_features: u64,
    /// An SVSM image under the firmware.
    #[arg(long, conflicts_with = "kernel")]
    svsm: Option<PathBuf>,
    /// Size in bytes of the variable store between the SVSM and the firmware.
    #[arg(long, default_value_t = 0, requires = "svsm")]
    vars_size: u64,
    /// Say what was measured, step by step.
    #[arg(long)]
    explain: bool,
}

fn hexadecimal(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16)
        .map_err(|_| "give a hexadecimal number, such as 0x1".into())
}

pub(crate) fn run(command: &MeasureCommand) -> Result<Printed, Failure> {
    match command {
        MeasureCommand::Process(args) => process(args),
        MeasureCommand::Snp(args) => snp(args),
        MeasureCommand::Tdx(args) => measure_tdx::run(args),
        MeasureCommand::Diff(args) => measure_diff::run(args),
        MeasureCommand::Sign(args) => measure_sign::sign(args),
        MeasureCommand::Reference(args) => measure_sign::reference(args),
    }
}

fn snp(args: &SnpArgs) -> Result<Printed, Failure> {
    let firmware = read_capped(&args.firmware, MAX_FIRMWARE_LEN_BYTES as u64)?;
    let read = |path: &Option<PathBuf>, max| path.as_ref().map(|path| read_capped(path, max)).transpose();
    let kernel = read(&args.kernel, MAX_PROGRAM_LEN)?;
    let initrd = read(&args.initrd, MAX_PROGRAM_LEN)?;
    let svsm = read(&args.svsm, MAX_FIRMWARE_LEN_BYTES as u64)?;
    let measurement = measure(&Launch {
        firmware: &firmware,
        svsm: svsm.as_deref().map(|image| Svsm { image, vars_len_bytes: args.vars_size }),
        kernel: kernel.as_deref().map(|kernel| Kernel {
            kernel,
            initrd: initrd.as_deref().map_or(&[], |initrd| initrd),
            cmdline: args.cmdline.as_deref().unwrap_or_default(),
        }),
        vcpus: args.vcpus,
        vcpu_signature: args.vcpu_signature()?,
        guest_features: args.guest_features,
        vmm: Vmm::from_name(&args.vmm).ok_or_else(|| Failure::own("unknown hypervisor"))?,
    })
    .map_err(|error| Failure::own(error.to_string()))?;
    Ok(print(&measurement, args.explain))
}

impl SnpArgs {
    fn vcpu_signature(&self) -> Result<VcpuSignature, Failure> {
        if let (Some(family), Some(model), Some(stepping)) =
            (self.vcpu_family, self.vcpu_model, self.vcpu_stepping)
        {
            return VcpuSignature::from_parts(family, model, stepping)
                .ok_or_else(|| Failure::own("family at most 270, model at most 255, stepping at most 15"));
        }
        let Some(name) = &self.vcpu_type else {
            let unmeasured = self.vmm != "qemu";
            return unmeasured
                .then_some(VcpuSignature(0))
                .ok_or_else(|| Failure::own("give --vcpu-type for qemu"));
        };
        VcpuSignature::from_model_name(name).ok_or_else(|| {
            Failure::own(format!("unknown vCPU type {name}: give EPYC, EPYC-Rome, EPYC-Milan, EPYC-Genoa or \
                                  EPYC-Turin, with -vN if wanted, or --vcpu-family, --vcpu-model and --vcpu-stepping"))
        })
    }
}

/// The text form is TOML; all that explains is in its comments.
fn print(measurement: &Measurement, explain: bool) -> Printed {
    let digest = hex::encode(measurement.digest);
    let mut json = json!({ "measurement": digest, "note": measurement.note });
    let mut text = measurement.note.map_or(String::new(), |note| format!("# note: {note}\n"));
    if explain {
        for step in &measurement.steps {
            let Step { name, gpa, pages, hashed, source, digest, .. } = step;
            let digest = hex::encode(digest);
            text += &format!("# {gpa:#x} {pages} pages: {name} ({hashed}; from {source})\n#   -> {digest}\n");
        }
        json["steps"] = measurement.steps.iter().map(step_json).collect();
    }
    text += &format!("measurements = [\"{digest}\"]\n");
    Printed::new(json, text)
}

fn step_json(step: &Step) -> Value {
    json!({
        "name": step.name, "gpa": format!("{:#x}", step.gpa), "pages": step.pages, "hashed": step.hashed,
        "source": step.source, "input": hex::encode(step.input), "digest": hex::encode(step.digest),
    })
}

fn process(args: &ProcessArgs) -> Result<Printed, Failure> {
    let program = read_capped(&args.program, MAX_PROGRAM_LEN)?;
    let document = read_capped(&args.document, MAX_DOCUMENT_LEN)?;
    let arguments: Vec<&[u8]> = args.arguments.iter().map(|argument| argument.as_bytes()).collect();
    let measurement = hex::encode(measure_process(&program, &document, &arguments));
    let host_data = hex::encode(hash(&document));
    let text = format!("measurements = [\"{measurement}\"]\nhost_data = [\"{host_data}\"]\n");
    Ok(Printed::new(json!({ "measurement": measurement, "host_data": host_data }), text))
}
