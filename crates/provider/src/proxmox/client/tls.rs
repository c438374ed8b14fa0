//! Whom the client trusts: the machine's authorities, one more, or one certificate by its fingerprint.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use reqwest::{Certificate, ClientBuilder};
use tokio_rustls::rustls;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme};

use crate::credentials::Credentials;
use crate::{Error, Kind};

/// Sets up whom `builder`'s client trusts. A fingerprint wins over authorities: it says more.
///
/// # Errors
/// [`Kind::Invalid`] for a fingerprint or a certificate that cannot be read.
pub(super) fn trust(builder: ClientBuilder, credentials: &Credentials, insecure: bool) -> Result<ClientBuilder, Error> {
    if let Some(text) = &credentials.fingerprint {
        return Ok(builder.tls_backend_preconfigured(pinned(parse_fingerprint(text)?)?));
    }
    if insecure {
        return Ok(builder.tls_danger_accept_invalid_certs(true));
    }
    let Some(pem) = &credentials.ca else {
        return Ok(builder);
    };
    let certificates = Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| unreadable(&error.to_string()))?;
    if certificates.is_empty() {
        return Err(unreadable("there is no certificate in it"));
    }
    Ok(builder.tls_certs_merge(certificates))
}

fn unreadable(detail: &str) -> Error {
    Error::new(Kind::Invalid, "read", "ca.crt of the Secret")
        .detail(detail)
        .remedy("give the authority's certificates as PEM, each between BEGIN and END CERTIFICATE (/etc/pve/pve-root-ca.pem)")
}

/// The digest out of `AA:BB:…`, with or without colons.
fn parse_fingerprint(text: &str) -> Result<[u8; 32], Error> {
    let digits: Vec<u8> = text.trim().bytes().filter(|byte| *byte != b':').collect();
    let pairs = digits.chunks_exact(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'))?;
        u8::from_str_radix(pair, 16).ok()
    });
    let bytes: Option<Vec<u8>> = pairs.collect();
    match bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
        Some(bytes) if digits.len() == 64 => Ok(bytes),
        _ => Err(Error::new(Kind::Invalid, "read", "fingerprint of the Secret")
            .detail("it is not the SHA-256 of a certificate: 64 hex digits, with or without colons")
            .remedy("take it from the node's System > Certificates, or: pvenode cert info")),
    }
}

fn pinned(sha256: [u8; 32]) -> Result<ClientConfig, Error> {
    let provider = Arc::new(default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Kind::Bug, "set up", "TLS").source(error))?;
    let verifier = Pinned { sha256, provider };
    Ok(config
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// Trusts one certificate, whoever signed it and for whatever name. That the server has its key is verified as always.
#[derive(Debug)]
struct Pinned {
    sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
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
        if digest(&SHA256, end_entity).as_ref() == self.sha256 {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_proxmox_shows_it() {
        let colons = "AB:".repeat(31) + "ab";
        assert_eq!(parse_fingerprint(&colons).unwrap(), [0xab; 32]);
        assert_eq!(parse_fingerprint(&"ab".repeat(32)).unwrap(), [0xab; 32]);
        for text in [
            "",
            "ab",
            &"ab".repeat(20),
            &"ab".repeat(33),
            &"+1".repeat(32),
            &"xy".repeat(32),
        ] {
            assert_eq!(parse_fingerprint(text).unwrap_err().kind(), Kind::Invalid, "{text}");
        }
    }
}
