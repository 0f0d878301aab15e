//! `adyton evidence result|result-key|replay`, and the result file that `evidence verify` writes: a verdict for others.

use std::path::{Path, PathBuf};

use adyton_attestation::ear::{
    AttestationResult, MAX_RESULT_LEN_BYTES, ResultError, ResultKey, ResultPublicKey, Tier,
};
use adyton_broker::{read_capped, write_new_secret, write_whole};
use clap::{Args, ValueEnum};
use ring::rand::SystemRandom;
use serde_json::{Value, json};

use super::output::{INTEGRITY, POLICY};
use super::{Failure, Printed};

const MAX_KEY_LEN: u64 = 16 << 10;

/// How a result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ResultFormat {
    /// JSON claims set, unsigned.
    Json,
    /// CBOR claims set, unsigned.
    Cbor,
    /// Signed JWT.
    Jwt,
    /// Signed CWT.
    Cwt,
}

impl ResultFormat {
    fn of(path: &Path) -> Result<Self, Failure> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        Self::from_str(extension, true).map_err(|_| {
            Failure::own(format!(
                "{} ends in none of .json, .cbor, .jwt, .cwt: say --result-format",
                path.display()
            ))
        })
    }

    const fn is_signed(self) -> bool {
        matches!(self, Self::Jwt | Self::Cwt)
    }
}

#[derive(Args)]
#[command(after_help = "Example:\n  adyton evidence result verdict.jwt --key verifier/result.pub.pem\n\n\
                  Exit status 20 if the result does not affirm, 40 if it is not signed by the key.")]
pub(crate) struct ResultArgs {
    /// The result: .json, .cbor, .jwt or .cwt.
    file: PathBuf,
    /// How it is written, where the name does not say.
    #[arg(long, value_enum)]
    format: Option<ResultFormat>,
    /// Public key (PEM) of the verifier that is believed; needed for .jwt and .cwt.
    #[arg(long, env = "ADYTON_RESULT_PUBLIC_KEY")]
    key: Option<PathBuf>,
}

#[derive(Args)]
#[command(after_help = "Example:\n  adyton evidence result-key --out verifier/")]
pub(crate) struct ResultKeyArgs {
    /// Folder for `result.key.pem` and `result.pub.pem`; nothing in it is overwritten.
    #[arg(long, env = "ADYTON_OUT")]
    out: PathBuf,
}

impl From<ResultError> for Failure {
    fn from(error: ResultError) -> Self {
        Self::with(INTEGRITY, error.to_string())
    }
}

/// Writes a result as the name or `format` says; `key` signs it.
pub(crate) fn write(
    result: &AttestationResult,
    path: &Path,
    format: Option<ResultFormat>,
    key: Option<&Path>,
) -> Result<(), Failure> {
    let format = format.map_or_else(|| ResultFormat::of(path), Ok)?;
    let random = SystemRandom::new();
    let failed = |error: adyton_attestation::ear::KeyError| Failure::own(error.to_string());
    let bytes = match (format, key) {
        (ResultFormat::Json, None) => result.to_json().into_bytes(),
        (ResultFormat::Cbor, None) => result.to_cbor(),
        (ResultFormat::Jwt | ResultFormat::Cwt, Some(key)) => {
            let text = read_capped(key, MAX_KEY_LEN)?;
            let text = std::str::from_utf8(&text).map_err(|_| Failure::own("the result key is not PEM"))?;
            let key = ResultKey::from_pem(text, &random).map_err(failed)?;
            if format == ResultFormat::Jwt {
                result.sign_jwt(&key, &random).map_err(failed)?.into_bytes()
            } else {
                result.sign_cwt(&key, &random).map_err(failed)?
            }
        }
        (_, Some(_)) => return Err(Failure::own("only .jwt and .cwt are signed")),
        (_, None) => {
            return Err(Failure::own(
                "a JWT or CWT needs --result-key; `adyton evidence result-key` draws one",
            ));
        }
    };
    Ok(write_whole(path, &bytes)?)
}

pub(crate) fn read(args: &ResultArgs) -> Result<Printed, Failure> {
    let format = args.format.map_or_else(|| ResultFormat::of(&args.file), Ok)?;
    let bytes = read_capped(&args.file, 2 * MAX_RESULT_LEN_BYTES as u64)?;
    let text = || std::str::from_utf8(&bytes).map_err(|_| Failure::with(INTEGRITY, "not text"));
    let result = match (format, &args.key) {
        (ResultFormat::Json, None) => AttestationResult::from_json(&bytes)?,
        (ResultFormat::Cbor, None) => AttestationResult::from_cbor(&bytes)?,
        (ResultFormat::Json | ResultFormat::Cbor, Some(_)) => {
            return Err(Failure::with(INTEGRITY, "the result is unsigned, a key says nothing about it"));
        }
        (_, None) => {
            return Err(Failure::own("a signed result is read under --key, the verifier's public key"));
        }
        (_, Some(key)) => {
            let pem = read_capped(key, MAX_KEY_LEN)?;
            let pem = std::str::from_utf8(&pem).map_err(|_| Failure::own("the key is not PEM"))?;
            let key = ResultPublicKey::from_pem(pem).map_err(|error| Failure::own(error.to_string()))?;
            if format == ResultFormat::Jwt {
                AttestationResult::verify_jwt(text()?.trim_end(), &key)?
            } else {
                AttestationResult::verify_cwt(&bytes, &key)?
            }
        }
    };
    Ok(print(&result, format.is_signed()))
}

fn print(result: &AttestationResult, signed: bool) -> Printed {
    let claims: Value = serde_json::from_str(&result.to_json()).unwrap_or(Value::Null);
    let json = json!({ "signed": signed, "status": result.status.as_str(), "result": claims });
    let mut text = String::from(if signed {
        "signed by the key given\n"
    } else {
        "UNSIGNED: anybody could have written it\n"
    });
    text += &format!(
        "{} of {} evidence by policy {} at {}\n",
        result.status.as_str(),
        result.submodule,
        result.policy,
        result.issued_at
    );
    for (component, value) in result.vector.iter() {
        text += &format!("  {component:<18} {value}\n");
    }
    for step in &result.steps {
        text += &format!("  {:<4}  {:<26} {}\n", step.result, step.name, step.detail);
    }
    let mut printed = Printed::new(json, text);
    printed.code = if result.status == Tier::Affirming { 0 } else { POLICY };
    printed
}

pub(crate) fn new_key(args: &ResultKeyArgs) -> Result<Printed, Failure> {
    let random = SystemRandom::new();
    let failed = |error: adyton_attestation::ear::KeyError| Failure::own(error.to_string());
    std::fs::create_dir_all(&args.out)
        .map_err(|error| Failure::own(format!("cannot make {}: {error}", args.out.display())))?;
    let private = ResultKey::generate_pem(&random).map_err(failed)?;
    let public = ResultKey::from_pem(&private, &random).map_err(failed)?.public().to_pem();
    write_new_secret(&args.out.join("result.key.pem"), private.as_bytes())?;
    write_whole(&args.out.join("result.pub.pem"), public.as_bytes())?;
    let text = format!("wrote result.key.pem and result.pub.pem to {}\n", args.out.display());
    Ok(Printed::new(json!({ "out": args.out, "public_key": public }), text))
}
