//! `adyton evidence`: saved evidence, shown or judged, offline.

use std::path::{Path, PathBuf};

use adyton_attestation::commit::hash;
use adyton_attestation::ear::{AttestationResult, Judgement};
use adyton_attestation::{
    AdvisoryId, Appraiser, Claims, Endorsements, Evidence, Platform, Policy, Rejected, SIMULATED_NOTICE,
    TcbFloor, TdxClaims, Time, TrustAnchors,
};
use adyton_broker::{EvidenceRules, Judge, load_endorsements, now, read_capped};
use adyton_endorsements::Folder;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::output::{INTEGRITY, banner, steps_json, steps_text};
use super::result::{ResultArgs, ResultFormat, ResultKeyArgs};
use super::{Failure, Printed, block_on, endorse, event_log, result};

pub(super) const MAX_EVIDENCE_LEN: u64 = 1 << 20;
const MAX_VERDICT_LEN: u64 = 4 << 20;
/// Names under which a folder holds the evidence itself.
const EVIDENCE_NAMES: [&str; 5] = ["report.bin", "quote.bin", "quote.dat", "evidence.cbor", "hcl-report.bin"];
const QUOTE_NAMES: [&str; 2] = ["quote.bin", "quote.dat"];

#[derive(Subcommand)]
pub(crate) enum EvidenceCommand {
    /// Show what evidence and event logs say; nothing is verified.
    #[command(
        after_help = "Example:\n  adyton evidence show saved/report.bin\n  adyton evidence show saved/ccel.bin"
    )]
    Show {
        /// A report, a quote, an evidence file, an event log (`ccel.bin`, `event-log.json`), a bundle, or a folder with them.
        path: PathBuf,
    },
    /// Judge evidence: who signed it, and is that welcome?
    Verify(Box<VerifyArgs>),
    /// Judge again what a saved verdict (`verify --json`) was about, and compare every step.
    Replay(Box<ReplayArgs>),
    /// Bring the vendor's certificates, collateral and revocation lists to evidence.
    Fetch(Box<endorse::FetchArgs>),
    /// Put a folder of evidence and documents into one file.
    Bundle(endorse::BundleArgs),
    /// Take the files out of a bundle.
    Unpack(endorse::UnpackArgs),
    /// Read an EAT Attestation Result.
    Result(ResultArgs),
    /// Draw a key that signs Attestation Results.
    ResultKey(ResultKeyArgs),
}

#[derive(Args)]
#[command(after_help = "Example:\n  adyton evidence verify saved/ --policy vendor --at 2025-09-01T00:00:00Z")]
pub(crate) struct VerifyArgs {
    /// A report, a quote, an evidence file, a bundle, or a folder with one and its certificates (`vcek.der`, `ask.der`, `ark.der`,
    /// `*.crl.der`) or collateral (`collateral.json`, or `tcb_info.json`, `qe_identity.json`, their
    /// `*_issuer_chain.pem`, `root_ca.crl.der`, `pck.crl.der`, `pck_crl_issuer_chain.pem`) and event log; or an event log alone.
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
    min_tcb: Option<TcbFloor>,
    /// Trust this root (DER) instead of the vendor's: whoever holds its key can forge any evidence.
    #[arg(long, env = "ADYTON_DANGEROUS_TRUST_ANCHOR")]
    dangerous_trust_anchor: Option<PathBuf>,
    /// A register to compare an event log with, such as 0=HEX; without any, those of `rtmrs.json` beside the log. Only for a log without evidence, which nobody signed.
    #[arg(long, value_parser = event_log::register)]
    rtmr: Vec<(usize, [u8; 48])>,
    /// Write the verdict as an EAT Attestation Result (.jwt, .cwt, and unsigned .json, .cbor).
    #[arg(long, env = "ADYTON_RESULT")]
    result: Option<PathBuf>,
    /// How the result is written, where its name does not say.
    #[arg(long, value_enum, requires = "result")]
    result_format: Option<ResultFormat>,
    /// Private key (PEM) that signs the result.
    #[arg(long, env = "ADYTON_RESULT_KEY", requires = "result")]
    result_key: Option<PathBuf>,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  adyton evidence verify saved.bundle --policy vendor --json > verdict.json\n  \
                  adyton evidence replay verdict.json saved.bundle\n\nExit status 40 if anything comes out differently."
)]
pub(crate) struct ReplayArgs {
    /// The verdict, as `verify --json` printed it.
    verdict: PathBuf,
    /// The evidence: file, folder or bundle.
    path: PathBuf,
    /// The policy file, if one was used.
    #[arg(long, env = "ADYTON_POLICY")]
    policy: Option<String>,
    /// Folder with certificates and revocation lists, if one was used.
    #[arg(long, env = "ADYTON_ENDORSEMENTS")]
    endorsements: Option<PathBuf>,
    /// The root that was trusted instead of the vendor's, if one was.
    #[arg(long, env = "ADYTON_DANGEROUS_TRUST_ANCHOR")]
    dangerous_trust_anchor: Option<PathBuf>,
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
        EvidenceCommand::Replay(args) => replay(args),
        EvidenceCommand::Fetch(args) => block_on(endorse::fetch(args)),
        EvidenceCommand::Bundle(args) => endorse::bundle(args),
        EvidenceCommand::Unpack(args) => endorse::unpack(args),
        EvidenceCommand::Result(args) => result::read(args),
        EvidenceCommand::ResultKey(args) => result::new_key(args),
    }
}

