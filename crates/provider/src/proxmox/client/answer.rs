//! What the API answers: the `data` envelope, and what its errors mean.

use std::collections::BTreeMap;

use hyper::ext::ReasonPhrase;
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Error, Kind};

/// The longest answer that is read. A storage with ten thousand volumes stays far below.
const LONGEST: usize = 32 << 20;
/// How much of a text that Proxmox VE gives is shown.
const SHOWN: usize = 600;

/// An answer that was read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    /// What stands behind the status in the first line: before 8.0 the only place for most messages.
    reason: Option<String>,
    body: Vec<u8>,
}

#[derive(Debug, Deserialize)]
struct Envelope {
    #[serde(default)]
    data: Value,
    #[serde(default)]
    total: Option<Value>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    errors: Option<BTreeMap<String, Value>>,
}

impl Answer {
    /// Reads an answer.
    pub(super) async fn read(mut response: Response) -> Result<Self, reqwest::Error> {
        let reason = response.extensions().get::<ReasonPhrase>();
        let reason = reason.map(|phrase| String::from_utf8_lossy(phrase.as_bytes()).into_owned());
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            body.extend_from_slice(&chunk[..chunk.len().min(LONGEST - body.len())]);
            if body.len() == LONGEST {
                break;
            }
        }
        Ok(Self { status, reason, body })
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The data of a success, with the number of all entries where a list says it.
    ///
    /// # Errors
    /// What [`fault`](Self::fault) makes of a refusal; [`Kind::Failed`] for an answer that is not what the API says.
    pub(super) fn data<T: DeserializeOwned>(
        &self,
        action: &'static str,
        object: &str,
    ) -> Result<(T, Option<u64>), Error> {
        if !self.status.is_success() {
            return Err(self.fault(action, object));
        }
        let unreadable = |error: serde_json::Error| {
            Error::new(Kind::Failed, action, object)
                .detail(format!("the answer is not what Proxmox VE's API says: {error}"))
                .remedy("check that the endpoint is Proxmox VE's own, with no portal in between")
        };
        let envelope: Envelope = serde_json::from_slice(&self.body).map_err(unreadable)?;
        let total = envelope.total.as_ref().and_then(Value::as_u64);
        Ok((serde_json::from_value(envelope.data).map_err(unreadable)?, total))
    }

    /// What a refusal means, with the text that Proxmox VE gave for it.
    pub(super) fn fault(&self, action: &'static str, object: &str) -> Error {
        let text = self.text();
        let detail = format!("{} {}", self.status.as_u16(), clip(&text));
        let error = Error::new(kind(self.status.as_u16(), &text), action, object).detail(detail.trim_end());
        match remedy(self.status.as_u16(), &text) {
            Some(remedy) => error.remedy(remedy),
            None => error,
        }
    }

    /// The message, and what is wrong with each parameter.
    fn text(&self) -> String {
        let envelope = serde_json::from_slice::<Envelope>(&self.body).ok();
        let (message, errors) = envelope.map_or((None, None), |envelope| (envelope.message, envelope.errors));
        let mut text = message
            .filter(|message| !message.trim().is_empty())
            .or_else(|| self.reason.clone())
            .or_else(|| self.status.canonical_reason().map(str::to_owned))
            .unwrap_or_default()
            .trim()
            .to_owned();
        for (parameter, error) in errors.unwrap_or_default() {
            let error = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
            text = format!("{text}; {parameter}: {}", error.trim());
        }
        text
    }
}

