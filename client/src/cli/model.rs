//! `adyton model`: the owner's bench, and sealing.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use adyton_attestation::manifest::{Description, FileEntry, Manifest, VerifiedManifest};
use adyton_broker::{OwnerKeys, read_capped, write_whole};
use adyton_vault::hidden::seal_hidden;
use adyton_vault::{SealError, SealParams, SealedFile, Suite, model_binding, seal_file};
use adyton_workshop::cli::{ModelCommand as BenchCommand, Ui};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::output::{INTEGRITY, Output};
use super::{Failure, Printed};

const MAX_MANIFEST_LEN: u64 = 1 << 20;
/// The enclave release whose formats this one writes.
const MINIMUM_ENCLAVE: &str = env!("CARGO_PKG_VERSION");

#[derive(Subcommand)]
pub(crate) enum ModelCommand {
    #[command(flatten)]
    Bench(BenchCommand),
    /// Encrypt a model for enclaves and sign its manifest.
    Seal(SealArgs),
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  adyton model seal digits.safetensors --owner owner/ --name digits --out sealed/"
)]
pub(crate) struct SealArgs {
    /// The model file.
    model: PathBuf,
    /// The owner's folder, with `owner.key`.
    #[arg(long, env = "ADYTON_OWNER")]
    owner: PathBuf,
    /// The name under which the model is served.
    #[arg(long, env = "ADYTON_NAME")]
    name: String,
    /// Your name as its owner; part of what is sealed.
    #[arg(long, env = "ADYTON_OWNER_ID", default_value = "owner")]
    owner_id: String,
    /// Your word for this version.
    #[arg(long, env = "ADYTON_MODEL_VERSION", default_value = "1")]
    model_version: String,
    /// Version counter; without it one more than that of the manifest in the folder.
    #[arg(long, env = "ADYTON_COUNTER")]
    counter: Option<u64>,
    /// The release policy that brokers apply.
    #[arg(long, env = "ADYTON_POLICY_ID", default_value = "default")]
    policy_id: String,
    /// Cipher of the chunks.
    #[arg(long, env = "ADYTON_SUITE", default_value = "aes256gcm")]
    suite: SuiteName,
    /// Encrypting threads; without it one for each processor.
    #[arg(long, env = "ADYTON_THREADS")]
    threads: Option<NonZeroUsize>,
    /// Folder for the sealed file and the manifest.
    #[arg(long, env = "ADYTON_OUT", default_value = "sealed")]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum SuiteName {
    Aes256gcm,
    Chacha20poly1305,
}

pub(crate) fn run(command: ModelCommand, output: &Output) -> Result<Printed, Failure> {
    match command {
        ModelCommand::Seal(args) => seal(&args, output),
        ModelCommand::Bench(command) => {
            let ui = Ui { progress: output.bars(), json_progress: output.json_progress() };
            let report =
                adyton_workshop::cli::run(command, &ui).map_err(|error| Failure::own(error.to_string()))?;
            Ok(Printed::new(report.json, report.text))
        }
    }
}

