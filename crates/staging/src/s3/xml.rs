//! The XML of S3: what servers answer, and the one body that is sent.
//!
//! Element names are taken without their namespace, and elements that are not known are passed over: every server has some of
//! its own. Answers are cut at [`LONGEST`] before they come here.

use std::fmt::Write as _;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Part;

/// The longest answer that is read, in bytes: 1,000 parts or uploads take a tenth of it.
pub(super) const LONGEST: usize = 8 << 20;

/// `Error`. AWS S3, "REST error responses".
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ErrorAnswer {
    pub(super) code: String,
    pub(super) message: String,
    /// The region that is right, with `AuthorizationHeaderMalformed` and redirects.
    pub(super) region: Option<String>,
    /// The server's clock, with `RequestTimeTooSkewed`.
    pub(super) server_time: Option<String>,
}

/// `InitiateMultipartUploadResult`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Begun {
    pub(super) upload_id: String,
}

/// `ListPartsResult`: one page.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PartsPage {
    #[serde(default)]
    is_truncated: bool,
    next_part_number_marker: Option<String>,
    #[serde(default, rename = "Part")]
    pub(super) parts: Vec<ListedPart>,
}

/// A part in a list. s3s-fs lists parts without their tag.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListedPart {
    pub(super) part_number: u32,
    #[serde(rename = "ETag")]
    pub(super) tag: Option<String>,
    pub(super) size: Option<u64>,
}

impl PartsPage {
    /// Where the next page starts, if there is one.
    pub(super) fn next(&self) -> Option<&str> {
        let marker = self.next_part_number_marker.as_deref();
        marker.filter(|marker| self.is_truncated && !marker.is_empty())
    }
}

/// `ListMultipartUploadsResult`: one page.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct UploadsPage {
    #[serde(default)]
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
    #[serde(default, rename = "Upload")]
    pub(super) uploads: Vec<ListedUpload>,
}

/// An upload in a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListedUpload {
    pub(super) key: String,
    pub(super) upload_id: String,
}

impl UploadsPage {
    /// Key and upload after which the next page starts, if there is one.
    pub(super) fn next(&self) -> Option<(&str, &str)> {
        let key = self.next_key_marker.as_deref().filter(|_| self.is_truncated)?;
        Some((key, self.next_upload_id_marker.as_deref().unwrap_or_default()))
    }
}

/// `ListBucketResult` of `ListObjectsV2`: one page.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ObjectsPage {
    #[serde(default)]
    is_truncated: bool,
    next_continuation_token: Option<String>,
    #[serde(default, rename = "Contents")]
    pub(super) objects: Vec<ListedObject>,
}

/// An object in a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListedObject {
    pub(super) key: String,
    pub(super) size: u64,
}

impl ObjectsPage {
    /// Where the next page starts, if there is one.
    pub(super) fn next(&self) -> Option<&str> {
        let token = self.next_continuation_token.as_deref();
        token.filter(|token| self.is_truncated && !token.is_empty())
    }
}

/// `CopyPartResult`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Copied {
    #[serde(rename = "ETag")]
    pub(super) tag: String,
}

/// `ListVersionsResult`: one page of versions and delete markers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct VersionsPage {
    #[serde(default)]
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_version_id_marker: Option<String>,
    #[serde(default, rename = "Version")]
    versions: Vec<ListedVersion>,
    #[serde(default, rename = "DeleteMarker")]
    markers: Vec<ListedVersion>,
}

/// A version or delete marker in a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListedVersion {
    pub(super) key: String,
    pub(super) version_id: String,
}

impl VersionsPage {
    /// Key and version after which the next page starts, if there is one.
    pub(super) fn next(&self) -> Option<(&str, &str)> {
        let key = self.next_key_marker.as_deref().filter(|_| self.is_truncated)?;
        Some((key, self.next_version_id_marker.as_deref().unwrap_or_default()))
    }

