//! What the API server was asked, by its audit log.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Asks for a line for each request, with who, what and the answer, and nothing of its content.
const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
";

/// An audit log.
pub struct Audit {
    log: PathBuf,
}

/// A verb on a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// `resource.group`, the resource with its subresource.
    pub resource: String,
    /// The verb.
    pub verb: String,
}

impl Right {
    /// A verb on a resource of a group.
    pub fn new(group: &str, resource: &str, verb: &str) -> Self {
        let resource = if group.is_empty() {
            resource.to_owned()
        } else {
            format!("{resource}.{group}")
        };
        Self {
            resource,
            verb: verb.to_owned(),
        }
    }
}

impl Audit {
    /// A log in a folder.
    pub fn new(folder: &Path) -> Self {
        std::fs::write(folder.join("policy.yaml"), POLICY).unwrap();
        Self {
            log: folder.join("audit.log"),
        }
    }

    /// The arguments of the API server that writes it.
    pub fn arguments(&self) -> Vec<String> {
        let policy = self.log.with_file_name("policy.yaml");
        vec![
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", self.log.display()),
        ]
    }

    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        // The last line may be half written.
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// What somebody asked for and was not refused.
    pub fn used(&self, user: &str) -> BTreeSet<Right> {
        let of_user = |line: &&Value| {
            who(line) == user
                && line["responseStatus"]["code"]
                    .as_u64()
                    .is_some_and(|code| code != 401 && code != 403)
        };
        let lines = self.lines();
        lines
            .iter()
            .filter(of_user)
            .filter(|line| line["objectRef"].is_object())
            .map(right)
            .collect()
    }

    /// What a service account was refused.
    pub fn refused(&self) -> Vec<String> {
        let is_refused =
            |line: &&Value| line["responseStatus"]["code"] == 403 && who(line).starts_with("system:serviceaccount:v");
        let lines = self.lines();
        let refused = lines.iter().filter(is_refused);
        refused
            .map(|line| format!("{} {:?} {}", who(line), right(line), line["responseStatus"]))
            .collect()
    }
}

/// Who asked: the controller's requests are made in its name by the test's own user.
fn who(line: &Value) -> &str {
    let impersonated = line["impersonatedUser"]["username"].as_str();
    impersonated
        .or_else(|| line["user"]["username"].as_str())
        .unwrap_or_default()
}

fn right(line: &Value) -> Right {
    let of = &line["objectRef"];
    let text = |name: &str| of[name].as_str().unwrap_or_default();
    let resource = match text("subresource") {
        "" => text("resource").to_owned(),
        sub => format!("{}/{sub}", text("resource")),
    };
    Right::new(text("apiGroup"), &resource, line["verb"].as_str().unwrap_or_default())
}
