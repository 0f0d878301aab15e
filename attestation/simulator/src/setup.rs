//! Set-up: a root, an intermediate and one chip, made once and kept in a directory.
//!
//! Each file is made from the ones before it and appears whole or not at all, so a set-up that was cut off is
//! finished by the next one, and a complete one is never overwritten: guests and verifiers already rely on it.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use adyton_attestation::{Product, TcbVersion, Time};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RsaKeyPair};
use zeroize::Zeroizing;

use crate::cert::{self, Template, Validity};
use crate::error::SimulatorError;

/// The file that verifiers name: the root certificate, DER.
pub const ROOT_FILE: &str = "root.der";
pub(crate) const INTERMEDIATE_FILE: &str = "ask.der";
pub(crate) const CHIP_CERTIFICATE_FILE: &str = "vcek.der";
pub(crate) const REVOCATION_LIST_FILE: &str = "crl.der";
pub(crate) const CHIP_ID_FILE: &str = "chip-id.bin";
pub(crate) const CHIP_KEY_FILE: &str = "vcek.key";
const ROOT_KEY_FILE: &str = "ark.key";
const INTERMEDIATE_KEY_FILE: &str = "ask.key";

const ROOT_NAME: &str = "ARK-Genoa";
const INTERMEDIATE_NAME: &str = "SEV-Genoa";

/// As long as AMD's VCEKs; a day back, so that a verifier's clock may run a little slow.
const LIFETIME_S: u64 = 7 * 365 * 86_400;
const BACKDATING_S: u64 = 86_400;

/// The TCB of the simulated chip: what the default policies ask of a Genoa B1.
pub(crate) const TCB: TcbVersion = TcbVersion { fmc: None, bootloader: 10, tee: 0, snp: 27, microcode: 86 };
pub(crate) const PRODUCT: Product = Product::Genoa;

/// What a set-up found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Setup {
    /// The directory held nothing, or the beginnings of a root; it is complete now.
    Made,
    /// The directory held a complete root, which is unchanged.
    AlreadyComplete,
}

/// Makes the keys and certificates of a simulator in `dir`, valid from `now` on for seven years.
///
/// # Errors
/// [`SimulatorError::File`] if the directory cannot be written, [`SimulatorError::KeyLost`] if a certificate is
/// there without its key, [`SimulatorError::KeyFile`] if a key file is damaged.
pub fn setup(dir: &Path, now: Time) -> Result<Setup, SimulatorError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| SimulatorError::File { path: dir.to_owned(), source })?;
    let mut store = Store { dir, wrote: false };
    let validity = Validity {
        not_before: Time::from_unix_seconds(now.as_unix_seconds().saturating_sub(BACKDATING_S)),
        not_after: Time::from_unix_seconds(now.as_unix_seconds().saturating_add(LIFETIME_S)),
    };
    let root_key = rsa_key(&mut store, ROOT_KEY_FILE, &[ROOT_FILE, INTERMEDIATE_FILE, REVOCATION_LIST_FILE])?;
    let root = Template::authority(1, ROOT_NAME, &root_key, validity);
    store.ensure(ROOT_FILE, || root.issue(&root, &root_key))?;
    let intermediate_key =
        rsa_key(&mut store, INTERMEDIATE_KEY_FILE, &[INTERMEDIATE_FILE, CHIP_CERTIFICATE_FILE])?;
    let intermediate = Template::authority(2, INTERMEDIATE_NAME, &intermediate_key, validity);
    store.ensure(INTERMEDIATE_FILE, || intermediate.issue(&root, &root_key))?;
    store.ensure(REVOCATION_LIST_FILE, || cert::revocation_list(&root, &root_key, validity, &[]))?;
    let chip_id = store.ensure(CHIP_ID_FILE, || {
        let mut chip_id = vec![0; 64];
        SystemRandom::new().fill(&mut chip_id).map_err(|_| SimulatorError::Crypto("draw a chip id"))?;
        Ok(chip_id)
    })?;
    let chip_id: [u8; 64] =
        chip_id.as_slice().try_into().map_err(|_| SimulatorError::KeyFile(dir.join(CHIP_ID_FILE)))?;
    let chip_key = chip_key(&mut store)?;
    store.ensure(CHIP_CERTIFICATE_FILE, || {
        let extensions = cert::chip_extensions(TCB, &chip_id, PRODUCT);
        let chip = Template::chip(chip_key.public_key().as_ref(), extensions, validity);
        chip.issue(&intermediate, &intermediate_key)
    })?;
    Ok(if store.wrote { Setup::Made } else { Setup::AlreadyComplete })
}

