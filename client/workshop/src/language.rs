//! Language models in GGUF: what a file holds, and the same model in fewer bits.
//!
//! Matrices are read, encoded and written a piece at a time, on all processors; the same file gives the same bytes on any
//! number of them. Everything else of the file is copied as it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::thread::available_parallelism;

use adyton_inference::arch::Pool;
use adyton_inference::lm::{Architecture, Source, with_directory};
use adyton_model::gguf::{Gguf, TensorInfo, Writer};
use adyton_model::quant::{TensorType, dequantize, quantize};
use clap::ValueEnum;

use crate::WorkshopError;

/// Weights of a piece, about.
const PIECE: u64 = 1 << 18;

/// How the matrices of a model are stored, by the names people know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// 16 bits.
    F16,
    /// 16 bits with the range of 32.
    Bf16,
    /// 8.5 bits.
    #[value(name = "q8_0")]
    Q8_0,
    /// 6.6 bits.
    #[value(name = "q6_k")]
    Q6K,
    /// 4.5 bits, the output matrix in 6.6.
    #[value(name = "q4_0")]
    Q4_0,
    /// 4.5 bits, the output matrix and what loses most in 6.6.
    #[value(name = "q4_k_m")]
    Q4KM,
}

impl Precision {
    /// `general.file_type`.
    fn number(self) -> u32 {
        match self {
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q4KM => 15,
            Self::Q6K => 18,
            Self::Bf16 => 32,
        }
    }
}

/// What a file holds.
#[derive(Debug, Clone)]
pub struct Contents {
    /// `general.architecture`.
    pub architecture: String,
    /// `general.name`.
    pub name: Option<String>,
    /// Weights.
    pub parameters: u64,
    /// Tensors and bytes of each type.
    pub types: BTreeMap<TensorType, (u64, u64)>,
    /// Longest text, tokens.
    pub context: Option<u64>,
    /// Tokens of the vocabulary.
    pub tokens: Option<u64>,
    /// Whether it says how conversations are written.
    pub chat_template: bool,
    /// Why it is not computed here.
    pub refused: Option<String>,
}

/// Whether a file is GGUF, by its first bytes.
pub(crate) fn is_gguf(path: &Path) -> Result<bool, WorkshopError> {
    let failed = |source| WorkshopError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut magic = [0; 4];
    match Source::read(&file, 0, &mut magic) {
        Ok(()) => Ok(magic == *b"GGUF"),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

fn open(path: &Path) -> Result<(File, u64), WorkshopError> {
    let failed = |source| WorkshopError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    Ok((file, len))
}

/// Reads the directory of a file.
///
/// # Errors
/// [`WorkshopError`]: it cannot be read, or is no GGUF file.
pub fn contents(path: &Path) -> Result<Contents, WorkshopError> {
    let (file, len) = open(path)?;
    with_directory(&file, len, |gguf| {
        let text = |key: &str| Ok::<_, WorkshopError>(gguf.text(key)?.map(str::to_owned));
        let architecture = text("general.architecture")?.unwrap_or_default();
        let mut types = BTreeMap::new();
        for tensor in gguf.tensors() {
            let (count, bytes) = types.entry(tensor.kind).or_default();
            *count += 1;
            *bytes += tensor.len_bytes;
        }
        Ok(Contents {
            name: text("general.name")?,
            parameters: gguf.tensors().iter().map(|tensor| tensor.columns() * tensor.rows()).sum(),
            types,
            context: gguf.integer(&format!("{architecture}.context_length"))?,
            tokens: gguf.array("tokenizer.ggml.tokens")?.map(|tokens| tokens.len() as u64),
            chat_template: gguf.text("tokenizer.chat_template")?.is_some(),
            refused: Architecture::from_gguf(gguf).err().map(|error| error.to_string()),
            architecture,
        })
    })
}

/// The layers in which a mix of types spends more bits: the first, the last, and every third between.
fn spends_more(layer: u64, layers: u64) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer.saturating_sub(eighth)) % 3 == 2
}

/// The type a tensor is stored in; `None` for what stays as it is.
fn stored(tensor: &TensorInfo<'_>, precision: Precision, layers: u64, tied: bool) -> Option<TensorType> {
    let (stem, end) = tensor.name.rsplit_once('.')?;
    let (layer, part) = match stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((layer, part)) => (layer.parse().ok(), part),
        None => (None, stem),
    };
    // Small, and of much weight: norms, the choice of experts, positions.
    let kept = tensor.rows() == 1
        || end != "weight"
        || part.ends_with("norm")
        || matches!(part, "ffn_gate_inp" | "position_embd" | "token_types");
    if kept {
        return None;
    }
    let output = part == "output" || (part == "token_embd" && tied);
    let more = matches!(part, "attn_v" | "attn_qkv" | "ffn_down" | "ffn_down_exps")
        && layer.is_some_and(|layer| spends_more(layer, layers));
    let kind = match precision {
        Precision::F16 => TensorType::F16,
        Precision::Bf16 => TensorType::BF16,
        Precision::Q8_0 => TensorType::Q8_0,
        Precision::Q6K => TensorType::Q6_K,
        Precision::Q4_0 if output => TensorType::Q6_K,
        Precision::Q4_0 => TensorType::Q4_0,
        Precision::Q4KM if output || more => TensorType::Q6_K,
        Precision::Q4KM => TensorType::Q4_K,
    };
    // Rows that are no whole blocks take the next type that fits.
    let fits = |kind: &TensorType| tensor.columns().is_multiple_of(kind.block_len() as u64);
    [kind, TensorType::Q8_0, TensorType::F16].into_iter().find(fits)
}

