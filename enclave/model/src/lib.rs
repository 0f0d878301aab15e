//! Model files: bytes to tensors and back.
#![forbid(unsafe_code)]
