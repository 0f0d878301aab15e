//! Configurations of both ends, the enclave's TLS key, and the two values evidence is bound to: exporter and SPKI hash.

use std::sync::Arc;

use adyton_attestation::commit::{Digest, hash};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring as ring_provider, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::{
    CertificateError, ClientConfig, ConnectionCommon, DigitallySignedStruct, Error, ServerConfig,
    SignatureScheme,
};

use crate::hybrid::X25519MLKEM768;

/// The one application protocol of a session.
pub const ALPN_H2: &[u8] = b"h2";

/// TLS exporter label (SPEC, section 1).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-adyton-session-v1";

/// Why a channel cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// Key generation or certificate encoding failed.
    #[error("could not make a TLS identity: {0}")]
    Identity(#[from] rcgen::Error),
    /// rustls refused a setting, a certificate or the exporter.
    #[error("TLS failed: {0}")]
    Tls(#[from] Error),
    /// The peer showed no certificate.
    #[error("the peer showed no certificate")]
    NoCertificate,
}

/// A TLS key with its self-signed certificate (`TLSK`).
pub struct TlsIdentity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    spki: Digest,
}

impl TlsIdentity {
    /// Draws an Ed25519 key and signs a certificate without meaning: the evidence names the key, not the certificate.
    ///
    /// # Errors
    /// [`ChannelError::Identity`] if the system gives no randomness.
    pub fn generate() -> Result<Self, ChannelError> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        Self::from_key(&key)
    }

    /// The identity of a stored key in PKCS#8, as a broker keeps one.
    ///
    /// # Errors
    /// [`ChannelError::Identity`] if it is not an Ed25519 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, ChannelError> {
        let der = PrivatePkcs8KeyDer::from(der);
        let key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519)?;
        Self::from_key(&key)
    }

    fn from_key(key: &rcgen::KeyPair) -> Result<Self, ChannelError> {
        let certificate =
            rcgen::CertificateParams::new(vec!["adyton.invalid".to_owned()])?.self_signed(key)?;
        let certificate = certificate.der().clone();
        let spki = spki_hash(&certificate)?;
        Ok(Self { certificate, key: PrivatePkcs8KeyDer::from(key.serialize_der()), spki })
    }

    /// `H(SPKI)` of the certificate.
    #[must_use]
    pub fn spki(&self) -> &Digest {
        &self.spki
    }

    /// The private key in PKCS#8, for whoever stores it; the caller keeps it secret.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        self.key.secret_pkcs8_der()
    }
}

/// ring, with the two groups and the two suites of the protocol.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring_provider::default_provider();
    provider.kx_groups = vec![X25519MLKEM768, ring_provider::kx_group::X25519];
    provider.cipher_suites = vec![
        ring_provider::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ring_provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

/// The serving end: TLS 1.3 only, no tickets, no resumption, no early data, no client certificate.
///
/// # Errors
/// [`ChannelError::Tls`] if rustls refuses the certificate.
pub fn server_config(identity: &TlsIdentity) -> Result<Arc<ServerConfig>, ChannelError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key().into())?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(Arc::new(config))
}

/// What a calling end knows about its peer's key before the handshake.
#[derive(Debug, Clone, Copy)]
pub enum Peer {
    /// Nothing: evidence will name the key, and nothing is sent before that.
    Attested,
    /// Its SPKI hash, as the launch document pins the broker.
    Pinned(Digest),
}

/// The calling end; the counterpart of [`server_config`].
///
/// # Errors
/// [`ChannelError::Tls`] if rustls refuses the settings.
pub fn client_config(peer: Peer) -> Result<Arc<ClientConfig>, ChannelError> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(KeyVerifier { peer, algorithms }))
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(Arc::new(config))
}

