//! A request to be sent.

use reqwest::Method;

/// A request: method, path below the API, parameters; and for messages, what is tried on what.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(super) method: Method,
    pub(super) path: Vec<String>,
    pub(super) params: Vec<(String, String)>,
    pub(super) action: &'static str,
    pub(super) object: String,
}

impl Call {
    fn new(method: Method, path: &[&str], action: &'static str, object: impl Into<String>) -> Self {
        Self {
            method,
            path: path.iter().map(|segment| (*segment).to_owned()).collect(),
            params: Vec::new(),
            action,
            object: object.into(),
        }
    }

    /// A question. `action` is a verb, `object` what it is done to.
    pub(crate) fn get(path: &[&str], action: &'static str, object: impl Into<String>) -> Self {
        Self::new(Method::GET, path, action, object)
    }

    /// Something to be made or done.
    pub(crate) fn post(path: &[&str], action: &'static str, object: impl Into<String>) -> Self {
        Self::new(Method::POST, path, action, object)
    }

    /// Something to be changed.
    pub(crate) fn put(path: &[&str], action: &'static str, object: impl Into<String>) -> Self {
        Self::new(Method::PUT, path, action, object)
    }

    /// Something to be deleted.
    pub(crate) fn delete(path: &[&str], action: &'static str, object: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path, action, object)
    }

    /// With a parameter: in the query of a question or a deletion, in the form of the others.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "numbers and texts are written down where it is called"
    )]
    pub(crate) fn with(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.params.push((name.into(), value.to_string()));
        self
    }

    /// With many parameters.
    #[must_use]
    pub(crate) fn with_all(mut self, params: impl IntoIterator<Item = (String, String)>) -> Self {
        self.params.extend(params);
        self
    }

    /// The parameters as `application/x-www-form-urlencoded`, which escapes `=` too: Proxmox VE needs it for `boot=order%3D…`.
    pub(super) fn form(&self) -> String {
        url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&self.params)
            .finish()
    }

    /// Whether parameters go into the query.
    pub(super) fn has_query(&self) -> bool {
        self.method == Method::GET || self.method == Method::DELETE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_whole() {
        let call = Call::put(&["x"], "x", "y")
            .with("boot", "order=scsi0;net0")
            .with("n", 7)
            .with("d", "a b&c=ü+%\n");
        assert_eq!(call.form(), "boot=order%3Dscsi0%3Bnet0&n=7&d=a+b%26c%3D%C3%BC%2B%25%0A");
    }
}
