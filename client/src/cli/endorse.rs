//! `adyton evidence fetch|bundle|unpack`: bringing a vendor's documents to evidence, and keeping both together.

use std::path::{Path, PathBuf};
use std::time::Duration;

use adyton_attestation::{Evidence, Product, SigningKey, Time, TrustAnchors};
use adyton_broker::{load_endorsements, now, read_capped, write_whole};
use adyton_endorsements::{EndorsementError, Fetcher, Folder, MAX_BUNDLE_LEN, Need, PckCa, Sources, Store};
use clap::Args;
use serde_json::json;

use super::evidence::{MAX_EVIDENCE_LEN, evidence_file, read};
use super::output::{INTEGRITY, UNREACHABLE};
use super::{Failure, Printed};

#[derive(Args)]
#[command(after_help = "Examples:\n  adyton evidence fetch saved/report.bin --out saved/\n  \
                  adyton evidence fetch saved/ --bundle saved.bundle --mirror http://host.example:8444/v1/certificates\n\n\
                  What was fetched is kept in the store and used until it runs out; a host can serve that folder to others\n\
                  (certificates_dir in host.toml), who then need no vendor (--mirror).")]
pub(crate) struct FetchArgs {
    /// A report, a quote, an evidence file, or a folder with one.
    path: PathBuf,
    /// Folder to put the documents into, under their plain names.
    #[arg(long, env = "ADYTON_OUT", required_unless_present = "bundle")]
    out: Option<PathBuf>,
    /// File to put evidence and documents into.
    #[arg(long, env = "ADYTON_BUNDLE")]
    bundle: Option<PathBuf>,
    /// Folder in which documents are kept.
    #[arg(long, env = "ADYTON_STORE", default_value_os_t = default_store())]
    store: PathBuf,
    /// Somebody's store, served over HTTP; asked before the vendor.
    #[arg(long, env = "ADYTON_MIRROR")]
    mirror: Option<String>,
    /// AMD's key distribution service, or a cache that speaks its forms.
    #[arg(long, env = "ADYTON_KDS", default_value_t = Sources::default().kds)]
    kds: String,
    /// Intel's provisioning certification service, or a cache that speaks its forms.
    #[arg(long, env = "ADYTON_PCS", default_value_t = Sources::default().pcs)]
    pcs: String,
    /// Where Intel's root revocation list lies.
    #[arg(long, env = "ADYTON_INTEL_CERTIFICATES", default_value_t = Sources::default().certificates)]
    intel_certificates: String,
    /// Ask nobody; use what is kept.
    #[arg(long, env = "ADYTON_OFFLINE")]
    offline: bool,
    /// The CPU generation of a version 2 report, which does not name it.
    #[arg(long, env = "ADYTON_PRODUCT", value_parser = product)]
    product: Option<Product>,
    /// Seconds to try for one document, waits for an overloaded service included.
    #[arg(long, env = "ADYTON_PATIENCE_S", default_value_t = 120)]
    patience_s: u64,
    /// The time to judge at; without it now.
    #[arg(long, env = "ADYTON_AT")]
    at: Option<Time>,
    /// Trust this root (DER) instead of the vendor's: whoever holds its key can forge any evidence.
    #[arg(long, env = "ADYTON_DANGEROUS_TRUST_ANCHOR")]
    dangerous_trust_anchor: Option<PathBuf>,
}

#[derive(Args)]
#[command(after_help = "Example:\n  adyton evidence bundle saved/ --out saved.bundle")]
pub(crate) struct BundleArgs {
    /// Folder with evidence and documents under their plain names.
    folder: PathBuf,
    /// The bundle.
    #[arg(long, env = "ADYTON_OUT")]
    out: PathBuf,
}

#[derive(Args)]
#[command(after_help = "Example:\n  adyton evidence unpack saved.bundle --out saved/")]
pub(crate) struct UnpackArgs {
    /// The bundle.
    bundle: PathBuf,
    /// Folder for its files.
    #[arg(long, env = "ADYTON_OUT")]
    out: PathBuf,
}

fn default_store() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    cache.unwrap_or_else(|| PathBuf::from(".")).join("adyton").join("endorsements")
}

fn product(name: &str) -> Result<Product, String> {
    let known = [Product::Milan, Product::Genoa, Product::Turin];
    let found = known.into_iter().find(|product| product.as_str().eq_ignore_ascii_case(name));
    found.ok_or_else(|| "give Milan, Genoa or Turin".into())
}

impl From<EndorsementError> for Failure {
    fn from(error: EndorsementError) -> Self {
        match error {
            EndorsementError::Unavailable { .. } | EndorsementError::Expired { .. } => {
                Self::with(UNREACHABLE, error.to_string())
            }
            EndorsementError::Bundle(_) | EndorsementError::Wrong { .. } => {
                Self::with(INTEGRITY, error.to_string())
            }
            EndorsementError::File(own) => own.into(),
            _ => Self::own(error.to_string()),
        }
    }
}