/// Proves that the peer holds the key of the certificate it shows; says nothing about who that is.
#[derive(Debug)]
struct KeyVerifier {
    peer: Peer,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let spki = spki_hash(end_entity)?;
        match self.peer {
            Peer::Pinned(pinned) if pinned != spki => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            Peer::Pinned(_) | Peer::Attested => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not part of the protocol".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

fn spki_hash(certificate: &CertificateDer<'_>) -> Result<Digest, Error> {
    let bad_encoding = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
    let certificate = webpki::EndEntityCert::try_from(certificate).map_err(bad_encoding)?;
    Ok(hash(&certificate.subject_public_key_info()))
}

/// `EXP`: 32 bytes only the two ends of this very connection can compute.
///
/// # Errors
/// [`ChannelError::Tls`] before the handshake is complete.
pub fn exporter<Data>(connection: &ConnectionCommon<Data>) -> Result<[u8; 32], ChannelError> {
    Ok(connection.export_keying_material([0; 32], EXPORTER_LABEL, Some(&[]))?)
}

/// `H(SPKI)` of the certificate the peer showed in this handshake.
///
/// # Errors
/// [`ChannelError`] if it showed none, or none that can be read.
pub fn peer_spki<Data>(connection: &ConnectionCommon<Data>) -> Result<Digest, ChannelError> {
    let certificate = connection.peer_certificates().and_then(|chain| chain.first());
    Ok(spki_hash(certificate.ok_or(ChannelError::NoCertificate)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{ClientConnection, HandshakeKind, NamedGroup, ServerConnection};

    fn handshake(
        server: Arc<ServerConfig>,
        client: Arc<ClientConfig>,
    ) -> Result<(ServerConnection, ClientConnection), Error> {
        let name = ServerName::try_from("adyton.invalid").unwrap();
        let mut client = ClientConnection::new(client, name)?;
        let mut server = ServerConnection::new(server)?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            let mut input = bytes.as_slice();
            while !input.is_empty() {
                server.read_tls(&mut input).unwrap();
                server.process_new_packets()?;
            }
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).unwrap();
            let mut input = bytes.as_slice();
            while !input.is_empty() {
                client.read_tls(&mut input).unwrap();
                client.process_new_packets()?;
            }
        }
        Ok((server, client))
    }

    #[test]
    fn both_ends_agree_on_exporter_and_key_and_use_the_hybrid_group() {
        let identity = TlsIdentity::generate().unwrap();
        let config = server_config(&identity).unwrap();
        let (server, client) = handshake(config.clone(), client_config(Peer::Attested).unwrap()).unwrap();
        assert_eq!(exporter(&server).unwrap(), exporter(&client).unwrap());
        assert_eq!(&peer_spki(&client).unwrap(), identity.spki());
        let group = client.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, NamedGroup::X25519MLKEM768);

        let (_, again) = handshake(config, client_config(Peer::Attested).unwrap()).unwrap();
        assert_ne!(exporter(&again).unwrap(), exporter(&client).unwrap());
        assert_eq!(again.handshake_kind(), Some(HandshakeKind::Full), "nothing is resumed");
    }

    #[test]
    fn a_client_without_the_hybrid_group_gets_x25519() {
        let identity = TlsIdentity::generate().unwrap();
        let mut config = ClientConfig::clone(&client_config(Peer::Attested).unwrap());
        let mut classical = CryptoProvider::clone(&provider());
        classical.kx_groups.remove(0);
        config = {
            let verifier = Arc::new(KeyVerifier {
                peer: Peer::Attested,
                algorithms: classical.signature_verification_algorithms,
            });
            let mut only = ClientConfig::builder_with_provider(Arc::new(classical))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth();
            only.alpn_protocols = config.alpn_protocols;
            only
        };
        let (_, client) = handshake(server_config(&identity).unwrap(), Arc::new(config)).unwrap();
        assert_eq!(client.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519);
    }

    #[test]
    fn a_pinned_peer_must_show_the_pinned_key() {
        let (identity, other) = (TlsIdentity::generate().unwrap(), TlsIdentity::generate().unwrap());
        let config = server_config(&identity).unwrap();
        let pinned = |spki: &Digest| client_config(Peer::Pinned(*spki)).unwrap();
        assert!(handshake(config.clone(), pinned(identity.spki())).is_ok());
        assert!(handshake(config, pinned(other.spki())).is_err());
    }

    #[test]
    fn a_certificate_without_its_key_is_refused() {
        let (identity, other) = (TlsIdentity::generate().unwrap(), TlsIdentity::generate().unwrap());
        let stolen = TlsIdentity {
            certificate: identity.certificate.clone(),
            key: other.key.clone_key(),
            spki: *identity.spki(),
        };
        // rustls itself may notice the mismatch; if it does not, the handshake signature must fail.
        if let Ok(config) = server_config(&stolen) {
            assert!(handshake(config, client_config(Peer::Attested).unwrap()).is_err());
        }
    }

    #[test]
    fn a_stored_key_keeps_its_name() {
        let identity = TlsIdentity::generate().unwrap();
        let again = TlsIdentity::from_pkcs8(identity.pkcs8()).unwrap();
        assert_eq!(again.spki(), identity.spki());
        assert!(TlsIdentity::from_pkcs8(b"not a key").is_err());
    }
}
