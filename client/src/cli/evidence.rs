//! `adyton evidence`: saved evidence, shown or judged, offline.

use std::path::{Path, PathBuf};

use adyton_attestation::{
    Appraiser, Claims, Endorsements, Evidence, Policy, Rejected, SIMULATED_NOTICE, Time, TrustAnchors,
};
use adyton_broker::{EvidenceRules, Judge, load_endorsements, now, read_capped};
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::output::{banner, steps_json, steps_text};
use super::{Failure, Printed, event_log};

const MAX_EVIDENCE_LEN: u64 = 1 << 20;
/// Names under which a folder holds the evidence itself.
const EVIDENCE_NAMES: [&str; 3] = ["report.bin", "evidence.cbor", "hcl-report.bin"];

#[derive(Subcommand)]
pub(crate) enum EvidenceCommand {
    /// Show what evidence and event logs say; nothing is verified.
    #[command(
        after_help = "Example:\n  adyton evidence show saved/report.bin\n  adyton evidence show saved/ccel.bin"
    )]
    Show {
        /// A report, an evidence file, an event log (`ccel.bin`, `event-log.json`), or a folder with them.
        path: PathBuf,
    },
    /// Judge evidence: who signed it, and is that welcome?
    Verify(Box<VerifyArgs>),
}

#[derive(Args)]
#[command(after_help = "Example:\n  adyton evidence verify saved/ --policy vendor --at 2025-09-01T00:00:00Z")]
pub(crate) struct VerifyArgs {
    /// A report, an evidence file, or a folder with one and its certificates (`vcek.der`, `ask.der`, `ark.der`,
    /// `*.crl.der`); or an event log, or a folder with one, and the registers it should lead to.
    path: PathBuf,
    /// Folder with certificates and revocation lists, instead of the evidence's own folder.
    #[arg(long, env = "ADYTON_ENDORSEMENTS")]
    endorsements: Option<PathBuf>,
    /// `strict`, `standard`, `vendor`, or a TOML file with an `[evidence]` table.
    #[arg(long, env = "ADYTON_POLICY", default_value = "standard")]
    policy: String,
    /// The time to judge at, such as 2025-09-01T00:00:00Z; without it now.
    #[arg(long, env = "ADYTON_AT")]
    at: Option<Time>,
    /// What the evidence must have been made for, 128 hexadecimal digits; without it freshness is not shown.
    #[arg(long, env = "ADYTON_REPORT_DATA")]
    report_data: Option<String>,
    /// Least TCB, such as `snp=24,ucode=220`.
    #[arg(long, env = "ADYTON_MIN_TCB")]
    min_tcb: Option<adyton_attestation::TcbFloor>,
    /// Trust this root (DER) instead of the vendor's: whoever holds its key can forge any evidence.
    #[arg(long, env = "ADYTON_DANGEROUS_TRUST_ANCHOR")]
    dangerous_trust_anchor: Option<PathBuf>,
    /// A register to compare an event log with, such as 0=HEX; without any, those of `rtmrs.json` or `manifest.json`
    /// beside the log. Only for a log without evidence, which nobody signed.
    #[arg(long, value_parser = event_log::register)]
    rtmr: Vec<(usize, [u8; 48])>,
}

#[derive(Deserialize)]
struct PolicyFile {
    evidence: EvidenceRules,
}

/// What evidence is judged by: a named policy, or the rules of a file.
enum Rules {
    Named(Box<TrustAnchors>, Box<Policy>),
    File(Box<Judge>),
}

pub(crate) fn run(command: &EvidenceCommand) -> Result<Printed, Failure> {
    match command {
        EvidenceCommand::Show { path } => show(path),
        EvidenceCommand::Verify(args) => verify(args),
    }
}

fn evidence_file(path: &Path) -> Result<PathBuf, Failure> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let found = EVIDENCE_NAMES.iter().map(|name| path.join(name)).find(|path| path.exists());
    let names = EVIDENCE_NAMES.join(", ");
    found.ok_or_else(|| Failure::own(format!("{} holds none of {names}", path.display())))
}

/// Reads evidence in any accepted form: the wire form of this protocol, a bare report, or an Azure HCL blob.
fn read(path: &Path) -> Result<Result<Evidence, Rejected>, Failure> {
    let bytes = read_capped(&evidence_file(path)?, MAX_EVIDENCE_LEN)?;
    // The wire form is a CBOR array of four; a report begins with its version, 2 to 5.
    let wire = bytes.first() == Some(&0x84);
    Ok(if wire { Evidence::decode(&bytes) } else { Evidence::snp_from_parts(&bytes, &[]) })
}

/// The event log at `path`, if there is no evidence there that it belongs to.
fn log_alone(path: &Path) -> Option<PathBuf> {
    let log = event_log::find(path)?;
    let alone = !path.is_dir() || (evidence_file(path).is_err() && !path.join("quote.bin").exists());
    alone.then_some(log)
}

