//! Sealing that cannot succeed: full disks, changing inputs, failing outputs. Nothing is left under the final name.
#![allow(clippy::disallowed_methods, reason = "tests read files and the clock")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

use adyton_vault::chunk::CHUNK_LEN;
use adyton_vault::{Kek, SealError, SealParams, Suite, seal_file, seal_stream};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;

fn with_params<R>(f: impl FnOnce(&SealParams<'_>) -> R) -> R {
    let kek = Kek::from_bytes(&mut [1; 32]);
    f(&SealParams {
        kek: &kek,
        owner_id: b"owner",
        model_name: "model",
        counter: 7,
        suite: Suite::Aes256Gcm,
        recipients: &[],
        threads: None,
    })
}

fn seal(input: &mut (dyn Read + Send), len: u64, output: &mut (dyn Write + Send)) -> Result<(), SealError> {
    with_params(|params| seal_stream(input, len, output, params, &mut |_| {}).map(|_| ()))
}

/// Says how much space is needed, whatever the wording around it.
fn assert_no_space(result: Result<(), SealError>, len: u64) {
    match result {
        Err(error @ SealError::NoSpace { sealed_len, .. }) => {
            assert_eq!(sealed_len, 188 + len.div_ceil(CHUNK_LEN as u64) * (CHUNK_LEN as u64 + 16));
            assert!(error.to_string().contains("free space"), "{error}");
        }
        other => panic!("expected NoSpace, got {other:?}"),
    }
}

#[test]
fn a_full_device_is_named() {
    let Ok(mut full) = OpenOptions::new().write(true).open("/dev/full") else {
        eprintln!("skipped: no /dev/full here");
        return;
    };
    let len = 3 * CHUNK_LEN as u64;
    assert_no_space(seal(&mut io::repeat(1).take(len), len, &mut full), len);
}

const SMALL_DISK: &str = "ADYTON_TEST_SMALL_DISK";

/// The same test runs twice: outside, it starts itself in a mount namespace; inside, it seals to a 3 MiB file system.
#[test]
fn a_full_disk_leaves_nothing_behind() {
    if let Some(disk) = std::env::var_os(SMALL_DISK) {
        return seal_to_small_disk(Path::new(&disk));
    }
    let directory = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=3m tmpfs "$ADYTON_TEST_SMALL_DISK" || exit 77
                    exec "$0" --exact a_full_disk_leaves_nothing_behind --nocapture"#;
    let inside = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(SMALL_DISK, directory.path())
        .output();
    match inside {
        Ok(output) if output.status.success() => {}
        Ok(output) if String::from_utf8_lossy(&output.stdout).contains("running 1 test") => {
            panic!(
                "inside: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )
        }
        _ => eprintln!("skipped: cannot mount a small file system here (needs unshare and user namespaces)"),
    }
}

fn seal_to_small_disk(disk: &Path) {
    let len = 8 * CHUNK_LEN as u64;
    let input = tempfile::NamedTempFile::new().unwrap();
    input.as_file().set_len(len).unwrap();
    let output = disk.join("sealed");
    fs::write(&output, b"old").unwrap();
    let result = with_params(|params| seal_file(input.path(), &output, params, &mut |_| {}).map(|_| ()));
    assert_no_space(result, len);
    assert_eq!(fs::read(&output).unwrap(), b"old", "the older file is untouched");
    assert_eq!(fs::read_dir(disk).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn inputs_that_are_shorter_or_longer_are_refused() {
    for (len, said) in [(0u64, 1u64), (5, 6), (6, 5), (1, 0), (CHUNK_LEN as u64, CHUNK_LEN as u64 * 2)] {
        let result = seal(&mut io::repeat(1).take(len), said, &mut io::sink());
        assert!(
            matches!(result, Err(SealError::LengthChanged { expected_bytes }) if expected_bytes == said),
            "{len} bytes, said {said}: {result:?}"
        );
    }
    assert!(matches!(seal(&mut io::empty(), u64::MAX, &mut io::sink()), Err(SealError::TooLong(_))));
}

struct FailAfter(usize);

impl Write for FailAfter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or_else(|| io::Error::other("cable pulled"))?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_failing_output_ends_all_workers() {
    let len = 9 * CHUNK_LEN as u64;
    for after in [0, 200, CHUNK_LEN, 4 * CHUNK_LEN] {
        let result = seal(&mut io::repeat(1).take(len), len, &mut FailAfter(after));
        assert!(matches!(result, Err(SealError::Write(_))), "after {after}: {result:?}");
    }
}

#[test]
fn a_panicking_output_does_not_hang_the_others() {
    /// Takes the header, then panics, so that nobody's turn to write comes any more.
    struct Panicking(bool);
    impl Write for Panicking {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            assert!(!std::mem::replace(&mut self.0, true), "on purpose");
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let len = 9 * CHUNK_LEN as u64;
    let sealing = std::panic::AssertUnwindSafe(|| {
        with_params(|params| {
            let params = SealParams { threads: NonZeroUsize::new(3), ..*params };
            seal_stream(&mut io::repeat(1).take(len), len, &mut Panicking(false), &params, &mut |_| {})
        })
    });
    assert!(std::panic::catch_unwind(sealing).is_err());
}

#[test]
fn missing_inputs_and_directories_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("in"), directory.path().join("no/such/out"));
    let run = || with_params(|params| seal_file(&input, &output, params, &mut |_| {}).map(|_| ()));
    assert!(matches!(run(), Err(SealError::Read(_))));
    File::create(&input).unwrap();
    assert!(matches!(run(), Err(SealError::Write(_))));
}
