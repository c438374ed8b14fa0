//! What an answer of a server means that is no success.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap};

use super::place::Place;
use super::xml::{self, ErrorAnswer};
use crate::Kind;
use crate::web::Trouble;

/// The longest text of a server's that goes into a message, in characters.
const LONGEST_TEXT: usize = 300;

/// A call that failed.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The server's word for it (`NoSuchKey`, …), where it answered in XML.
    pub(super) code: String,
    /// The answer's status; `None` where there was no answer.
    pub(super) status: Option<StatusCode>,
    pub(super) trouble: Trouble,
}

impl From<Trouble> for Refusal {
    fn from(trouble: Trouble) -> Self {
        Self {
            code: String::new(),
            status: None,
            trouble,
        }
    }
}

impl Refusal {
    /// What the answer to a call that needs `permission` means.
    pub(super) fn new(status: StatusCode, headers: &HeaderMap, text: &str, permission: &str, place: &Place) -> Self {
        let error = xml::error_in(text).unwrap_or_default();
        let mut trouble =
            Trouble::of_status(status, headers).unwrap_or_else(|| Trouble::new(Kind::Failed, "the server failed"));
        if !error.code.is_empty() {
            trouble.detail = format!("the server answered {}", said(&error));
        }
        let region = error.region.clone().or_else(|| header(headers, "x-amz-bucket-region"));
        let trouble = match meaning(&error, status, permission) {
            Meaning::Plain(kind, remedy) => {
                trouble.kind = kind;
                match remedy {
                    Some(remedy) => trouble.remedy(remedy),
                    None => trouble,
                }
            }
            Meaning::Region => elsewhere(trouble, region.as_deref(), place),
            Meaning::Clock => skewed(trouble, &error, headers),
        };
        Self {
            code: error.code,
            status: Some(status),
            trouble,
        }
    }

    /// Whether the server has no such call or header, or does not let us use it.
    pub(super) fn is_unsupported(&self) -> bool {
        let by_status = matches!(self.status.map(|status| status.as_u16()), Some(405 | 501));
        by_status
            || matches!(
                self.code.as_str(),
                "NotImplemented" | "MethodNotAllowed" | "AccessDenied"
            )
    }

    /// Whether the server may have stumbled over a header that some do not know.
    pub(super) fn may_be_a_header(&self) -> bool {
        let by_status = matches!(self.status.map(|status| status.as_u16()), Some(400 | 403 | 501));
        by_status
            && matches!(
                self.code.as_str(),
                "NotImplemented"
                    | "InvalidRequest"
                    | "InvalidArgument"
                    | "InvalidDigest"
                    | "XAmzContentSHA256Mismatch"
                    | "XAmzContentChecksumMismatch"
                    | "SignatureDoesNotMatch"
                    | "MalformedXML"
            )
    }
}

enum Meaning {
    Plain(Kind, Option<String>),
    /// The bucket is in another region.
    Region,
    /// The clocks differ.
    Clock,
}

