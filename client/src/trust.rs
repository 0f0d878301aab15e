//! `trust.toml`: whom a client accepts. Unknown keys are errors, and nothing that is left out means "anything".

use std::path::{Path, PathBuf};

use adyton_attestation::commit::{Digest, hash};
use adyton_attestation::cose::PublicKey;
use adyton_attestation::session::{OwnerRule, Trust};
use adyton_attestation::{Rule, Time};
use adyton_broker::{EvidenceRules, Judge, read_capped};
use serde::Deserialize;

use crate::ClientError;

const MAX_LEN: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    /// The model owner's root key, 64 hexadecimal digits.
    owner_key: String,
    /// `"any"` model the owner admits, or a list of manifest identifiers.
    manifests: Manifests,
    evidence: EvidenceRules,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Manifests {
    Word(String),
    List(Vec<String>),
}

/// A loaded trust file.
#[derive(Debug)]
pub struct TrustFile {
    owner: PublicKey,
    manifests: Rule<Digest>,
    judge: Judge,
    digest: Digest,
    path: PathBuf,
}

impl TrustFile {
    /// Reads a trust file and the files it names.
    ///
    /// # Errors
    /// [`ClientError`]: unreadable, unknown key, wrong digits, or a root that is none.
    pub fn read(path: &Path) -> Result<Self, ClientError> {
        let bytes = read_capped(path, MAX_LEN)?;
        let wrong = |message: String| ClientError::Trust { path: path.to_owned(), message };
        let text = std::str::from_utf8(&bytes).map_err(|error| wrong(error.to_string()))?;
        let wire: Wire = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let digest_of = |text: &str| -> Result<[u8; 32], ClientError> {
            let mut digest = [0; 32];
            hex::decode_to_slice(text.trim(), &mut digest)
                .map_err(|_| wrong(format!("expected 64 hexadecimal digits, got {text:?}")))?;
            Ok(digest)
        };
        let manifests = match &wire.manifests {
            Manifests::Word(word) if word == "any" => Rule::Any,
            Manifests::Word(word) => {
                return Err(wrong(format!("manifests: write \"any\" or a list, not {word:?}")));
            }
            Manifests::List(ids) => {
                Rule::OneOf(ids.iter().map(|id| digest_of(id)).collect::<Result<_, _>>()?)
            }
        };
        Ok(Self {
            owner: digest_of(&wire.owner_key)?,
            manifests,
            judge: wire.evidence.load(path)?,
            digest: hash(&bytes),
            path: path.to_owned(),
        })
    }

    /// The rules at a moment, with the key sets that were verified freshly before.
    #[must_use]
    pub fn at<'a>(&'a self, now: Time, known: &'a [Digest]) -> Trust<'a> {
        Trust {
            appraiser: self.judge.appraiser(now),
            owner: OwnerRule::Admitted(self.owner),
            manifest: &self.manifests,
            known,
        }
    }

    /// The same rules without an admission: for an owner, who calls before there can be one.
    #[must_use]
    pub fn before_admission(&self, now: Time) -> Trust<'_> {
        Trust { owner: OwnerRule::DangerousUnadmitted, ..self.at(now, &[]) }
    }

    /// The rules for evidence alone, as a release needs them.
    #[must_use]
    pub fn into_judge(self) -> Judge {
        self.judge
    }

    /// Whether a simulator is what these rules accept.
    #[must_use]
    pub fn simulated(&self) -> bool {
        self.judge.simulated()
    }

    /// Names this very content, so that nothing learned under other rules is used.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The file the rules came from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TrustFile, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trust.toml");
        std::fs::write(&path, text).unwrap();
        TrustFile::read(&path).map_err(|error| error.to_string())
    }

    const OWNER: &str = "owner_key = '0101010101010101010101010101010101010101010101010101010101010101'";
    const EVIDENCE: &str = "[evidence]\nmeasurements = []\nhost_data = []\n";

    #[test]
    fn every_choice_is_written_down() {
        assert!(read(&format!("{OWNER}\nmanifests = 'any'\n{EVIDENCE}")).is_ok());
        assert!(read(&format!("{OWNER}\n{EVIDENCE}")).unwrap_err().contains("manifests"));
        assert!(read(&format!("manifests = []\n{EVIDENCE}")).unwrap_err().contains("owner_key"));
        assert!(read(&format!("{OWNER}\nmanifests = 'all'\n{EVIDENCE}")).unwrap_err().contains("any"));
        assert!(
            read(&format!("{OWNER}\nmanifests = ['ab']\n{EVIDENCE}")).unwrap_err().contains("64 hexadecimal")
        );
        assert!(
            read(&format!("{OWNER}\nmanifests = 'any'\nsurprise = 1\n{EVIDENCE}"))
                .unwrap_err()
                .contains("surprise")
        );
    }
}
