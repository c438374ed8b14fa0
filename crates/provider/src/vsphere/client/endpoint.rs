//! Where a server is.

use std::fmt;

use url::{Host, Url};

use crate::{Error, Kind};

const REMEDY: &str =
    "give the address as https://vcenter.example.com/sdk, https://vcenter.example.com or vcenter.example.com";

/// The address of the API: `https://HOST[:PORT]/sdk`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    url: Url,
    host: String,
    user: Option<String>,
}

impl Endpoint {
    /// Reads one of the forms `https://vc/sdk`, `https://vc`, `vc`, each with a port and a user name where those are needed.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let full = if text.contains("://") {
            text.to_owned()
        } else {
            format!("https://{text}")
        };
        // What is behind an @ may be a password, and would be shown.
        let shown = full.rsplit_once('@').map_or(full.as_str(), |(_, rest)| rest).to_owned();
        let invalid = |why: &str| {
            Error::new(Kind::Invalid, "use", format!("the endpoint {shown:?}"))
                .detail(why.to_owned())
                .remedy(REMEDY)
        };
        let mut url = Url::parse(&full).map_err(|error| invalid(&error.to_string()))?;
        if url.scheme() != "https" {
            return Err(invalid("its scheme is not https"));
        }
        if url.password().is_some() {
            return Err(invalid("it holds a password").remedy("put the password into the Secret"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("it has a query or a fragment"));
        }
        if !matches!(url.path().trim_end_matches('/'), "" | "/sdk" | "/sdk/vimService") {
            return Err(invalid("its path is not /sdk"));
        }
        let host = match url.host() {
            Some(Host::Domain(name)) if !name.is_empty() && !name.contains('*') => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => format!("[{address}]"),
            _ => return Err(invalid("it names no host")),
        };
        let user = Some(url.username()).filter(|user| !user.is_empty()).map(decode);
        let _ = url.set_username("");
        url.set_path("/sdk");
        Ok(Self { url, host, user })
    }

    /// Where requests go.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Host, as it stands in a URL.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Host, and port where it is not 443.
    pub(crate) fn authority(&self) -> String {
        match self.url.port() {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    /// The user name that stands in it.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// How messages name what is there, before it said what it is.
    pub(crate) fn object(&self) -> String {
        format!("vSphere at {self}")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.url)
    }
}

/// Undoes percent-encoding; what is none stays.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let digit = |at: usize| {
            (*after.get(at)? as char)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        let decoded = (*byte == b'%').then(|| Some(digit(0)? << 4 | digit(1)?)).flatten();
        out.push(decoded.unwrap_or(*byte));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_leads_to_the_api() {
        for (text, url, authority) in [
            (
                "https://vc.example.com/sdk",
                "https://vc.example.com/sdk",
                "vc.example.com",
            ),
            ("https://vc/", "https://vc/sdk", "vc"),
            (" vc ", "https://vc/sdk", "vc"),
            ("vc:8989", "https://vc:8989/sdk", "vc:8989"),
            ("https://vc:443/sdk/", "https://vc/sdk", "vc"),
            ("https://[::1]:9/sdk/vimService", "https://[::1]:9/sdk", "[::1]:9"),
            ("10.0.0.1", "https://10.0.0.1/sdk", "10.0.0.1"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.url().as_str(), url, "{text}");
            assert_eq!(endpoint.authority(), authority, "{text}");
            assert_eq!(endpoint.user(), None, "{text}");
        }
    }

    #[test]
    fn a_user_may_stand_in_it_and_is_not_shown() {
        let endpoint = Endpoint::parse("https://admin%40vsphere.local@vc/sdk").unwrap();
        assert_eq!(endpoint.user(), Some("admin@vsphere.local"));
        assert_eq!(endpoint.to_string(), "https://vc/sdk");
    }

    #[test]
    fn what_is_no_endpoint_is_refused_without_its_password() {
        for text in [
            "",
            "http://vc/sdk",
            "https://user:secret@vc/sdk",
            "https://vc/ui",
            "https://vc/sdk?x",
            "https://*/sdk",
            "https://",
            "user:secret@:",
            "ftp://vc",
        ] {
            let error = Endpoint::parse(text).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{text}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
