//! Where a bucket is: which server, under which address.

use reqwest::Url;
use url::form_urlencoded;

use crate::{Error, Kind};

/// The region of requests where none is given: every server but AWS takes it, or says which one it wants.
const DEFAULT_REGION: &str = "us-east-1";
/// The domain of AWS, and of its Chinese regions.
const AWS: [&str; 2] = [".amazonaws.com", ".amazonaws.com.cn"];

/// A bucket on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The URL of the bucket, ending with `/`.
    bucket_url: Url,
    bucket: String,
    pub(super) region: String,
    /// Whether it is AWS itself.
    pub(super) is_aws: bool,
    /// How messages name the server.
    server: String,
}

impl Place {
    /// The place of `bucket`. No endpoint is AWS; an endpoint without a scheme is `https`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for what is no bucket, region or endpoint.
    pub(super) fn new(bucket: &str, region: Option<&str>, endpoint: Option<&str>) -> Result<Self, Error> {
        check_bucket(bucket)?;
        let (region, endpoint) = (given(region), given(endpoint));
        if let Some(region) = region {
            check_region(region)?;
        }
        let base = match endpoint {
            Some(endpoint) => parse_endpoint(endpoint)?,
            None => parse_endpoint("s3.amazonaws.com")?,
        };
        let host = base.host_str().unwrap_or_default().to_owned();
        let is_aws = AWS.iter().any(|domain| host.ends_with(domain));
        let region = region.or_else(|| region_in(&host)).unwrap_or(DEFAULT_REGION).to_owned();
        let bucket_url = if is_aws {
            aws_url(base, &host, bucket, &region)
        } else {
            below(base, bucket)
        };
        let bucket_url = bucket_url.ok_or_else(|| invalid_endpoint(endpoint.unwrap_or_default(), "it has no host"))?;
        let server = authority(&bucket_url);
        Ok(Self {
            bucket_url,
            bucket: bucket.to_owned(),
            region,
            is_aws,
            server,
        })
    }

    /// The bucket and its server, for messages.
    pub(super) fn describe(&self) -> String {
        format!("bucket {} at {}", self.bucket, self.server)
    }

    /// How the status names an object.
    pub(super) fn s3_url(&self, name: &str) -> String {
        format!("s3://{}/{name}", self.bucket)
    }

    /// How a copy names its source: an object, and its version where the bucket keeps them.
    pub(super) fn copy_source(&self, name: &str, version_id: Option<&str>) -> String {
        let source = format!("{}/{name}", self.bucket);
        match version_id {
            Some(id) => {
                let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
                format!("{source}?versionId={id}")
            }
            None => source,
        }
    }

    /// The URL of the object `name`, or of the bucket where it is empty. Names are made of characters that need no escape.
    pub(super) fn url(&self, name: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.bucket_url.clone();
        if name.is_empty() && url.path() != "/" {
            // The bucket itself has no slash at its end where it is a path.
            let path = url.path().trim_end_matches('/').to_owned();
            url.set_path(&path);
        } else if !name.is_empty() {
            let path = format!("{}{name}", url.path());
            url.set_path(&path);
        }
        if !query.is_empty() {
            let mut pairs = url.query_pairs_mut();
            for (key, value) in query {
                pairs.append_pair(key, value);
            }
        }
        url
    }
}

fn given(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|value| !value.is_empty())
}

/// `https://host:port` without path, query or credentials.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

/// The rules that all servers share, with the old ones of us-east-1 (capital letters, `_`, up to 255).
fn check_bucket(bucket: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let starts = bucket.starts_with(|c: char| c.is_ascii_alphanumeric());
    if (3..=255).contains(&bucket.len()) && starts && bucket.chars().all(allowed) && !bucket.contains("..") {
        return Ok(());
    }
    Err(Error::new(Kind::Invalid, "use", format!("S3 bucket {bucket:?}"))
        .detail("a bucket's name has 3 or more letters, digits, '.', '-' and '_', and starts with a letter or digit")
        .remedy("set spec.storage.bucket to the name alone, without s3:// and without a path"))
}

fn check_region(region: &str) -> Result<(), Error> {
    if region.len() <= 63
        && region
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    {
        return Ok(());
    }
    Err(Error::new(Kind::Invalid, "use", format!("S3 region {region:?}"))
        .detail("a region is made of letters, digits, '-' and '_'")
        .remedy("set spec.storage.region to something like us-east-1"))
}

fn invalid_endpoint(endpoint: &str, detail: &str) -> Error {
    // What stands before an @ may be a password.
    let shown = endpoint.rsplit('@').next().unwrap_or_default();
    let shown = shown.split(['?', '#']).next().unwrap_or_default();
    Error::new(Kind::Invalid, "use", format!("S3 endpoint {shown:?}"))
        .detail(detail)
        .remedy("set spec.storage.endpoint to a host with an optional port, or to an http:// or https:// URL")
}

