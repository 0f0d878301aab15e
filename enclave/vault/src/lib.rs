//! The sealed model format, key wrapping and Secret<T>.
#![forbid(unsafe_code)]