/// A text of another's, on one line and not too long.
pub(super) fn clip(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// What an error means. Proxmox VE answers 500 to nearly everything that dies in its Perl code: then the text decides.
pub(super) fn kind(status: u16, text: &str) -> Kind {
    match status {
        401 | 403 => Kind::Denied,
        404 => Kind::NotFound,
        400 if says_id_taken(text) => Kind::NameTaken,
        400 => Kind::Invalid,
        501 => Kind::Unsupported,
        408 | 425 | 429 | 503 => Kind::Busy,
        502 | 504 | 595..=599 => Kind::Unreachable,
        _ => kind_of_text(text),
    }
}

fn says_id_taken(text: &str) -> bool {
    text.contains("already exists")
}

/// What the text of a failed call or task means.
pub(crate) fn kind_of_text(text: &str) -> Kind {
    let text = text.to_ascii_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    if says(&[
        "permission check failed",
        "permission denied - invalid",
        "authentication failure",
    ]) {
        Kind::Denied
    } else if says(&[
        "is locked (",
        "got timeout",
        "can't lock file",
        "got lock request timeout",
        "unable to acquire lock",
    ]) {
        Kind::Busy
    } else if says(&[
        "no space left",
        "not enough space",
        "not enough free space",
        "out of space",
        "disk quota exceeded",
    ]) {
        Kind::NoSpace
    } else if says(&["already exists"]) {
        Kind::NameTaken
    } else if says(&[
        "configuration file 'nodes/",
        "unable to find configuration file",
        "no such vm",
        "does not exist",
        "no such storage",
        "no such file or directory",
        "no such volume",
    ]) {
        Kind::NotFound
    } else if says(&[
        "no quorum",
        "not online",
        "connection refused",
        "no route to host",
        "hostname lookup",
    ]) {
        Kind::Unreachable
    } else {
        Kind::Failed
    }
}

/// What to do about a refusal, where its text says enough.
fn remedy(status: u16, text: &str) -> Option<String> {
    if let Some((path, privileges)) = missing_privilege(text) {
        return Some(format!(
            "give the token or user a role with {privileges} on {path}: pveum acl modify {path} --tokens ID --roles ROLE \
             (see docs/providers/proxmox.md)"
        ));
    }
    match status {
        401 => Some(
            "check token_id (user@realm!name) and token_secret, or username (user@realm) and password, in the Secret"
                .to_owned(),
        ),
        595..=599 => Some("check that the node is up and that the cluster has quorum".to_owned()),
        _ => None,
    }
}

/// Path and privileges in `Permission check failed (/vms/100, VM.Allocate)`, also with `|` between several.
fn missing_privilege(text: &str) -> Option<(&str, String)> {
    let (_, rest) = text.split_once("ermission check failed (")?;
    let (inner, _) = rest.split_once(')')?;
    let (path, privileges) = inner.split_once(", ")?;
    path.starts_with('/').then(|| (path, privileges.replace('|', " or ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            reason: Some("Said in the status line".to_owned()),
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn a_missing_privilege_is_named_with_what_to_do() {
        let body =
            r#"{"data":null,"message":"Permission check failed (/storage/local, Datastore.AllocateTemplate)\n"}"#;
        let error = answer(403, body).fault("upload to", "storage local");
        assert_eq!(error.kind(), Kind::Denied);
        assert_eq!(
            error.to_string(),
            "cannot upload to storage local: 403 Permission check failed (/storage/local, Datastore.AllocateTemplate); give the \
             token or user a role with Datastore.AllocateTemplate on /storage/local: pveum acl modify /storage/local --tokens \
             ID --roles ROLE (see docs/providers/proxmox.md)"
        );
    }

    #[test]
    fn the_status_line_speaks_where_the_body_does_not() {
        let text = answer(500, r#"{"data":null}"#).fault("x", "y").to_string();
        assert_eq!(text, "cannot x y: 500 Said in the status line");
        let text = answer(500, "<html>").fault("x", "y").to_string();
        assert!(text.contains("Said in the status line"), "{text}");
    }

    #[test]
    fn every_wrong_parameter_is_told() {
        let body = r#"{"data":null,"message":"Parameter verification failed.\n","errors":{"b":"no\n","a":"bad"}}"#;
        let error = answer(400, body).fault("create", "VM 100");
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(
            error
                .to_string()
                .contains("Parameter verification failed.; a: bad; b: no"),
            "{error}"
        );
    }

    #[test]
    fn texts_have_their_class() {
        for (status, text, expected) in [
            (500, "VM is locked (backup)", Kind::Busy),
            (
                500,
                "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout",
                Kind::Busy,
            ),
            (
                500,
                "Configuration file 'nodes/pve/qemu-server/100.conf' does not exist",
                Kind::NotFound,
            ),
            (
                500,
                "unable to create VM 100 - VM 100 already exists on node 'pve'",
                Kind::NameTaken,
            ),
            (500, "storage 'x' does not exist", Kind::NotFound),
            (500, "write failed: No space left on device", Kind::NoSpace),
            (500, "cluster not ready - no quorum?", Kind::Unreachable),
            (500, "something else", Kind::Failed),
            (595, "Connection refused", Kind::Unreachable),
            (596, "", Kind::Unreachable),
            (599, "", Kind::Unreachable),
            (401, "No ticket", Kind::Denied),
            (501, "Method 'POST /x' not implemented", Kind::Unsupported),
        ] {
            assert_eq!(kind(status, text), expected, "{text}");
        }
    }

    #[test]
    fn an_answer_that_is_none_of_the_apis_is_told() {
        let error = answer(200, "<html>").data::<u64>("ask", "it").unwrap_err();
        assert_eq!(error.kind(), Kind::Failed);
        let (data, total) = answer(200, r#"{"data":[1],"total":9}"#)
            .data::<Vec<u8>>("ask", "it")
            .unwrap();
        assert_eq!((data, total), (vec![1], Some(9)));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(clip(" a\n b "), "a b");
        assert_eq!(clip(&"ü".repeat(1000)).chars().count(), SHOWN + 1);
    }
}
