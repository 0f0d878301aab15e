//! The program inside the confidential VM: sessions, admission, serving.
#![forbid(unsafe_code)]