pub(super) fn evidence_file(path: &Path) -> Result<PathBuf, Failure> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let found = EVIDENCE_NAMES.iter().map(|name| path.join(name)).find(|path| path.exists());
    let names = EVIDENCE_NAMES.join(", ");
    found.ok_or_else(|| Failure::own(format!("{} holds none of {names}", path.display())))
}

/// Reads evidence in any accepted form: the wire form of this protocol, a bare report or quote, or an Azure HCL blob.
pub(super) fn read(path: &Path) -> Result<Result<Evidence, Rejected>, Failure> {
    let file = evidence_file(path)?;
    let bytes = read_capped(&file, MAX_EVIDENCE_LEN)?;
    // The wire form is a CBOR array of four; a report begins with its version, 2 to 5.
    if bytes.first() == Some(&0x84) {
        return Ok(Evidence::decode(&bytes));
    }
    let named_quote = QUOTE_NAMES.iter().any(|name| file.ends_with(name));
    Ok(if named_quote || Evidence::looks_like_quote(&bytes) {
        Evidence::tdx_from_parts(&bytes, &[])
    } else {
        Evidence::snp_from_parts(&bytes, &[])
    })
}

/// The event log at `path`, if there is no evidence there that it belongs to.
fn log_alone(path: &Path) -> Option<PathBuf> {
    let log = event_log::find(path)?;
    let alone = !path.is_dir() || (evidence_file(path).is_err() && !path.join("quote.bin").exists());
    alone.then_some(log)
}

fn show(path: &Path) -> Result<Printed, Failure> {
    let opened = endorse::open(path)?;
    let path = opened.path();
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

/// What is judged, by what.
struct Request<'a> {
    path: &'a Path,
    endorsements: Option<&'a Path>,
    policy: &'a str,
    at: Time,
    report_data: Option<[u8; 64]>,
    min_tcb: Option<TcbFloor>,
    anchor: Option<&'a Path>,
}

