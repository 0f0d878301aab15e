//! The model owner's bench: prepare, train, quantise, prune, evaluate.
#![forbid(unsafe_code)]
