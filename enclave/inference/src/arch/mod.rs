//! Kernels: the only place with instruction sets, threads and raw memory.
//!
//! What: products of packed weights with activations, and the vector functions between them. Why: here is where the
//! time goes, and here alone unsafe code stands. Flow: [`Path::best`] looks at the CPU once; [`Packed`] holds weights in
//! the kernels' layout; [`Activations`] holds a batch of columns; [`matmul`] joins them on a [`Pool`].
//!
//! Every path gives the same bits. Integer sums are exact, and every floating-point sum has one order that no lane
//! count, thread count or batch changes: see `docs/decisions/0013-summation-order.md`. `scalar` is the specification.
#![warn(clippy::undocumented_unsafe_blocks)]

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod blocks;
mod cut;
mod ends;
mod lanes;
pub mod limits;
mod lines;
mod matmul;
mod memory;
mod packed;
mod packing;
mod path;
mod pieces;
mod pool;
#[cfg(target_arch = "x86_64")]
mod prefetch;
mod scalar;
mod screen;
mod turn;

pub use activations::{Activations, Forms};
pub use lanes::{Elementwise, exp};
pub use matmul::{matmul, product};
pub use memory::Arena;
pub use packed::{Layout, PackError, Packed};
pub use path::Path;
pub use pool::{Cells, Pool};
pub use screen::Screen;

pub(crate) use lines::Lines;
pub(crate) use memory::wipe;
pub(crate) use pieces::{Columns, Floats, Pieces, float_tile};
pub(crate) use turn::turn;

/// Rows that lie interleaved and are computed together.
pub const LANES: usize = 16;
