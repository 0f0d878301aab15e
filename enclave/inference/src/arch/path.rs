//! Which instructions this CPU has.

use std::fmt;

/// An instruction-set path; a value that is not [`Path::Scalar`] is proof that the CPU has its instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path(Kind);

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
    pub const Scalar: Self = Self(Kind::Scalar);

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
                paths.push(Self(Kind::Avx2));
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vnni")
                {
                    paths.push(Self(Kind::Avx512));
                }
            }
        }
        paths
    }

    /// The fastest one.
    #[must_use]
    pub fn best() -> Self {
        Self::available().last().copied().unwrap_or(Self::Scalar)
    }

    pub(super) fn kind(self) -> Kind {
        self.0
    }

    /// Queries attention computes at once, at most.
    pub(crate) fn attention_columns(self) -> usize {
        self.max_columns()
    }

    /// Columns a kernel computes at once, at most.
    pub(super) fn max_columns(self) -> usize {
        match self.0 {
            Kind::Scalar => 4,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => 6,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => 12,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512-vnni",
        })
    }
}
