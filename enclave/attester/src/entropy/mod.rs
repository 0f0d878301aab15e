//! Randomness before the first key: more than one source, and none of them the host's.
//!
//! The kernel's generator already mixes what it finds, but says nobody how much of it came from where, and in a guest
//! most of what it finds (interrupts, devices) is the host's doing. So before any key is drawn:
//! 1. the processor's own generator is asked (`RDRAND`, and `RDSEED` where there is one), which a hypervisor of a
//!    confidential guest neither sees nor replaces, and its answers must not repeat;
//! 2. the time that the same small work takes is sampled, [`JITTER_SAMPLES`] times;
//! 3. both are mixed into the kernel's pool, which only ever adds;
//! 4. the kernel is waited for until it has gathered enough itself (the command line says that it may not count the
//!    processor as enough), and its generator is keyed anew from the pool at once.

#[allow(unsafe_code, reason = "the instructions")]
mod cpu;
#[allow(unsafe_code, reason = "the ioctl")]
mod pool;

use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Where the kernel takes randomness; reading waits until it has enough.
pub const POOL: &str = "/dev/random";
/// Words asked from each of the processor's generators: 512 bits.
const WORDS: usize = 8;
/// A sample holds perhaps a bit; these are many times what a key needs.
const JITTER_SAMPLES: usize = 4096;
/// How often they are taken, at most.
const JITTER_ATTEMPTS: usize = 32;

/// Why there is not enough randomness to draw a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntropyError {
    /// The processor has no generator, or it gives up.
    #[error("this processor gives no random numbers (RDRAND): a guest without them draws no keys")]
    NoProcessor,
    /// The processor repeats itself.
    #[error("the processor's random numbers repeat: its generator is broken, and no key is drawn")]
    Repeats,
    /// The clock stands still.
    #[error("time does not pass unevenly on this machine: nothing to be gained from it")]
    NoJitter,
    /// The kernel does not take what was gathered.
    #[error("the kernel's random pool: {0}")]
    Pool(#[from] io::Error),
}

/// Gathers from the sources above and hands all of it to the kernel's pool at `pool`.
///
/// # Errors
/// [`EntropyError`]; no key may be drawn then.
pub fn seed_kernel(pool: &Path) -> Result<(), EntropyError> {
    let mut gathered = processor(cpu::rdrand)?;
    // Older and emulated processors have only the first of the two, which is the one that is asked for.
    if cpu::has_rdseed() {
        gathered.extend(processor(cpu::rdseed)?);
    }
    gathered.extend(jitter()?);
    let mut device = OpenOptions::new().read(true).write(true).open(pool)?;
    device.write_all(&gathered)?;
    // What comes is thrown away.
    let _ = device.read(&mut [0])?;
    pool::reseed(&device)?;
    Ok(())
}

/// Words of one generator; two of the same among so few do not happen by chance (1 in 2^59).
fn processor(next: impl Fn() -> Option<u64>) -> Result<Vec<u8>, EntropyError> {
    let mut words = Vec::with_capacity(WORDS);
    for _ in 0..WORDS {
        let word = next().ok_or(EntropyError::NoProcessor)?;
        if words.contains(&word) {
            return Err(EntropyError::Repeats);
        }
        words.push(word);
    }
    Ok(words.iter().flat_map(|word| word.to_le_bytes()).collect())
}

/// Samples that are uneven enough. A fast processor in a quiet moment shows few values; it is asked again a little later, and
/// each time judged alike.
fn jitter() -> Result<Vec<u8>, EntropyError> {
    for _ in 1..JITTER_ATTEMPTS {
        let samples = intervals();
        if uneven(&samples).is_ok() {
            return Ok(samples);
        }
        sleep(Duration::from_millis(1));
    }
    let samples = intervals();
    uneven(&samples)?;
    Ok(samples)
}

/// How long the same work took, each time: the low bits differ by caches, pipelines and whatever else runs.
fn intervals() -> Vec<u8> {
    let mut samples = Vec::with_capacity(JITTER_SAMPLES);
    let mut work = 0u64;
    let mut last = Instant::now();
    for _ in 0..JITTER_SAMPLES {
        for step in 0..64 {
            work = black_box(work.rotate_left(7) ^ step).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        let now = Instant::now();
        samples.push((now - last).as_nanos().to_le_bytes()[0]);
        last = now;
    }
    black_box(work);
    samples
}

/// A clock that stands still, or a machine that is simulated step by step, shows the same difference every time.
fn uneven(samples: &[u8]) -> Result<(), EntropyError> {
    let mut seen = [false; 256];
    samples.iter().for_each(|sample| seen[usize::from(*sample)] = true);
    if seen.iter().filter(|seen| **seen).count() < 8 { Err(EntropyError::NoJitter) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn what_was_gathered_reaches_the_pool_before_it_is_keyed_anew() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // A plain file takes the bytes and refuses the request to key it anew.
        assert!(matches!(seed_kernel(file.path()), Err(EntropyError::Pool(_))));
        let len = std::fs::read(file.path()).unwrap().len();
        let processor = WORDS * 8 * if cpu::has_rdseed() { 2 } else { 1 };
        assert_eq!(len, processor + JITTER_SAMPLES);
        assert!(matches!(seed_kernel(Path::new("/nowhere")), Err(EntropyError::Pool(_))));
    }

    #[test]
    fn a_silent_or_repeating_processor_is_no_source() {
        assert!(matches!(processor(|| None), Err(EntropyError::NoProcessor)));
        assert!(matches!(processor(|| Some(7)), Err(EntropyError::Repeats)));
        let count = Cell::new(0);
        let stuck = || {
            count.set(count.get() + 1);
            Some(count.get().min(5))
        };
        assert!(matches!(processor(stuck), Err(EntropyError::Repeats)), "it got stuck half way");
        assert_eq!(processor(cpu::rdrand).unwrap().len(), WORDS * 8);
    }

    #[test]
    fn time_that_stands_still_is_no_source() {
        assert!(matches!(uneven(&[0; 100]), Err(EntropyError::NoJitter)));
        let cycle: Vec<u8> = (0..100).map(|at| at % 7).collect();
        assert!(matches!(uneven(&cycle), Err(EntropyError::NoJitter)));
        assert!(jitter().is_ok());
    }
}
