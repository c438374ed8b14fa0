//! Calls to the API server: each has a limit, and a failure names what was tried, on which object, and what to do next.

use std::future::Future;
use std::time::Duration;

use kube::Error as KubeError;
use thiserror::Error;
use vmferry_engine::port::StoreError;

/// How long a call may take, the client's own retries of 429, 503 and 504 included.
const LIMIT: Duration = Duration::from_secs(30);

/// A call to the API server failed.
#[derive(Debug, Error)]
#[error("cannot {action} {object}: {detail}")]
pub struct CallError {
    /// What was tried.
    pub action: &'static str,
    /// On which object.
    pub object: String,
    /// What the server answered, and what to do next.
    pub detail: String,
    /// The HTTP status, where the server answered at all.
    pub code: Option<u16>,
}

impl CallError {
    /// There is no such object.
    pub fn is_not_found(&self) -> bool {
        self.code == Some(404)
    }

    /// The object exists already, or changed under us.
    pub fn is_conflict(&self) -> bool {
        self.code == Some(409)
    }

    /// The role does not allow it.
    pub fn is_denied(&self) -> bool {
        matches!(self.code, Some(401 | 403))
    }

    /// The server will never take it as it is.
    pub fn is_refused(&self) -> bool {
        matches!(self.code, Some(400 | 422))
    }
}

impl From<CallError> for StoreError {
    fn from(error: CallError) -> Self {
        let conflict = error.is_conflict();
        Self {
            action: error.action,
            object: error.object,
            detail: error.detail,
            conflict,
        }
    }
}

/// Does one call.
pub(crate) async fn call<T>(
    action: &'static str,
    object: impl Into<String>,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, CallError> {
    let (detail, code) = match tokio::time::timeout(LIMIT, call).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => explain(&error),
        Err(_) => {
            let text = format!("the API server did not answer within {} s", LIMIT.as_secs());
            (text, None)
        }
    };
    Err(CallError {
        action,
        object: object.into(),
        detail,
        code,
    })
}

/// As [`call`], where an object that is not there is an answer, too.
pub(crate) async fn find<T>(
    action: &'static str,
    object: impl Into<String>,
    asked: impl Future<Output = kube::Result<T>>,
) -> Result<Option<T>, CallError> {
    match call(action, object, asked).await {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What an error says, and its HTTP status. What cannot be parsed may be a Secret, so nothing of it is repeated.
fn explain(error: &KubeError) -> (String, Option<u16>) {
    match error {
        KubeError::Api(status) if matches!(status.code, 401 | 403) => {
            let text = format!(
                "{}; grant it to the service account, docs/kubernetes.md lists the rules",
                status.message
            );
            (text, Some(status.code))
        }
        KubeError::Api(status) if status.message.contains("field not declared in schema") => {
            let text = format!(
                "{}; the CRDs on the cluster are older than this operator: apply those that came with it",
                status.message
            );
            (text, Some(status.code))
        }
        KubeError::Api(status) => (status.message.clone(), Some(status.code)),
        KubeError::SerdeError(error) => {
            let text = format!("the answer does not parse at line {}", error.line());
            (text, None)
        }
        other => (other.to_string(), None),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn refusal(code: u16) -> KubeError {
        KubeError::Api(Status::failure("no way", "Reason").with_code(code).boxed())
    }

    #[tokio::test]
    async fn what_was_tried_is_named_and_what_changed_is_a_conflict() {
        for (code, conflict) in [(404, false), (409, true), (403, false), (500, false)] {
            let asked = async { Err::<(), _>(refusal(code)) };
            let error = call("save", "VMMigration a/b", asked).await.unwrap_err();
            let error = StoreError::from(error);
            assert_eq!(error.conflict, conflict, "{code}");
            assert!(
                error.to_string().starts_with("cannot save VMMigration a/b: no way"),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn nothing_of_an_answer_that_does_not_parse_is_repeated() {
        let parse = serde_json::from_str::<u32>("\"hunter2\"").unwrap_err();
        let asked = async { Err::<(), _>(KubeError::SerdeError(parse)) };
        let error = call("read", "Secret a/b", asked).await.unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
