//! Reports through the kernel's configfs-tsm, `/sys/kernel/config/tsm/report` (Linux 6.7 and later).
//!
//! One interface for SNP (provider `sev_guest`) and TDX (provider `tdx_guest`), without a C library or an ioctl. Flow,
//! after Linux `Documentation/ABI/testing/configfs-tsm-report`:
//! 1. make a directory of our own; the kernel fills it with attributes;
//! 2. read `provider` and `generation`;
//! 3. write the report data to `inblob`, which adds one to `generation`;
//! 4. read `outblob` (the report or quote) and, where there is one, `auxblob` (the host's certificate table);
//! 5. read `generation` again: any other value than one more means that somebody else wrote to our entry, and what was
//!    read may be about other report data, so all is done again;
//! 6. remove the directory, in any case.
//!
//! The kernel reports some failures of `inblob` only by not counting it, which step 5 finds too.

use crate::{
    AttestError, Attester, MAX_CERTIFICATE_TABLE_LEN, MAX_REPORT_LEN, Platform, RawEvidence, read_capped,
};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where the kernel has it.
pub const DEFAULT_ROOT: &str = "/sys/kernel/config/tsm/report";
/// Times the whole flow is tried, and names for a directory are tried.
const ATTEMPTS: u32 = 5;
/// Wait before the next attempt, times the number of the attempt: 1.5 s in all. A host limits how often it signs.
const BACKOFF: Duration = Duration::from_millis(100);
/// Longest text attribute: a provider name or a number.
const MAX_TEXT_LEN: usize = 256;