fn meaning(error: &ErrorAnswer, status: StatusCode, permission: &str) -> Meaning {
    let plain = |kind, remedy: &str| Meaning::Plain(kind, Some(remedy.to_owned()));
    match error.code.as_str() {
        "InvalidAccessKeyId" => plain(
            Kind::Denied,
            "check accessKey in the Secret: it is no key of this server, or a temporary one that expired",
        ),
        "SignatureDoesNotMatch" => plain(Kind::Denied, "check secretKey in the Secret"),
        "ExpiredToken" | "TokenRefreshRequired" | "InvalidToken" | "InvalidSecurity" => plain(
            Kind::Denied,
            "put fresh credentials into the Secret: accessKey, secretKey and sessionToken belong together and expire together",
        ),
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "TemporaryRedirect"
        | "Redirect"
        | "IllegalLocationConstraintException" => Meaning::Region,
        "RequestTimeTooSkewed" | "RequestExpired" => Meaning::Clock,
        "NoSuchBucket" => plain(Kind::NotFound, "create the bucket, or correct spec.storage.bucket"),
        "InvalidBucketName" => plain(Kind::Invalid, "correct spec.storage.bucket"),
        "NoSuchKey" => Meaning::Plain(Kind::NotFound, None),
        "NoSuchUpload" | "InvalidPart" => Meaning::Plain(Kind::UploadGone, None),
        "QuotaExceeded"
        | "XMinioStorageFull"
        | "InsufficientStorage"
        | "StorageFull"
        | "BucketQuotaExceeded"
        | "XMinioAdminBucketQuotaExceeded"
        | "InsufficientCapacity"
        | "NotEnoughStorage" => plain(Kind::NoSpace, "free some space in the store, or raise its quota"),
        "EntityTooLarge" => plain(Kind::Invalid, "use a server that takes larger parts and objects"),
        "EntityTooSmall" | "InvalidPartOrder" | "MalformedXML" => Meaning::Plain(Kind::Bug, None),
        "SlowDown"
        | "ServiceUnavailable"
        | "Busy"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "OperationAborted" => Meaning::Plain(Kind::Busy, None),
        "InternalError" | "BadDigest" | "XAmzContentChecksumMismatch" | "ConditionalRequestConflict" => {
            Meaning::Plain(Kind::Failed, None)
        }
        "RequestTimeout" | "IncompleteBody" => Meaning::Plain(Kind::Unreachable, None),
        "PreconditionFailed" => Meaning::Plain(Kind::Changed, None),
        "NotImplemented" | "MethodNotAllowed" => plain(Kind::Unfit, "use a server that has this call of S3"),
        _ => by_status(status, permission),
    }
}

fn by_status(status: StatusCode, permission: &str) -> Meaning {
    let plain = |kind, remedy: String| Meaning::Plain(kind, Some(remedy));
    match status.as_u16() {
        401 | 403 => plain(
            Kind::Denied,
            format!("allow {permission} on the bucket and its objects to the key in the Secret"),
        ),
        301 | 302 | 303 | 307 | 308 => Meaning::Region,
        413 | 507 => plain(
            Kind::NoSpace,
            "free some space in the store, or raise its quota".to_owned(),
        ),
        404 | 410 => Meaning::Plain(Kind::NotFound, None),
        412 => Meaning::Plain(Kind::Changed, None),
        408 | 425 | 429 | 503 => Meaning::Plain(Kind::Busy, None),
        409 | 500 | 502 | 504 | 509 => Meaning::Plain(Kind::Failed, None),
        _ => plain(
            Kind::Unfit,
            "check that spec.storage.endpoint is an S3 server".to_owned(),
        ),
    }
}

/// The server's own words, on one line.
fn said(error: &ErrorAnswer) -> String {
    let clean = |text: &str| {
        let words: Vec<_> = text.split_whitespace().collect();
        let line = words.join(" ").replace(char::is_control, "");
        line.chars().take(LONGEST_TEXT).collect::<String>()
    };
    match (clean(&error.code), clean(&error.message)) {
        (code, message) if message.is_empty() => code,
        (code, message) => format!("{code} ({message})"),
    }
}

fn elsewhere(mut trouble: Trouble, region: Option<&str>, place: &Place) -> Trouble {
    trouble.kind = Kind::Invalid;
    match region.filter(|region| *region != place.region) {
        Some(region) => {
            let clean: String = region.chars().filter(char::is_ascii_graphic).take(63).collect();
            trouble.detail = format!(
                "{}: the bucket is in region {clean}, and {} was used",
                trouble.detail, place.region
            );
            trouble.remedy(format!("set spec.storage.region to {clean}"))
        }
        None => trouble.remedy("check spec.storage.region and spec.storage.endpoint"),
    }
}

