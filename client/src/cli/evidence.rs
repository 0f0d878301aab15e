//! `adyton evidence`: saved evidence, shown or judged, offline.

use std::path::{Path, PathBuf};

use adyton_attestation::{
    AdvisoryId, Appraiser, Claims, Endorsements, Evidence, Policy, Rejected, SIMULATED_NOTICE, TdxClaims,
    Time, TrustAnchors,
};
use adyton_broker::{EvidenceRules, Judge, load_endorsements, now, read_capped};
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::output::{banner, steps_json, steps_text};
use super::{Failure, Printed};

const MAX_EVIDENCE_LEN: u64 = 1 << 20;
/// Names under which a folder holds the evidence itself.
const EVIDENCE_NAMES: [&str; 5] = ["report.bin", "quote.bin", "quote.dat", "evidence.cbor", "hcl-report.bin"];
const QUOTE_NAMES: [&str; 2] = ["quote.bin", "quote.dat"];

#[derive(Subcommand)]
pub(crate) enum EvidenceCommand {
    /// Show what evidence says; nothing is verified.
    #[command(after_help = "Example:\n  adyton evidence show saved/report.bin")]
    Show {
        /// A report, a quote, an evidence file, or a folder with one.
        path: PathBuf,
    },
    /// Judge evidence: who signed it, and is that welcome?
    Verify(Box<VerifyArgs>),
}

#[derive(Args)]
#[command(after_help = "Example:\n  adyton evidence verify saved/ --policy vendor --at 2025-09-01T00:00:00Z")]
pub(crate) struct VerifyArgs {
    /// A report, a quote, an evidence file, or a folder with one and its certificates (`vcek.der`, `ask.der`, `ark.der`,
    /// `*.crl.der`) or collateral (`collateral.json`, or `tcb_info.json`, `qe_identity.json`, their
    /// `*_issuer_chain.pem`, `root_ca.crl.der`, `pck.crl.der`, `pck_crl_issuer_chain.pem`).
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

/// Reads evidence in any accepted form: the wire form of this protocol, a bare report or quote, or an Azure HCL blob.
fn read(path: &Path) -> Result<Result<Evidence, Rejected>, Failure> {
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

fn show(path: &Path) -> Result<Printed, Failure> {
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
    let now = args.at.unwrap_or_else(now);
    // What it is comes first: a quote of another TEE is refused as such whatever lies beside it.
    let evidence = read(&args.path)?.map_err(Failure::from)?;
    let folder = args.endorsements.clone().or_else(|| args.path.is_dir().then(|| args.path.clone()));
    let endorsements = folder.map_or(Ok(Endorsements::default()), |folder| load_endorsements(&folder))?;
    let rules = rules(args)?;
    let appraiser = match &rules {
        Rules::Named(anchors, policy) => Appraiser { anchors, endorsements: &endorsements, policy, now },
        Rules::File(judge) => judge.appraiser(now),
    };
    let report_data = args.report_data.as_deref().map(report_data).transpose()?;
    let authentic = evidence.verify(appraiser.anchors, appraiser.endorsements, now)?;
    Ok(match report_data {
        None => accepted(&authentic.appraise_saved(appraiser.policy)?),
        Some(expected) => {
            let report = authentic.appraise(appraiser.policy, &expected)?;
            accepted(report.claims())
        }
    })
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
        "tdx": claims.tdx().map(tdx),
        "steps": steps_json(claims.steps()),
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
