//! The life of an enclave: keys, manifest, port, model, lease, end.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use adyton_attestation::commit::{Digest, ReportData};
use adyton_attestation::manifest::VerifiedManifest;
use adyton_attestation::session::keyset_commitment;
use adyton_attestation::{Evidence, Platform, SIMULATED_NOTICE};
use adyton_attester::Attester;
use adyton_channel::TlsIdentity;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::document::{LaunchDocument, Release};
use crate::keys::{KEYSET_LIFE_S, Keys};
use crate::lease::Lease;
use crate::load::{Model, Served};
use crate::release::{Opened, pull};
use crate::{EnclaveError, fetch, serve, version};

/// Keys are drawn again this long before the old ones end.
const KEY_MARGIN: Duration = Duration::from_secs(3600);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What an embedder may decide; nothing here weakens a check.
#[derive(Default)]
pub struct Options {
    /// The TLS key to use instead of a drawn one. A test that plays a thief of this key needs it; a drawn key never
    /// leaves the enclave.
    pub tls: Option<TlsIdentity>,
}

/// An enclave that is about to run.
pub struct Enclave {
    document: LaunchDocument,
    config_digest: Digest,
    attester: Arc<dyn Attester>,
    options: Options,
}

/// One generation of keys and all that hangs on it, shared by its connections.
pub(crate) struct Shared {
    pub(crate) document: LaunchDocument,
    pub(crate) config_digest: Digest,
    pub(crate) keys: Keys,
    pub(crate) manifest: VerifiedManifest,
    pub(crate) simulated: bool,
    pub(crate) parallel: Semaphore,
    /// One permit for each byte of request that may be held.
    pub(crate) buffered: Semaphore,
    pub(crate) keyset_evidence: Vec<u8>,
    attester: Arc<dyn Attester>,
    admission: RwLock<Vec<u8>>,
    model: RwLock<Option<Arc<Served>>>,
    lease: Lease,
}

impl Enclave {
    /// Reads the launch document; `attester` is the platform's.
    ///
    /// # Errors
    /// [`EnclaveError::Document`].
    pub fn new(document: &[u8], attester: Arc<dyn Attester>, options: Options) -> Result<Self, EnclaveError> {
        let (document, config_digest) = LaunchDocument::parse(document)?;
        Ok(Self { document, config_digest, attester, options })
    }

    /// Runs until `stop`; keys are drawn anew before they end.
    ///
    /// # Errors
    /// [`EnclaveError`] for what waiting cannot mend: a wrong launch, a taken address, a manifest that is not the
    /// owner's.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), EnclaveError> {
        let address = self.document.listen.clone();
        let listener = address
            .listen()
            .await
            .map_err(|source| EnclaveError::Listen { address: address.to_string(), source })?;
        for epoch in 1.. {
            let Some(manifest) = self.manifest(&stop).await? else { return Ok(()) };
            let shared = Arc::new(self.generation(epoch, manifest).await?);
            if shared.simulated {
                tracing::warn!("{SIMULATED_NOTICE}");
            }
            tracing::info!(keyset = %hex::encode(shared.keys.keyset_id), epoch, "keys drawn, own evidence in order");
            let over = stop.child_token();
            let life = Duration::from_secs(KEYSET_LIFE_S) - KEY_MARGIN;
            let releasing = tokio::spawn(shared.clone().keep_released(over.clone()));
            tokio::select! {
                ended = serve::run(&listener, shared.clone(), over.clone()) => ended?,
                () = tokio::time::sleep(life) => (),
            }
            over.cancel();
            // It only waits on timers and on the token, so it ends at once.
            let _ = releasing.await;
            if stop.is_cancelled() {
                shared.wipe("the enclave stops");
                return Ok(());
            }
            shared.wipe("the keys of this generation ended");
        }
        Ok(())
    }

    /// Fetches and verifies the manifest, waiting for a host that does not have it yet.
    async fn manifest(&self, stop: &CancellationToken) -> Result<Option<VerifiedManifest>, EnclaveError> {
        let mut pause = FIRST_PAUSE;
        loop {
            match fetch::manifest(&self.document.files).await {
                Ok(bytes) => {
                    let manifest = VerifiedManifest::verify(&self.document.owner_root, &bytes)?;
                    version::at_least(env!("CARGO_PKG_VERSION"), &manifest.manifest().minimum_enclave)?;
                    return Ok(Some(manifest));
                }
                Err(error) => tracing::warn!("waiting for the manifest: {error}"),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = stop.cancelled() => return Ok(None),
            }
        }
    }

    async fn generation(&mut self, epoch: u64, manifest: VerifiedManifest) -> Result<Shared, EnclaveError> {
        let tls = match self.options.tls.take() {
            Some(identity) => identity,
            None => TlsIdentity::generate()?,
        };
        let keys = Keys::draw(&self.document.service_id, self.config_digest, *manifest.id(), epoch, tls)?;
        let report_data = keyset_commitment(&keys.keyset_bytes, &keys.boot_nonce);
        let mut shared = Shared {
            document: self.document.clone(),
            config_digest: self.config_digest,
            keys,
            manifest,
            simulated: self.attester.platform() == Platform::Simulated,
            parallel: Semaphore::new(self.document.limits.max_parallel),
            buffered: Semaphore::new(self.document.limits.max_buffered_bytes.min(Semaphore::MAX_PERMITS)),
            keyset_evidence: Vec::new(),
            attester: self.attester.clone(),
            admission: RwLock::default(),
            model: RwLock::default(),
            lease: Lease::default(),
        };
        shared.keyset_evidence = shared.attest(report_data).await?.0;
        Ok(shared)
    }
}

