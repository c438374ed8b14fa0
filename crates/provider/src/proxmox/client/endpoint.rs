//! Where the API is.

use url::Url;

use crate::{Error, Kind};

/// The port of `pveproxy`.
const PORT: u16 = 8006;

/// The forms, for messages.
const FORMS: &str = "write it as https://HOST:8006, https://HOST:8006/api2/json, or HOST";

/// The API of a cluster or node: `https://host:port/api2/json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    base: Url,
}

impl Endpoint {
    /// Reads `spec.endpoint`: a URL with or without port and path, or a bare host, with or without port.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for another scheme or path, for credentials in it, and for what is no URL.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let full = if text.contains("://") {
            text.to_owned()
        } else {
            format!("https://{text}")
        };
        let mut base = Url::parse(&full).map_err(|error| invalid(text, &error.to_string()))?;
        if !base.username().is_empty() || base.password().is_some() {
            // Not shown: it holds a secret.
            return Err(invalid("spec.endpoint", "it holds a user name or password").remedy("put them into the Secret"));
        }
        if base.scheme() != "https" {
            return Err(invalid(
                text,
                "only https is spoken: the credentials go with each request",
            ));
        }
        if base.host_str().is_none_or(str::is_empty) {
            return Err(invalid(text, "it names no host"));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(invalid(text, "it has a query or a fragment"));
        }
        if !matches!(base.path().trim_end_matches('/'), "" | "/api2" | "/api2/json") {
            return Err(invalid(text, "its path is not that of the API"));
        }
        // A URL drops the port that its scheme implies; whoever wrote it meant it.
        let says_443 = full
            .split('/')
            .nth(2)
            .is_some_and(|authority| authority.ends_with(":443"));
        if base.port().is_none() && !says_443 {
            base.set_port(Some(PORT))
                .map_err(|()| invalid(text, "it can have no port"))?;
        }
        base.set_path("/api2/json");
        Ok(Self { base })
    }

    /// The URL of a path below the API; each segment is escaped.
    pub(crate) fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        let escaped: Vec<_> = segments.iter().map(|segment| escape(segment)).collect();
        url.set_path(&format!("/api2/json/{}", escaped.join("/")));
        url
    }

    /// The host, for whoever connects to the same one in another way.
    pub(crate) fn host(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    /// `host:port`, for messages.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.host(), self.base.port_or_known_default().unwrap_or(PORT))
    }
}

/// Escapes all that is not unreserved (RFC 3986, section 2.3): a volume's id is one segment, slash and colon included. A segment
/// of dots alone would be resolved away; Proxmox VE knows no such name, and with a dot escaped it is told so.
fn escape(segment: &str) -> String {
    let only_dots = !segment.is_empty() && segment.bytes().all(|byte| byte == b'.');
    let mut escaped = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') || (byte == b'.' && !only_dots) {
            escaped.push(char::from(byte));
        } else {
            // Twice for dots: a URL takes %2e for a dot.
            escaped.push_str(if byte == b'.' { "%25" } else { "%" });
            escaped.extend(hex(byte));
        }
    }
    escaped
}

/// A byte as two hex digits.
fn hex(byte: u8) -> [char; 2] {
    [byte >> 4, byte & 15].map(|digit| {
        char::from_digit(u32::from(digit), 16)
            .unwrap_or('0')
            .to_ascii_uppercase()
    })
}

fn invalid(object: &str, detail: &str) -> Error {
    Error::new(Kind::Invalid, "use", format!("the endpoint {object:?}"))
        .detail(detail)
        .remedy(FORMS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_lead_to_the_same_api() {
        for text in [
            "https://pve:8006",
            "https://pve:8006/",
            "https://pve",
            "https://pve:8006/api2/json",
            "https://pve:8006/api2/json/",
            "pve",
            "pve:8006",
            " pve ",
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(
                endpoint.url(&["version"]).as_str(),
                "https://pve:8006/api2/json/version",
                "{text}"
            );
            assert_eq!(endpoint.name(), "pve:8006");
        }
        let other = |text| Endpoint::parse(text).unwrap().url(&[]).to_string();
        assert_eq!(other("https://pve:443"), "https://pve/api2/json/");
        assert_eq!(other("[::1]:8007"), "https://[::1]:8007/api2/json/");
    }

    #[test]
    fn what_is_no_endpoint_is_refused_and_a_password_is_not_shown() {
        for text in [
            "",
            "http://pve:8006",
            "https://pve/other",
            "https://",
            "https://pve?x=1",
            "a b",
            "qemu:///system",
        ] {
            assert_eq!(Endpoint::parse(text).unwrap_err().kind(), Kind::Invalid, "{text}");
        }
        let text = Endpoint::parse("https://root:hunter2@pve").unwrap_err().to_string();
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn a_segment_stays_one() {
        let endpoint = Endpoint::parse("pve").unwrap();
        let path = |segment| endpoint.url(&["nodes", segment]).path().to_owned();
        assert_eq!(
            path("local:import/a b.qcow2"),
            "/api2/json/nodes/local%3Aimport%2Fa%20b.qcow2"
        );
        assert_eq!(path("../x?y#z%"), "/api2/json/nodes/..%2Fx%3Fy%23z%25");
        assert_eq!(path(".."), "/api2/json/nodes/%252E%252E");
        assert_eq!(path("ü"), "/api2/json/nodes/%C3%BC");
    }
}
