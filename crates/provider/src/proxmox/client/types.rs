//! What the endpoints answer: of each, what is needed.

use serde::Deserialize;

use super::number::{flag, maybe_flag, maybe_number, number};

/// The version of Proxmox VE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    /// `8` of `8.4.1`.
    pub(crate) major: u32,
    /// `4` of `8.4.1`.
    pub(crate) minor: u32,
}

impl Version {
    /// This version.
    pub(crate) const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Reads `8.4.1`, `8.4-2`, `9.0.0~beta1`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(|c: char| !c.is_ascii_digit());
        Some(Self::new(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// `GET /version`.
#[derive(Debug, Deserialize)]
pub(super) struct VersionAnswer {
    pub(super) version: String,
}

/// An entry of `GET /cluster/resources?type=vm`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct VmResource {
    /// Its id, unique in the cluster.
    #[serde(deserialize_with = "number")]
    pub(crate) vmid: u64,
    /// The node that it is on.
    pub(crate) node: String,
    /// `qemu` or `lxc`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Its name; absent where nobody may see it or it has none.
    pub(crate) name: Option<String>,
    /// Its tags, separated by semicolons.
    pub(crate) tags: Option<String>,
}

impl VmResource {
    /// Whether one of its tags is `tag`. Proxmox VE takes semicolon, comma and blank between them.
    pub(crate) fn has_tag(&self, tag: &str) -> bool {
        has_tag(self.tags.as_deref().unwrap_or_default(), tag)
    }
}

/// Whether `tag` is one of `tags`.
pub(crate) fn has_tag(tags: &str, tag: &str) -> bool {
    tags.split([';', ',', ' ']).any(|one| one.eq_ignore_ascii_case(tag))
}

/// An entry of `GET /nodes`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Node {
    /// Its name.
    #[serde(rename = "node")]
    pub(crate) name: String,
    /// `online`, `offline`, `unknown`.
    pub(crate) status: String,
}

impl Node {
    /// Whether it is there.
    pub(crate) fn is_online(&self) -> bool {
        self.status == "online"
    }
}

/// An entry of `GET /cluster/status`: the cluster itself, or a node.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ClusterEntry {
    /// `cluster` or `node`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Its name.
    pub(crate) name: String,
    /// The node's address.
    pub(crate) ip: Option<String>,
}

/// An entry of `GET /nodes/N/storage`: a storage as that node has it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Storage {
    /// Its name.
    #[serde(rename = "storage")]
    pub(crate) name: String,
    /// `dir`, `nfs`, `lvmthin`, `zfspool`, `rbd`, …
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// What it may hold, separated by commas: `images,import,iso`.
    #[serde(default)]
    pub(crate) content: String,
    /// Whether it is not switched off.
    #[serde(default, deserialize_with = "maybe_flag")]
    pub(crate) enabled: Option<bool>,
    /// Whether it answers.
    #[serde(default, deserialize_with = "maybe_flag")]
    pub(crate) active: Option<bool>,
    /// Whether all nodes see the same.
    #[serde(default, deserialize_with = "flag")]
    pub(crate) shared: bool,
    /// Free bytes.
    #[serde(default, deserialize_with = "maybe_number")]
    pub(crate) avail: Option<u64>,
}

/// An entry of `GET /storage`: a storage as it is configured for the cluster.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ConfiguredStorage {
    /// Its name.
    #[serde(rename = "storage")]
    pub(crate) name: String,
    /// `dir`, `nfs`, `lvmthin`, `zfspool`, `rbd`, …
    #[serde(rename = "type")]
    kind: String,
    /// What it may hold, separated by commas.
    #[serde(default)]
    content: String,
    /// Whether all nodes see the same, where that does not follow from its type.
    #[serde(default, deserialize_with = "flag")]
    shared: bool,
    /// Whether it is switched off.
    #[serde(default, deserialize_with = "flag")]
    disable: bool,
    /// The nodes that have it, separated by commas; all, where nothing is said.
    nodes: Option<String>,
}

impl ConfiguredStorage {
    /// Whether it takes files of content `import`, on this node.
    pub(crate) fn takes_imports_on(&self, node: &str) -> bool {
        let holds = self.content.split(',').any(|one| one.trim() == "import");
        holds && !self.disable && self.is_on(node)
    }