/// Why configfs-tsm gave no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TsmError {
    /// There is no such interface.
    #[error("{0} does not exist: mount configfs, load the module `tsm`, or use Linux 6.7 or later")]
    Missing(PathBuf),
    /// The interface is there, but nothing behind it.
    #[error(
        "no report provider: this is no confidential VM, or the module sev-guest or tdx-guest is not loaded"
    )]
    NoProvider,
    /// A provider that this code does not know.
    #[error("unknown report provider {0:?}: known are sev_guest, tdx_guest and, in a test image, adyton_sim")]
    UnknownProvider(String),
    /// `generation` was not what one write makes of it, again and again.
    #[error(
        "reports were mixed up {ATTEMPTS} times: another process writes to the same report entry; stop it"
    )]
    GenerationRace,
    /// The platform stayed busy.
    #[error("the platform did not answer {ATTEMPTS} times: the host may limit how often it signs ({0})")]
    Busy(#[source] io::Error),
    /// An attribute does not hold what it should.
    #[error("attribute `{0}` does not hold what the kernel documents: update the guest kernel")]
    Malformed(&'static str),
    /// An attribute could not be read or written, or was too large.
    #[error("attribute `{attribute}`: {source}")]
    Io {
        /// Which attribute, or `entry` for the directory itself.
        attribute: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// The configfs-tsm interface of this machine.
#[derive(Debug)]
pub struct ConfigfsTsm {
    root: PathBuf,
    platform: Platform,
}

impl ConfigfsTsm {
    /// Looks whether there is a report provider under `root`, [`DEFAULT_ROOT`] on a real machine.
    ///
    /// # Errors
    /// [`TsmError`] with what is missing.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, TsmError> {
        let root = root.into();
        if !root.is_dir() {
            return Err(TsmError::Missing(root));
        }
        let platform = Entry::create(&root)?.platform()?;
        Ok(Self { root, platform })
    }

    /// The flow above, once.
    fn attest_once(&self, report_data: &[u8; 64]) -> Result<RawEvidence, Attempt> {
        let entry = Entry::create(&self.root).map_err(Attempt::Failed)?;
        let platform = entry.platform().map_err(Attempt::Failed)?;
        let before = entry.generation().map_err(Attempt::Failed)?;
        entry.write_inblob(report_data)?;
        let report = entry.read("outblob", MAX_REPORT_LEN)?;
        let certificate_table = match entry.read("auxblob", MAX_CERTIFICATE_TABLE_LEN) {
            // TDX has none, and then the kernel shows no such attribute.
            Err(Attempt::Failed(TsmError::Io { source, .. })) if source.kind() == io::ErrorKind::NotFound => {
                Vec::new()
            }
            other => other?,
        };
        if entry.generation().map_err(Attempt::Failed)? != before.wrapping_add(1) {
            return Err(Attempt::Again(TsmError::GenerationRace));
        }
        Ok(RawEvidence { platform, report, certificate_table })
    }
}

impl Attester for ConfigfsTsm {
    fn attest(&self, report_data: &[u8; 64]) -> Result<RawEvidence, AttestError> {
        let mut attempt = 1;
        loop {
            match self.attest_once(report_data) {
                Ok(evidence) => return evidence.expect_report_data(report_data),
                Err(Attempt::Again(_)) if attempt < ATTEMPTS => {
                    std::thread::sleep(BACKOFF * attempt);
                    attempt += 1;
                }
                Err(Attempt::Again(error) | Attempt::Failed(error)) => return Err(error.into()),
            }
        }
    }

    fn name(&self) -> &'static str {
        "configfs-tsm"
    }

    fn platform(&self) -> Platform {
        self.platform
    }
}

/// What one attempt came to, if not to a report.
#[derive(Debug)]
enum Attempt {
    /// Worth another try.
    Again(TsmError),
    /// Not worth one.
    Failed(TsmError),
}

impl Attempt {
    /// Sorts an error of reading or writing `attribute`.
    fn from_io(attribute: &'static str, source: io::Error) -> Self {
        match source.kind() {
            // EBUSY; EAGAIN, which the kernel also gives for a generation that changes while it reads; EINTR; a quote
            // that took too long.
            io::ErrorKind::ResourceBusy
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut => Self::Again(TsmError::Busy(source)),
            _ => Self::Failed(TsmError::Io { attribute, source }),
        }
    }
}

/// A report entry of our own; the directory is removed when dropped.
struct Entry(PathBuf);

impl Entry {
    /// Makes a directory under a name nobody uses.
    fn create(root: &Path) -> Result<Self, TsmError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..ATTEMPTS {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = root.join(format!("adyton-{}-{number}", std::process::id()));
            match create_entry(&path) {
                Ok(()) => return Ok(Self(path)),
                // Left behind by a process of the same number that was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                // The kernel's answer when no driver has registered as provider.
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Err(TsmError::NoProvider),
                Err(source) => return Err(TsmError::Io { attribute: "entry", source }),
            }
        }
        Err(TsmError::Io { attribute: "entry", source: last })
    }

    fn read(&self, attribute: &'static str, cap: usize) -> Result<Vec<u8>, Attempt> {
        File::open(self.0.join(attribute))
            .and_then(|file| read_capped(file, cap))
            .map_err(|error| Attempt::from_io(attribute, error))
    }

    fn text(&self, attribute: &'static str) -> Result<String, TsmError> {
        let bytes =
            self.read(attribute, MAX_TEXT_LEN).map_err(|(Attempt::Again(e) | Attempt::Failed(e))| e)?;
        let text = String::from_utf8(bytes).map_err(|_| TsmError::Malformed(attribute))?;
        Ok(text.trim().to_owned())
    }

    fn platform(&self) -> Result<Platform, TsmError> {
        match self.text("provider")?.as_str() {
            "sev_guest" => Ok(Platform::SevSnp),
            "tdx_guest" => Ok(Platform::Tdx),
            // The kernel of a test image: what it gives says of itself that it is simulated, and is treated so.
            "adyton_sim" => Ok(Platform::Simulated),
            "" => Err(TsmError::NoProvider),
            other => Err(TsmError::UnknownProvider(other.to_owned())),
        }
    }

    fn generation(&self) -> Result<u64, TsmError> {
        self.text("generation")?.parse().map_err(|_| TsmError::Malformed("generation"))
    }

    /// Writes the report data in one piece; the kernel takes it over when the file is closed.
    fn write_inblob(&self, report_data: &[u8; 64]) -> Result<(), Attempt> {
        OpenOptions::new()
            .write(true)
            .open(self.0.join("inblob"))
            .and_then(|mut file| file.write_all(report_data))
            .map_err(|error| Attempt::from_io("inblob", error))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // Nothing else can be done about an entry that cannot be removed; it costs the kernel some memory.
        let _ = remove_entry(&self.0);
    }
}

