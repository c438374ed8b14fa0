//! The webhook's certificate: read from a folder, and read again when it changes there.
//!
//! A mounted Secret changes while the process runs: whoever renews certificates does not restart their users.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_rustls::rustls;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::error::{Error, Kind};

/// How often the folder is looked at. The kubelet takes up to a minute to bring a change there.
const INTERVAL: Duration = Duration::from_secs(5);

/// The certificate of the moment, as a folder has it.
#[derive(Debug)]
pub(super) struct Certificates {
    folder: PathBuf,
    pem: Pem,
    current: watch::Sender<Arc<CertifiedKey>>,
}

/// Gives rustls the certificate of the moment.
#[derive(Debug)]
pub(super) struct Resolver(watch::Receiver<Arc<CertifiedKey>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.borrow().clone())
    }
}

impl Certificates {
    /// Reads `tls.crt` and `tls.key` of a folder.
    pub(super) async fn open(folder: &Path) -> Result<Self, Error> {
        let pem = Pem::read(folder).await?;
        let (current, _) = watch::channel(Arc::new(pem.key(folder)?));
        Ok(Self {
            folder: folder.to_owned(),
            pem,
            current,
        })
    }

    /// The certificate for connections, always the one of the moment.
    pub(super) fn resolver(&self) -> Resolver {
        Resolver(self.current.subscribe())
    }

    /// Looks at the folder for ever.
    pub(super) async fn follow(mut self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            match self.reload().await {
                Ok(true) => tracing::info!(folder = %self.folder.display(), "the webhook has a new certificate"),
                Ok(false) => {}
                // The two files change one after the other, or one of them is wrong; the old ones are good until they expire.
                Err(error) => tracing::warn!(%error, "the webhook keeps its certificate"),
            }
        }
    }

    /// Takes what is in the folder where it differs; says whether it did.
    async fn reload(&mut self) -> Result<bool, Error> {
        let pem = Pem::read(&self.folder).await?;
        if pem == self.pem {
            return Ok(false);
        }
        self.current.send_replace(Arc::new(pem.key(&self.folder)?));
        self.pem = pem;
        Ok(true)
    }
}

/// The two files.
#[derive(PartialEq)]
struct Pem {
    certificates: Vec<u8>,
    key: Vec<u8>,
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pem(…)")
    }
}

impl Pem {
    async fn read(folder: &Path) -> Result<Self, Error> {
        Ok(Self {
            certificates: file(&folder.join("tls.crt")).await?,
            key: file(&folder.join("tls.key")).await?,
        })
    }

    /// The pair, which must belong together.
    fn key(&self, folder: &Path) -> Result<CertifiedKey, Error> {
        let invalid = |file: &str| {
            Error::new(Kind::Certificate, "use", folder.join(file).display().to_string())
                .remedy("give a certificate and its key in PEM, as a Secret of type kubernetes.io/tls has them")
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificates)
            .collect::<Result<_, _>>()
            .map_err(|error| invalid("tls.crt").source(error))?;
        if chain.is_empty() {
            return Err(invalid("tls.crt").detail("there is no certificate in it"));
        }
        // What rustls says of a key that it cannot read never quotes it.
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| invalid("tls.key").source(error))?;
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map_err(|error| invalid("tls.key").source(error))
    }
}

async fn file(path: &Path) -> Result<Vec<u8>, Error> {
    tokio::fs::read(path).await.map_err(|error| {
        Error::new(Kind::Certificate, "read", path.display().to_string())
            .source(error)
            .remedy("mount the Secret with the webhook's certificate there, or set --webhook-cert-dir")
    })
}

/// TLS as the webhook speaks it.
pub(super) fn tls(resolver: Resolver) -> Result<rustls::ServerConfig, Error> {
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Kind::Certificate, "set up", "TLS for the webhook").source(error))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    Ok(config)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn write(folder: &TempDir, name: &str) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        std::fs::write(folder.path().join("tls.crt"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("tls.key"), made.signing_key.serialize_pem()).unwrap();
        made.cert.der().clone()
    }

    #[tokio::test]
    async fn a_new_certificate_is_taken_and_a_broken_one_is_not() {
        let folder = TempDir::new().unwrap();
        let first = write(&folder, "one");
        let mut certificates = Certificates::open(folder.path()).await.unwrap();
        let resolver = certificates.resolver();
        let given = || resolver.0.borrow().cert[0].clone();
        assert_eq!(given(), first);
        assert!(!certificates.reload().await.unwrap());

        let key = std::fs::read(folder.path().join("tls.key")).unwrap();
        let second = write(&folder, "two");
        let new_key = std::fs::read(folder.path().join("tls.key")).unwrap();
        std::fs::write(folder.path().join("tls.key"), key).unwrap();
        let error = certificates.reload().await.unwrap_err();
        assert!(error.to_string().contains("tls.key"), "{error}");
        assert_eq!(given(), first, "a key that is not the certificate's");

        std::fs::write(folder.path().join("tls.key"), new_key).unwrap();
        assert!(certificates.reload().await.unwrap());
        assert_eq!(given(), second);

        std::fs::remove_file(folder.path().join("tls.crt")).unwrap();
        assert!(certificates.reload().await.is_err());
        assert_eq!(given(), second, "a file that is gone");
    }

    #[tokio::test]
    async fn what_is_no_certificate_is_refused_by_name() {
        let folder = TempDir::new().unwrap();
        let told = Certificates::open(folder.path()).await.unwrap_err().to_string();
        assert!(
            told.contains("tls.crt") && told.contains("--webhook-cert-dir"),
            "{told}"
        );
        write(&folder, "one");
        std::fs::write(folder.path().join("tls.crt"), "nothing").unwrap();
        let told = Certificates::open(folder.path()).await.unwrap_err().to_string();
        assert!(told.contains("there is no certificate in it"), "{told}");
    }
}
