//! Secrets in memory: one heap place, never printed, wiped when dropped.
//!
//! A [`Secret`] keeps its value behind a box, so that moving the secret moves a pointer and leaves no copy behind.
//! It has no `Debug`, `Clone`, `PartialEq` or serialisation; every use of the value goes through
//! [`Secret::expose`], which is what an auditor greps for.
//!
//! Limits, said aloud: a value handed to [`Secret::new`] by the caller may have left copies on the caller's stack,
//! and the key schedules that `ring` expands from a key are not wiped by `ring`.

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroize;

/// Why no secret could be made.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretError {
    /// The kernel's random generator gave nothing.
    #[error(
        "the system's random generator failed: the process may not call getrandom, or /dev/urandom is missing"
    )]
    NoEntropy,
}

/// A value that is never printed, copied or compared by accident, and is overwritten with zeros when dropped.
pub struct Secret<T: Zeroize>(Box<T>);

impl<T: Zeroize> Secret<T> {
    /// Takes ownership of `value`. The caller wipes whatever it was copied from.
    pub fn new(value: T) -> Self {
        Self(Box::new(value))
    }

    /// Lends the value to `f`. Grep for `expose` to see every use of every secret.
    pub fn expose<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        f(&self.0)
    }
}

impl<const N: usize> Secret<[u8; N]> {
    /// Draws `N` bytes from the kernel's generator, straight into the place where they stay.
    ///
    /// # Errors
    /// [`SecretError::NoEntropy`] if the generator fails.
    pub fn generate() -> Result<Self, SecretError> {
        let mut secret = Self(Box::new([0; N]));
        fill_random(secret.0.as_mut_slice())?;
        Ok(secret)
    }

    /// Compares with `other` in a time that does not depend on where they differ.
    #[must_use]
    pub fn equals(&self, other: &[u8]) -> bool {
        constant_time_eq(self.0.as_slice(), other)
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Compares two byte strings in a time that depends on their lengths only.
#[must_use]
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    // ring deprecates the comparison for being easy to misuse on hashed passwords; there is no successor in ring.
    #[allow(deprecated)]
    ring::constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// Fills `bytes` from the kernel's generator.
///
/// # Errors
/// [`SecretError::NoEntropy`] if the generator fails.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), SecretError> {
    SystemRandom::new().fill(bytes).map_err(|_| SecretError::NoEntropy)
}

/// The key-encryption key of one model: the 32 bytes a model owner keeps and releases after attestation.
///
/// It never encrypts anything itself; each sealed file derives its own key from it (see [`crate::seal`]).
pub struct Kek(Secret<[u8; 32]>);

impl Kek {
    /// Makes a new key from the kernel's generator.
    ///
    /// # Errors
    /// [`SecretError::NoEntropy`] if the generator fails.
    pub fn generate() -> Result<Self, SecretError> {
        Secret::generate().map(Self)
    }

    /// Takes a key that was stored or unwrapped, and overwrites the place it came from.
    #[must_use]
    pub fn from_bytes(bytes: &mut [u8; 32]) -> Self {
        let kek = Self(Secret::new(*bytes));
        bytes.zeroize();
        kek
    }

    /// Lends the key bytes to `f`, for a key file or a wrapping.
    pub fn expose<R>(&self, f: impl FnOnce(&[u8; 32]) -> R) -> R {
        self.0.expose(f)
    }

    /// Compares with another key in constant time.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        other.expose(|bytes| self.0.equals(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    struct Probe(Rc<Cell<u32>>);
    impl Zeroize for Probe {
        fn zeroize(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn drop_wipes_exactly_once() {
        let wiped = Rc::new(Cell::new(0));
        let secret = Secret::new(Probe(Rc::clone(&wiped)));
        assert_eq!(secret.expose(|p| p.0.get()), 0);
        drop(secret);
        assert_eq!(wiped.get(), 1);
    }

    #[test]
    fn generated_keys_differ_and_are_not_zero() {
        let (a, b) = (Kek::generate().unwrap(), Kek::generate().unwrap());
        assert!(!a.equals(&b));
        assert!(a.equals(&a));
        assert!(!a.expose(|k| k.iter().all(|&x| x == 0)));
    }

    #[test]
    fn from_bytes_wipes_its_source() {
        let mut bytes = [7; 32];
        let kek = Kek::from_bytes(&mut bytes);
        assert_eq!(bytes, [0; 32]);
        assert!(kek.expose(|k| *k == [7; 32]));
    }

    #[test]
    fn comparison_needs_equal_lengths_and_bytes() {
        assert!(constant_time_eq(b"abc", b"abc"));
        assert!(!constant_time_eq(b"abc", b"abd"));
        assert!(!constant_time_eq(b"abc", b"ab"));
        assert!(constant_time_eq(b"", b""));
    }
}
