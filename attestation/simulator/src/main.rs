//! `adyton-simulator`: a secure processor in software. **SIMULATED, NOT CONFIDENTIAL.**
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use adyton_attestation::Time;
use adyton_simulator::{
    GuestImage, LaunchContext, ROOT_FILE, SIMULATED_NOTICE, Setup, Simulator, SimulatorError, launch,
    serve_port, setup,
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
    },
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
        Verb::Port { dir, measurement, host_data, report_id } => {
            run_port(&dir, &measurement, &host_data, &report_id)
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
    let mut port = Command::new("/proc/self/exe");
    port.arg("port").arg("--dir").arg(dir).args(["--measurement", &measurement]);
    port.args(["--host-data", &hex::encode(context.host_data)]);
    port.args(["--report-id", &hex::encode(context.report_id)]);
    launch(&image, port)
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

fn run_port(dir: &Path, measurement: &str, host_data: &str, report_id: &str) -> Result<(), SimulatorError> {
    let context = LaunchContext {
        measurement: fixed_hex(measurement)?,
        host_data: fixed_hex(host_data)?,
        report_id: fixed_hex(report_id)?,
    };
    let stream = std::io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let stream =
        stream.map_err(|source| SimulatorError::Launch { action: "open the report port", source })?;
    serve_port(stream, &Simulator::load(dir)?, &context)
}

fn fixed_hex<const N: usize>(text: &str) -> Result<[u8; N], SimulatorError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|error| SimulatorError::Launch {
        action: "read the launch context",
        source: std::io::Error::new(std::io::ErrorKind::InvalidInput, error),
    })?;
    Ok(bytes)
}
