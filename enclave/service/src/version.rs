//! The least version of this program that a manifest asks for.

use crate::EnclaveError;

/// Refuses a manifest for a newer program than `own`.
pub(crate) fn at_least(own: &str, wanted: &str) -> Result<(), EnclaveError> {
    let parse = |text: &str| -> Option<[u32; 3]> {
        let numbers: Option<Vec<u32>> = text.split('.').map(|number| number.parse().ok()).collect();
        numbers?.try_into().ok()
    };
    match (parse(own), parse(wanted)) {
        (Some(own), Some(wanted)) if own >= wanted => Ok(()),
        (Some(_), Some(_)) => Err(EnclaveError::Unservable("it asks for a newer enclave program")),
        _ => Err(EnclaveError::Unservable("the enclave version it asks for is not major.minor.patch")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(at_least("0.10.0", "0.9.12").is_ok() && at_least("1.0.0", "1.0.0").is_ok());
        assert!(at_least("0.9.12", "0.10.0").is_err() && at_least("1.0.0", "1.0.1").is_err());
        for malformed in ["", "1", "1.0", "1.0.0.0", "1.0.x", "-1.0.0"] {
            assert!(at_least("1.0.0", malformed).is_err(), "{malformed}");
        }
    }
}
