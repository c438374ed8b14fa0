//! The way to a device's bytes.

use reqwest::{Method, RequestBuilder, Url};

use super::{DeviceUrl, Lease};
use crate::Kind;
use crate::vsphere::client::{Client, Trouble};

impl Lease {
    /// A request to a device's URL, to fill in: sent to the host that the lease names, whose certificate must be the one that the
    /// lease names, or else be trusted like the server's own. Only the server itself gets the session's cookie; to other hosts
    /// the URL is permission enough.
    pub(crate) fn request(&self, method: Method, device: &DeviceUrl) -> Result<RequestBuilder, Trouble> {
        let (url, is_server) = resolve(&self.client, &device.url)?;
        if is_server {
            let http = self.client.http().main();
            return Ok(http.request(method, url).headers(self.client.signed()));
        }
        let http = self.client.http().other(device.fingerprint.as_ref())?;
        Ok(http.request(method, url))
    }

    /// The host that a device's bytes come from or go to, for messages.
    pub(crate) fn host(&self, device: &DeviceUrl) -> String {
        let url = resolve(&self.client, &device.url);
        url.ok()
            .and_then(|(url, _)| url.host_str().map(str::to_owned))
            .unwrap_or_default()
    }
}

/// A lease's URL with `*` replaced by the host that we are connected to; whether it leads to the server itself.
fn resolve(client: &Client, text: &str) -> Result<(Url, bool), Trouble> {
    let endpoint = client.endpoint();
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
    // A host's ports are all its own: the ticket is for whoever listens there.
    let is_server = url.host_str() == endpoint.url().host_str();
    Ok((url, is_server))
}
