//! `adyton-simulator`: a secure processor in software. **SIMULATED, NOT CONFIDENTIAL.**
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use adyton_attestation::Time;
use adyton_simulator::{
    GuestImage, LaunchContext, MachineFiles, MachineImage, ROOT_FILE, SIMULATED_NOTICE, Setup, Simulator,
    SimulatorError, launch, serve_port, serve_ports, setup, with_kernel_hashes,
};
use clap::{Args, Parser, Subcommand};

/// A secure processor in software, for development and tests: SIMULATED, NOT CONFIDENTIAL
#[derive(Parser)]
#[command(name = "adyton-simulator", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a root, an intermediate and a chip in a directory, once (SIMULATED, NOT CONFIDENTIAL)
    Setup {
        /// Directory of the keys and certificates; verifiers name the file root.der in it
        #[arg(long, env = "ADYTON_SIMULATOR_DIR")]
        dir: PathBuf,
    },
    /// Measure a program and start it as a guest (SIMULATED, NOT CONFIDENTIAL)
    Launch {
        /// Directory that `setup` made
        #[arg(long, env = "ADYTON_SIMULATOR_DIR")]
        dir: PathBuf,
        #[command(flatten)]
        guest: GuestArgs,
    },
    /// Print the launch measurement of a program (SIMULATED, NOT CONFIDENTIAL)
    Measure {
        #[command(flatten)]
        guest: GuestArgs,
        /// One JSON object instead of hex
        #[arg(long)]
        json: bool,
    },
    /// Measure a virtual machine and start it in QEMU (SIMULATED, NOT CONFIDENTIAL)
    LaunchVm {
        /// Directory that `setup` made
        #[arg(long, env = "ADYTON_SIMULATOR_DIR")]
        dir: PathBuf,
        #[command(flatten)]
        machine: MachineArgs,
        /// Socket at which the machine's kernel asks for reports; made here
        #[arg(long)]
        port: PathBuf,
        /// The emulator and its options, but for those that are measured
        #[arg(last = true, required = true)]
        emulator: Vec<OsString>,
    },
    /// Make a firmware that measures kernels out of a distribution's OVMF.fd (SIMULATED, NOT CONFIDENTIAL)
    Firmware {
        /// OVMF.fd
        #[arg(long)]
        ovmf: PathBuf,
        /// Where to write it
        #[arg(long)]
        out: PathBuf,
    },
    /// Serve the report port of one guest on standard input; `launch` starts this
    #[command(hide = true)]
    Port {
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        measurement: String,
        #[arg(long)]
        host_data: String,
        #[arg(long)]
        report_id: String,
        /// Standard input is a listener
        #[arg(long)]
        listener: bool,
    },
}

#[derive(Args)]
struct MachineArgs {
    /// Firmware with a page for the hashes of a kernel
    #[arg(long)]
    firmware: PathBuf,
    /// Kernel
    #[arg(long)]
    kernel: PathBuf,
    /// Initramfs
    #[arg(long)]
    initrd: PathBuf,
    /// What the kernel is told
    #[arg(long)]
    cmdline: String,
    /// How many vCPUs
    #[arg(long)]
    vcpus: u32,
    /// QEMU's CPU model
    #[arg(long)]
    vcpu_type: String,
    /// Launch document; its SHA-256 is HOST_DATA
    #[arg(long)]
    document: PathBuf,
}

#[derive(Args)]
struct GuestArgs {
    /// Program file: a static or dynamic executable
    #[arg(long)]
    program: PathBuf,
    /// Launch document; its SHA-256 is HOST_DATA
    #[arg(long)]
    document: PathBuf,
    /// Arguments of the program, measured
    #[arg(last = true)]
    args: Vec<OsString>,
}

