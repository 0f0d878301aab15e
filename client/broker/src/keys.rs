//! The owner's folder: root key, broker key with its certificate, TLS key of the broker, and the model key.
//!
//! | file | content |
//! |---|---|
//! | `owner.key` | Ed25519 root, PKCS#8; needed to seal and to certify brokers, may be kept offline |
//! | `owner.pub` | its public half in hexadecimal; clients and enclaves pin it |
//! | `broker.key`, `broker.cert` | Ed25519 key that signs releases, and the root's certificate for it |
//! | `broker-tls.key`, `broker-tls.spki` | the broker's TLS key, and the hash that enclaves pin |
//! | `model.kek` | the key-encryption key of the model: `adyton-kek-v1 ID KEY` in hexadecimal |

use std::path::{Path, PathBuf};

use adyton_attestation::Time;
use adyton_attestation::commit::Digest;
use adyton_attestation::cose::PublicKey;
use adyton_attestation::owner::BrokerCertificate;
use adyton_channel::TlsIdentity;
use adyton_vault::Kek;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

use crate::BrokerError;
use crate::files::{read_capped, write_new_secret, write_whole};

const MAX_KEY_FILE_LEN: u64 = 4096;
const KEK_HEAD: &str = "adyton-kek-v1";

/// The secret keys of an owner.
pub struct OwnerKeys {
    root: Option<Ed25519KeyPair>,
    root_public: PublicKey,
    /// Signs challenges, grants and admissions.
    pub(crate) broker: Ed25519KeyPair,
    /// The root's certificate for the broker key.
    pub(crate) broker_certificate: Vec<u8>,
    /// The broker's TLS key.
    pub(crate) tls: TlsIdentity,
    kek_id: [u8; 16],
    kek: Kek,
}

/// What others need to know of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerPublic {
    /// The root key.
    pub root: PublicKey,
    /// SPKI hash of the broker's TLS key.
    pub broker_spki: Digest,
    /// Names the model key.
    pub kek_id: [u8; 16],
}

impl OwnerKeys {
    /// Draws all keys of an owner into `folder`, which is made if needed; no file is ever overwritten.
    ///
    /// # Errors
    /// [`BrokerError`]: a file exists or cannot be written, or there is no randomness.
    pub fn create(folder: &Path, broker_not_after: Time) -> Result<OwnerPublic, BrokerError> {
        std::fs::create_dir_all(folder)
            .map_err(|source| BrokerError::Write { path: folder.to_owned(), source })?;
        if let Some(path) = all_files(folder).into_iter().find(|path| path.exists()) {
            return Err(BrokerError::Exists { path });
        }
        let (root_der, root) = draw_ed25519()?;
        let (broker_der, broker) = draw_ed25519()?;
        let certificate =
            BrokerCertificate { broker_key: public(&broker), not_after: broker_not_after }.sign(&root);
        let tls = TlsIdentity::generate()?;
        let mut kek_id = [0; 16];
        getrandom::fill(&mut kek_id)?;
        let mut kek = Zeroizing::new([0; 32]);
        getrandom::fill(kek.as_mut())?;
        let kek_hex = Zeroizing::new(hex::encode(kek.as_ref()));
        let kek_file = Zeroizing::new(format!("{KEK_HEAD} {} {}\n", hex::encode(kek_id), kek_hex.as_str()));
        write_new_secret(&folder.join("broker.key"), &broker_der)?;
        write_whole(&folder.join("broker.cert"), &certificate)?;
        write_new_secret(&folder.join("broker-tls.key"), tls.pkcs8())?;
        write_whole(&folder.join("broker-tls.spki"), hex_line(tls.spki()).as_bytes())?;
        write_new_secret(&folder.join("model.kek"), kek_file.as_bytes())?;
        write_whole(&folder.join("owner.pub"), hex_line(&public(&root)).as_bytes())?;
        // The root last: a folder with it is complete.
        write_new_secret(&folder.join("owner.key"), &root_der)?;
        Ok(OwnerPublic { root: public(&root), broker_spki: *tls.spki(), kek_id })
    }

    /// Loads the owner's keys. `owner.key` may be absent, as on a broker's machine; sealing then is not possible.
    ///
    /// # Errors
    /// [`BrokerError`]: a file is missing, too long, or holds something else.
    pub fn load(folder: &Path) -> Result<Self, BrokerError> {
        let root_path = folder.join("owner.key");
        let root = if root_path.exists() { Some(load_ed25519(&root_path)?) } else { None };
        let public_path = folder.join("owner.pub");
        let root_public = load_hex::<32>(&public_path, "a public key in hexadecimal")?;
        if root.as_ref().is_some_and(|root| public(root) != root_public) {
            return Err(BrokerError::BadKey { path: public_path, what: "the public half of owner.key" });
        }
        let broker = load_ed25519(&folder.join("broker.key"))?;
        let certificate_path = folder.join("broker.cert");
        let broker_certificate = read_capped(&certificate_path, MAX_KEY_FILE_LEN)?.to_vec();
        let certified = BrokerCertificate::verify(&root_public, &broker_certificate, None);
        if !certified.is_ok_and(|certified| certified.broker_key == public(&broker)) {
            return Err(BrokerError::BadKey {
                path: certificate_path,
                what: "the owner's certificate for broker.key",
            });
        }
        let tls_path = folder.join("broker-tls.key");
        let tls = TlsIdentity::from_pkcs8(&read_capped(&tls_path, MAX_KEY_FILE_LEN)?)?;
        let (kek_id, kek) = load_kek(&folder.join("model.kek"))?;
        Ok(Self { root, root_public, broker, broker_certificate, tls, kek_id, kek })
    }