impl Shared {
    /// Evidence over `report_data` in wire form, and this machine's `H(platform id)`.
    pub(crate) async fn attest(&self, report_data: ReportData) -> Result<(Vec<u8>, Digest), EnclaveError> {
        let attester = self.attester.clone();
        let raw = tokio::task::spawn_blocking(move || attester.attest(&report_data))
            .await
            .map_err(std::io::Error::other)??;
        let evidence = match raw.platform {
            Platform::Simulated => Evidence::simulated_from_parts(&raw.report, &raw.certificate_table)?,
            // Collateral is not the platform's to give: verifiers bring their own.
            Platform::Tdx => Evidence::tdx_from_parts(&raw.report, &[])?,
            _ => Evidence::snp_from_parts(&raw.report, &raw.certificate_table)?,
        };
        evidence.inspect_own(&report_data, &self.config_digest)?;
        Ok((evidence.encode(), evidence.own_platform_id()))
    }

    /// The platform whose evidence is given.
    pub(crate) fn platform(&self) -> Platform {
        self.attester.platform()
    }

    /// The owner's admission; empty before there is one.
    pub(crate) fn admission(&self) -> Vec<u8> {
        self.admission.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The model, while the lease lasts.
    pub(crate) fn model(&self) -> Option<Arc<Served>> {
        self.lease.left()?;
        self.model.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes up a release: loads the model if it is not there, and begins or renews the lease.
    pub(crate) async fn install(&self, opened: Opened) -> Result<(), EnclaveError> {
        let Opened { prepared, admission, lease_s, since, .. } = opened;
        if self.model().is_none() {
            let served = prepared.load(*self.manifest.id(), self.document.language).await?;
            *self.model.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(served));
        }
        self.lease.renew(since, lease_s);
        *self.admission.write().unwrap_or_else(PoisonError::into_inner) = admission;
        tracing::info!(lease_s, "ready: the model is released to this enclave");
        Ok(())
    }

    fn wipe(&self, why: &str) {
        let model = self.model.write().unwrap_or_else(PoisonError::into_inner).take();
        self.admission.write().unwrap_or_else(PoisonError::into_inner).clear();
        if let Some(model) = model {
            // Answers on their way hold the model; they are broken off rather than waited for.
            if let Model::Language(language) = &model.model {
                language.end();
            }
            tracing::info!("model wiped: {why}");
        }
    }

    /// Gets the key from the broker and renews it at a third of the lease; wipes when a lease ends.
    async fn keep_released(self: Arc<Self>, over: CancellationToken) {
        tokio::select! {
            () = self.keep_pulling() => (),
            () = self.watch_lease() => (),
            () = over.cancelled() => (),
        }
    }

    async fn keep_pulling(&self) {
        let Release::Pull { broker, broker_spki } = &self.document.release else {
            return std::future::pending().await;
        };
        let mut pause = FIRST_PAUSE;
        loop {
            let released = async {
                let opened = pull(self, broker, broker_spki).await?;
                let lease_s = opened.lease_s;
                self.install(opened).await?;
                Ok::<_, EnclaveError>(lease_s)
            };
            let wait = match released.await {
                Ok(lease_s) => {
                    pause = FIRST_PAUSE;
                    Duration::from_secs((lease_s / 3).max(1))
                }
                Err(error) => {
                    tracing::warn!("no model key: {error}; trying again in {} ms", pause.as_millis());
                    let wait = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    wait
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn watch_lease(&self) {
        let mut held = false;
        loop {
            match self.lease.left() {
                Some(left) => {
                    held = true;
                    tokio::time::sleep_until((Instant::now() + left).into()).await;
                }
                None => {
                    if std::mem::take(&mut held) {
                        self.wipe("the lease ended and was not renewed");
                    }
                    tokio::time::sleep(FIRST_PAUSE).await;
                }
            }
        }
    }
}
