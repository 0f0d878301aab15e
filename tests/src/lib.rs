//! End-to-end, adversary and structure tests.
#![forbid(unsafe_code)]
