//! The HTTPS server that the API server asks.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::post;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use kube::Client;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::certificate::{Certificates, tls};
use super::error::{Error, Kind};
use super::review::validate;

/// Connections at once. An API server keeps a few; the rest waits in the kernel's queue.
const CONNECTIONS: usize = 128;
/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a client may take to send the head of a request, the time between two of them included.
const HEAD: Duration = Duration::from_secs(90);
/// How long requests that are under way may take when the server ends.
const GRACE: Duration = Duration::from_secs(5);
/// Two objects of the size that etcd takes, with room.
const BODY: usize = 8 << 20;

/// Where the webhook listens, and with which certificate.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address.
    pub address: SocketAddr,
    /// A folder with `tls.crt` and `tls.key`.
    pub certificates: PathBuf,
}

/// A webhook that listens, and answers once it is run.
pub struct Webhook {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    certificates: Certificates,
    address: SocketAddr,
}

impl Webhook {
    /// Reads the certificate and takes the address.
    pub async fn bind(options: &Options) -> Result<Self, Error> {
        let certificates = Certificates::open(&options.certificates).await?;
        let acceptor = TlsAcceptor::from(Arc::new(tls(certificates.resolver())?));
        let taken = |error| Error::new(Kind::Address, "listen at", options.address.to_string()).source(error);
        let listener = TcpListener::bind(options.address)
            .await
            .map_err(|error| taken(error).remedy("choose another address with --webhook-addr"))?;
        let address = listener.local_addr().map_err(taken)?;
        Ok(Self {
            listener,
            acceptor,
            certificates,
            address,
        })
    }

    /// The address that it has.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`, and then ends what is under way.
    pub async fn run(self, client: Client, stop: CancellationToken) {
        let Self {
            listener,
            acceptor,
            certificates,
            ..
        } = self;
        let router = Router::new()
            .route("/validate", post(validate))
            .layer(DefaultBodyLimit::max(BODY))
            .with_state(client);
        let connections = TaskTracker::new();
        tokio::select! {
            () = accept(&listener, &acceptor, &router, &connections, &stop) => {}
            () = certificates.follow() => {}
            () = stop.cancelled() => {}
        }
        connections.close();
        connections.wait().await;
    }
}

/// Takes connections, each into a task.
async fn accept(
    listener: &TcpListener,
    acceptor: &TlsAcceptor,
    router: &Router,
    connections: &TaskTracker,
    stop: &CancellationToken,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(permit) = room.clone().acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of files, say. It passes, and asking at once again would not help.
                tracing::warn!(%error, "the webhook cannot take a connection");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
        connections.spawn(async move {
            converse(stream, acceptor, router, stop).await;
            drop(permit);
        });
    }
}

/// One connection.
async fn converse(stream: TcpStream, acceptor: TlsAcceptor, router: Router, stop: CancellationToken) {
    let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "no TLS with a client of the webhook"),
        Err(_) => return tracing::debug!("a client of the webhook was too slow"),
    };
    let service = TowerToHyperService::new(router);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the webhook broke");
    }
}