fn skewed(mut trouble: Trouble, error: &ErrorAnswer, headers: &HeaderMap) -> Trouble {
    trouble.kind = Kind::Denied;
    let theirs = error.server_time.clone().or_else(|| header(headers, DATE.as_str()));
    if let Some(theirs) = theirs {
        let theirs: String = theirs.chars().filter(|c| !c.is_control()).take(40).collect();
        trouble.detail = format!(
            "{}: it is {theirs} there and {} here",
            trouble.detail,
            utc(std::time::UNIX_EPOCH.elapsed().unwrap_or_default())
        );
    }
    trouble.remedy("set the clock of the machine that is wrong, best by NTP")
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// A time since 1970 as `2026-11-22T23:00:00Z`. Days to date after Howard Hinnant, "chrono-compatible low-level date algorithms".
fn utc(since: Duration) -> String {
    let (days, seconds) = (since.as_secs() / 86_400 + 719_468, since.as_secs() % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, headers: &[(&'static str, &str)], code: &str, more: &str) -> Refusal {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let text = format!("<Error><Code>{code}</Code><Message>so it\n is</Message>{more}</Error>");
        let place = Place::new("vms", Some("us-east-1"), None).unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        Refusal::new(status, &map, &text, "s3:PutObject", &place)
    }

    #[test]
    fn every_refusal_has_its_kind_and_says_what_to_do() {
        for (status, code, kind, word) in [
            (403, "InvalidAccessKeyId", Kind::Denied, "accessKey"),
            (403, "SignatureDoesNotMatch", Kind::Denied, "secretKey"),
            (400, "ExpiredToken", Kind::Denied, "fresh credentials"),
            (404, "NoSuchBucket", Kind::NotFound, "spec.storage.bucket"),
            (403, "AccessDenied", Kind::Denied, "s3:PutObject"),
            (403, "", Kind::Denied, "s3:PutObject"),
            (403, "QuotaExceeded", Kind::NoSpace, "quota"),
            (507, "", Kind::NoSpace, "space"),
            (503, "SlowDown", Kind::Busy, ""),
            (500, "InternalError", Kind::Failed, ""),
            (404, "NoSuchUpload", Kind::UploadGone, ""),
            (301, "PermanentRedirect", Kind::Invalid, "spec.storage.region"),
            (418, "Teapot", Kind::Unfit, "S3 server"),
        ] {
            let refusal = refusal(status, &[], code, "");
            let error = refusal.trouble.of("upload", "a part");
            assert_eq!(error.kind(), kind, "{code}: {error}");
            assert!(error.to_string().contains(word), "{code}: {error}");
            assert!(
                code.is_empty() || error.to_string().contains(&format!("{code} (so it is)")),
                "{error}"
            );
        }
    }

    #[test]
    fn the_right_region_and_both_clocks_are_named() {
        let in_body = refusal(400, &[], "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>");
        let in_header = refusal(301, &[("x-amz-bucket-region", "eu-west-1")], "PermanentRedirect", "");
        for refusal in [in_body, in_header] {
            assert_eq!(
                refusal.trouble.remedy.as_deref(),
                Some("set spec.storage.region to eu-west-1")
            );
        }
        let time = "<ServerTime>2026-01-02T03:04:05Z</ServerTime>";
        let skewed = refusal(403, &[], "RequestTimeTooSkewed", time).trouble;
        assert!(
            skewed.detail.contains("2026-01-02T03:04:05Z there and 20"),
            "{}",
            skewed.detail
        );
        assert_eq!(utc(Duration::from_secs(951_782_399)), "2000-02-28T23:59:59Z");
        assert_eq!(utc(Duration::from_secs(951_782_401)), "2000-02-29T00:00:01Z");
    }

    #[test]
    fn retry_after_is_heeded() {
        let refusal = refusal(503, &[("retry-after", "7")], "SlowDown", "");
        assert_eq!(refusal.trouble.wait, Some(Duration::from_secs(7)));
    }
}