    /// Versions and delete markers.
    pub(super) fn versions(self) -> impl Iterator<Item = ListedVersion> {
        self.versions.into_iter().chain(self.markers)
    }
}

/// Reads an answer; `None` where it is none of this kind.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Option<T> {
    quick_xml::de::from_str(text.trim_start_matches('\u{feff}').trim_start()).ok()
}

/// The error in an answer, whatever its status: `CompleteMultipartUpload` may fail after it said 200.
pub(super) fn error_in(text: &str) -> Option<ErrorAnswer> {
    let error: ErrorAnswer = parse(text)?;
    let is_error = !error.code.is_empty();
    is_error.then_some(error)
}

/// The body of `CompleteMultipartUpload`. Part numbers of S3 start at 1.
pub(super) fn completion(parts: &[Part]) -> String {
    let mut xml = String::from(r#"<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">"#);
    for part in parts {
        let (number, tag) = (part.number + 1, quick_xml::escape::escape(part.tag.as_str()));
        // Writing to a string cannot fail.
        let _ = write!(
            xml,
            "<Part><PartNumber>{number}</PartNumber><ETag>&quot;{tag}&quot;</ETag></Part>"
        );
    }
    xml.push_str("</CompleteMultipartUpload>");
    xml
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_many_servers() {
        let aws = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-central-1'</Message><Region>eu-central-1</Region><RequestId>ABC</RequestId><HostId>x=</HostId></Error>";
        let error = error_in(aws).unwrap();
        assert_eq!(
            (error.code.as_str(), error.region.as_deref()),
            ("AuthorizationHeaderMalformed", Some("eu-central-1"))
        );
        let skewed = "<Error><Code>RequestTimeTooSkewed</Code><Message>The difference between the request time and the current time is too large.</Message><RequestTime>20261122T230000Z</RequestTime><ServerTime>2026-11-22T21:00:00Z</ServerTime><MaxAllowedSkewMilliseconds>900000</MaxAllowedSkewMilliseconds></Error>";
        assert_eq!(
            error_in(skewed).unwrap().server_time.as_deref(),
            Some("2026-11-22T21:00:00Z")
        );
        let ceph = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>NoSuchUpload</Code><Message></Message><BucketName>b</BucketName><RequestId>tx0</RequestId><HostId>1-default-default</HostId></Error>";
        assert_eq!(error_in(ceph).unwrap().code, "NoSuchUpload");
        let garage = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>NoSuchKey</Code><Message>Key not found</Message><Resource>/b/k</Resource><Region>garage</Region></Error>";
        assert_eq!(error_in(garage).unwrap().code, "NoSuchKey");
        let spaced = "  \n<s3:Error xmlns:s3=\"http://s3.amazonaws.com/doc/2006-03-01/\"><s3:Code>SlowDown</s3:Code><s3:Message>x</s3:Message></s3:Error>";
        assert_eq!(error_in(spaced).unwrap().code, "SlowDown");
        for other in [
            "",
            "<html><body>502 Bad Gateway</body></html>",
            "<Error>",
            "{}",
            "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>",
        ] {
            assert!(error_in(other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn pages_of_parts() {
        let aws = r#"<?xml version="1.0"?><ListPartsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Bucket>b</Bucket><Key>k</Key><UploadId>u</UploadId><Initiator><ID>i</ID></Initiator><PartNumberMarker>1</PartNumberMarker><NextPartNumberMarker>3</NextPartNumberMarker><MaxParts>2</MaxParts><IsTruncated>true</IsTruncated><Part><PartNumber>2</PartNumber><LastModified>2010-11-10T20:48:34.000Z</LastModified><ETag>"7778aef83f66abc1fa1e8477f296d394"</ETag><Size>10485760</Size></Part><Part><PartNumber>3</PartNumber><ETag>&quot;aaaa18db4cc2f85cedef654fccc4a4x8&quot;</ETag><Size>10485760</Size></Part></ListPartsResult>"#;
        let page: PartsPage = parse(aws).unwrap();
        assert_eq!(page.next(), Some("3"));
        let tags: Vec<_> = page.parts.iter().map(|part| part.tag.as_deref().unwrap()).collect();
        assert_eq!(
            tags,
            [
                "\"7778aef83f66abc1fa1e8477f296d394\"",
                "\"aaaa18db4cc2f85cedef654fccc4a4x8\""
            ]
        );
        let s3s = "<ListPartsResult><Bucket>b</Bucket><Part><PartNumber>1</PartNumber><Size>3</Size></Part></ListPartsResult>";
        let page: PartsPage = parse(s3s).unwrap();
        assert!(page.next().is_none() && page.parts[0].tag.is_none());
        let none: PartsPage = parse("<ListPartsResult/>").unwrap();
        assert!(none.parts.is_empty());
    }

    #[test]
    fn pages_of_uploads_and_versions() {
        let seaweed = r#"<?xml version="1.0" encoding="UTF-8"?>
<ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Bucket>b</Bucket><Delimiter></Delimiter><EncodingType></EncodingType><IsTruncated>false</IsTruncated><KeyMarker></KeyMarker><MaxUploads>10000</MaxUploads><Prefix>x/k</Prefix><Upload><Initiated>2026-11-22T23:10:11Z</Initiated><Key>x/k</Key><UploadId>5e96</UploadId></Upload></ListMultipartUploadsResult>"#;
        let page: UploadsPage = parse(seaweed).unwrap();
        assert_eq!(
            (page.uploads[0].key.as_str(), page.uploads[0].upload_id.as_str()),
            ("x/k", "5e96")
        );
        assert!(page.next().is_none());
        let versions = "<ListVersionsResult><Name>b</Name><IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker><NextVersionIdMarker>2</NextVersionIdMarker><Version><Key>k</Key><VersionId>1</VersionId><IsLatest>true</IsLatest></Version><DeleteMarker><Key>k</Key><VersionId>2</VersionId></DeleteMarker><Version><Key>k</Key><VersionId>3</VersionId></Version></ListVersionsResult>";
        let page: VersionsPage = parse(versions).unwrap();
        assert_eq!(page.next(), Some(("k", "2")));
        let ids: Vec<_> = page.versions().map(|version| version.version_id).collect();
        assert_eq!(ids, ["1", "3", "2"]);
    }

    #[test]
    fn pages_of_objects_and_copies() {
        let aws = r#"<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix>x/</Prefix><NextContinuationToken>1ueG=</NextContinuationToken><KeyCount>1</KeyCount><MaxKeys>1</MaxKeys><IsTruncated>true</IsTruncated><Contents><Key>x/k</Key><LastModified>2026-11-22T23:10:11.000Z</LastModified><ETag>&quot;70ee-2&quot;</ETag><Size>5368709120</Size><StorageClass>STANDARD</StorageClass></Contents></ListBucketResult>"#;
        let page: ObjectsPage = parse(aws).unwrap();
        assert_eq!(page.next(), Some("1ueG="));
        assert_eq!((page.objects[0].key.as_str(), page.objects[0].size), ("x/k", 5 << 30));
        let none: ObjectsPage = parse("<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>").unwrap();
        assert!(none.objects.is_empty() && none.next().is_none());
        let copied = r#"<CopyPartResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><LastModified>2026-11-22T23:10:11.000Z</LastModified><ETag>"9b2cf535f27731c974343645a3985328"</ETag></CopyPartResult>"#;
        assert_eq!(parse::<Copied>(copied).unwrap().tag.len(), 34);
    }

    #[test]
    fn a_completion_counts_from_one() {
        let part = Part {
            number: 0,
            tag: "a<b".to_owned(),
        };
        assert!(completion(&[part]).contains("<PartNumber>1</PartNumber><ETag>&quot;a&lt;b&quot;</ETag>"));
    }
}
