//! What a lease says of itself.

use std::time::Duration;

use crate::tls::Fingerprint;
use crate::vsphere::soap::Element;

/// What a lease is on.
#[derive(Debug, Clone)]
pub(crate) struct LeaseInfo {
    /// How long it holds without a sign of life.
    pub(crate) timeout: Duration,
    /// Virtual size of all its disks in bytes.
    pub(crate) capacity: u64,
    /// The files that can be transferred.
    pub(crate) devices: Vec<DeviceUrl>,
}

/// A file that can be transferred. Its URL is the permission to do so: it is in no message.
#[derive(Clone)]
pub(crate) struct DeviceUrl {
    /// Names the device at the server: `/vm-42/ParaVirtualSCSIController0:1`.
    pub(crate) key: String,
    /// Names the device of the import's specification: `/NAME/ParaVirtualSCSIController0:1`.
    pub(crate) import_key: Option<String>,
    /// Where it is; the host may be `*`.
    pub(super) url: String,
    /// Whether it is a disk.
    pub(crate) is_disk: bool,
    /// Fingerprint of the certificate of the host in the URL.
    pub(super) fingerprint: Option<Fingerprint>,
}

impl std::fmt::Debug for DeviceUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceUrl")
            .field("key", &self.key)
            .field("import_key", &self.import_key)
            .field("is_disk", &self.is_disk)
            .finish_non_exhaustive()
    }
}

impl LeaseInfo {
    /// Reads a `HttpNfcLeaseInfo`.
    pub(crate) fn of(info: &Element) -> Self {
        let seconds = info
            .number_at("leaseTimeout")
            .and_then(|seconds| u64::try_from(seconds).ok());
        Self {
            capacity: info
                .number_at("totalDiskCapacityInKB")
                .and_then(|kib| u64::try_from(kib).ok())
                .unwrap_or(0)
                << 10,
            timeout: Duration::from_secs(seconds.filter(|seconds| *seconds > 0).unwrap_or(300)),
            devices: info.all("deviceUrl").filter_map(DeviceUrl::of).collect(),
        }
    }
}

impl DeviceUrl {
    fn of(device: &Element) -> Option<Self> {
        let url = device.text_at("url")?.to_owned();
        // ESXi before 6.7 does not say that a file is a disk, by its name it does.
        let is_vmdk = url
            .split(['?', '#'])
            .next()
            .is_some_and(|path| path.to_lowercase().ends_with(".vmdk"));
        Some(Self {
            key: device.text_at("key").unwrap_or_default().to_owned(),
            import_key: device.text_at("importKey").map(str::to_owned),
            is_disk: device.flag_at("disk").unwrap_or(is_vmdk),
            fingerprint: fingerprint(device),
            url,
        })
    }
}

/// Which certificate a device's host has. The thumbprint may be empty; from 9.0 on servers give the certificate itself, too.
fn fingerprint(device: &Element) -> Option<Fingerprint> {
    let thumbprint = device.text_at("sslThumbprint").and_then(Fingerprint::parse);
    thumbprint.or_else(|| Fingerprint::of_pem(device.text_at("sslCertificate")?))
}

/// What the server says of a file that was transferred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ManifestEntry {
    /// The device's key.
    pub(crate) key: String,
    /// Digest over the file as it was sent.
    pub(crate) checksum: Option<Checksum>,
    /// Length of the file as it was sent, in bytes.
    pub(crate) size: Option<u64>,
}

/// A digest in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Checksum {
    /// SHA-1.
    Sha1(String),
    /// SHA-256.
    Sha256(String),
}

impl ManifestEntry {
    pub(super) fn of(entry: &Element) -> Option<Self> {
        let newer = entry.text_at("checksum").map(str::to_lowercase);
        let kind = entry.text_at("checksumType").map(str::to_lowercase);
        let sha1 = entry.text_at("sha1").map(str::to_lowercase);
        let checksum = match (kind.as_deref(), newer) {
            (Some("sha256"), Some(text)) => Some(Checksum::Sha256(text)),
            (Some("sha1"), Some(text)) => Some(Checksum::Sha1(text)),
            _ => sha1.map(Checksum::Sha1),
        };
        Some(Self {
            key: entry.text_at("key")?.to_owned(),
            checksum,
            size: entry
                .number_at("size")
                .and_then(|size| u64::try_from(size).ok())
                .filter(|size| *size > 0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_says_which_digest_it_has() {
        let entry = |inner: &str| {
            let text = format!("<returnval><key>k</key>{inner}</returnval>");
            ManifestEntry::of(&Element::parse(&text).unwrap()).unwrap()
        };
        let old = entry("<sha1>AB</sha1><size>7</size>");
        assert_eq!(old.checksum, Some(Checksum::Sha1("ab".to_owned())));
        assert_eq!(old.size, Some(7));
        let new = entry("<sha1/><checksum>CD</checksum><checksumType>sha256</checksumType><size>0</size>");
        assert_eq!(new.checksum, Some(Checksum::Sha256("cd".to_owned())));
        assert_eq!(new.size, None);
        assert_eq!(entry("<sha1></sha1>").checksum, None);
    }

    #[test]
    fn a_host_is_known_by_its_thumbprint_or_its_certificate() {
        let print = |inner: &str| {
            let text = format!("<d><url>https://h/x.vmdk</url>{inner}</d>");
            DeviceUrl::of(&Element::parse(&text).unwrap())
                .unwrap()
                .fingerprint
                .map(|print| print.to_string())
        };
        let sha1 = "00".repeat(20);
        let thumbprint = format!("<sslThumbprint>{sha1}</sslThumbprint>");
        let pem = "<sslCertificate>-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n</sslCertificate>";
        assert_eq!(print(&thumbprint).unwrap().len(), 59);
        assert_eq!(print(&format!("{thumbprint}{pem}")), print(&thumbprint));
        let without = format!("<sslThumbprint/>{pem}");
        assert!(print(&without).unwrap().starts_with("6E:34:0B:9C:FF:B3"));
        assert_eq!(print("<sslCertificate>none</sslCertificate><sslThumbprint/>"), None);
    }

    #[test]
    fn a_device_is_a_disk_by_its_flag_or_its_name() {
        let device = |inner: &str| DeviceUrl::of(&Element::parse(&format!("<d>{inner}</d>")).unwrap()).unwrap();
        assert!(device("<key>k</key><url>https://h/nfc/t/disk-0.vmdk</url>").is_disk);
        assert!(!device("<key>k</key><url>https://h/nfc/t/x.nvram</url>").is_disk);
        assert!(!device("<key>k</key><url>https://h/x.vmdk</url><disk>false</disk>").is_disk);
        let secret = device("<key>k</key><url>https://h/nfc/ticket/disk-0.vmdk</url>");
        assert!(!format!("{secret:?}").contains("ticket"));
    }
}