fn seal(args: &SealArgs, output: &Output) -> Result<Printed, Failure> {
    let keys = OwnerKeys::load(&args.owner)?;
    let root = keys.root(&args.owner)?;
    let manifest_path = args.out.join("manifest.cose");
    let before = previous(&manifest_path, &keys)?;
    let next = before.as_ref().map_or(1, |before| before.manifest().counter.saturating_add(1));
    let counter = args.counter.unwrap_or(next);
    if counter < next {
        return Err(Failure::own(format!(
            "--counter {counter} is not newer than the {} in {}",
            next - 1,
            manifest_path.display()
        )));
    }
    std::fs::create_dir_all(&args.out)
        .map_err(|error| Failure::own(format!("cannot make {}: {error}", args.out.display())))?;
    let sealed = seal_model(args, &keys, counter, output)?;
    let binding = model_binding(args.owner_id.as_bytes(), &args.name, counter);
    let description = Description {
        owner_id: args.owner_id.clone(),
        model_name: args.name.clone(),
        version: args.model_version.clone(),
        tokenizer: [0; 32],
        config: [0; 32],
    };
    let hidden = seal_hidden(keys.kek(), &binding, &description.encode())
        .map_err(|error| Failure::own(error.to_string()))?;
    let manifest = Manifest {
        counter,
        previous: before.map_or([0; 32], |before| *before.id()),
        files: vec![FileEntry {
            file_id: sealed.file_id,
            plaintext_len: sealed.plaintext_len,
            plaintext_root: sealed.plaintext_root,
            fixed_header_hash: sealed.fixed_header_hash,
        }],
        model_binding: binding,
        kek_id: *keys.kek_id(),
        policy_id: args.policy_id.clone(),
        minimum_enclave: MINIMUM_ENCLAVE.to_owned(),
        hidden,
    };
    let (signed, id) = manifest.sign(root);
    write_whole(&manifest_path, &signed)?;
    let (id, file) = (hex::encode(id), hex::encode(sealed.file_id));
    let text = format!(
        "manifest  {id}\nfile      {file}.sealed\ncounter   {counter}\nplaintext {} bytes, sealed {} bytes\n",
        sealed.plaintext_len, sealed.sealed_len
    );
    let json = json!({
        "manifest_id": id, "file_id": file, "counter": counter,
        "plaintext_bytes": sealed.plaintext_len, "sealed_bytes": sealed.sealed_len,
    });
    Ok(Printed::new(json, text))
}

/// The manifest that the folder holds, if it is this owner's.
fn previous(path: &Path, keys: &OwnerKeys) -> Result<Option<VerifiedManifest>, Failure> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = read_capped(path, MAX_MANIFEST_LEN)?;
    let verified = VerifiedManifest::verify(keys.root_public(), &bytes);
    verified.map(Some).map_err(|error| {
        Failure::with(
            INTEGRITY,
            format!("{} is not this owner's: {error}; choose another --out", path.display()),
        )
    })
}

fn seal_model(
    args: &SealArgs,
    keys: &OwnerKeys,
    counter: u64,
    output: &Output,
) -> Result<SealedFile, Failure> {
    let len = std::fs::metadata(&args.model).map_or(0, |metadata| metadata.len());
    let bar = if output.bars() { ProgressBar::new(len) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("sealing {bar:30} {bytes}/{total_bytes} {bytes_per_sec}")
    {
        bar.set_style(style);
    }
    let lines = output.json_progress();
    let mut progress = |done: u64| {
        bar.set_position(done);
        if lines {
            // A reader that went away does not stop the work.
            let line = json!({ "task": "seal", "completed": done, "total": len });
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{line}\n").as_bytes());
        }
    };
    let params = SealParams {
        kek: keys.kek(),
        owner_id: args.owner_id.as_bytes(),
        model_name: &args.name,
        counter,
        suite: match args.suite {
            SuiteName::Aes256gcm => Suite::Aes256Gcm,
            SuiteName::Chacha20poly1305 => Suite::ChaCha20Poly1305,
        },
        recipients: &[],
        threads: args.threads,
    };
    // The file is known by its id, which is drawn while sealing: sealed under a working name, then renamed.
    let working = args.out.join(format!("sealing-{}.partial", std::process::id()));
    let failed = |error: SealError| Failure::own(format!("cannot seal {}: {error}", args.model.display()));
    let sealed = seal_file(&args.model, &working, &params, &mut progress).map_err(failed)?;
    bar.finish_and_clear();
    let named = args.out.join(format!("{}.sealed", hex::encode(sealed.file_id)));
    std::fs::rename(&working, &named)
        .map_err(|error| Failure::own(format!("cannot name {}: {error}", named.display())))?;
    Ok(sealed)
}
