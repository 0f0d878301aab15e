//! The signed manifest of a sealed model (SPEC, section 9).
//!
//! The owner signs which files make up a model and which plaintext they must decrypt to. The host carries the manifest
//! and learns opaque file names and sizes from it; the model's name is in a part encrypted under the model key. Model
//! binding and plaintext roots are plain hashes: who guesses a name or has a file can confirm the guess.

use ring::signature::Ed25519KeyPair;

use crate::commit::{Digest, labelled_hash};
use crate::cose::{self, PublicKey, SignedError};
use crate::wire::{self, Blob, Bytes, WireError};

const LABEL: &str = "adyton/v1/sig/manifest";
const MAX_FILES: usize = 1024;
const MAX_HIDDEN_LEN: usize = 64 << 10;
const MAX_NAME_LEN: usize = 128;
/// Longest hidden part, once decrypted.
pub const MAX_DESCRIPTION_LEN: usize = 32 << 10;

/// One sealed file of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// The opaque name under which the host stores it.
    pub file_id: [u8; 16],
    /// Bytes of plaintext.
    pub plaintext_len: u64,
    /// Root of the Merkle tree over the plaintext chunks.
    pub plaintext_root: Digest,
    /// `H(fixed header)` of the sealed file.
    pub fixed_header_hash: Digest,
}

/// What the owner signs about one version of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Grows with each version; an older one is refused.
    pub counter: u64,
    /// Identifier of the version before, or zero.
    pub previous: Digest,
    /// The sealed files, in order.
    pub files: Vec<FileEntry>,
    /// `H(lp(owner id) || lp(model name) || u64(counter))`, as in the sealed headers.
    pub model_binding: Digest,
    /// Names the KEK among those of the owner.
    pub kek_id: [u8; 16],
    /// The release policy the broker applies.
    pub policy_id: String,
    /// Least version of the enclave program, `major.minor.patch`.
    pub minimum_enclave: String,
    /// The [`Description`], encrypted under the model key.
    pub hidden: Vec<u8>,
}

type FileWire = (Bytes<16>, u64, Bytes<32>, Bytes<32>);
type Wire = (u8, u64, Bytes<32>, Vec<FileWire>, Bytes<32>, Bytes<16>, String, String, Blob);

/// A manifest whose signature was verified, with its identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedManifest {
    manifest: Manifest,
    id: Digest,
}

impl VerifiedManifest {
    /// Verifies that `owner_root` signed `bytes`, and decodes them.
    ///
    /// # Errors
    /// [`SignedError`]: malformed, over a limit, or not signed by the owner.
    pub fn verify(owner_root: &PublicKey, bytes: &[u8]) -> Result<Self, SignedError> {
        let payload = cose::verify(owner_root, LABEL, bytes)?;
        let manifest = Manifest::decode(&payload)?;
        Ok(Self { manifest, id: manifest_id(&payload) })
    }

    /// `manifest_id = H(lp("adyton/v1/sig/manifest") || payload)`.
    #[must_use]
    pub fn id(&self) -> &Digest {
        &self.id
    }

    /// The signed content.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

/// The identifier of a manifest payload.
#[must_use]
pub fn manifest_id(payload: &[u8]) -> Digest {
    labelled_hash(LABEL, payload)
}

impl Manifest {
    fn payload(&self) -> Vec<u8> {
        let file = |file: &FileEntry| -> FileWire {
            (
                Bytes(file.file_id),
                file.plaintext_len,
                Bytes(file.plaintext_root),
                Bytes(file.fixed_header_hash),
            )
        };
        let wire: Wire = (
            1,
            self.counter,
            Bytes(self.previous),
            self.files.iter().map(file).collect(),
            Bytes(self.model_binding),
            Bytes(self.kek_id),
            self.policy_id.clone(),
            self.minimum_enclave.clone(),
            Blob::from(self.hidden.clone()),
        );
        wire::encode(&wire)
    }

    /// Signs under the owner's root key; returns the signed bytes and the manifest's identifier.
    #[must_use]
    pub fn sign(&self, owner_root: &Ed25519KeyPair) -> (Vec<u8>, Digest) {
        let payload = self.payload();
        (cose::sign(owner_root, LABEL, &payload), manifest_id(&payload))
    }

    fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let (version, counter, previous, files, binding, kek_id, policy_id, minimum_enclave, hidden): Wire =
            wire::decode(payload, cose::MAX_LEN)?;
        let within_limits = version == 1
            && (1..=MAX_FILES).contains(&files.len())
            && hidden.len() <= MAX_HIDDEN_LEN
            && policy_id.len() <= MAX_NAME_LEN
            && minimum_enclave.len() <= MAX_NAME_LEN;
        if !within_limits {
            return Err(WireError::WrongShape);
        }
        let files = files
            .into_iter()
            .map(|(id, len, root, header)| FileEntry {
                file_id: id.0,
                plaintext_len: len,
                plaintext_root: root.0,
                fixed_header_hash: header.0,
            })
            .collect();
        Ok(Self {
            counter,
            previous: previous.0,
            files,
            model_binding: binding.0,
            kek_id: kek_id.0,
            policy_id,
            minimum_enclave,
            hidden: hidden.into_vec(),
        })
    }
}

/// The part of a manifest that only holders of the model key can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The owner's name for itself; part of the model binding.
    pub owner_id: String,
    /// The name under which the model is served.
    pub model_name: String,
    /// The owner's word for this version, such as `2026-11`.
    pub version: String,
    /// Digest of the tokenizer, zero where there is none.
    pub tokenizer: Digest,
    /// Digest of the model's configuration, zero where it is inside the file.
    pub config: Digest,
}

impl Description {
    /// The deterministic encoding that is encrypted into [`Manifest::hidden`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let config = Bytes(self.config);
        wire::encode(&(&self.owner_id, &self.model_name, &self.version, Bytes(self.tokenizer), config))
    }

    /// Decodes the decrypted part.
    ///
    /// # Errors
    /// [`WireError`] for bytes that are not a description within its limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (owner_id, model_name, version, tokenizer, config): (
            String,
            String,
            String,
            Bytes<32>,
            Bytes<32>,
        ) = wire::decode(bytes, MAX_DESCRIPTION_LEN)?;
        if [&owner_id, &model_name, &version].iter().any(|name| name.len() > MAX_NAME_LEN) {
            return Err(WireError::WrongShape);
        }
        Ok(Self { owner_id, model_name, version, tokenizer: tokenizer.0, config: config.0 })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::owner::tests::key;

    pub(crate) fn sample() -> Manifest {
        Manifest {
            counter: 7,
            previous: [0; 32],
            files: vec![FileEntry {
                file_id: [1; 16],
                plaintext_len: 3,
                plaintext_root: [2; 32],
                fixed_header_hash: [3; 32],
            }],
            model_binding: [4; 32],
            kek_id: [5; 16],
            policy_id: "digits-v1".into(),
            minimum_enclave: "0.1.0".into(),
            hidden: vec![6; 40],
        }
    }

    #[test]
    fn a_manifest_is_believed_only_from_its_owner() {
        let (root, public) = key(1);
        let (signed, id) = sample().sign(&root);
        let verified = VerifiedManifest::verify(&public, &signed).unwrap();
        assert_eq!((verified.id(), verified.manifest()), (&id, &sample()));
        assert_eq!(VerifiedManifest::verify(&key(2).1, &signed), Err(SignedError::Signature));
    }

    #[test]
    fn every_field_changes_the_identifier() {
        let (root, _) = key(1);
        let changes: [fn(&mut Manifest); 8] = [
            |m| m.counter += 1,
            |m| m.previous[0] ^= 1,
            |m| m.files[0].plaintext_root[0] ^= 1,
            |m| m.files[0].fixed_header_hash[0] ^= 1,
            |m| m.model_binding[0] ^= 1,
            |m| m.kek_id[0] ^= 1,
            |m| m.policy_id.push('x'),
            |m| m.hidden[0] ^= 1,
        ];
        let original = sample().sign(&root).1;
        for change in changes {
            let mut manifest = sample();
            change(&mut manifest);
            assert_ne!(manifest.sign(&root).1, original);
        }
    }

    #[test]
    fn a_manifest_without_files_is_refused() {
        let (root, public) = key(1);
        let empty = Manifest { files: Vec::new(), ..sample() };
        assert!(VerifiedManifest::verify(&public, &empty.sign(&root).0).is_err());
    }
}
