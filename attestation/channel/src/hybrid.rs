//! The hybrid key exchange group `X25519MLKEM768` (draft-ietf-tls-ecdhe-mlkem, group 0x11ec).
//!
//! A recorded session stays private unless both X25519 and ML-KEM-768 are broken. Shares and secrets are concatenated
//! with ML-KEM first: client `ek (1184) || x25519 (32)`, server `ct (1088) || x25519 (32)`, secret `mlkem (32) || x25519
//! (32)`. ML-KEM is the `ml-kem` crate's (FIPS 203), X25519 is ring's; only the concatenation is ours.

use ml_kem::{Decapsulate as _, Encapsulate as _, Kem as _, KeyExport as _, MlKem768, ml_kem_768};
use rustls::crypto::ring::kx_group::X25519;
use rustls::crypto::{ActiveKeyExchange, CompletedKeyExchange, SharedSecret, SupportedKxGroup};
use rustls::{Error, NamedGroup, PeerMisbehaved, ProtocolVersion};
use zeroize::Zeroizing;

const ENCAPSULATION_KEY_LEN: usize = 1184;
const CIPHERTEXT_LEN: usize = 1088;

/// The group, as rustls wants it.
#[derive(Debug)]
pub struct X25519MlKem768;

/// The one value of [`X25519MlKem768`].
pub static X25519MLKEM768: &dyn SupportedKxGroup = &X25519MlKem768;

const INVALID_SHARE: Error = Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);

fn join(post_quantum: &[u8], classical: &SharedSecret) -> SharedSecret {
    let mut secret = Zeroizing::new(Vec::with_capacity(64));
    secret.extend_from_slice(post_quantum);
    secret.extend_from_slice(classical.secret_bytes());
    SharedSecret::from(secret.as_slice())
}

impl SupportedKxGroup for X25519MlKem768 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let classical = X25519.start()?;
        let (decapsulation_key, encapsulation_key) = MlKem768::generate_keypair();
        let mut share = encapsulation_key.to_bytes().to_vec();
        share.extend_from_slice(classical.pub_key());
        Ok(Box::new(Active { classical, decapsulation_key: Box::new(decapsulation_key), share }))
    }

    fn start_and_complete(&self, client_share: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let (key, classical_share) =
            client_share.split_at_checked(ENCAPSULATION_KEY_LEN).ok_or(INVALID_SHARE)?;
        let key = key.try_into().map_err(|_| INVALID_SHARE)?;
        let key = ml_kem_768::EncapsulationKey::new(&key).map_err(|_| INVALID_SHARE)?;
        let classical = X25519.start_and_complete(classical_share)?;
        let (ciphertext, secret) = key.encapsulate();
        let secret = Zeroizing::new(secret.to_vec());
        let mut pub_key = ciphertext.to_vec();
        pub_key.extend_from_slice(&classical.pub_key);
        Ok(CompletedKeyExchange { group: self.name(), pub_key, secret: join(&secret, &classical.secret) })
    }

    fn ffdhe_group(&self) -> Option<rustls::ffdhe_groups::FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

struct Active {
    classical: Box<dyn ActiveKeyExchange>,
    decapsulation_key: Box<ml_kem_768::DecapsulationKey>,
    share: Vec<u8>,
}

impl ActiveKeyExchange for Active {
    fn complete(self: Box<Self>, server_share: &[u8]) -> Result<SharedSecret, Error> {
        let (ciphertext, classical_share) =
            server_share.split_at_checked(CIPHERTEXT_LEN).ok_or(INVALID_SHARE)?;
        let secret = self.decapsulation_key.decapsulate_slice(ciphertext).map_err(|_| INVALID_SHARE)?;
        let secret = Zeroizing::new(secret.to_vec());
        let classical = self.classical.complete(classical_share)?;
        Ok(join(&secret, &classical))
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn ffdhe_group(&self) -> Option<rustls::ffdhe_groups::FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_get_the_same_64_byte_secret() {
        let client = X25519MlKem768.start().unwrap();
        let server = X25519MlKem768.start_and_complete(client.pub_key()).unwrap();
        assert_eq!((client.pub_key().len(), server.pub_key.len()), (1216, 1120));
        let secret = client.complete(&server.pub_key).unwrap();
        assert_eq!(secret.secret_bytes(), server.secret.secret_bytes());
        assert_eq!(secret.secret_bytes().len(), 64);
    }

    #[test]
    fn shares_of_a_wrong_length_are_refused() {
        for len in [0, 31, 1088, 1119, 1121, 1184, 1215, 1217] {
            assert!(X25519MlKem768.start_and_complete(&vec![0; len]).is_err(), "client share of {len}");
            let client = X25519MlKem768.start().unwrap();
            assert!(client.complete(&vec![0; len]).is_err(), "server share of {len}");
        }
    }
}