    /// Whether it holds disks that no node but this one sees.
    pub(crate) fn is_of_one_node(&self, node: &str) -> bool {
        let holds = self.content.split(',').any(|one| one.trim() == "images");
        let is_remote = matches!(self.kind.as_str(), "rbd" | "iscsi" | "iscsidirect" | "zfs" | "pbs");
        holds && !self.disable && !is_remote && !self.is_shared() && self.is_on(node)
    }

    fn is_on(&self, node: &str) -> bool {
        let has_it = |nodes: &str| nodes.split([',', ' ', ';']).any(|one| one == node);
        self.nodes.as_deref().is_none_or(has_it)
    }

    /// Whether all nodes see the same files in it.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared || matches!(self.kind.as_str(), "nfs" | "cifs" | "cephfs" | "glusterfs")
    }
}

impl Storage {
    /// Whether it may hold this kind of content (`images`, `import`).
    pub(crate) fn holds(&self, content: &str) -> bool {
        self.content.split(',').any(|one| one.trim() == content)
    }

    /// Whether it is switched on and answers.
    pub(crate) fn is_usable(&self) -> bool {
        self.enabled != Some(false) && self.active != Some(false)
    }

    /// Whether its volumes are files, which can have a format of their own.
    pub(crate) fn has_files(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "dir" | "nfs" | "cifs" | "btrfs" | "glusterfs" | "cephfs"
        )
    }
}

/// An entry of `GET /nodes/N/storage/S/content`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Content {
    /// Its id, `storage:import/file` or `storage:vm-100-disk-0`.
    pub(crate) volid: String,
    /// Size in bytes: of an image its capacity, of an `import` the file's where nobody looked into it.
    #[serde(default, deserialize_with = "maybe_number")]
    pub(crate) size: Option<u64>,
    /// The id of the VM that an image belongs to, by its name.
    #[serde(default, deserialize_with = "maybe_number")]
    pub(crate) vmid: Option<u64>,
}

/// An entry of `GET /nodes/N/network?type=any_bridge`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Interface {
    /// Its name.
    pub(crate) iface: String,
}

/// `GET /nodes/N/qemu/VMID/status/current`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct VmStatus {
    /// `running` or `stopped`.
    pub(crate) status: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_by_number() {
        let version = |text| Version::parse(text).unwrap();
        assert_eq!(version("8.4.1"), Version::new(8, 4));
        assert_eq!(version("7.4-20"), Version::new(7, 4));
        assert_eq!(version("9.0.0~beta1").to_string(), "9.0");
        assert!(version("8.10") > version("8.4") && version("9.0") > version("8.10"));
        for text in ["", "8", "x.y", ".1"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_file_is_on_one_node_where_its_storage_is() {
        let alone = |text: &str| {
            let storage: ConfiguredStorage = serde_json::from_str(text).unwrap();
            storage.takes_imports_on("pve2") && !storage.is_shared()
        };
        for (text, is_alone) in [
            (r#"{"storage": "a", "type": "dir", "content": "images,import"}"#, true),
            (
                r#"{"storage": "a", "type": "dir", "content": "import", "nodes": "pve1,pve2"}"#,
                true,
            ),
            (
                r#"{"storage": "a", "type": "dir", "content": "import", "nodes": "pve1,pve22"}"#,
                false,
            ),
            (
                r#"{"storage": "a", "type": "dir", "content": "import", "shared": "1"}"#,
                false,
            ),
            (
                r#"{"storage": "a", "type": "dir", "content": "import", "disable": 1}"#,
                false,
            ),
            (r#"{"storage": "a", "type": "dir", "content": "images"}"#, false),
            (r#"{"storage": "a", "type": "nfs", "content": "import"}"#, false),
            (r#"{"storage": "a", "type": "lvmthin"}"#, false),
        ] {
            assert_eq!(alone(text), is_alone, "{text}");
        }
    }

    #[test]
    fn tags_are_compared_whole() {
        assert!(has_tag("a;vmferry-0123456789ab", "vmferry-0123456789ab"));
        assert!(has_tag("a, b", "b"));
        assert!(!has_tag("vmferry-0123456789abc", "vmferry-0123456789ab"));
        assert!(!has_tag("", "x"));
    }
}
