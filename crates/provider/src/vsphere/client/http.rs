//! Requests, and whose certificates are trusted for them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Certificate, RequestBuilder, Response, StatusCode};

use super::pin::Fingerprint;
use super::trouble::Trouble;
use crate::Kind;
use crate::credentials::Credentials;
use crate::vsphere::soap::MAX_BYTES;

/// How long a connection may take to come about, TLS included.
const CONNECTING: Duration = Duration::from_secs(20);

/// Which certificates are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Those that the machine's authorities signed, or one of these (PEM).
    Authorities(Option<String>),
    /// This one.
    Pinned(Fingerprint),
    /// Any: only where the user says so.
    Anyone,
}

impl Trust {
    /// What the user trusts.
    pub(crate) fn of(credentials: &Credentials, insecure: bool) -> Result<Self, Trouble> {
        if let Some(text) = credentials
            .fingerprint
            .as_deref()
            .filter(|text| !text.trim().is_empty())
        {
            let fingerprint = Fingerprint::parse(text).ok_or_else(|| {
                Trouble::new(
                    Kind::Invalid,
                    "the certificate's fingerprint is not hex digits of 20 or 32 bytes",
                )
                .remedy("give the SHA-1 or SHA-256 fingerprint: openssl x509 -noout -fingerprint -sha256")
            })?;
            return Ok(Self::Pinned(fingerprint));
        }
        if insecure {
            return Ok(Self::Anyone);
        }
        Ok(Self::Authorities(credentials.ca.clone()))
    }
}

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

    /// A client for the server itself.
    pub(crate) fn main(&self) -> &reqwest::Client {
        &self.main
    }

    /// A client for another host, whose certificate the server vouches for by its fingerprint.
    pub(crate) fn other(&self, fingerprint: Option<&Fingerprint>) -> Result<reqwest::Client, Trouble> {
        let Some(fingerprint) = fingerprint.filter(|_| self.trust != Trust::Anyone) else {
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

fn client(trust: &Trust) -> Result<reqwest::Client, Trouble> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("vmferry/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .http1_only()
        .https_only(true)
        .connect_timeout(CONNECTING)
        // Hosts close what is idle after some 20 s; a request that meets that would fail.
        .pool_idle_timeout(Duration::from_secs(10))
        .tcp_keepalive(Duration::from_secs(30));
    builder = match trust {
        Trust::Authorities(None) => builder,
        Trust::Authorities(Some(pem)) => builder.tls_certs_merge(authorities(pem)?),
        Trust::Pinned(fingerprint) => {
            let tls = fingerprint
                .tls()
                .map_err(|error| Trouble::new(Kind::Bug, error.to_string()))?;
            builder.tls_backend_preconfigured(tls)
        }
        Trust::Anyone => builder.tls_danger_accept_invalid_certs(true),
    };
    Ok(builder.build()?)
}

fn authorities(pem: &str) -> Result<Vec<Certificate>, Trouble> {
    let unreadable = |detail: String| {
        Trouble::new(Kind::Invalid, format!("ca.crt cannot be read: {detail}"))
            .remedy("give the authority's certificates as PEM, each between BEGIN and END CERTIFICATE")
    };
    let certificates = Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| unreadable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unreadable("there is no certificate in it".to_owned()));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_wins_and_insecurity_must_be_said() {
        let mut credentials = Credentials::default();
        assert_eq!(Trust::of(&credentials, false).unwrap(), Trust::Authorities(None));
        assert_eq!(Trust::of(&credentials, true).unwrap(), Trust::Anyone);
        credentials.fingerprint = Some("00".repeat(20));
        assert!(matches!(Trust::of(&credentials, true).unwrap(), Trust::Pinned(_)));
        credentials.fingerprint = Some("00".to_owned());
        assert_eq!(Trust::of(&credentials, false).unwrap_err().kind, Kind::Invalid);
    }

    #[test]
    fn a_ca_that_is_none_is_refused() {
        for pem in ["", "x", "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"] {
            let refused = Http::new(Trust::Authorities(Some(pem.to_owned()))).err();
            assert!(refused.is_some(), "{pem:?}");
        }
    }
}