fn parse_endpoint(text: &str) -> Result<Url, Error> {
    let invalid = |detail: &str| invalid_endpoint(text, detail);
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    let url = Url::parse(&with_scheme).map_err(|error| invalid(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid("its scheme is neither http nor https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("it holds credentials, which belong into the Secret"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("it has a query or a fragment"));
    }
    Ok(url)
}

/// The region in a host of AWS such as `s3.eu-west-1.amazonaws.com`.
fn region_in(host: &str) -> Option<&str> {
    let rest = AWS.iter().find_map(|domain| host.strip_suffix(domain))?;
    let label = rest.rsplit('.').next()?;
    label
        .contains('-')
        .then_some(label)
        .filter(|label| !label.starts_with("s3"))
}

/// On AWS the bucket is a part of the host, but for names with a dot, which its certificate does not cover.
fn aws_url(mut base: Url, host: &str, bucket: &str, region: &str) -> Option<Url> {
    if host.starts_with(&format!("{bucket}.s3")) {
        return Some(slashed(base));
    }
    let host = match host {
        "s3.amazonaws.com" if region.starts_with("cn-") => format!("s3.{region}.amazonaws.com.cn"),
        "s3.amazonaws.com" if region != DEFAULT_REGION => format!("s3.{region}.amazonaws.com"),
        _ => host.to_owned(),
    };
    if bucket.contains('.') {
        base.set_host(Some(&host)).ok()?;
        return below(base, bucket);
    }
    base.set_host(Some(&format!("{bucket}.{host}"))).ok()?;
    Some(slashed(base))
}

/// The bucket as a path below `base`.
fn below(base: Url, bucket: &str) -> Option<Url> {
    slashed(base).join(&format!("{bucket}/")).ok()
}

fn slashed(mut url: Url) -> Url {
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(bucket: &str, region: Option<&str>, endpoint: Option<&str>) -> String {
        Place::new(bucket, region, endpoint)
            .unwrap()
            .url("a/k", &[])
            .to_string()
    }

    #[test]
    fn aws_has_the_bucket_in_the_host_and_others_in_the_path() {
        for (bucket, region, endpoint, expected) in [
            ("vms", None, None, "https://vms.s3.amazonaws.com/a/k"),
            (
                "vms",
                Some("eu-west-1"),
                None,
                "https://vms.s3.eu-west-1.amazonaws.com/a/k",
            ),
            (
                "vms",
                Some("us-east-1"),
                Some("s3.amazonaws.com"),
                "https://vms.s3.amazonaws.com/a/k",
            ),
            (
                "vms",
                Some("eu-west-1"),
                Some("s3.amazonaws.com"),
                "https://vms.s3.eu-west-1.amazonaws.com/a/k",
            ),
            (
                "vms",
                Some("cn-north-1"),
                None,
                "https://vms.s3.cn-north-1.amazonaws.com.cn/a/k",
            ),
            (
                "vms",
                None,
                Some("https://s3.dualstack.eu-west-1.amazonaws.com/"),
                "https://vms.s3.dualstack.eu-west-1.amazonaws.com/a/k",
            ),
            (
                "vms",
                None,
                Some("vms.s3.eu-west-1.amazonaws.com"),
                "https://vms.s3.eu-west-1.amazonaws.com/a/k",
            ),
            (
                "my.vms",
                Some("eu-west-1"),
                None,
                "https://s3.eu-west-1.amazonaws.com/my.vms/a/k",
            ),
            (
                "vms",
                None,
                Some("minio.example.com:9000"),
                "https://minio.example.com:9000/vms/a/k",
            ),
            (
                "vms",
                None,
                Some("http://10.0.0.1:9000"),
                "http://10.0.0.1:9000/vms/a/k",
            ),
            (
                "vms",
                None,
                Some("http://[::1]:9000/s3"),
                "http://[::1]:9000/s3/vms/a/k",
            ),
            ("vms", Some(""), Some(" "), "https://vms.s3.amazonaws.com/a/k"),
            (
                "vms",
                None,
                Some("amazonaws.com.example.org"),
                "https://amazonaws.com.example.org/vms/a/k",
            ),
        ] {
            assert_eq!(url(bucket, region, endpoint), expected);
        }
        let place = |endpoint| Place::new("vms", None, Some(endpoint)).unwrap();
        assert_eq!(place("s3.eu-west-1.amazonaws.com").region, "eu-west-1");
        assert_eq!(place("s3-fips.us-gov-west-1.amazonaws.com").region, "us-gov-west-1");
        assert_eq!(place("s3.amazonaws.com").region, "us-east-1");
        assert_eq!(place("eu-west-1.example.com").region, "us-east-1");
        let own = place("http://h:1/s3");
        assert_eq!(own.url("", &[("uploads", "")]).as_str(), "http://h:1/s3/vms?uploads=");
        assert_eq!(
            place("s3.amazonaws.com").url("", &[]).as_str(),
            "https://vms.s3.amazonaws.com/"
        );
        assert_eq!(own.describe(), "bucket vms at http://h:1");
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_a_secret_in_the_message() {
        for (bucket, region, endpoint) in [
            ("", None, None),
            ("ab", None, None),
            ("a/bucket", None, None),
            ("s3://bucket", None, None),
            ("..b", None, None),
            ("b..b", None, None),
            ("vms", Some("eu west"), None),
            ("vms", Some("x/../y"), None),
            ("vms", None, Some("ftp://h")),
            ("vms", None, Some("https://")),
            ("vms", None, Some("https://me:hunter2@h")),
            ("vms", None, Some("me:hunter2@h")),
            ("vms", None, Some("h?token=hunter2")),
            ("vms", None, Some("h h")),
        ] {
            let error = Place::new(bucket, region, endpoint).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
            assert!(error.to_string().contains("set spec.storage."), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error}");
        }
    }
}
