//! Whose certificates are trusted by clients of HTTPS APIs: the machine's authorities and those of the Secret, or one certificate
//! by its fingerprint.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use reqwest::{Certificate, ClientBuilder};
use tokio_rustls::rustls;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme};

use crate::credentials::Credentials;
use crate::{Error, Kind};

/// What is in the text of a refusal because of a fingerprint.
const MISMATCH: &str = "the server's certificate has the fingerprint";

/// What users of an API give, and where they find it.
pub(crate) struct Custom {
    /// Whether SHA-1 will do for a fingerprint, as VMware shows it.
    pub(crate) sha1: bool,
    /// Where a fingerprint is found.
    pub(crate) fingerprint: &'static str,
    /// Where the authorities' certificates are found.
    pub(crate) authorities: &'static str,
}

/// Which certificates are trusted.
#[derive(Debug, Clone)]
pub(crate) enum Trust {
    /// Those that the machine's authorities signed, or these.
    Authorities(Vec<Certificate>),
    /// This one.
    Pinned(Fingerprint),
    /// Any: only where the user says so.
    Anyone,
}

impl Trust {
    /// What the user trusts. A fingerprint wins, as it says more than authorities; and these say more than that anyone is
    /// trusted, which only counts where neither is given.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a fingerprint or a certificate that cannot be read.
    pub(crate) fn of(credentials: &Credentials, insecure: bool, custom: &Custom) -> Result<Self, Error> {
        let given = credentials.fingerprint.as_deref();
        if let Some(text) = given.filter(|text| !text.trim().is_empty()) {
            let fingerprint = Fingerprint::parse(text).filter(|read| custom.sha1 || !read.is_sha1());
            return fingerprint.map(Self::Pinned).ok_or_else(|| {
                let digits = if custom.sha1 { "40 or 64" } else { "64" };
                Error::new(Kind::Invalid, "read", "fingerprint of the Secret")
                    .detail(format!("it is not {digits} hex digits, with or without colons"))
                    .remedy(custom.fingerprint)
            });
        }
        let Some(pem) = &credentials.ca else {
            return Ok(if insecure {
                Self::Anyone
            } else {
                Self::Authorities(Vec::new())
            });
        };
        let read = authorities(pem).map_err(|why| {
            Error::new(Kind::Invalid, "read", "ca.crt of the Secret")
                .detail(why)
                .remedy(format!(
                    "give the authority's certificates as PEM, each between BEGIN and END CERTIFICATE ({})",
                    custom.authorities
                ))
        });
        read.map(Self::Authorities)
    }

    /// Has `builder`'s client trust so.
    ///
    /// # Errors
    /// [`Kind::Bug`] where TLS cannot be set up at all.
    pub(crate) fn apply(&self, builder: ClientBuilder) -> Result<ClientBuilder, Error> {
        Ok(match self {
            Self::Authorities(more) if more.is_empty() => builder,
            Self::Authorities(more) => builder.tls_certs_merge(more.iter().cloned()),
            Self::Pinned(fingerprint) => {
                let tls = fingerprint.tls();
                let tls = tls.map_err(|error| Error::new(Kind::Bug, "set up", "TLS").source(error))?;
                builder.tls_backend_preconfigured(tls)
            }
            Self::Anyone => builder.tls_danger_accept_invalid_certs(true),
        })
    }
}

/// Whether a connection failed since the server has another certificate than the one that is trusted. `chain` are the texts of
/// the error and its causes.
pub(crate) fn is_mismatch(chain: &str) -> bool {
    chain.contains(MISMATCH)
}

/// The certificates of a PEM file, each of which can be an authority's.
fn authorities(pem: &str) -> Result<Vec<Certificate>, String> {
    let (mut roots, mut read) = (RootCertStore::empty(), Vec::new());
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let der = der.map_err(|error| error.to_string())?;
        read.push(Certificate::from_der(&der).map_err(|error| error.to_string())?);
        roots.add(der).map_err(|error| error.to_string())?;
    }
    if read.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    Ok(read)
}

/// The digest of a certificate: SHA-256, or SHA-1, which VMware calls a thumbprint.
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
        let bytes = (0..digits.len()).step_by(2).map(byte);
        bytes.collect::<Option<Vec<_>>>().map(Self)
    }

    /// SHA-256 of the first certificate of a PEM text.
    #[cfg(feature = "vsphere")]
    pub(crate) fn of_pem(pem: &str) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        Some(Self(digest::digest(&digest::SHA256, &der).as_ref().to_vec()))
    }

    fn is_sha1(&self) -> bool {
        self.0.len() == 20
    }

    /// The fingerprint of the same kind of another certificate.
    fn of(&self, certificate: &[u8]) -> Self {
        let algorithm = if self.is_sha1() {
            &digest::SHA1_FOR_LEGACY_USE_ONLY
        } else {
            &digest::SHA256
        };
        Self(digest::digest(algorithm, certificate).as_ref().to_vec())
    }

    /// TLS that trusts this certificate and no other, whatever name and dates it has.
    fn tls(&self) -> Result<ClientConfig, TlsError> {
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

/// Trusts one certificate, whoever signed it. That the server has its key is verified as always.
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
        Err(TlsError::General(format!(
            "{MISMATCH} {found}, not {}",
            self.fingerprint
        )))
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

    const ANY: Custom = Custom {
        sha1: true,
        fingerprint: "look there",
        authorities: "here",
    };
    const SHA256: Custom = Custom { sha1: false, ..ANY };

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
            &"ab".repeat(33),
            &"+1".repeat(20),
            &"+1".repeat(32),
            "ü".repeat(20).as_str(),
        ] {
            assert_eq!(Fingerprint::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_fingerprint_wins_and_insecurity_must_be_said() {
        let mut credentials = Credentials::default();
        let trust = |credentials: &Credentials, insecure| Trust::of(credentials, insecure, &ANY).unwrap();
        assert!(matches!(trust(&credentials, false), Trust::Authorities(more) if more.is_empty()));
        assert!(matches!(trust(&credentials, true), Trust::Anyone));
        credentials.fingerprint = Some("00".repeat(20));
        assert!(matches!(trust(&credentials, true), Trust::Pinned(_)));
        let error = Trust::of(&credentials, true, &SHA256).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(
            error.to_string().contains("64 hex digits") && error.to_string().contains("look there"),
            "{error}"
        );
        credentials.fingerprint = Some("00".repeat(32));
        assert!(matches!(
            Trust::of(&credentials, false, &SHA256).unwrap(),
            Trust::Pinned(_)
        ));
        credentials.fingerprint = Some("00".to_owned());
        assert_eq!(Trust::of(&credentials, true, &ANY).unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn authorities_that_are_given_win_over_insecurity() {
        let server = vmferry_testkit::front::Front::builder("127.0.0.1:1").tls().start();
        let credentials = Credentials {
            ca: server.ca().map(str::to_owned),
            ..Credentials::default()
        };
        for custom in [&ANY, &SHA256] {
            let trust = Trust::of(&credentials, true, custom).unwrap();
            assert!(matches!(trust, Trust::Authorities(more) if more.len() == 1));
        }
    }

    #[test]
    fn a_ca_that_is_none_is_refused() {
        for pem in ["", "x", "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"] {
            let credentials = Credentials {
                ca: Some(pem.to_owned()),
                ..Credentials::default()
            };
            let error = Trust::of(&credentials, false, &ANY).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{pem:?}");
            assert!(error.to_string().contains("(here)"), "{error}");
        }
    }
}
