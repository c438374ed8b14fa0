//! The way to a device's bytes.

use reqwest::{Method, RequestBuilder, Url};

use super::{DeviceUrl, Lease};
use crate::Kind;
use crate::vsphere::client::{Endpoint, Trouble};

impl Lease {
    /// A request to a device's URL, to fill in: sent to the host that the lease names, whose certificate must be the one that the
    /// lease names, or else be trusted like the server's own. Only the server itself gets the session's cookie; to other hosts
    /// the URL is permission enough.
    pub(crate) fn request(&self, method: Method, device: &DeviceUrl) -> Result<RequestBuilder, Trouble> {
        let (url, is_server) = resolve(self.client.endpoint(), &device.url)?;
        if is_server {
            let http = self.client.http().main();
            return Ok(http.request(method, url).headers(self.client.signed()));
        }
        let http = self.client.http().other(device.fingerprint.as_ref())?;
        Ok(http.request(method, url))
    }

    /// The host that a device's bytes come from or go to, for messages.
    pub(crate) fn host(&self, device: &DeviceUrl) -> String {
        let url = resolve(self.client.endpoint(), &device.url);
        url.ok()
            .and_then(|(url, _)| url.host_str().map(str::to_owned))
            .unwrap_or_default()
    }
}

/// What it means that a host gave no answer to a transfer.
pub(crate) fn no_answer(host: &str, error: reqwest::Error) -> Trouble {
    let trouble = Trouble::from(error);
    let detail = format!("host {host}, which vSphere names for the disk: {}", trouble.detail);
    let trouble = Trouble { detail, ..trouble };
    if trouble.kind == Kind::Untrusted {
        return trouble.remedy(
            "it must have the certificate that vSphere names for it, or one that is trusted like the server's own: reconnect the host \
             in the vCenter where its certificate was renewed",
        );
    }
    trouble.remedy("let vmferry reach port 443 of all ESXi hosts, by the names that vSphere knows them by")
}

/// A lease's URL with `*` replaced by the host that we are connected to; whether it leads to the server itself.
fn resolve(endpoint: &Endpoint, text: &str) -> Result<(Url, bool), Trouble> {
    let unfit = |why: &str| Trouble::new(Kind::Failed, format!("the lease gives a URL that {why}"));
    let full = match text.strip_prefix("https://*") {
        Some(rest) if rest.starts_with(':') => format!("https://{}{rest}", endpoint.host()),
        Some(rest) => format!("https://{}{rest}", endpoint.authority()),
        None => text.to_owned(),
    };
    let url = Url::parse(&full).map_err(|_| unfit("cannot be read"))?;
    if url.scheme() != "https" {
        return Err(unfit("is not https"));
    }
    // Behind another port there may be somebody else.
    let authority = |url: &Url| (url.host_str().map(str::to_owned), url.port_or_known_default());
    let is_server = authority(&url) == authority(endpoint.url());
    Ok((url, is_server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_server_itself_is_the_server() {
        for (endpoint, text, full, is_server) in [
            ("vc", "https://*/nfc/t/d.vmdk", "https://vc/nfc/t/d.vmdk", true),
            ("vc", "https://VC:443/nfc/t/d.vmdk", "https://vc/nfc/t/d.vmdk", true),
            ("vc:9", "https://*/nfc/t/d.vmdk", "https://vc:9/nfc/t/d.vmdk", true),
            ("vc:9", "https://*:9/nfc/t/d.vmdk", "https://vc:9/nfc/t/d.vmdk", true),
            (
                "vc",
                "https://*:8443/nfc/t/d.vmdk",
                "https://vc:8443/nfc/t/d.vmdk",
                false,
            ),
            (
                "vc",
                "https://vc:8443/nfc/t/d.vmdk",
                "https://vc:8443/nfc/t/d.vmdk",
                false,
            ),
            ("vc", "https://esx/nfc/t/d.vmdk", "https://esx/nfc/t/d.vmdk", false),
        ] {
            let (url, found) = resolve(&Endpoint::parse(endpoint).unwrap(), text).unwrap();
            assert_eq!((url.as_str(), found), (full, is_server), "{endpoint} {text}");
        }
    }
}
