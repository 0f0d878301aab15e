//! The inference core: slices in, numbers out.
