//! A secure processor in software, for development and tests: SIMULATED, NOT CONFIDENTIAL.
#![forbid(unsafe_code)]