#[cfg(not(test))]
use fs::{create_dir as create_entry, remove_dir as remove_entry};
// In configfs the attributes come and go with their directory; in the tests' tree a thread makes them.
#[cfg(test)]
use {fs::remove_dir_all as remove_entry, tests::create_entry};

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use std::thread;
    use std::time::Instant;

    /// What the fake kernel does with the next entries, and what it saw.
    #[derive(Clone)]
    struct Fake {
        provider: &'static str,
        /// Added to `generation` by a write to `inblob`; one for each report, the last one for all further ones.
        steps: Vec<u64>,
        outblob: Outblob,
        auxblob: Option<Vec<u8>>,
    }

    #[derive(Clone, Copy)]
    enum Outblob {
        /// An SNP report over the report data given.
        Snp,
        /// A TDX quote over it.
        Tdx,
        /// A report over other report data.
        Stale,
        /// More than the cap.
        Oversized,
    }

    impl Default for Fake {
        fn default() -> Self {
            Self {
                provider: "sev_guest\n",
                steps: vec![1],
                outblob: Outblob::Snp,
                auxblob: Some(vec![7; 4096]),
            }
        }
    }

    /// A directory in which a thread plays the kernel. Returns it with the count of entries that were made.
    ///
    /// `outblob` is a FIFO, so that reading it waits for the kernel, as on a real machine.
    fn tree(fake: Fake) -> (tempfile::TempDir, Arc<Mutex<usize>>) {
        let directory = tempfile::tempdir().unwrap();
        let (root, entries) = (directory.path().to_path_buf(), Arc::new(Mutex::new(0)));
        let counted = Arc::clone(&entries);
        thread::spawn(move || {
            let mut known = std::collections::HashSet::new();
            // Ends when the test removes the directory.
            while let Ok(listing) = fs::read_dir(&root) {
                for entry in listing.flatten().map(|entry| entry.path()) {
                    if known.insert(entry.clone()) {
                        let number = {
                            let mut count = counted.lock().unwrap();
                            *count += 1;
                            *count - 1
                        };
                        populate(&entry, &fake);
                        let fake = fake.clone();
                        thread::spawn(move || serve(&entry, &fake, number));
                    }
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        (directory, entries)
    }

    fn populate(entry: &Path, fake: &Fake) {
        fs::write(entry.join("provider"), fake.provider).unwrap();
        fs::write(entry.join("inblob"), []).unwrap();
        if let Some(auxblob) = &fake.auxblob {
            fs::write(entry.join("auxblob"), auxblob).unwrap();
        }
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, entry.join("outblob"), fifo, 0o600.into(), 0).unwrap();
        fs::write(entry.join("generation.new"), "41\n").unwrap();
        fs::rename(entry.join("generation.new"), entry.join("generation")).unwrap();
    }

    /// Answers one report, if it is ever asked for. The first entry is the one that [`ConfigfsTsm::open`] makes.
    fn serve(entry: &Path, fake: &Fake, number: usize) {
        let Ok(mut outblob) = OpenOptions::new().write(true).open(entry.join("outblob")) else { return };
        let inblob: [u8; 64] = fs::read(entry.join("inblob")).unwrap().try_into().unwrap();
        let step = fake.steps.get(number - 1).or(fake.steps.last()).unwrap();
        fs::write(entry.join("generation"), format!("{}\n", 41 + step)).unwrap();
        let (mut report, at) = match fake.outblob {
            Outblob::Snp | Outblob::Stale => (vec![0; crate::SNP_REPORT_LEN], 0x50),
            Outblob::Tdx => (vec![4; 5000], 568),
            Outblob::Oversized => (vec![0; MAX_REPORT_LEN + 1], 0x50),
        };
        if !matches!(fake.outblob, Outblob::Stale) {
            report[at..at + 64].copy_from_slice(&inblob);
        }
        // The reader may have hung up at its cap.
        let _ = outblob.write_all(&report);
    }

    /// Makes the directory and waits until the fake kernel has filled it, which the real one does at once.
    pub(super) fn create_entry(path: &Path) -> io::Result<()> {
        fs::create_dir(path)?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while !path.join("generation").exists() {
            assert!(Instant::now() < deadline, "the fake kernel did not fill {}", path.display());
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn attest(fake: Fake) -> (Result<RawEvidence, AttestError>, usize, tempfile::TempDir) {
        let (root, entries) = tree(fake);
        let attester = ConfigfsTsm::open(root.path()).unwrap();
        let result = attester.attest(&[0x5a; 64]);
        let entries = *entries.lock().unwrap();
        (result, entries, root)
    }

    #[test]
    fn snp_report_comes_with_its_certificate_table() {
        let (result, entries, root) = attest(Fake::default());
        let evidence = result.unwrap();
        assert_eq!(evidence.platform, Platform::SevSnp);
        assert_eq!(evidence.report.len(), crate::SNP_REPORT_LEN);
        assert_eq!(evidence.report[0x50..0x90], [0x5a; 64]);
        assert_eq!(evidence.certificate_table, [7; 4096]);
        assert_eq!(entries, 2, "one to look, one for the report");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "entries are removed");
    }

    #[test]
    fn tdx_quote_needs_no_auxblob() {
        let fake = Fake { provider: "tdx_guest\n", outblob: Outblob::Tdx, auxblob: None, ..Fake::default() };
        let evidence = attest(fake).0.unwrap();
        assert_eq!(evidence.platform, Platform::Tdx);
        assert_eq!((evidence.report.len(), evidence.certificate_table.len()), (5000, 0));
    }

    #[test]
    fn a_lost_race_is_run_again() {
        let (result, entries, _root) = attest(Fake { steps: vec![2, 0, 1], ..Fake::default() });
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(entries, 1 + 3);
    }

    #[test]
    fn a_race_lost_every_time_is_an_error() {
        let (result, entries, root) = attest(Fake { steps: vec![2], ..Fake::default() });
        assert!(matches!(result, Err(AttestError::Tsm(TsmError::GenerationRace))), "{result:?}");
        assert_eq!(entries, 1 + ATTEMPTS as usize);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "entries are removed");
    }

    #[test]
    fn a_write_that_was_not_counted_is_an_error() {
        let (result, ..) = attest(Fake { steps: vec![0], ..Fake::default() });
        assert!(matches!(result, Err(AttestError::Tsm(TsmError::GenerationRace))), "{result:?}");
    }

    #[test]
    fn a_report_over_other_data_is_an_error() {
        let (result, ..) = attest(Fake { outblob: Outblob::Stale, ..Fake::default() });
        assert!(matches!(result, Err(AttestError::OtherReportData)), "{result:?}");
    }

    #[test]
    fn oversized_blobs_are_refused() {
        let (result, ..) = attest(Fake { outblob: Outblob::Oversized, ..Fake::default() });
        let named = |result: &Result<_, AttestError>, name| matches!(result, Err(AttestError::Tsm(TsmError::Io { attribute, .. })) if *attribute == name);
        assert!(named(&result, "outblob"), "{result:?}");
        let auxblob = Some(vec![1; MAX_CERTIFICATE_TABLE_LEN + 1]);
        let (result, ..) = attest(Fake { auxblob, ..Fake::default() });
        assert!(named(&result, "auxblob"), "{result:?}");
    }

    #[test]
    fn providers_are_known_or_refused() {
        let open = |provider| ConfigfsTsm::open(tree(Fake { provider, ..Fake::default() }).0.path()).err();
        assert!(matches!(open(""), Some(TsmError::NoProvider)));
        let simulated = tree(Fake { provider: "adyton_sim\n", ..Fake::default() }).0;
        let simulated = ConfigfsTsm::open(simulated.path()).unwrap();
        assert_eq!(simulated.platform(), Platform::Simulated, "never taken for hardware");
        assert!(
            matches!(open("arm_cca_guest\n"), Some(TsmError::UnknownProvider(name)) if name == "arm_cca_guest")
        );
        assert!(matches!(open("\u{fffd}"), Some(TsmError::UnknownProvider(_))));
        assert!(matches!(ConfigfsTsm::open("/nowhere/tsm"), Err(TsmError::Missing(_))));
    }

    #[test]
    fn only_passing_troubles_are_tried_again() {
        let sorted = |errno| Attempt::from_io("outblob", io::Error::from_raw_os_error(errno));
        for errno in [libc::EBUSY, libc::EAGAIN, libc::EINTR, libc::ETIMEDOUT] {
            assert!(matches!(sorted(errno), Attempt::Again(TsmError::Busy(_))), "errno {errno}");
        }
        for errno in [libc::EIO, libc::ENXIO, libc::EINVAL, libc::EACCES, libc::ENOENT] {
            assert!(matches!(sorted(errno), Attempt::Failed(TsmError::Io { .. })), "errno {errno}");
        }
    }
}