    /// The root key, where it is in the folder.
    ///
    /// # Errors
    /// [`BrokerError::Read`] naming the missing file.
    pub fn root(&self, folder: &Path) -> Result<&Ed25519KeyPair, BrokerError> {
        self.root.as_ref().ok_or_else(|| BrokerError::Read {
            path: folder.join("owner.key"),
            source: std::io::ErrorKind::NotFound.into(),
        })
    }

    /// The root's public key.
    #[must_use]
    pub fn root_public(&self) -> &PublicKey {
        &self.root_public
    }

    /// Names the model key.
    #[must_use]
    pub fn kek_id(&self) -> &[u8; 16] {
        &self.kek_id
    }

    /// The model key.
    #[must_use]
    pub fn kek(&self) -> &Kek {
        &self.kek
    }

    /// What others need to know.
    #[must_use]
    pub fn public(&self) -> OwnerPublic {
        OwnerPublic { root: self.root_public, broker_spki: *self.tls.spki(), kek_id: self.kek_id }
    }
}

fn all_files(folder: &Path) -> [PathBuf; 7] {
    ["owner.key", "owner.pub", "broker.key", "broker.cert", "broker-tls.key", "broker-tls.spki", "model.kek"]
        .map(|name| folder.join(name))
}

fn public(key: &Ed25519KeyPair) -> PublicKey {
    let mut public = [0; 32];
    public.copy_from_slice(key.public_key().as_ref());
    public
}

fn hex_line(bytes: &[u8]) -> String {
    format!("{}\n", hex::encode(bytes))
}

fn draw_ed25519() -> Result<(Zeroizing<Vec<u8>>, Ed25519KeyPair), BrokerError> {
    let no_entropy = |_| BrokerError::Entropy(getrandom::Error::UNEXPECTED);
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(no_entropy)?;
    let der = Zeroizing::new(document.as_ref().to_vec());
    let key =
        Ed25519KeyPair::from_pkcs8(&der).map_err(|_| BrokerError::Entropy(getrandom::Error::UNEXPECTED))?;
    Ok((der, key))
}

fn load_ed25519(path: &Path) -> Result<Ed25519KeyPair, BrokerError> {
    Ed25519KeyPair::from_pkcs8(&read_capped(path, MAX_KEY_FILE_LEN)?)
        .map_err(|_| BrokerError::BadKey { path: path.to_owned(), what: "an Ed25519 key in PKCS#8" })
}

/// Reads `N` bytes written in hexadecimal on one line.
fn load_hex<const N: usize>(path: &Path, what: &'static str) -> Result<[u8; N], BrokerError> {
    let text = read_capped(path, MAX_KEY_FILE_LEN)?;
    let mut bytes = [0; N];
    hex::decode_to_slice(text.trim_ascii(), &mut bytes)
        .map_err(|_| BrokerError::BadKey { path: path.to_owned(), what })?;
    Ok(bytes)
}

fn load_kek(path: &Path) -> Result<([u8; 16], Kek), BrokerError> {
    let bad = || BrokerError::BadKey { path: path.to_owned(), what: "a model key (adyton-kek-v1 ID KEY)" };
    let text = read_capped(path, MAX_KEY_FILE_LEN)?;
    let text = std::str::from_utf8(&text).map_err(|_| bad())?;
    let mut fields = text.split_ascii_whitespace();
    let (Some(KEK_HEAD), Some(id_hex), Some(kek_hex), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(bad());
    };
    let mut id = [0; 16];
    hex::decode_to_slice(id_hex, &mut id).map_err(|_| bad())?;
    let mut kek = Zeroizing::new([0; 32]);
    hex::decode_to_slice(kek_hex, kek.as_mut()).map_err(|_| bad())?;
    Ok((id, Kek::from_bytes(&mut kek)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owners_folder_is_made_once_and_loads_again() {
        let folder = tempfile::tempdir().unwrap();
        let public = OwnerKeys::create(folder.path(), Time::from_unix_seconds(2_000_000_000)).unwrap();
        let keys = OwnerKeys::load(folder.path()).unwrap();
        assert_eq!(keys.public(), public);
        assert!(keys.root(folder.path()).is_ok());
        let again = OwnerKeys::create(folder.path(), Time::from_unix_seconds(2_000_000_000));
        assert!(matches!(again, Err(BrokerError::Exists { .. })));
    }

    #[test]
    fn a_broker_works_without_the_root_key_but_cannot_seal() {
        let folder = tempfile::tempdir().unwrap();
        OwnerKeys::create(folder.path(), Time::from_unix_seconds(2_000_000_000)).unwrap();
        std::fs::remove_file(folder.path().join("owner.key")).unwrap();
        let keys = OwnerKeys::load(folder.path()).unwrap();
        assert!(matches!(keys.root(folder.path()), Err(BrokerError::Read { .. })));
    }

    #[test]
    fn a_damaged_or_foreign_file_is_named() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in [&folder, &other] {
            OwnerKeys::create(folder.path(), Time::from_unix_seconds(2_000_000_000)).unwrap();
        }
        std::fs::copy(other.path().join("broker.cert"), folder.path().join("broker.cert")).unwrap();
        let error = OwnerKeys::load(folder.path()).err().unwrap();
        assert!(error.to_string().contains("broker.cert"), "{error}");
        std::fs::write(other.path().join("model.kek"), "adyton-kek-v1 00").unwrap();
        let error = OwnerKeys::load(other.path()).err().unwrap();
        assert!(error.to_string().contains("model.kek"), "{error}");
    }
}
