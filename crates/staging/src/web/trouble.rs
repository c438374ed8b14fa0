//! What went wrong with a request.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::hosts::Refused;
use crate::{Error, Kind};

/// What went wrong with a request, before anybody said what it was for.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// What it means.
    pub(crate) kind: Kind,
    /// What the other side answered, or what happened instead.
    pub(crate) detail: String,
    /// What can be done about it.
    pub(crate) remedy: Option<Cow<'static, str>>,
    /// How long the server asks to be left alone.
    pub(crate) wait: Option<Duration>,
}

impl Trouble {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            remedy: None,
            wait: None,
        }
    }

    #[must_use]
    pub(crate) fn remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    #[must_use]
    pub(crate) fn wait(mut self, wait: Option<Duration>) -> Self {
        self.wait = wait;
        self
    }

    /// The trouble of `action` (a verb) on `object`.
    pub(crate) fn of(self, action: impl Into<Cow<'static, str>>, object: impl Into<String>) -> Error {
        let error = Error::new(self.kind, action, object).detail(self.detail);
        match self.remedy {
            Some(remedy) => error.remedy(remedy),
            None => error,
        }
    }

    /// Nothing moved for this long.
    pub(crate) fn stalled(limit: Duration) -> Self {
        Self::new(Kind::Unreachable, format!("no byte moved for {} s", limit.as_secs()))
            .remedy("check that the storage server answers")
    }

    /// What an answer of this status means where its body says no more. `None` for success.
    pub(crate) fn of_status(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        if status.is_success() {
            return None;
        }
        let kind = match status.as_u16() {
            401 | 403 | 407 => Kind::Denied,
            404 | 410 => Kind::NotFound,
            412 => Kind::Changed,
            408 | 425 | 429 | 503 => Kind::Busy,
            413 | 507 => Kind::NoSpace,
            500 | 502 | 504 | 509 => Kind::Failed,
            _ => Kind::Unfit,
        };
        Some(Self::new(kind, format!("the server answered {status}")).wait(retry_after(headers)))
    }
}

/// `Retry-After` in seconds, at most a minute; a date is taken for a few seconds. RFC 9110, section 10.2.3.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let seconds = text.trim().parse::<u64>().unwrap_or(5);
    Some(Duration::from_secs(seconds.min(60)))
}

impl From<Refused> for Trouble {
    fn from(refused: Refused) -> Self {
        let kind = match refused {
            Refused::Never { .. } | Refused::NotAllowed { .. } => Kind::Denied,
            Refused::Unknown { .. } => Kind::Unreachable,
        };
        let remedy = match refused {
            Refused::NotAllowed { .. } => "use an allowed host, or add it to --allowed-storage-hosts",
            Refused::Never { .. } => "set spec.storage.endpoint to the storage server",
            Refused::Unknown { .. } => "check spec.storage.endpoint",
        };
        Self::new(kind, refused.to_string()).remedy(remedy)
    }
}

impl From<reqwest::Error> for Trouble {
    fn from(error: reqwest::Error) -> Self {
        // The URL may carry a signature.
        let error = error.without_url();
        let mut chain = Vec::new();
        let mut next: Option<&(dyn StdError + 'static)> = Some(&error);
        while let Some(cause) = next {
            if let Some(refused) = cause.downcast_ref::<Refused>() {
                return refused.clone().into();
            }
            if let Some(redirect) = cause.downcast_ref::<super::client::ForeignRedirect>() {
                return Self::new(Kind::Denied, redirect.to_string())
                    .remedy("set spec.storage.endpoint to the server that holds the objects");
            }
            let text = cause.to_string();
            if chain.last() != Some(&text) {
                chain.push(text);
            }
            next = cause.source();
        }
        let detail = chain.join(": ");
        if detail.contains("certificate") {
            return Self::new(Kind::Untrusted, detail)
                .remedy("put the certificate of the authority that signed the server's into the Secret as ca.crt");
        }
        if error.is_builder() {
            return Self::new(Kind::Invalid, detail).remedy("check spec.storage.endpoint");
        }
        Self::new(Kind::Unreachable, detail).remedy("check the address, and that the storage server is up")
    }
}
