//! Calls of the API server. Each has a limit; what went wrong says whether it passes.

use std::time::Duration;

use kube::core::Status;
use thiserror::Error;

/// How long one call may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The API server did not do what was asked.
#[derive(Debug, Error)]
pub(super) enum Trouble {
    /// It did not answer in time.
    #[error("the API server did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// It refused, or could not be reached.
    #[error("{}", said(.0))]
    Refused(#[source] Box<kube::Error>),
    /// What it has is not what was asked for.
    #[error("{0}")]
    Unfit(String),
}

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        Self::Refused(Box::new(error))
    }
}

impl Trouble {
    /// Whether it goes away by itself: the API server is busy, restarts or cannot be reached.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Silent(_) => true,
            Self::Refused(error) => match &**error {
                kube::Error::Api(status) => matches!(status.code, 429 | 500..),
                kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => true,
                _ => false,
            },
            Self::Unfit(_) => false,
        }
    }

    /// There is no such object.
    pub(super) fn is_not_found(&self) -> bool {
        self.status().is_some_and(Status::is_not_found)
    }

    /// The object is another one than was meant, or has changed.
    pub(super) fn is_conflict(&self) -> bool {
        self.status().is_some_and(Status::is_conflict)
    }

    /// There is an object of that name.
    pub(super) fn is_already_exists(&self) -> bool {
        self.status().is_some_and(Status::is_already_exists)
    }

    fn status(&self) -> Option<&Status> {
        match self {
            Self::Refused(error) => match &**error {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Silent(_) | Self::Unfit(_) => None,
        }
    }
}

/// What the server said, without what a debugger wants to see.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("the API server answered {} {}", status.code, status.reason),
        other => format!("cannot reach the API server: {other}"),
    }
}

/// Waits for an answer, with a limit.
pub(super) async fn ask<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Trouble> {
    within(LIMIT, call).await
}

/// Waits for an answer for so long.
pub(super) async fn within<T>(limit: Duration, call: impl Future<Output = kube::Result<T>>) -> Result<T, Trouble> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Trouble::Silent(limit)),
    }
}

/// Takes "there is none" for an answer.
pub(super) fn optional<T>(answer: Result<T, Trouble>) -> Result<Option<T>, Trouble> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(trouble) if trouble.is_not_found() => Ok(None),
        Err(trouble) => Err(trouble),
    }
}
