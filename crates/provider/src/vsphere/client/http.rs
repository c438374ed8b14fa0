//! Requests, and whose certificates are trusted for them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, Response, StatusCode};

use super::trouble::Trouble;
use crate::Kind;
use crate::tls::{Fingerprint, Trust};
use crate::vsphere::soap::MAX_BYTES;

/// How long a connection may take to come about, TLS included.
const CONNECTING: Duration = Duration::from_secs(20);

/// Sends requests to a server, and to the hosts that it names.
pub(crate) struct Http {
    trust: Trust,
    main: reqwest::Client,
    pinned: Mutex<HashMap<Fingerprint, reqwest::Client>>,
}

/// An answer, read whole.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Http {
    pub(crate) fn new(trust: Trust) -> Result<Self, Trouble> {
        Ok(Self {
            main: client(&trust)?,
            trust,
            pinned: Mutex::default(),
        })
    }

    /// Whom it trusts.
    pub(super) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// A client for the server itself.
    pub(crate) fn main(&self) -> &reqwest::Client {
        &self.main
    }

    /// A client for another host, whose certificate the server vouches for by its fingerprint.
    pub(crate) fn other(&self, fingerprint: Option<&Fingerprint>) -> Result<reqwest::Client, Trouble> {
        let Some(fingerprint) = fingerprint.filter(|_| !matches!(self.trust, Trust::Anyone)) else {
            return Ok(self.main.clone());
        };
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = pinned.get(fingerprint) {
            return Ok(known.clone());
        }
        let made = client(&Trust::Pinned(fingerprint.clone()))?;
        pinned.insert(fingerprint.clone(), made.clone());
        Ok(made)
    }
}

/// Sends a request and reads its answer, all within `limit`.
pub(crate) async fn ask(request: RequestBuilder, limit: Duration) -> Result<Answer, Trouble> {
    let response = request.timeout(limit).send().await?;
    let (status, headers) = (response.status(), response.headers().clone());
    let text = text(response).await?;
    Ok(Answer { status, headers, text })
}

async fn text(mut response: Response) -> Result<String, Trouble> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > MAX_BYTES {
            return Err(Trouble::new(Kind::Failed, "the answer is too large"));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| Trouble::new(Kind::Failed, "the answer is not UTF-8"))
}

/// A client that trusts so.
pub(super) fn client(trust: &Trust) -> Result<reqwest::Client, Trouble> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("vmferry/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .http1_only()
        .https_only(true)
        .connect_timeout(CONNECTING)
        // Hosts close what is idle after some 20 s; a request that meets that would fail.
        .pool_idle_timeout(Duration::from_secs(10))
        .tcp_keepalive(Duration::from_secs(30));
    let builder = trust.apply(builder);
    let builder = builder.map_err(|error| Trouble::new(Kind::Bug, error.to_string()))?;
    Ok(builder.build()?)
}
