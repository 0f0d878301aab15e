//! What this machine can do at best: the numbers beside which ours are read.

use super::LANES;
#[cfg(target_arch = "x86_64")]
use super::avx512::amx;
use super::memory::Memory;
use super::path::{Kind, Path};
use super::pool::Pool;

/// Bytes that all threads read in one pass. Passes go round a buffer of [`PARTS`] times as much, well over any cache, and
/// are short, so that on a machine that others use too some of them run undisturbed.
pub const READ_BYTES: usize = 128 << 20;
const PARTS: usize = 8;

/// Reads memory as fast as it can, one linear stream for each thread.
pub struct Reader {
    memory: Memory,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

impl Default for Reader {
    fn default() -> Self {
        let mut memory = Memory::zeroed(READ_BYTES * PARTS);
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        Self { memory }
    }
}

impl Reader {
    /// Pass number `pass` over [`READ_BYTES`] bytes.
    pub fn pass(&self, pass: usize, path: Path, pool: &Pool) {
        let threads = pool.threads();
        let part = READ_BYTES / threads / 64 * 64;
        let memory = &self.memory[pass % PARTS * READ_BYTES..][..READ_BYTES];
        pool.run(threads, &|index| {
            let bytes = &memory[index * part..(index + 1) * part];
            std::hint::black_box(match path.kind() {
                Kind::Scalar => sum(bytes),
                // SAFETY: a path of this kind exists only on CPUs with these instructions.
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => unsafe { sum_avx2(bytes) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512 => unsafe { sum_avx512(bytes) },
            });
        });
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.as_chunks::<8>().0.iter().fold(0, |sum, word| sum ^ u64::from_le_bytes(*word))
}

/// Multiply-adds of one call of [`f32_peak`] or [`int8_peak`] on one thread; 0 if the path has no such instruction.
pub const ROUNDS: usize = 1 << 18;

/// Fused multiply-adds on registers only. Returns the operations (two for each) of all threads.
pub fn f32_peak(path: Path, pool: &Pool) -> usize {
    pool.run(pool.threads(), &|_| {
        std::hint::black_box(match path.kind() {
            Kind::Scalar => 0.0,
            // SAFETY: a path of this kind exists only on CPUs with these instructions.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { multiply_avx2() },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { multiply_avx512() },
        });
    });
    let lanes = match path.kind() {
        Kind::Scalar => 0,
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => LANES / 2,
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => LANES,
    };
    2 * lanes * 12 * ROUNDS * pool.threads()
}

/// 8-bit multiply-adds on registers only. Returns the operations (two for each) of all threads.
pub fn int8_peak(path: Path, pool: &Pool) -> usize {
    #[cfg(target_arch = "x86_64")]
    if path.has_tiles() && !amx::imitated() {
        pool.run(pool.threads(), &|_| amx::peak::run(ROUNDS));
        return amx::peak::OPERATIONS * ROUNDS * pool.threads();
    }
    pool.run(pool.threads(), &|_| {
        std::hint::black_box(match path.kind() {
            Kind::Scalar => 0,
            // SAFETY: a path of this kind exists only on CPUs with these instructions.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { integers_avx2() },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { integers_avx512() },
        });
    });
    let lanes = match path.kind() {
        Kind::Scalar => 0,
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => 32,
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => 64,
    };
    2 * lanes * 12 * ROUNDS * pool.threads()
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::wildcard_imports, reason = "intrinsics")]
mod peaks {
    use std::arch::x86_64::*;

    use super::ROUNDS;

    #[target_feature(enable = "avx2")]
    pub(super) fn sum_avx2(bytes: &[u8]) -> u64 {
        let mut sums = [_mm256_setzero_si256(); 4];
        for chunk in bytes.as_chunks::<128>().0 {
            for (sum, vector) in sums.iter_mut().zip(chunk.as_chunks::<32>().0) {
                // SAFETY: 32 bytes are there; the load needs no alignment.
                *sum = _mm256_xor_si256(*sum, unsafe { _mm256_loadu_si256(vector.as_ptr().cast()) });
            }
        }
        let sum = sums.into_iter().reduce(|x, y| _mm256_xor_si256(x, y)).unwrap_or(_mm256_setzero_si256());
        _mm256_extract_epi64::<0>(sum).cast_unsigned()
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn sum_avx512(bytes: &[u8]) -> u64 {
        let mut sums = [_mm512_setzero_si512(); 4];
        for chunk in bytes.as_chunks::<256>().0 {
            for (sum, vector) in sums.iter_mut().zip(chunk.as_chunks::<64>().0) {
                // SAFETY: 64 bytes are there; the load needs no alignment.
                *sum = _mm512_xor_si512(*sum, unsafe { _mm512_loadu_si512(vector.as_ptr().cast()) });
            }
        }
        let sum = sums.into_iter().reduce(|x, y| _mm512_xor_si512(x, y)).unwrap_or(_mm512_setzero_si512());
        _mm512_reduce_add_epi64(sum).cast_unsigned()
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn multiply_avx2() -> f32 {
        let (a, b) = (std::hint::black_box(_mm256_set1_ps(0.5)), std::hint::black_box(_mm256_set1_ps(0.25)));
        let mut sums = [_mm256_set1_ps(1.0); 12];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        let sum = sums.into_iter().reduce(|x, y| _mm256_add_ps(x, y)).unwrap_or(a);
        _mm256_cvtss_f32(sum)
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn multiply_avx512() -> f32 {
        let (a, b) = (std::hint::black_box(_mm512_set1_ps(0.5)), std::hint::black_box(_mm512_set1_ps(0.25)));
        let mut sums = [_mm512_set1_ps(1.0); 12];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        _mm512_cvtss_f32(sums.into_iter().reduce(|x, y| _mm512_add_ps(x, y)).unwrap_or(a))
    }

    /// `maddubs`, `madd`, `add`: the way of the 8-bit kernel.
    #[target_feature(enable = "avx2")]
    pub(super) fn integers_avx2() -> i32 {
        let (a, ones) =
            (std::hint::black_box(_mm256_set1_epi8(3)), std::hint::black_box(_mm256_set1_epi16(1)));
        let mut sums = [_mm256_setzero_si256(); 12];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                let pairs = _mm256_maddubs_epi16(a, *sum);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
        _mm256_cvtsi256_si32(sums.into_iter().reduce(|x, y| _mm256_add_epi32(x, y)).unwrap_or(a))
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn integers_avx512() -> i32 {
        let (a, b) = (std::hint::black_box(_mm512_set1_epi8(3)), std::hint::black_box(_mm512_set1_epi8(5)));
        let mut sums = [_mm512_setzero_si512(); 12];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        _mm512_cvtsi512_si32(sums.into_iter().reduce(|x, y| _mm512_add_epi32(x, y)).unwrap_or(a))
    }
}
#[cfg(target_arch = "x86_64")]
use peaks::{integers_avx2, integers_avx512, multiply_avx2, multiply_avx512, sum_avx2, sum_avx512};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_but_the_scalar_one_has_peaks() {
        let pool = Pool::new(2);
        for path in Path::available() {
            let counted = path != Path::Scalar;
            assert_eq!(f32_peak(path, &pool) > 0, counted, "{path}");
            assert_eq!(int8_peak(path, &pool) > 0, counted, "{path}");
        }
    }
}