pub(crate) async fn fetch(args: &FetchArgs) -> Result<Printed, Failure> {
    let now = args.at.unwrap_or_else(now);
    let evidence = read(&args.path)?.map_err(Failure::from)?;
    let need = need(&evidence, args.product)?;
    let sources = Sources {
        kds: args.kds.clone(),
        pcs: args.pcs.clone(),
        certificates: args.intel_certificates.clone(),
        mirror: args.mirror.clone(),
        offline: args.offline,
        patience: Duration::from_secs(args.patience_s),
        ..Sources::default()
    };
    let fetcher = Fetcher::new(Store::open(&args.store)?, sources)?;
    let fetched = fetcher.fetch(&need, now).await?;
    let documents = fetched.folder()?;

    // Everything in one private folder, as a verifier will find it; only what verifies is kept or handed on.
    let together =
        tempfile::tempdir().map_err(|error| Failure::own(format!("no temporary folder: {error}")))?;
    let mut folder = if args.path.is_dir() { Folder::read(&args.path)? } else { Folder::default() };
    folder.0.extend(documents.0.clone());
    let file = evidence_file(&args.path)?;
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = if args.path.is_dir() { name } else { plain_name(&evidence) };
    folder.0.insert(name.to_owned(), read_capped(&file, MAX_EVIDENCE_LEN)?.to_vec());
    folder.write(together.path())?;
    let anchors = match &args.dangerous_trust_anchor {
        Some(path) => TrustAnchors::dangerous_root(&read_capped(path, MAX_EVIDENCE_LEN)?)?,
        None => TrustAnchors::pinned(),
    };
    let endorsements = load_endorsements(together.path())?;
    let _authentic = evidence.verify(&anchors, &endorsements, now)?;

    fetcher.keep(&fetched)?;
    let mut text = String::new();
    for item in need.items() {
        text += &format!("have  {}\n", item.name());
    }
    if let Some(out) = &args.out {
        documents.write(out)?;
        text += &format!("wrote {} documents to {}\n", documents.0.len(), out.display());
    }
    if let Some(path) = &args.bundle {
        write_whole(path, &folder.encode()?)?;
        text += &format!("wrote {} with {} files\n", path.display(), folder.0.len());
    }
    let names: Vec<&String> = documents.0.keys().collect();
    Ok(Printed::new(
        json!({ "documents": names, "store": args.store, "out": args.out, "bundle": args.bundle }),
        text,
    ))
}

/// The name under which a folder holds evidence that came as a single file.
fn plain_name(evidence: &Evidence) -> &'static str {
    if evidence.tdx_signer().is_some() { "quote.bin" } else { "report.bin" }
}

fn need(evidence: &Evidence, product: Option<Product>) -> Result<Need, Failure> {
    if let Some((fmspc, issuer)) = evidence.tdx_signer() {
        let ca = match issuer.as_str() {
            "Intel SGX PCK Platform CA" => PckCa::Platform,
            "Intel SGX PCK Processor CA" => PckCa::Processor,
            other => return Err(Failure::own(format!("the quote's certificate is issued by {other:?}"))),
        };
        return Ok(Need::Tdx { fmspc, ca });
    }
    let signer = evidence.snp_signer(product).ok_or_else(|| {
        Failure::own("the evidence does not name its processor: give --product for a version 2 report")
    })?;
    match (signer.key, signer.hwid) {
        (SigningKey::Vlek, _) => Ok(Need::SnpProvider { product: signer.product }),
        (_, Some(hwid)) => Ok(Need::SnpChip { product: signer.product, hwid, reported: signer.reported }),
        (_, None) => Err(EndorsementError::Unnamed("CHIP_ID is masked").into()),
    }
}

pub(crate) fn bundle(args: &BundleArgs) -> Result<Printed, Failure> {
    evidence_file(&args.folder)?;
    let folder = Folder::read(&args.folder)?;
    write_whole(&args.out, &folder.encode()?)?;
    let names: Vec<&String> = folder.0.keys().collect();
    let text = format!("wrote {} with {} files\n", args.out.display(), names.len());
    Ok(Printed::new(json!({ "bundle": args.out, "files": names }), text))
}

pub(crate) fn unpack(args: &UnpackArgs) -> Result<Printed, Failure> {
    let folder = open_bundle(&args.bundle)?;
    folder.write(&args.out)?;
    let names: Vec<&String> = folder.0.keys().collect();
    let text = format!("wrote {} files to {}\n", names.len(), args.out.display());
    Ok(Printed::new(json!({ "out": args.out, "files": names }), text))
}

fn open_bundle(path: &Path) -> Result<Folder, Failure> {
    Ok(Folder::decode(&read_capped(path, MAX_BUNDLE_LEN as u64)?)?)
}

/// A path as it was given, or the private folder that a bundle was unpacked into. That one goes away with this value.
pub(crate) enum Opened {
    AsGiven(PathBuf),
    Unpacked(tempfile::TempDir),
}

impl Opened {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::AsGiven(path) => path,
            Self::Unpacked(folder) => folder.path(),
        }
    }
}

/// Opens what a person names as evidence: a file, a folder, or a bundle of both.
pub(crate) fn open(path: &Path) -> Result<Opened, Failure> {
    // A bundle is a CBOR array of two; nothing else that is read as evidence begins like that.
    const BUNDLE_START: [u8; 2] = [0x82, 0x01];
    let mut start = [0; 2];
    let is_bundle = path.is_file()
        && std::fs::File::open(path)
            .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start))
            .is_ok()
        && start == BUNDLE_START;
    if !is_bundle {
        return Ok(Opened::AsGiven(path.to_owned()));
    }
    let folder =
        tempfile::tempdir().map_err(|error| Failure::own(format!("no temporary folder: {error}")))?;
    open_bundle(path)?.write(folder.path())?;
    Ok(Opened::Unpacked(folder))
}