/// A verdict, with all that it rests on.
struct Judged {
    platform: Platform,
    claims: Vec<(&'static str, String)>,
    outcome: Result<Claims, Rejected>,
    inputs: Value,
}

fn verify(args: &VerifyArgs) -> Result<Printed, Failure> {
    let opened = endorse::open(&args.path)?;
    let path = opened.path();
    if let Some(log) = log_alone(path) {
        return event_log::verify(&log, &args.rtmr);
    }
    if !args.rtmr.is_empty() {
        return Err(Failure::own(
            "--rtmr is for an event log without evidence: evidence has registers of its own",
        ));
    }
    let request = Request {
        path,
        endorsements: args.endorsements.as_deref(),
        policy: &args.policy,
        at: args.at.unwrap_or_else(now),
        report_data: args.report_data.as_deref().map(report_data).transpose()?,
        min_tcb: args.min_tcb,
        anchor: args.dangerous_trust_anchor.as_deref(),
    };
    let judged = judge(&request)?;
    if let Some(path) = &args.result {
        let (refused, steps) = match &judged.outcome {
            Ok(claims) => (None, claims.steps()),
            Err(rejected) => (Some(rejected.reason), rejected.steps.as_slice()),
        };
        let result = AttestationResult::new(&Judgement {
            platform: judged.platform,
            policy: &args.policy,
            refused,
            steps,
            claims: &judged.claims,
            nonce: request.report_data.as_ref().map(<[u8; 64]>::as_slice),
            at: request.at,
        });
        result::write(&result, path, args.result_format, args.result_key.as_deref())?;
    }
    match judged.outcome {
        Ok(claims) => Ok(accepted(&claims, &judged.inputs)),
        Err(rejected) => Err(Failure::from(rejected).with_inputs(judged.inputs)),
    }
}

fn judge(request: &Request<'_>) -> Result<Judged, Failure> {
    let path = request.path;
    // What it is comes first: a quote of another TEE is refused as such whatever lies beside it.
    let evidence = read(path)?.map_err(Failure::from)?;
    let folder = request.endorsements.or_else(|| path.is_dir().then_some(path));
    let endorsements = folder.map_or(Ok(Endorsements::default()), load_endorsements)?;
    let rules = rules(request)?;
    let now = request.at;
    let appraiser = match &rules {
        Rules::Named(anchors, policy) => Appraiser { anchors, endorsements: &endorsements, policy, now },
        Rules::File(judge) => judge.appraiser(now),
    };
    let (platform, claims) = (evidence.platform(), evidence.describe());
    let log = event_log::find(path).map(|path| event_log::load(&path)).transpose()?;
    let outcome = evidence.verify(appraiser.anchors, appraiser.endorsements, now).and_then(|authentic| {
        let authentic = match &log {
            Some(log) => authentic.with_event_log(log),
            None => authentic,
        };
        match request.report_data {
            None => authentic.appraise_saved(appraiser.policy),
            Some(expected) => Ok(authentic.appraise(appraiser.policy, &expected)?.claims().clone()),
        }
    });
    Ok(Judged { platform, claims, outcome, inputs: inputs(request, path)? })
}

/// Everything that a verdict rests on, by value or by hash.
fn inputs(request: &Request<'_>, path: &Path) -> Result<Value, Failure> {
    let digest = |path: &Path| -> Result<String, Failure> {
        Ok(hex::encode(hash(&read_capped(path, MAX_VERDICT_LEN)?)))
    };
    let folder = |path: &Path| -> Result<Value, Failure> {
        let Folder(files) = Folder::read(path)?;
        Ok(files.iter().map(|(name, bytes)| (name.clone(), json!(hex::encode(hash(bytes))))).collect())
    };
    let policy_file = Path::new(request.policy);
    Ok(json!({
        "at": request.at.to_string(),
        "policy": request.policy,
        "policy_sha256": policy_file.is_file().then(|| digest(policy_file)).transpose()?,
        "min_tcb": request.min_tcb.map(|floor| floor.to_string()),
        "report_data": request.report_data.map(hex::encode),
        "trust_anchor_sha256": request.anchor.map(digest).transpose()?,
        "evidence_sha256": digest(&evidence_file(path)?)?,
        "endorsements_sha256": match request.endorsements.or_else(|| path.is_dir().then_some(path)) {
            Some(path) => folder(path)?,
            None => json!({}),
        },
    }))
}

fn replay(args: &ReplayArgs) -> Result<Printed, Failure> {
    let wrong = |what: String| Failure::own(format!("{} is no verdict: {what}", args.verdict.display()));
    let bytes = read_capped(&args.verdict, MAX_VERDICT_LEN)?;
    let verdict: Value = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    let inputs = verdict.get("inputs").ok_or_else(|| wrong("it has no inputs".into()))?;
    let text = |name: &str| inputs.get(name).and_then(Value::as_str);
    let at = text("at").and_then(|at| at.parse().ok()).ok_or_else(|| wrong("it has no time".into()))?;
    let named = text("policy").ok_or_else(|| wrong("it names no policy".into()))?;
    let min_tcb = text("min_tcb").map(str::parse).transpose();
    let opened = endorse::open(&args.path)?;
    let judged = judge(&Request {
        path: opened.path(),
        endorsements: args.endorsements.as_deref(),
        policy: args.policy.as_deref().unwrap_or(named),
        at,
        report_data: text("report_data").map(report_data).transpose()?,
        min_tcb: min_tcb.map_err(|_| wrong("its least TCB does not parse".into()))?,
        anchor: args.dangerous_trust_anchor.as_deref(),
    })?;
    let again = match &judged.outcome {
        Ok(claims) => accepted(claims, &judged.inputs).json,
        Err(rejected) => rejected_json(rejected),
    };
    let mut differences = Vec::new();
    for name in ["verdict", "reason", "steps"] {
        if verdict.get(name) != again.get(name) {
            differences.push(name.to_owned());
        }
    }
    let hashes = ["policy_sha256", "trust_anchor_sha256", "evidence_sha256", "endorsements_sha256"];
    differences.extend(
        hashes.into_iter().filter(|name| inputs.get(*name) != judged.inputs.get(*name)).map(str::to_owned),
    );
    let same = differences.is_empty();
    let shown = if same {
        format!("the same verdict: {}\n", verdict.get("verdict").and_then(Value::as_str).unwrap_or_default())
    } else {
        format!("DIFFERENT: {}\n", differences.join(", "))
    };
    let mut printed =
        Printed::new(json!({ "same": same, "differences": differences, "again": again }), shown);
    printed.code = if same { 0 } else { INTEGRITY };
    Ok(printed)
}

fn rejected_json(rejected: &Rejected) -> Value {
    json!({ "verdict": "reject", "reason": rejected.reason.as_str(), "steps": steps_json(&rejected.steps) })
}

fn rules(request: &Request<'_>) -> Result<Rules, Failure> {
    let policy = match request.policy {
        "strict" => Policy::strict(),
        "standard" => Policy::standard(),
        "vendor" => Policy::vendor(),
        file => {
            if request.anchor.is_some() || request.min_tcb.is_some() {
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
    let policy = match request.min_tcb {
        Some(floor) => policy.min_tcb(floor),
        None => policy,
    };
    let anchors = match request.anchor {
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

fn accepted(claims: &Claims, inputs: &Value) -> Printed {
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
        "tdx": claims.tdx().map(tdx),
        "steps": steps_json(claims.steps()),
        "inputs": inputs,
    });
    let text = format!("{}{}ACCEPTED\n", banner(claims.simulated()), steps_text(claims.steps()));
    Printed::new(json, text)
}

/// What only a TDX quote says, for scripts.
fn tdx(claims: &TdxClaims) -> Value {
    let (tcb_info, qe_identity) = claims.evaluation_numbers();
    json!({
        "quote_version": claims.quote_version(),
        "fmspc": hex::encode(claims.fmspc()),
        "rtmrs": claims.rtmrs().map(hex::encode),
        "mr_config_id": hex::encode(claims.mr_config_id()),
        "mr_seam": hex::encode(claims.mr_seam_and_signer().0),
        "xfam": format!("{:#x}", claims.xfam()),
        "tcb_status": claims.tcb_status().as_str(),
        "advisories": claims.advisories().iter().map(AdvisoryId::as_str).collect::<Vec<_>>(),
        "evaluation_numbers": { "tcb_info": tcb_info, "qe_identity": qe_identity },
        "current_until": claims.current_until().to_string(),
    })
}
