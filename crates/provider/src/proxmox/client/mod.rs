//! The REST API: a thin typed client of the endpoints that are needed.
//!
//! - [`Client`] sends a [`Call`] and reads the `data` of its answer; [`api`] has the endpoints, [`types`] what they answer.
//! - [`task`] waits for what Proxmox VE does in the background.
//! - [`vm`] finds the node on which a VM is, and follows it when it moves.
//!
//! Architecture Invariant: every path segment and every value is escaped in one place ([`Endpoint::url`], [`call`]), and no text
//! that comes out of here has a credential in it.

mod answer;
pub(crate) mod api;
mod auth;
mod call;
mod endpoint;
pub(crate) mod number;
mod send;
pub(crate) mod task;
pub(crate) mod types;
pub(crate) mod upload;
pub(crate) mod vm;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

pub(crate) use answer::kind_of_text;
pub(crate) use call::Call;
pub(crate) use types::Version;

use auth::Auth;
use endpoint::Endpoint;

use crate::credentials::Credentials;
use crate::tls::{Custom, Trust};
use crate::{Error, Kind};

/// How long a connection may take to come about, TLS included.
const CONNECTING: Duration = Duration::from_secs(15);

/// What its users give of certificates.
const CUSTOM: Custom = Custom {
    sha1: false,
    fingerprint: "take the SHA-256 from the node's System > Certificates, or: pvenode cert info",
    authorities: "/etc/pve/pve-root-ca.pem",
};

/// The API of a cluster or node. Cheap to clone: clones share connections and ticket.
#[derive(Clone)]
pub(crate) struct Client(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    endpoint: Endpoint,
    auth: Auth,
    version: OnceCell<Version>,
}

impl Client {
    /// A client. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for an endpoint, a certificate or credentials that make no sense.
    pub(crate) fn new(endpoint: &str, credentials: &Credentials, insecure: bool) -> Result<Self, Error> {
        let endpoint = Endpoint::parse(endpoint)?;
        let auth = Auth::new(credentials)?;
        let builder = reqwest::Client::builder()
            .user_agent(concat!("vmferry/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .http1_only()
            .connect_timeout(CONNECTING)
            .tcp_keepalive(Duration::from_secs(30));
        let http = Trust::of(credentials, insecure, &CUSTOM)?
            .apply(builder)?
            .build()
            .map_err(|error| Error::new(Kind::Bug, "set up", "the HTTP client").source(error))?;
        Ok(Self(Arc::new(Inner {
            http,
            endpoint,
            auth,
            version: OnceCell::new(),
        })))
    }

    /// `host:port`, for messages.
    pub(crate) fn name(&self) -> String {
        self.0.endpoint.name()
    }

    /// The host of the endpoint.
    pub(crate) fn host(&self) -> &str {
        self.0.endpoint.host()
    }

    /// Who is let in: `user@realm!token` or `user@realm`.
    pub(crate) fn user(&self) -> &str {
        self.0.auth.user()
    }

    /// Which version runs there. It is asked for once.
    pub(crate) async fn version(&self) -> Result<Version, Error> {
        self.0.version.get_or_try_init(|| self.ask_version()).await.cloned()
    }
}
