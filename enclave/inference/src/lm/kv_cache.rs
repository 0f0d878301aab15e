//! Keys and values of earlier positions, in pages of 16 positions.
//!
//! A page belongs to one sequence and holds all layers. For each layer and KV head: keys `[head_dim][16 positions]`,
//! then values `[head_dim / 16][16 positions][16]`, head dimensions filled up to 16: the layout of 16 interleaved rows
//! that the float kernels read. Pages are zeroed when they are given back and when they are dropped: nothing of a prompt
//! stays behind.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::IntoDeserializer as _;

use super::{Architecture, ModelError};
use crate::arch::{LANES, wipe};

/// Positions of a page.
pub(super) const PAGE: usize = LANES;

/// How keys and values are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvKind {
    /// Exact.
    F32,
    /// Rounded to binary16; half the memory.
    F16,
    /// 8-bit codes with a step for each [`BLOCK`] elements of a position's head; a bit over a quarter of the memory.
    Q8,
}

impl FromStr for KvKind {
    type Err = serde::de::value::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::deserialize(text.into_deserializer())
    }
}

/// Elements that share a step in [`KvKind::Q8`].
pub(super) const BLOCK: usize = 32;

/// One page.
pub(super) enum Page {
    F32(Box<[f32]>),
    F16(Box<[u16]>),
    /// Codes lie like the elements of the others. Steps: for each layer and KV head `[block][16 positions]` of the keys,
    /// then of the values.
    Q8(Box<[i8]>, Box<[f32]>),
}

impl Page {
    fn new(kind: KvKind, len: usize, steps: usize) -> Self {
        match kind {
            KvKind::F32 => Self::F32(vec![0.0; len].into()),
            KvKind::F16 => Self::F16(vec![0; len].into()),
            KvKind::Q8 => Self::Q8(vec![0; len].into(), vec![0.0; steps].into()),
        }
    }

    /// Nothing, in the place of a page that is being written.
    pub(super) fn empty(kind: KvKind) -> Self {
        Self::new(kind, 0, 0)
    }

    fn wipe(&mut self) {
        match self {
            Self::F32(data) => wipe(data),
            Self::F16(data) => wipe(data),
            Self::Q8(codes, steps) => {
                wipe(codes);
                wipe(steps);
            }
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.wipe();
    }
}

/// Pages of all sequences of one model. `Debug` tells how many there are, never what they hold.
pub struct KvCache {
    kind: KvKind,
    head_dim: usize,
    n_kv_heads: usize,
    page_len: usize,
    max_pages: usize,
    pub(super) pages: Vec<Page>,
    free: Vec<usize>,
}

impl fmt::Debug for KvCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pages, free) = (self.pages.len(), self.free.len());
        write!(f, "KvCache({:?}, {pages} pages of {}, {free} of them free)", self.kind, self.max_pages)
    }
}

/// The positions of one conversation. Give it back with [`KvCache::release`].
#[derive(Debug, Default)]
pub struct Sequence {
    pub(super) pages: Vec<usize>,
    pub(crate) len: usize,
}

impl Sequence {
    /// Tokens computed so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token was computed yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl KvCache {
    /// A cache for `positions` tokens in all; memory is taken as they come.
    #[must_use]
    pub fn new(architecture: &Architecture, kind: KvKind, positions: usize) -> Self {
        let head_dim = architecture.head_dim.next_multiple_of(LANES);
        let n_kv_heads = architecture.n_kv_heads;
        Self {
            kind,
            head_dim,
            n_kv_heads,
            page_len: architecture.n_layers * n_kv_heads * 2 * head_dim * PAGE,
            max_pages: positions.div_ceil(PAGE),
            pages: Vec::new(),
            free: Vec::new(),
        }
    }

    /// How keys and values are held.
    #[must_use]
    pub fn kind(&self) -> KvKind {
        self.kind
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        let page = match self.kind {
            KvKind::F32 => 4 * self.page_len,
            KvKind::F16 => 2 * self.page_len,
            KvKind::Q8 => self.page_len + 4 * self.page_steps(),
        };
        self.pages.len() * page
    }

    /// Makes room for `len` positions.
    pub(crate) fn reserve(&mut self, sequence: &mut Sequence, len: usize) -> Result<(), ModelError> {
        let missing = len.div_ceil(PAGE).saturating_sub(sequence.pages.len());
        if missing > self.free.len() + (self.max_pages - self.pages.len()) {
            return Err(ModelError::CacheFull);
        }
        for _ in 0..missing {
            let page = self.free.pop().unwrap_or_else(|| {
                self.pages.push(Page::new(self.kind, self.page_len, self.page_steps()));
                self.pages.len() - 1
            });
            sequence.pages.push(page);
        }
        Ok(())
    }

    /// Forgets all positions from `len` on, to compute others in their place.
    pub fn truncate(&mut self, sequence: &mut Sequence, len: usize) {
        if len >= sequence.len {
            return;
        }
        sequence.len = len;
        for page in sequence.pages.drain(len.div_ceil(PAGE)..) {
            self.pages[page].wipe();
            self.free.push(page);
        }
    }

    /// Ends a sequence; its pages are zeroed.
    pub fn release(&mut self, mut sequence: Sequence) {
        sequence.len = usize::MAX;
        self.truncate(&mut sequence, 0);
    }

    /// First element of the keys of a layer and head within a page; values follow `values()` later.
    pub(super) fn place(&self, layer: usize, head: usize) -> usize {
        (layer * self.n_kv_heads + head) * 2 * self.values()
    }

    /// Elements of the keys of one layer and head in a page.
    pub(super) fn values(&self) -> usize {
        self.head_dim * PAGE
    }

    /// First step of the keys of a layer and head within a page; those of the values follow `value_steps()` later.
    pub(super) fn steps(&self, layer: usize, head: usize) -> usize {
        (layer * self.n_kv_heads + head) * 2 * self.value_steps()
    }

    /// Steps of the keys of one layer and head in a page.
    pub(super) fn value_steps(&self) -> usize {
        self.head_dim.div_ceil(BLOCK) * PAGE
    }

    fn page_steps(&self) -> usize {
        self.page_len / (2 * self.values()) * 2 * self.value_steps()
    }

    /// Head dimension, filled up to 16.
    pub(super) fn head_dim(&self) -> usize {
        self.head_dim
    }
}
