//! `adyton measure sign|reference`: reference values of a release, signed, and read back.

use std::path::PathBuf;

use adyton_attestation::commit::{Digest, hash};
use adyton_attestation::reference::{Launch, ReferenceError, ReferenceValues};
use adyton_attestation::{Platform, Time};
use adyton_broker::{OwnerKeys, now, read_capped, write_whole};
use clap::Args;
use serde_json::{Value, json};

use super::measure::MAX_PROGRAM_LEN;
use super::output::INTEGRITY;
use super::{Failure, Printed};

const MAX_JSON_LEN: u64 = 4 << 20;
const DAY_S: u64 = 86_400;

#[derive(Args)]
#[command(
    after_help = "Example:\n  adyton measure snp --firmware OVMF.fd --vcpus 4 --vcpu-type EPYC-Genoa --json > genoa.json\n  \
                  adyton measure sign --release 0.2.0 --counter 2 --owner owner/ --launch 'EPYC-Genoa, 4 vCPUs=genoa.json' \\\n    \
                  --input OVMF.fd --out adyton-0.2.0.reference.cose"
)]
pub(crate) struct SignArgs {
    /// The release.
    #[arg(long, env = "ADYTON_RELEASE")]
    release: String,
    /// Grows with each release; an older one is refused.
    #[arg(long, env = "ADYTON_COUNTER")]
    counter: u64,
    /// Days that the values are good for.
    #[arg(long, env = "ADYTON_DAYS", default_value_t = 365)]
    days: u64,
    /// The folder of the keys that sign (`adyton key new`).
    #[arg(long, env = "ADYTON_OWNER")]
    owner: PathBuf,
    /// One way to launch: a name, and what `measure snp|tdx|process --json` printed for it.
    #[arg(long, required = true, value_parser = launch_argument)]
    launch: Vec<(String, PathBuf)>,
    /// A file that was measured; listed by name and hash.
    #[arg(long)]
    input: Vec<PathBuf>,
    /// The signed values.
    #[arg(long, env = "ADYTON_OUT")]
    out: PathBuf,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  adyton measure reference adyton-0.2.0.reference.cose --key $(cat owner/owner.pub)"
)]
pub(crate) struct ReferenceArgs {
    /// The signed values.
    file: PathBuf,
    /// Public key of whoever releases, 64 hexadecimal digits.
    #[arg(long, env = "ADYTON_RELEASE_KEY")]
    key: String,
    /// The least counter that is taken.
    #[arg(long, env = "ADYTON_MIN_COUNTER", default_value_t = 0)]
    min_counter: u64,
    /// The time to judge at; without it now.
    #[arg(long, env = "ADYTON_AT")]
    at: Option<Time>,
}

fn launch_argument(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) =
        text.rsplit_once('=').ok_or("give a name and a file, such as 'EPYC-Genoa=genoa.json'")?;
    Ok((name.to_owned(), file.into()))
}

impl From<ReferenceError> for Failure {
    fn from(error: ReferenceError) -> Self {
        Self::with(INTEGRITY, error.to_string())
    }
}

pub(crate) fn sign(args: &SignArgs) -> Result<Printed, Failure> {
    let inputs = args.input.iter().map(|path| input(path)).collect::<Result<Vec<_>, Failure>>()?;
    let read = |(name, path): &(String, PathBuf)| launch(name, path, &inputs);
    let values = ReferenceValues {
        release: args.release.clone(),
        counter: args.counter,
        not_after: Time::from_unix_seconds(now().as_unix_seconds() + args.days.saturating_mul(DAY_S)),
        launches: args.launch.iter().map(read).collect::<Result<_, Failure>>()?,
    };
    let keys = OwnerKeys::load(&args.owner)?;
    let signed = values.sign(keys.root(&args.owner)?)?;
    write_whole(&args.out, &signed)?;
    let text = format!("wrote {} with {} launches\n", args.out.display(), values.launches.len());
    Ok(Printed::new(json!({ "out": args.out, "key": hex::encode(keys.root_public()) }), text))
}

fn input(path: &std::path::Path) -> Result<(String, Digest), Failure> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Failure::own(format!("{} has no file name", path.display())))?;
    Ok((name.to_owned(), hash(&read_capped(path, MAX_PROGRAM_LEN)?)))
}

fn launch(name: &str, path: &std::path::Path, inputs: &[(String, Digest)]) -> Result<Launch, Failure> {
    let wrong = |what: &str| Failure::own(format!("{}: {what}", path.display()));
    let json: Value = serde_json::from_slice(&read_capped(path, MAX_JSON_LEN)?)
        .map_err(|_| wrong("not what `adyton measure … --json` prints"))?;
    let digest = |field: &str| -> Result<[u8; 48], Failure> {
        let mut digest = [0; 48];
        let text =
            json.get(field).and_then(Value::as_str).ok_or_else(|| wrong(&format!("it has no {field}")))?;
        hex::decode_to_slice(text, &mut digest).map_err(|_| wrong(&format!("{field} is no measurement")))?;
        Ok(digest)
    };
    let (platform, measurement, rtmrs) = if json.get("mrtd").is_some() {
        (Platform::Tdx, digest("mrtd")?, Some([digest("rtmr0")?, digest("rtmr1")?, digest("rtmr2")?]))
    } else if json.get("host_data").is_some() {
        // Only a simulated launch is measured together with its document.
        (Platform::Simulated, digest("measurement")?, None)
    } else {
        (Platform::SevSnp, digest("measurement")?, None)
    };
    Ok(Launch { name: name.to_owned(), platform, measurement, rtmrs, inputs: inputs.to_vec() })
}

pub(crate) fn reference(args: &ReferenceArgs) -> Result<Printed, Failure> {
    let mut key = [0; 32];
    hex::decode_to_slice(args.key.trim(), &mut key)
        .map_err(|_| Failure::own("--key wants 64 hexadecimal digits"))?;
    let bytes = read_capped(&args.file, 1 << 20)?;
    let values = ReferenceValues::verify(&key, &bytes, args.min_counter, args.at.unwrap_or_else(now))?;
    let mut text =
        format!("release {}, counter {}, until {}\n", values.release, values.counter, values.not_after);
    let mut launches = Vec::new();
    for Launch { name, platform, measurement, rtmrs, inputs } in &values.launches {
        text += &format!("{platform}: {name}\n  {}\n", hex::encode(measurement));
        for (rtmr, index) in rtmrs.iter().flatten().zip(0..) {
            text += &format!("  RTMR{index} {}\n", hex::encode(rtmr));
        }
        for (input, digest) in inputs {
            text += &format!("  sha256 {} {input}\n", hex::encode(digest));
        }
        let inputs: serde_json::Map<_, _> =
            inputs.iter().map(|(input, digest)| (input.clone(), json!(hex::encode(digest)))).collect();
        launches.push(json!({
            "name": name, "platform": platform.as_str(), "measurement": hex::encode(measurement),
            "rtmrs": rtmrs.map(|rtmrs| rtmrs.map(hex::encode)), "inputs": inputs,
        }));
    }
    let json = json!({
        "release": values.release, "counter": values.counter, "not_after": values.not_after.to_string(),
        "launches": launches,
    });
    Ok(Printed::new(json, text))
}
