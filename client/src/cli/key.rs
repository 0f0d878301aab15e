//! `adyton key`: the owner's keys.

use std::path::PathBuf;

use adyton_attestation::Time;
use adyton_broker::{OwnerKeys, OwnerPublic, Releaser, Store, now};
use adyton_client::{TrustFile, provision};
use clap::{Args, Subcommand};
use serde_json::json;

use super::output::banner;
use super::{Failure, Printed, block_on};

const DAY_S: u64 = 86_400;

#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Draw an owner's root key, a broker's keys with its certificate, and a model key.
    #[command(after_help = "Example:\n  adyton key new --owner owner/")]
    New {
        /// Folder for the keys; nothing in it is overwritten.
        #[arg(long, env = "ADYTON_OWNER")]
        owner: PathBuf,
        /// Days that the broker's certificate is good for.
        #[arg(long, env = "ADYTON_BROKER_DAYS", default_value_t = 90)]
        broker_days: u64,
    },
    /// Show the public side of an owner's keys.
    #[command(after_help = "Example:\n  adyton key list --owner owner/")]
    List {
        /// The owner's folder.
        #[arg(long, env = "ADYTON_OWNER")]
        owner: PathBuf,
    },
    /// Verify an enclave and push the model key into it.
    Provision(ProvisionArgs),
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  adyton key provision enclave.example:8443 --owner owner/ --manifest sealed/manifest.cose --trust trust.toml"
)]
pub(crate) struct ProvisionArgs {
    /// The enclave: `host:port`.
    #[arg(env = "ADYTON_URL")]
    url: String,
    /// The owner's folder.
    #[arg(long, env = "ADYTON_OWNER")]
    owner: PathBuf,
    /// The signed manifest of the model.
    #[arg(long, env = "ADYTON_MANIFEST_FILE")]
    manifest: PathBuf,
    /// By what evidence the enclave is judged (TOML).
    #[arg(long, env = "ADYTON_TRUST", default_value = "trust.toml")]
    trust: PathBuf,
    /// Database of releases.
    #[arg(long, env = "ADYTON_DATABASE", default_value = "broker.sqlite")]
    database: PathBuf,
    /// Seconds that the enclave may keep the key.
    #[arg(long, env = "ADYTON_LEASE_S", default_value_t = DAY_S)]
    lease_s: u64,
}

pub(crate) fn run(command: &KeyCommand) -> Result<Printed, Failure> {
    match command {
        KeyCommand::New { owner, broker_days } => {
            let life_s = broker_days.saturating_mul(DAY_S);
            let not_after = Time::from_unix_seconds(now().as_unix_seconds().saturating_add(life_s));
            Ok(public(
                &OwnerKeys::create(owner, not_after)?,
                "keys drawn; keep owner.key and model.kek safe\n",
            ))
        }
        KeyCommand::List { owner } => Ok(public(&OwnerKeys::load(owner)?.public(), "")),
        KeyCommand::Provision(args) => block_on(push(args)),
    }
}

fn public(public: &OwnerPublic, remark: &str) -> Printed {
    let OwnerPublic { root, broker_spki, kek_id } = public;
    let (root, broker_spki, kek_id) = (hex::encode(root), hex::encode(broker_spki), hex::encode(kek_id));
    let text = format!("owner_key   {root}\nbroker_spki {broker_spki}\nkek_id      {kek_id}\n{remark}");
    Printed::new(json!({ "owner_key": root, "broker_spki": broker_spki, "kek_id": kek_id }), text)
}

async fn push(args: &ProvisionArgs) -> Result<Printed, Failure> {
    let trust = TrustFile::read(&args.trust)?;
    let judge = TrustFile::read(&args.trust)?.into_judge();
    let keys = OwnerKeys::load(&args.owner)?;
    let releaser = Releaser::new(keys, judge, &args.manifest, args.lease_s, args.lease_s)?;
    let store = Store::open(&args.database)?;
    let record = provision(&args.url, &trust.before_admission(now()), &releaser, &store).await?;
    let (release, keyset) = (hex::encode(record.release_id), hex::encode(record.keyset_id));
    let text = format!(
        "{}key released and confirmed\nrelease  {release}\nkey set  {keyset}\n",
        banner(releaser.simulated())
    );
    let json = json!({ "release_id": release, "keyset_id": keyset, "simulated": releaser.simulated() });
    Ok(Printed::new(json, text))
}
