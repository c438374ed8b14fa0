//! The client.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Certificate, Request, Url};
use thiserror::Error;

use super::answer::Answer;
use super::body::{Life, watched};
use super::trouble::Trouble;
use crate::hosts::HostPolicy;
use crate::{Kind, PartBody};

/// How long nothing may move on a connection.
const SILENCE: Duration = Duration::from_mins(1);
/// How long a connection may take to come about, TLS included.
const CONNECTING: Duration = Duration::from_secs(20);
/// Redirects that are followed in a row.
const REDIRECTS: usize = 5;

/// What redirects lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Redirects {
    /// Nowhere: the answer is given as it is.
    No,
    /// To another place of the same scheme, host and port.
    SameHost,
}

/// How a client is made.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Authorities that are trusted besides the machine's, as PEM.
    pub(crate) ca: Option<String>,
    /// Which hosts may be talked to.
    pub(crate) hosts: HostPolicy,
    /// What redirects lead to.
    pub(crate) redirects: Redirects,
    /// How long nothing may move; a minute where `None`.
    pub(crate) silence: Option<Duration>,
}

/// Sends requests. Cheap to clone; connections are kept and shared.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    hosts: HostPolicy,
    silence: Duration,
}

/// A redirect that leads away.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{from} redirects to {to}, another server, which is not followed")]
pub(crate) struct ForeignRedirect {
    from: String,
    to: String,
}

impl Client {
    pub(crate) fn new(config: Config) -> Result<Self, Trouble> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("vmferry/", env!("CARGO_PKG_VERSION")))
            .redirect(policy(config.redirects))
            // Whom a proxy talks to, nobody here could check.
            .no_proxy()
            .referer(false)
            .http1_only()
            .connect_timeout(CONNECTING)
            .tcp_keepalive(Duration::from_secs(30))
            .dns_resolver(Resolver(config.hosts.clone()));
        if let Some(pem) = &config.ca {
            let unreadable = |detail: String| {
                Trouble::new(Kind::Invalid, format!("ca.crt cannot be read: {detail}"))
                    .remedy("give the authority's certificates as PEM, each between BEGIN and END CERTIFICATE")
            };
            let certificates =
                Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| unreadable(error.to_string()))?;
            if certificates.is_empty() {
                return Err(unreadable("there is no certificate in it".to_owned()));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        Ok(Self {
            http: builder.build()?,
            hosts: config.hosts,
            silence: config.silence.unwrap_or(SILENCE),
        })
    }

    /// Whether a host that is given by its address may be talked to. Names are looked at when they are resolved.
    pub(crate) fn check_url(&self, url: &Url) -> Result<(), Trouble> {
        let host = url.host_str().unwrap_or_default();
        let plain = host.trim_start_matches('[').trim_end_matches(']');
        match plain.parse::<IpAddr>() {
            Ok(address) => Ok(self.hosts.check(plain, address)?),
            Err(_) => Ok(()),
        }
    }

    /// Sends a request and waits for the head of its answer. Gives up when no byte of the body left for a minute, and when
    /// no answer came within `patience` (a minute where `None`) after its last byte.
    pub(crate) async fn send(
        &self,
        mut request: Request,
        body: Option<PartBody>,
        patience: Option<Duration>,
    ) -> Result<Answer, Trouble> {
        self.check_url(request.url())?;
        let life = Life::default();
        if let Some(part) = body {
            request.body_mut().replace(watched(part, life.clone()));
        }
        let patience = patience.unwrap_or(self.silence).max(self.silence);
        tokio::select! {
            answer = self.http.execute(request) => Ok(Answer::new(answer?, self.silence)),
            limit = life.until_silent(self.silence, patience) => Err(Trouble::stalled(limit)),
        }
    }

    /// A request to fill in.
    pub(crate) fn request(&self, method: reqwest::Method, url: Url) -> reqwest::RequestBuilder {
        self.http.request(method, url)
    }
}

fn policy(redirects: Redirects) -> Policy {
    if redirects == Redirects::No {
        return Policy::none();
    }
    Policy::custom(|attempt: Attempt| {
        let place = |url: &Url| {
            (
                url.scheme().to_owned(),
                url.host_str().map(str::to_owned),
                url.port_or_known_default(),
            )
        };
        let Some(from) = attempt.previous().first().cloned() else {
            return attempt.stop();
        };
        if place(&from) != place(attempt.url()) {
            let name = |url: &Url| format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
            let error = ForeignRedirect {
                from: name(&from),
                to: name(attempt.url()),
            };
            return attempt.error(error);
        }
        if attempt.previous().len() > REDIRECTS {
            return attempt.stop();
        }
        attempt.follow()
    })
}

/// Resolves names, and refuses those that lead where nobody may go.
struct Resolver(HostPolicy);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let hosts = self.0.clone();
        Box::pin(async move {
            let found = hosts.resolve(name.as_str(), 0).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
