//! Trust in one certificate, by its fingerprint: what VMware calls a thumbprint.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, aws_lc_rs as provider, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme};

/// The digest of a certificate: SHA-1 (as vSphere shows it) or SHA-256.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint(Vec<u8>);

impl Fingerprint {
    /// Reads hex digits, with or without colons. `None` where they are not 20 or 32 bytes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| !c.is_whitespace() && *c != ':').collect();
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) || !matches!(digits.len(), 40 | 64) {
            return None;
        }
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).ok();
        (0..digits.len())
            .step_by(2)
            .map(byte)
            .collect::<Option<Vec<_>>>()
            .map(Self)
    }

    /// The fingerprint of the same kind of another certificate.
    fn of(&self, certificate: &[u8]) -> Self {
        let algorithm = match self.0.len() {
            20 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            _ => &digest::SHA256,
        };
        Self(digest::digest(algorithm, certificate).as_ref().to_vec())
    }

    /// TLS that trusts this certificate and no other, whatever name and dates it has.
    pub(crate) fn tls(&self) -> Result<ClientConfig, TlsError> {
        let crypto = Arc::new(provider::default_provider());
        let verifier = Pinned {
            fingerprint: self.clone(),
            crypto: Arc::clone(&crypto),
        };
        let mut config = ClientConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02X}", if at == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

#[derive(Debug)]
struct Pinned {
    fingerprint: Fingerprint,
    crypto: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let found = self.fingerprint.of(end_entity);
        if found == self.fingerprint {
            return Ok(ServerCertVerified::assertion());
        }
        let text = format!(
            "the server's certificate has the fingerprint {found}, not {}",
            self.fingerprint
        );
        Err(TlsError::General(text))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.crypto.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.crypto.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_sha1_or_sha256_in_hex() {
        let sha1 = Fingerprint::parse("DA:39:a3:ee:5e:6b:4b:0d:32:55:bf:ef:95:60:18:90:af:d8:07:09").unwrap();
        assert_eq!(sha1.of(b""), sha1);
        assert_ne!(sha1.of(b"x"), sha1);
        assert!(sha1.to_string().starts_with("DA:39:A3"));
        let sha256 = Fingerprint::parse("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n").unwrap();
        assert_eq!(sha256.of(b""), sha256);
        for text in [
            "",
            "00",
            "zz39a3ee5e6b4b0d3255bfef95601890afd80709",
            &"+1".repeat(20),
            "ü".repeat(20).as_str(),
        ] {
            assert_eq!(Fingerprint::parse(text), None, "{text}");
        }
    }
}
