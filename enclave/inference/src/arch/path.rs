//! Which instructions this CPU has.

use std::fmt;

use super::activations::Forms;
#[cfg(target_arch = "x86_64")]
use super::avx512::{amx, pair, products as avx512};

/// An instruction-set path; a value that is not [`Path::Scalar`] is proof that the CPU has its instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    kind: Kind,
    /// Whether batches are multiplied in AMX tiles.
    tiles: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Path {
    /// Plain Rust, for every CPU.
    #[allow(non_upper_case_globals, reason = "reads like a variant")]
    pub const Scalar: Self = Self { kind: Kind::Scalar, tiles: false };

    /// Every path this CPU has, slowest first. Tests compare them.
    #[must_use]
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "other architectures have one path")]
        let mut paths = vec![Self::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            // Miri runs the specification only.
            let avx2 = !cfg!(miri)
                && is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            if avx2 {
                paths.push(Self { kind: Kind::Avx2, tiles: false });
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vnni")
                {
                    paths.push(Self { kind: Kind::Avx512, tiles: false });
                    if amx::permitted() || amx::imitated() {
                        paths.push(Self { kind: Kind::Avx512, tiles: true });
                    }
                }
            }
        }
        paths
    }

    /// The fastest one.
    #[must_use]
    pub fn best() -> Self {
        Self::available().into_iter().rfind(|path| !path.is_imitated()).unwrap_or(Self::Scalar)
    }

    /// Whether its tiles are imitated: for tests alone, see [`amx::imitated`].
    #[cfg(target_arch = "x86_64")]
    fn is_imitated(self) -> bool {
        self.tiles && amx::imitated()
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_imitated(self) -> bool {
        false
    }

    /// The instructions of vectors.
    pub(super) fn kind(self) -> Kind {
        self.kind
    }

    /// Whether batches are multiplied in AMX tiles.
    pub(super) fn has_tiles(self) -> bool {
        self.tiles
    }

    /// Whether one group of floats takes the numbers of four of its columns with one load: with 16, two loads in a cycle are
    /// the limit. Not on CPUs with AMX, where it was 0.8 to 0.9 as fast: shuffles share a port with half of the products.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn fours(self, columns: usize) -> bool {
        columns == 16 && !self.tiles
    }

    /// Whether kernels of integers ask for weights in the second-level cache, not the first: see [`super::prefetch::SECOND`].
    #[cfg(target_arch = "x86_64")]
    pub(super) fn hints_to_second_level(self) -> bool {
        self.tiles
    }

    /// Whether two groups of integers are computed at once in batches of several tiles: not on CPUs with AMX, which have
    /// tiles for long ones.
    pub(super) fn integer_pairs(self) -> bool {
        match self.kind {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => !self.tiles,
            _ => false,
        }
    }

    /// Whether two groups of floats are computed at once in tiles of this width.
    pub(super) fn float_pairs(self, columns: usize) -> bool {
        match self.kind {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => columns <= pair::MAX_COLUMNS,
            _ => false,
        }
    }

    /// Queries attention computes at once, at most.
    pub(crate) fn attention_columns(self) -> usize {
        self.max_columns(Forms { float: true, ..Forms::default() })
    }

    /// Whether tiles of these forms, integers alone, are taken in shares of at most 4 columns: codes are unpacked once for
    /// all of them.
    pub(super) fn in_shares(self, forms: Forms) -> bool {
        match self.kind {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => !forms.float,
            _ => false,
        }
    }

    /// Widths of the tiles there are kernels for, narrowest first.
    pub(super) fn widths(self, forms: Forms) -> &'static [usize] {
        match self.kind {
            Kind::Scalar => &[1, 2, 3, 4],
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 if self.in_shares(forms) => &[1, 2, 3, 4, 6, 8, 9, 12, 16],
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 if forms.short || forms.long => &[1, 2, 3, 4],
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => &[1, 2, 3, 4, 5, 6],
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => &[1, 2, 3, 4, 5, 6, 8, 10, 12, 16],
        }
    }

    /// Columns of a tile where a batch has several, at most. A batch that is one tile has the widest there is: weights are
    /// unpacked once then, and come from memory all the while.
    pub(super) fn max_columns(self, forms: Forms) -> usize {
        match self.kind {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 if self.integer_pairs() && !forms.float => avx512::MAX_COLUMNS,
            // Longer batches of integers were as fast in either width, within the noise; floats have pairs of groups for
            // the narrower one.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => 12,
            _ => self.widths(forms).last().copied().unwrap_or(1),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 if self.tiles => "amx-int8",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512-vnni",
        })
    }
}
