//! Tensors by name, from any kind of file, packed one after the other.

use std::collections::BTreeSet;
use std::io;

use adyton_model::gguf::Gguf;
use adyton_model::quant::{TensorType, dequantize};

use super::{ModelError, Source};
use crate::arch::{Arena, Packed, Pool};

/// A tensor as a file describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) kind: TensorType,
    /// Innermost first; absent ones are 1.
    pub(crate) dims: [u64; 4],
}

impl Stored {
    fn rows(&self) -> u64 {
        self.dims[1..].iter().fold(1, |product, dim| product.saturating_mul(*dim))
    }
}

/// Tensors under the names GGUF files give them.
pub(crate) trait Tensors: Sync {
    /// The tensor of this name.
    fn find(&self, name: &str) -> Option<Stored>;
    /// Fills `out` with the tensor's bytes from `offset` on. Each of them is read once.
    fn read(&self, name: &str, offset: usize, out: &mut [u8]) -> io::Result<()>;
    /// Every name.
    fn names(&self) -> Vec<&str>;
    /// Bytes of all tensors.
    fn len_bytes(&self) -> u64;
}

/// The tensors of a GGUF file.
pub(crate) struct GgufTensors<'a> {
    pub(crate) gguf: &'a Gguf<'a>,
    pub(crate) source: &'a dyn Source,
}

impl Tensors for GgufTensors<'_> {
    fn find(&self, name: &str) -> Option<Stored> {
        self.gguf.tensor(name).map(|tensor| Stored { kind: tensor.kind, dims: tensor.dims })
    }

    fn read(&self, name: &str, offset: usize, out: &mut [u8]) -> io::Result<()> {
        let tensor = self.gguf.tensor(name).ok_or(io::ErrorKind::NotFound)?;
        let start = tensor.start + offset as u64;
        self.source.read(start, out)?;
        let end = start + out.len() as u64;
        let last = end == tensor.start + tensor.len_bytes;
        self.source.done(start..if last { end.next_multiple_of(self.gguf.alignment()) } else { end });
        Ok(())
    }

    fn names(&self) -> Vec<&str> {
        self.gguf.tensors().iter().map(|tensor| tensor.name).collect()
    }

    fn len_bytes(&self) -> u64 {
        self.gguf.tensors().iter().map(|tensor| tensor.len_bytes).sum()
    }
}

/// How much more memory than its file a model may take: twice for formats that are held as bytes, twice for matrices
/// whose last group of 16 rows is half empty, and something for models of nothing but small tensors.
const TIMES: u64 = 4;
const PLUS: u64 = 1 << 20;

/// Reads tensors, remembers which, and adds up what they take.
pub(crate) struct Loader<'a> {
    tensors: &'a dyn Tensors,
    pool: &'a Pool,
    arena: Arena,
    taken: BTreeSet<String>,
    bytes: u64,
    max: u64,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(tensors: &'a dyn Tensors, pool: &'a Pool) -> Self {
        let max = tensors.len_bytes().saturating_mul(TIMES).saturating_add(PLUS);
        let arena = Arena::new(usize::try_from(tensors.len_bytes()).unwrap_or(0));
        Self { tensors, pool, arena, taken: BTreeSet::new(), bytes: 0, max }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.find(name).is_some()
    }

    /// Counts a tensor as used without reading it.
    pub(crate) fn take(&mut self, name: &str) {
        self.taken.insert(name.to_owned());
    }

    fn find(&mut self, name: &str, [columns, rows]: [usize; 2]) -> Result<Stored, ModelError> {
        let tensor = self.tensors.find(name).ok_or_else(|| ModelError::MissingTensor(name.to_owned()))?;
        if tensor.dims[0] != columns as u64 || tensor.rows() != rows as u64 {
            return Err(ModelError::Shape {
                name: name.to_owned(),
                kind: tensor.kind,
                got: tensor.dims,
                want: [columns, rows],
            });
        }
        self.take(name);
        Ok(tensor)
    }

    /// Refuses memory that the file does not account for, before it is taken.
    fn charge(&mut self, name: &str, bytes: usize) -> Result<(), ModelError> {
        if !self.has_room(bytes) {
            let (bytes, max) = (self.bytes.saturating_add(bytes as u64), self.max);
            return Err(ModelError::Inflated { name: name.to_owned(), bytes, max });
        }
        Ok(())
    }

    /// Takes so many bytes more, if what the file accounts for leaves them.
    pub(crate) fn has_room(&mut self, bytes: usize) -> bool {
        let with = self.bytes.saturating_add(bytes as u64);
        let fits = with <= self.max;
        self.bytes = if fits { with } else { self.bytes };
        fits
    }

    pub(crate) fn matrix(&mut self, name: &str, columns: usize, rows: usize) -> Result<Packed, ModelError> {
        self.part(name, columns, rows, 0, 1)
    }

    /// Matrix `index` of a tensor that holds `count` of them.
    pub(crate) fn part(
        &mut self,
        name: &str,
        columns: usize,
        rows: usize,
        index: usize,
        count: usize,
    ) -> Result<Packed, ModelError> {
        let kind = self.find(name, [columns, rows.saturating_mul(count)])?.kind;
        self.charge(name, Packed::packed_bytes(kind, (rows, columns))?)?;
        // Fits: the whole tensor's bytes were counted when its directory was read.
        let start = kind.row_bytes(columns).unwrap_or_default() * rows * index;
        let tensors = self.tensors;
        Packed::load(kind, (rows, columns), self.pool, &mut self.arena, |offset, out| {
            Ok::<_, ModelError>(tensors.read(name, start + offset, out)?)
        })
    }

    pub(crate) fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
        let kind = self.find(name, [len, 1])?.kind;
        self.charge(name, len.saturating_mul(size_of::<f32>()))?;
        let mut raw = vec![0; kind.row_bytes(len).unwrap_or_default()];
        self.tensors.read(name, 0, &mut raw)?;
        let mut out = vec![0.0; len];
        dequantize(kind, &raw, &mut out);
        Ok(out)
    }

    pub(crate) fn optional_vector(&mut self, name: &str, len: usize) -> Result<Option<Vec<f32>>, ModelError> {
        self.has(name).then(|| self.vector(name, len)).transpose()
    }

    /// Refuses files with tensors that nobody read.
    pub(crate) fn finish(self) -> Result<(), ModelError> {
        match self.tensors.names().into_iter().find(|name| !self.taken.contains(*name)) {
            Some(name) => Err(ModelError::UnknownTensor(name.to_owned())),
            None => Ok(()),
        }
    }
}
