//! `adyton verify`: who is at the other end?

use std::path::PathBuf;

use adyton_attestation::SIMULATED_NOTICE;
use adyton_attestation::session::Session;
use adyton_broker::now;
use adyton_client::{Channel, Dialed, KnownKeySets, TrustFile};
use clap::Args;
use serde_json::{Value, json};

use super::output::{banner, steps_json, steps_text};
use super::{Failure, Printed};

/// Which service, and whom to accept there.
#[derive(Args)]
pub(crate) struct ServiceArgs {
    /// The service: `host:port` or `https://host:port`.
    #[arg(env = "ADYTON_URL")]
    pub(crate) url: String,
    /// Whom to accept (TOML): the owner's key, models, and by what evidence is judged.
    #[arg(long, env = "ADYTON_TRUST", default_value = "trust.toml")]
    pub(crate) trust: PathBuf,
    /// The one model to accept, 64 hexadecimal digits.
    #[arg(long, env = "ADYTON_MANIFEST")]
    pub(crate) manifest: Option<String>,
    /// Remember freshly verified key sets in this file and accept them for an hour without a new hardware report.
    #[arg(long, env = "ADYTON_KNOWN")]
    pub(crate) known: Option<PathBuf>,
}

#[derive(Args)]
#[command(after_help = "Example:\n  adyton verify enclave.example:8443 --trust trust.toml")]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    service: ServiceArgs,
}

/// Dials, verifies, and remembers.
pub(crate) async fn open(args: &ServiceArgs) -> Result<(Channel, String), Failure> {
    let trust = TrustFile::read(&args.trust)?;
    let manifest_id = args.manifest.as_deref().map(manifest_id).transpose()?;
    let now = now();
    let now_s = now.as_unix_seconds();
    let mut memory = match &args.known {
        Some(path) => KnownKeySets::load(path.clone(), now_s),
        None => KnownKeySets::none(),
    };
    let dialed = Dialed::dial(&args.url).await?;
    let endpoint = dialed.endpoint().to_owned();
    let known = memory.of(&endpoint, trust.digest());
    let channel = dialed.verify(&trust.at(now, &known), manifest_id).await?;
    if channel.session().is_fresh() {
        memory.remember(&endpoint, trust.digest(), channel.session().keyset_id(), now_s)?;
    }
    Ok((channel, endpoint))
}

fn manifest_id(text: &str) -> Result<[u8; 32], Failure> {
    let mut id = [0; 32];
    hex::decode_to_slice(text, &mut id)
        .map_err(|_| Failure::own("--manifest wants 64 hexadecimal digits"))?;
    Ok(id)
}

/// The verdict on a session as JSON.
pub(crate) fn session_json(session: &Session) -> Value {
    let report = session.report();
    json!({
        "verdict": "accept",
        "reason": "",
        "platform": report.platform().as_str(),
        "policy": report.policy_name(),
        "measurement": hex::encode(report.measurement()),
        "host_data": hex::encode(report.host_data()),
        "platform_id": hex::encode(report.platform_id()),
        "service_id": session.keyset().service_id,
        "keyset_id": hex::encode(session.keyset_id()),
        "manifest_id": session.manifest_id().map(hex::encode),
        "fresh": session.is_fresh(),
        "valid_until": session.valid_until_s(),
        "simulated": report.simulated(),
        "notice": report.simulated().then_some(SIMULATED_NOTICE),
        "steps": steps_json(session.steps()),
    })
}

pub(crate) async fn run(args: &VerifyArgs) -> Result<Printed, Failure> {
    let (channel, endpoint) = open(&args.service).await?;
    let session = channel.session();
    let simulated = session.report().simulated();
    let mut json = session_json(session);
    if let Some(object) = json.as_object_mut() {
        object.insert("endpoint".into(), endpoint.clone().into());
    }
    let verdict = if simulated { format!("ACCEPTED ({SIMULATED_NOTICE})") } else { "ACCEPTED".into() };
    let text = format!("{}{}{verdict}: {endpoint}\n", banner(simulated), steps_text(session.steps()));
    Ok(Printed::new(json, text))
}
