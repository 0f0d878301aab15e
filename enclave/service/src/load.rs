//! From a released key to a model that answers: names, sealed file, plaintext root, network or language model.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use adyton_attestation::commit::Digest;
use adyton_attestation::manifest::{Description, Manifest, VerifiedManifest};
use adyton_inference::dense::Network;
use adyton_language::{Language, LanguageLimits, Source};
use adyton_model::dense::DenseModel;
use adyton_vault::hidden::open_hidden;
use adyton_vault::{FileClaims, Header, Kek, Opener, Plaintext, model_binding};

use crate::EnclaveError;
use crate::fetch::{self, BlockingBody};
use crate::transport::Address;

/// A model that was proven to be the manifest's.
pub(crate) struct Served {
    pub(crate) description: Description,
    pub(crate) manifest_id: Digest,
    pub(crate) model: Model,
}

/// What a sealed file holds.
pub(crate) enum Model {
    Dense(Dense),
    Language(Arc<Language>),
}

/// A dense network with the names of its columns.
pub(crate) struct Dense {
    pub(crate) network: Network,
    pub(crate) feature_names: Vec<String>,
    pub(crate) labels: Vec<String>,
}

/// A sealed file whose header the key opens; its chunks are still to come.
pub(crate) struct Prepared {
    description: Description,
    opener: Opener,
    body: BlockingBody,
}

/// Shows that `kek` is the manifest's key: it opens the hidden description and the header of the sealed file.
pub(crate) async fn prepare(
    files: &Address,
    manifest: &VerifiedManifest,
    kek: Kek,
) -> Result<Prepared, EnclaveError> {
    let [file] = manifest.manifest().files.as_slice() else {
        return Err(EnclaveError::Unservable("a model has exactly one file"));
    };
    let description = describe(&kek, manifest.manifest())?;
    let mut body = fetch::sealed_file(files, &file.file_id).await?;
    let manifest = manifest.manifest().clone();
    let opened = tokio::task::spawn_blocking(move || {
        let file = &manifest.files[0];
        let claims = FileClaims {
            file_id: file.file_id,
            plaintext_len: file.plaintext_len,
            plaintext_root: file.plaintext_root,
            fixed_header_hash: file.fixed_header_hash,
            owner_id: description.owner_id.as_bytes(),
            model_name: &description.model_name,
            counter: manifest.counter,
        };
        let header = Header::read(&mut body).map_err(adyton_vault::OpenError::from)?;
        let opener = Opener::new(&header, &kek, &claims)?;
        Ok(Prepared { description, opener, body })
    });
    opened.await.map_err(io::Error::other)?
}

fn describe(kek: &Kek, manifest: &Manifest) -> Result<Description, EnclaveError> {
    let hidden = open_hidden(kek, &manifest.model_binding, &manifest.hidden)?;
    let description = Description::decode(&hidden)
        .map_err(|_| EnclaveError::Unservable("its hidden description is malformed"))?;
    let binding = model_binding(description.owner_id.as_bytes(), &description.model_name, manifest.counter);
    if binding == manifest.model_binding {
        Ok(description)
    } else {
        Err(EnclaveError::Unservable("its hidden description is another model's"))
    }
}

impl Prepared {
    /// Decrypts and verifies every chunk, then builds the model; the plaintext file is wiped as it is taken, and all of
    /// it before this returns.
    pub(crate) async fn load(
        mut self,
        manifest_id: Digest,
        limits: LanguageLimits,
    ) -> Result<Served, EnclaveError> {
        let loaded = tokio::task::spawn_blocking(move || {
            let plaintext = self.opener.open_stream(&mut self.body, None, &mut |_| ())?;
            tracing::info!(
                bytes = plaintext.len(),
                locked = plaintext.is_locked(),
                "sealed model opened and verified"
            );
            let file = Opened(plaintext);
            let model = if file.begins_with(adyton_language::MAGIC) {
                Model::Language(Arc::new(Language::load(&file, file.0.len(), limits)?))
            } else {
                Model::Dense(Dense::load(&file.0.expose_all()?)?)
            };
            Ok(Served { description: self.description, manifest_id, model })
        });
        loaded.await.map_err(io::Error::other)?
    }
}

/// A file that goes away as a model is built from it.
struct Opened(Plaintext);

impl Opened {
    fn begins_with(&self, magic: &[u8; 4]) -> bool {
        let mut begin = [0; 4];
        self.read(0, &mut begin).is_ok() && begin == *magic
    }
}

impl Source for Opened {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.expose_at(offset, out)
    }

    fn done(&self, range: Range<u64>) {
        self.0.take(range);
    }
}

impl Dense {
    fn load(file: &[u8]) -> Result<Self, EnclaveError> {
        let model = DenseModel::from_bytes(file)?;
        let network = Network::new(&model)?;
        let names = model.names();
        Ok(Self { network, feature_names: names.features.clone(), labels: names.labels.clone() })
    }
}
