//! The part of ONNX's protobuf schema that a feed-forward network uses (onnx/onnx.proto, proto2; field numbers there).
//!
//! Decoding turns a few bytes on the wire into structs that are a hundred times larger, so [`verify_budget`] walks the
//! bytes first and counts fields without taking any memory.

use prost::Message;

/// `ModelProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(message, optional, tag = "7")]
    pub(super) graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub(super) opset_import: Vec<OperatorSet>,
}

/// `OperatorSetIdProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OperatorSet {
    #[prost(string, tag = "1")]
    pub(super) domain: String,
    #[prost(int64, tag = "2")]
    pub(super) version: i64,
}

/// `GraphProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(super) node: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    pub(super) initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    pub(super) input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub(super) output: Vec<ValueInfo>,
}

/// `NodeProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(super) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(string, tag = "4")]
    pub(super) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) attribute: Vec<Attribute>,
    #[prost(string, tag = "7")]
    pub(super) domain: String,
}

/// `AttributeProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(float, tag = "2")]
    pub(super) f: f32,
    #[prost(int64, tag = "3")]
    pub(super) i: i64,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) s: Vec<u8>,
    #[prost(message, optional, tag = "5")]
    pub(super) t: Option<TensorProto>,
    #[prost(float, repeated, tag = "7")]
    pub(super) floats: Vec<f32>,
    #[prost(int64, repeated, tag = "8")]
    pub(super) ints: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub(super) strings: Vec<Vec<u8>>,
}

/// `TensorProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    pub(super) dims: Vec<i64>,
    /// 1 float, 6 int32, 7 int64, 9 bool, 10 float16, 11 double, 16 bfloat16.
    #[prost(int32, tag = "2")]
    pub(super) data_type: i32,
    #[prost(float, repeated, tag = "4")]
    pub(super) float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub(super) int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    pub(super) int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub(super) name: String,
    #[prost(bytes = "vec", tag = "9")]
    pub(super) raw_data: Vec<u8>,
    #[prost(double, repeated, tag = "10")]
    pub(super) double_data: Vec<f64>,
    /// 1: the data lies in another file.
    #[prost(int32, tag = "14")]
    pub(super) data_location: i32,
}

/// `ValueInfoProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueInfo {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) r#type: Option<TypeProto>,
}

/// `TypeProto`; sequences and maps leave `tensor_type` empty.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TypeProto {
    #[prost(message, optional, tag = "1")]
    pub(super) tensor_type: Option<TensorType>,
}

/// `TypeProto.Tensor`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorType {
    #[prost(int32, tag = "1")]
    pub(super) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) shape: Option<Shape>,
}

/// `TensorShapeProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub(super) dim: Vec<Dimension>,
}

/// `TensorShapeProto.Dimension`; a named (free) dimension has value 0.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Dimension {
    #[prost(int64, tag = "1")]
    pub(super) dim_value: i64,
}

/// Most fields of all messages that become structs, and most bytes of packed varints (each becomes up to 8 bytes).
/// A network of 512 layers uses under 20 thousand; the cap bounds decoding to about 100 MB beside the weights.
const MAX_FIELDS: usize = 300_000;

/// Message types by what matters to the count.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Other,
}

impl Kind {
    /// The message type of a field, for those that are decoded.
    fn child(self, field: u64) -> Option<Self> {
        Some(match (self, field) {
            (Self::Model, 7) => Self::Graph,
            (Self::Graph, 1) => Self::Node,
            (Self::Graph, 5) | (Self::Attribute, 5) => Self::Tensor,
            (Self::Node, 5) => Self::Attribute,
            // ValueInfo, types and shapes: any length-delimited field may be a message.
            (Self::Model, 8) | (Self::Graph, 11 | 12) => Self::Other,
            (Self::Other, 1 | 2) => Self::Other,
            _ => return None,
        })
    }

    /// Whether the bytes of a field are packed varints.
    fn is_packed_varint(self, field: u64) -> bool {
        matches!((self, field), (Self::Tensor, 1 | 5 | 7) | (Self::Attribute, 8))
    }
}

/// Whether decoding `bytes` as a [`Model`] takes bounded memory. Malformed bytes are left to the decoder.
pub(super) fn verify_budget(bytes: &[u8]) -> bool {
    let mut budget = MAX_FIELDS;
    spend(bytes, Kind::Model, &mut budget, 0);
    budget > 0
}

fn spend(mut bytes: &[u8], kind: Kind, budget: &mut usize, depth: usize) {
    while let Some((key, rest)) = varint(bytes) {
        *budget = budget.saturating_sub(1);
        if *budget == 0 {
            return;
        }
        let field = key >> 3;
        let rest = match key & 7 {
            0 => varint(rest).map(|(_, rest)| rest),
            1 => rest.get(8..),
            5 => rest.get(4..),
            2 => varint(rest).and_then(|(len, rest)| {
                let (body, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
                if kind.is_packed_varint(field) {
                    *budget = budget.saturating_sub(body.len());
                }
                if let Some(child) = kind.child(field).filter(|_| depth < 16) {
                    spend(body, child, budget, depth + 1);
                }
                Some(rest)
            }),
            _ => None,
        };
        let Some(rest) = rest else { return };
        bytes = rest;
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(index * 7).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn many_small_messages_are_refused_before_decoding() {
        let node = |count| Model {
            graph: Some(Graph { node: vec![Node::default(); count], ..Graph::default() }),
            ..Model::default()
        };
        assert!(verify_budget(&node(1000).encode_to_vec()));
        assert!(!verify_budget(&node(MAX_FIELDS).encode_to_vec()));
        let tensor = TensorProto { int64_data: vec![1; MAX_FIELDS], ..TensorProto::default() };
        let graph = Graph { initializer: vec![tensor], ..Graph::default() };
        assert!(!verify_budget(&Model { graph: Some(graph), ..Model::default() }.encode_to_vec()));
    }
}