fn show(path: &Path) -> Result<Printed, Failure> {
    // The account of a log is worth having whatever else lies there.
    match event_log::find(path) {
        Some(log) if log_alone(path).is_some() || evidence_file(path).is_err() => event_log::show(&log),
        Some(log) => {
            let (evidence, log) = (show_evidence(path)?, event_log::show(&log)?);
            let mut json = evidence.json;
            json["event_log"] = log.json["event_log"].clone();
            Ok(Printed::new(json, evidence.text + &log.text))
        }
        None => show_evidence(path),
    }
}

fn show_evidence(path: &Path) -> Result<Printed, Failure> {
    let evidence = read(path)?.map_err(Failure::from)?;
    let fields = evidence.describe();
    let json: Value = fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let mut text = String::from("NOT VERIFIED: what the evidence says of itself\n");
    for (name, value) in &fields {
        text.push_str(&format!("  {name:<18} {value}\n"));
    }
    Ok(Printed::new(
        json!({ "verified": false, "platform": evidence.platform().as_str(), "claims": json }),
        text,
    ))
}

fn verify(args: &VerifyArgs) -> Result<Printed, Failure> {
    if let Some(log) = log_alone(&args.path) {
        return event_log::verify(&log, &args.rtmr);
    }
    if !args.rtmr.is_empty() {
        return Err(Failure::own(
            "--rtmr is for an event log without evidence: evidence has registers of its own",
        ));
    }
    let now = args.at.unwrap_or_else(now);
    let folder = args.endorsements.clone().or_else(|| args.path.is_dir().then(|| args.path.clone()));
    let endorsements = folder.map_or(Ok(Endorsements::default()), |folder| load_endorsements(&folder))?;
    let rules = rules(args)?;
    let appraiser = match &rules {
        Rules::Named(anchors, policy) => Appraiser { anchors, endorsements: &endorsements, policy, now },
        Rules::File(judge) => judge.appraiser(now),
    };
    let report_data = args.report_data.as_deref().map(report_data).transpose()?;
    let judged = read(&args.path)?.and_then(|evidence| {
        let authentic = evidence.verify(appraiser.anchors, appraiser.endorsements, now)?;
        match report_data {
            None => authentic.appraise_saved(appraiser.policy).map(|claims| accepted(&claims)),
            Some(expected) => authentic.appraise(appraiser.policy, &expected).map(|report| accepted(&report)),
        }
    });
    judged.map_err(Failure::from)
}

fn rules(args: &VerifyArgs) -> Result<Rules, Failure> {
    let policy = match args.policy.as_str() {
        "strict" => Policy::strict(),
        "standard" => Policy::standard(),
        "vendor" => Policy::vendor(),
        file => {
            if args.dangerous_trust_anchor.is_some() || args.min_tcb.is_some() {
                return Err(Failure::own("write the trust anchor and the least TCB into the policy file"));
            }
            let path = Path::new(file);
            let bytes = read_capped(path, MAX_EVIDENCE_LEN)?;
            let parsed: PolicyFile = std::str::from_utf8(&bytes)
                .map_err(|error| error.to_string())
                .and_then(|text| toml::from_str(text).map_err(|error| error.to_string()))
                .map_err(|message| Failure::own(format!("policy {file} is wrong: {message}")))?;
            return Ok(Rules::File(Box::new(parsed.evidence.load(path)?)));
        }
    };
    let policy = match args.min_tcb {
        Some(floor) => policy.min_tcb(floor),
        None => policy,
    };
    let anchors = match &args.dangerous_trust_anchor {
        Some(path) => TrustAnchors::dangerous_root(&read_capped(path, MAX_EVIDENCE_LEN)?)?,
        None => TrustAnchors::pinned(),
    };
    Ok(Rules::Named(Box::new(anchors), Box::new(policy)))
}

fn report_data(text: &str) -> Result<[u8; 64], Failure> {
    let mut data = [0; 64];
    hex::decode_to_slice(text, &mut data)
        .map_err(|_| Failure::own("--report-data wants 128 hexadecimal digits"))?;
    Ok(data)
}

fn accepted(claims: &Claims) -> Printed {
    let json = json!({
        "verdict": "accept",
        "reason": "",
        "platform": claims.platform().as_str(),
        "policy": claims.policy_name(),
        "measurement": hex::encode(claims.measurement()),
        "host_data": hex::encode(claims.host_data()),
        "report_data": hex::encode(claims.report_data()),
        "platform_id": hex::encode(claims.platform_id()),
        "simulated": claims.simulated(),
        "notice": claims.simulated().then_some(SIMULATED_NOTICE),
        "steps": steps_json(claims.steps()),
    });
    let text = format!("{}{}ACCEPTED\n", banner(claims.simulated()), steps_text(claims.steps()));
    Printed::new(json, text)
}
