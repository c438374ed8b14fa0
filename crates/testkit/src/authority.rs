//! A certificate authority of a test's own, and the certificates that it signs.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::command::Must;

/// An authority with its key.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test authority");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = new_key();
        let certificate = params.self_signed(&key).must("make an authority");
        Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a server with these names and addresses.
    pub(crate) fn server(&self, names: &[&str]) -> Signed {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).must("name a certificate");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// A certificate for somebody who is known by this name, of this organization.
    pub(crate) fn client(&self, name: &str, organization: &str) -> Signed {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Signed {
        let key = new_key();
        let certificate = params.signed_by(&key, &self.issuer).must("sign a certificate");
        Signed {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Signed {
    /// A server's TLS with it.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let (certificate, key) = self.read();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .must("choose TLS versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .must("use a certificate");
        TlsAcceptor::from(Arc::new(config))
    }

    /// A client's TLS with it, for servers that this authority vouches for.
    pub(crate) fn as_client(&self, authority: &str) -> Arc<ClientConfig> {
        let (certificate, key) = self.read();
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(authority.as_bytes()).must("read an authority's certificate");
        roots.add(authority).must("trust an authority");
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .must("choose TLS versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .must("use a certificate");
        Arc::new(config)
    }

    fn read(&self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).must("read a certificate");
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).must("read a key");
        (certificate, key)
    }
}

/// A new private key.
pub(crate) fn new_key() -> KeyPair {
    KeyPair::generate().must("make a key")
}