fn main() -> ExitCode {
    say(SIMULATED_NOTICE);
    let outcome = match Cli::parse().verb {
        Verb::Setup { dir } => run_setup(&dir),
        Verb::Launch { dir, guest } => run_launch(&dir, guest).map(|never| match never {}),
        Verb::Measure { guest, json } => run_measure(guest, json),
        Verb::LaunchVm { dir, machine, port, emulator } => {
            run_launch_vm(&dir, machine, &port, &emulator).map(|never| match never {})
        }
        Verb::Firmware { ovmf, out } => run_firmware(&ovmf, &out),
        Verb::Port { dir, measurement, host_data, report_id, listener } => {
            run_port(&dir, &measurement, &host_data, &report_id, listener)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{SIMULATED_NOTICE}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// A line on standard error; if nobody listens there, nothing is lost.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn run_setup(dir: &Path) -> Result<(), SimulatorError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let root = dir.join(ROOT_FILE);
    let what = match setup(dir, Time::from_unix_seconds(now))? {
        Setup::Made => "made",
        _ => "already complete, unchanged",
    };
    say(&format!("{SIMULATED_NOTICE}: root {} {what}", root.display()));
    Ok(())
}

fn run_launch(dir: &Path, guest: GuestArgs) -> Result<Infallible, SimulatorError> {
    // Fails early, and in this process, if the directory holds no root.
    Simulator::load(dir)?;
    let image = GuestImage::read(&guest.program, &guest.document, guest.args)?;
    let context = image.context()?;
    let measurement = hex::encode(context.measurement);
    say(&format!("{SIMULATED_NOTICE}: launching a guest with measurement {measurement}"));
    launch(&image, port_command(dir, &context))
}

fn run_launch_vm(
    dir: &Path,
    machine: MachineArgs,
    port: &Path,
    emulator: &[OsString],
) -> Result<Infallible, SimulatorError> {
    // Fails early, and in this process, if the directory holds no root.
    Simulator::load(dir)?;
    let MachineArgs { firmware, kernel, initrd, cmdline, vcpus, vcpu_type, document } = machine;
    let image =
        MachineImage::read(MachineFiles { firmware, kernel, initrd, cmdline, vcpus, vcpu_type, document })?;
    let context = image.context()?;
    let measurement = hex::encode(context.measurement);
    say(&format!("{SIMULATED_NOTICE}: launching a machine with measurement {measurement}"));
    let mut command = port_command(dir, &context);
    command.arg("--listener");
    image.launch(emulator, port, command)
}

/// The command that serves the report port of `context`.
fn port_command(dir: &Path, context: &LaunchContext) -> Command {
    let mut port = Command::new("/proc/self/exe");
    port.arg("port").arg("--dir").arg(dir).args(["--measurement", &hex::encode(context.measurement)]);
    port.args(["--host-data", &hex::encode(context.host_data)]);
    port.args(["--report-id", &hex::encode(context.report_id)]);
    port
}

fn run_firmware(ovmf: &Path, out: &Path) -> Result<(), SimulatorError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SimulatorError::File { path, source }
    };
    let image = with_kernel_hashes(&std::fs::read(ovmf).map_err(failed(ovmf))?)?;
    std::fs::write(out, image).map_err(failed(out))
}

fn run_measure(guest: GuestArgs, json: bool) -> Result<(), SimulatorError> {
    let context = GuestImage::read(&guest.program, &guest.document, guest.args)?.context()?;
    let (measurement, host_data) = (hex::encode(context.measurement), hex::encode(context.host_data));
    let line = if json {
        let object = serde_json::json!({
            "notice": SIMULATED_NOTICE, "measurement": measurement, "host_data": host_data,
        });
        object.to_string()
    } else {
        measurement
    };
    writeln!(std::io::stdout(), "{line}")
        .map_err(|source| SimulatorError::File { path: "standard output".into(), source })
}

fn run_port(
    dir: &Path,
    measurement: &str,
    host_data: &str,
    report_id: &str,
    listener: bool,
) -> Result<(), SimulatorError> {
    let context = LaunchContext {
        measurement: fixed_hex(measurement)?,
        host_data: fixed_hex(host_data)?,
        report_id: fixed_hex(report_id)?,
    };
    let simulator = Simulator::load(dir)?;
    let socket = std::io::stdin().as_fd().try_clone_to_owned();
    let socket =
        socket.map_err(|source| SimulatorError::Launch { action: "open the report port", source })?;
    if !listener {
        return serve_port(UnixStream::from(socket), &simulator, &context);
    }
    // A listener has no end to notice: this process goes when the machine does.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(
        |error| SimulatorError::Launch { action: "tie the report port to its machine", source: error.into() },
    )?;
    serve_ports(&UnixListener::from(socket), &simulator, &context)
}

fn fixed_hex<const N: usize>(text: &str) -> Result<[u8; N], SimulatorError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|error| SimulatorError::Launch {
        action: "read the launch context",
        source: std::io::Error::new(std::io::ErrorKind::InvalidInput, error),
    })?;
    Ok(bytes)
}
