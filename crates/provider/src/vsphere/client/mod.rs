//! A client of the vSphere Web Services API: one session, any method, and what is needed around them.
//!
//! - [`Client::call`] calls a method; [`methods`](self) are typed wrappers of the few that vmferry uses.
//! - [`Client::task`] calls a `…_Task` method and waits for its end; [`Client::wait`] waits for any property.
//! - [`Client::properties`] reads properties, page by page where the server wants that.
//! - [`Trouble`] is what went wrong, classified, before anybody named the object.
//!
//! Architecture Invariant: a session that ended is replaced where that is noticed, by whoever notices first; callers never see it.

mod call;
mod content;
mod endpoint;
mod http;
mod methods;
mod name;
mod property;
mod session;
mod task;
mod trouble;
mod wait;

use std::sync::Arc;

pub(crate) use content::ServiceContent;
pub(crate) use endpoint::Endpoint;
pub(crate) use http::Http;
pub(crate) use name::{escape, unescape};
pub(crate) use property::{Object, Props};
pub(crate) use trouble::Trouble;

use super::Config;
use crate::Error;
use crate::tls::{Custom, Trust};
use session::Session;

/// What its users give of certificates.
const CUSTOM: Custom = Custom {
    sha1: true,
    fingerprint: "give the certificate's SHA-256 or SHA-1: openssl x509 -noout -fingerprint -sha256",
    authorities: "vCenter: https://HOST/certs/download.zip",
};

/// A vCenter or an ESXi host. Cheap to clone: clones share one session.
#[derive(Clone)]
pub(crate) struct Client(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    http: Http,
    session: Session,
    content: ServiceContent,
}

impl Client {
    /// Connects, and logs in.
    pub(crate) async fn connect(config: &Config) -> Result<Self, Error> {
        let endpoint = Endpoint::parse(&config.endpoint)?;
        let object = endpoint.object();
        let trust = Trust::of(&config.credentials, config.insecure, &CUSTOM)?;
        let http = Http::new(trust).map_err(|trouble| trouble.of("connect to", &object))?;
        let session = Session::new(&endpoint, &config.credentials)?;
        let content = ServiceContent::read(&http, &endpoint).await;
        let content = content.map_err(|trouble| trouble.of("connect to", &object))?;
        content.check(&object)?;
        let client = Self(Arc::new(Inner {
            endpoint,
            http,
            session,
            content,
        }));
        let login = client.log_in(0).await;
        login.map_err(|trouble| trouble.of("log in to", &object))?;
        Ok(client)
    }

    /// Where it is.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// What the server said of itself.
    pub(crate) fn content(&self) -> &ServiceContent {
        &self.0.content
    }

    /// How bytes are sent beside the API.
    pub(crate) fn http(&self) -> &Http {
        &self.0.http
    }

    /// How messages name the server.
    pub(crate) fn describe(&self) -> String {
        let kind = if self.0.content.is_vcenter {
            "vCenter"
        } else {
            "ESXi host"
        };
        format!("{kind} {}", self.0.endpoint.authority())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end_session();
    }
}
