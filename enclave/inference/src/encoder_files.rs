//! The tensors of an encoder's Hugging Face folder under the names GGUF files give them.

use std::io;

use adyton_model::encoder::{EncoderConfig, EncoderTensor, EncoderTensors};

use crate::lm::Source;
use crate::lm::loader::{Stored, Tensors};

pub(crate) struct FolderTensors<'a> {
    tensors: &'a EncoderTensors<'a>,
    len_bytes: u64,
}

/// The names a tensor may have in the folder.
fn names(name: &str) -> Vec<String> {
    let Some((stem, end)) = name.rsplit_once('.') else { return Vec::new() };
    let stems = match stem {
        "token_embd" => vec!["embeddings.word_embeddings".to_owned()],
        "position_embd" => vec!["embeddings.position_embeddings".to_owned()],
        "token_types" => vec!["embeddings.token_type_embeddings".to_owned()],
        "token_embd_norm" => vec!["embeddings.LayerNorm".to_owned()],
        // BERT's pooler stands before its classifier; RoBERTa's classifier has two layers.
        "cls" => vec!["classifier.dense".to_owned(), "pooler.dense".to_owned()],
        "cls.output" => vec!["classifier.out_proj".to_owned(), "classifier".to_owned()],
        _ => {
            let layer = stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
            let Some((layer, part)) = layer else { return Vec::new() };
            let part = match part {
                "attn_q" => "attention.self.query",
                "attn_k" => "attention.self.key",
                "attn_v" => "attention.self.value",
                "attn_output" => "attention.output.dense",
                "attn_output_norm" => "attention.output.LayerNorm",
                "ffn_up" => "intermediate.dense",
                "ffn_down" => "output.dense",
                "layer_output_norm" => "output.LayerNorm",
                _ => return Vec::new(),
            };
            vec![format!("encoder.layer.{layer}.{part}")]
        }
    };
    stems.into_iter().map(|stem| format!("{stem}.{end}")).collect()
}

impl<'a> FolderTensors<'a> {
    pub(crate) fn new(config: &EncoderConfig, tensors: &'a EncoderTensors<'a>) -> Self {
        let mut new = Self { tensors, len_bytes: 0 };
        let mut all: Vec<String> =
            ["token_embd", "position_embd", "token_types", "token_embd_norm", "cls", "cls.output"]
                .map(String::from)
                .into();
        let parts = [
            "attn_q",
            "attn_k",
            "attn_v",
            "attn_output",
            "attn_output_norm",
            "ffn_up",
            "ffn_down",
            "layer_output_norm",
        ];
        all.extend(
            (0..config.num_hidden_layers).flat_map(|layer| parts.map(|part| format!("blk.{layer}.{part}"))),
        );
        let len = |stem: &String, end: &str| {
            new.tensor(&format!("{stem}.{end}")).map_or(0, |t| t.bytes.len() as u64)
        };
        new.len_bytes = all.iter().map(|stem| len(stem, "weight") + len(stem, "bias")).sum();
        new
    }

    /// Scores of the classifier, if there is one.
    pub(crate) fn labels(&self) -> Option<u64> {
        self.tensor("cls.output.weight").and_then(|tensor| tensor.shape.first().map(|rows| *rows as u64))
    }

    fn tensor(&self, name: &str) -> Option<EncoderTensor<'a>> {
        names(name).iter().find_map(|name| self.tensors.find(name))
    }
}

impl Tensors for FolderTensors<'_> {
    fn find(&self, name: &str) -> Option<Stored> {
        let tensor = self.tensor(name)?;
        let dims = match tensor.shape.as_slice() {
            [len] => [*len as u64, 1, 1, 1],
            [rows, columns] => [*columns as u64, *rows as u64, 1, 1],
            _ => return None,
        };
        Some(Stored { kind: tensor.kind, dims })
    }

    fn read(&self, name: &str, offset: usize, out: &mut [u8]) -> io::Result<()> {
        let tensor = self.tensor(name).ok_or(io::ErrorKind::NotFound)?;
        Source::read(&tensor.bytes, offset as u64, out)
    }

    fn names(&self) -> Vec<&str> {
        Vec::new()
    }

    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }
}