/// Writes the model of `path` with its matrices in another precision; `tell` hears of the bytes that were read, and how
/// many there are.
///
/// # Errors
/// [`WorkshopError`]: the file is no GGUF file or already in blocks of few bits, or a weight is no number.
pub fn requantize(
    path: &Path,
    precision: Precision,
    out: &mut dyn Write,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<(), WorkshopError> {
    let (file, len) = open(path)?;
    let pool = Pool::new(available_parallelism().map_or(1, usize::from));
    with_directory(&file, len, |gguf| {
        let tied = gguf.tensor("output.weight").is_none();
        let architecture = gguf.text("general.architecture")?.unwrap_or_default();
        let layers = gguf.integer(&format!("{architecture}.block_count"))?.unwrap_or(0);
        let plan: Vec<(&TensorInfo<'_>, TensorType)> = gguf
            .tensors()
            .iter()
            .map(|tensor| (tensor, stored(tensor, precision, layers, tied).unwrap_or(tensor.kind)))
            .collect();
        let coded = |(tensor, kind): &&(&TensorInfo<'_>, TensorType)| {
            *kind != tensor.kind && tensor.kind.block_len() > 1
        };
        if let Some((tensor, _)) = plan.iter().find(coded) {
            return Err(WorkshopError::Quantized {
                path: path.to_owned(),
                tensor: tensor.name.to_owned(),
                kind: tensor.kind,
            });
        }
        out.write_all(&header(gguf, precision, &plan).header())?;
        let total = plan.iter().map(|(tensor, _)| tensor.len_bytes).sum();
        let mut done = 0;
        for (tensor, kind) in plan {
            let written = encode(&file, &pool, tensor, kind, out)?;
            let padding = written.next_multiple_of(32) - written;
            out.write_all(&[0; 32][..padding])?;
            done += tensor.len_bytes;
            tell(done, total);
        }
        Ok(())
    })
}

/// Metadata and directory of the file to come.
fn header(gguf: &Gguf<'_>, precision: Precision, plan: &[(&TensorInfo<'_>, TensorType)]) -> Writer {
    let mut writer = Writer::default();
    let own = ["general.alignment", "general.file_type", "general.quantization_version"];
    for (key, value) in gguf.encoded().filter(|(key, _)| !own.contains(key)) {
        writer.encoded(key, value);
    }
    writer.u32("general.file_type", precision.number());
    writer.u32("general.quantization_version", 2);
    for (tensor, kind) in plan {
        let used = tensor.dims.iter().rposition(|dim| *dim != 1).map_or(1, |last| last + 1);
        writer.tensor(tensor.name, *kind, &tensor.dims[..used]);
    }
    writer
}

/// Writes a tensor in pieces of whole rows; returns the bytes.
fn encode(
    file: &File,
    pool: &Pool,
    tensor: &TensorInfo<'_>,
    kind: TensorType,
    out: &mut dyn Write,
) -> Result<usize, WorkshopError> {
    let (columns, rows) = (tensor.columns(), tensor.rows());
    let rows_of_piece = (PIECE / columns.max(1)).clamp(1, rows.max(1));
    let row_bytes = tensor.len_bytes / rows.max(1);
    let piece = |index: u64| -> Result<Vec<u8>, WorkshopError> {
        let first = index * rows_of_piece;
        let count = rows_of_piece.min(rows - first);
        let size =
            |bytes: u64| usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
        let mut bytes = vec![0; size(count * row_bytes)?];
        Source::read(file, tensor.start + first * row_bytes, &mut bytes)?;
        if kind == tensor.kind {
            return Ok(bytes);
        }
        let mut values = vec![0.0; size(count * columns)?];
        dequantize(tensor.kind, &bytes, &mut values);
        quantize(kind, &values)
            .map_err(|source| WorkshopError::Quantize { tensor: tensor.name.to_owned(), source })
    };
    let pieces = rows.div_ceil(rows_of_piece);
    let together = 4 * pool.threads() as u64;
    let mut written = 0;
    for first in (0..pieces).step_by(usize::try_from(together).unwrap_or(1)) {
        let mut results: Vec<Result<Vec<u8>, WorkshopError>> =
            (first..pieces.min(first + together)).map(|_| Ok(Vec::new())).collect();
        pool.chunks_mut(&mut results, 1, |index, result| result[0] = piece(first + index as u64));
        for result in results {
            let bytes = result?;
            out.write_all(&bytes)?;
            written += bytes.len();
        }
    }
    Ok(written)
}