/// The RSA-4096 key in `file`, made if absent and if nothing was signed or issued with it yet.
fn rsa_key(store: &mut Store<'_>, file: &str, dependants: &[&str]) -> Result<RsaKeyPair, SimulatorError> {
    store.refuse_lost_key(file, dependants)?;
    let pkcs8 = store.ensure(file, || {
        let failed = |_| SimulatorError::Crypto("make an RSA-4096 key");
        let key = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa4096).map_err(failed)?;
        let pkcs8: Pkcs8V1Der<'_> = key.as_der().map_err(failed)?;
        Ok(pkcs8.as_ref().to_vec())
    })?;
    RsaKeyPair::from_pkcs8(&pkcs8).map_err(|_| SimulatorError::KeyFile(store.dir.join(file)))
}

/// The P-384 key of the chip, made if absent.
fn chip_key(store: &mut Store<'_>) -> Result<EcdsaKeyPair, SimulatorError> {
    store.refuse_lost_key(CHIP_KEY_FILE, &[CHIP_CERTIFICATE_FILE])?;
    let random = SystemRandom::new();
    let pkcs8 = store.ensure(CHIP_KEY_FILE, || {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random);
        let document = document.map_err(|_| SimulatorError::Crypto("make a P-384 key"))?;
        Ok(document.as_ref().to_vec())
    })?;
    load_chip_key(&pkcs8).ok_or_else(|| SimulatorError::KeyFile(store.dir.join(CHIP_KEY_FILE)))
}

pub(crate) fn load_chip_key(pkcs8: &[u8]) -> Option<EcdsaKeyPair> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, pkcs8, &SystemRandom::new()).ok()
}

/// Reads a file of a complete root; the buffer is wiped, since some of them are keys.
pub(crate) fn read(dir: &Path, file: &str) -> Result<Zeroizing<Vec<u8>>, SimulatorError> {
    let path = dir.join(file);
    match fs::read(&path) {
        Ok(bytes) => Ok(Zeroizing::new(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(SimulatorError::NotSetUp(path)),
        Err(source) => Err(SimulatorError::File { path, source }),
    }
}

/// The directory of a set-up.
struct Store<'a> {
    dir: &'a Path,
    wrote: bool,
}

impl Store<'_> {
    /// The bytes of `file`, made by `make` and written if the file is absent.
    fn ensure(
        &mut self,
        file: &str,
        make: impl FnOnce() -> Result<Vec<u8>, SimulatorError>,
    ) -> Result<Zeroizing<Vec<u8>>, SimulatorError> {
        if !self.dir.join(file).exists() {
            let bytes = Zeroizing::new(make()?);
            self.wrote |= self.write(file, &bytes)?;
        }
        // Read back, so that of two set-ups at once both go on with the one that came first.
        read(self.dir, file)
    }

    /// A new key beside an old certificate would make a chain that never verifies.
    fn refuse_lost_key(&self, key: &str, dependants: &[&str]) -> Result<(), SimulatorError> {
        if self.dir.join(key).exists() {
            return Ok(());
        }
        match dependants.iter().map(|file| self.dir.join(file)).find(|path| path.exists()) {
            Some(path) => Err(SimulatorError::KeyLost(path)),
            None => Ok(()),
        }
    }

    /// Writes beside, syncs, and links into place: the file appears whole, and never over another. False if
    /// another set-up was first.
    fn write(&self, file: &str, bytes: &[u8]) -> Result<bool, SimulatorError> {
        let temporary: PathBuf = self.dir.join(format!(".{file}.{}", std::process::id()));
        let target = self.dir.join(file);
        let written =
            write_private(&temporary, bytes).and_then(|()| match fs::hard_link(&temporary, &target) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
                linked => linked.map(|()| true),
            });
        let removed = fs::remove_file(&temporary);
        written
            .and_then(|first| removed.map(|()| first))
            .map_err(|source| SimulatorError::File { path: target, source })
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // A leftover of a set-up that was cut off and had this process id.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
