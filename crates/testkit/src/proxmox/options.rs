//! What a cluster is like.

use std::path::PathBuf;

/// A version that the double behaves as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 7.4: no `import` content, `download-url` needs `Sys.Audit` and `Sys.Modify` on `/`.
    V7_4,
    /// 8.2: no `import` content; `Sys.AccessNetwork` is enough for `download-url`.
    V8_2,
    /// 8.3: `import` content; uploads and downloads of OVAs only.
    V8_3,
    /// 8.4: uploads and downloads of qcow2, raw and vmdk, too.
    V8_4,
    /// 9: as 8.4, with `-blockdev` on the command lines of VMs.
    V9,
}

impl Version {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V7_4 => "7.4",
            Self::V8_2 => "8.2",
            Self::V8_3 => "8.3",
            Self::V8_4 => "8.4",
            Self::V9 => "9",
        }
    }
}

/// The privileges that moving VMs takes, in both directions.
const PRIVILEGES: [&str; 22] = [
    "VM.Allocate",
    "VM.Audit",
    "VM.Clone",
    "VM.Config.CDROM",
    "VM.Config.CPU",
    "VM.Config.Disk",
    "VM.Config.HWType",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.GuestAgent.Audit",
    "VM.GuestAgent.FileSystemMgmt",
    "VM.Monitor",
    "VM.PowerMgmt",
    "VM.Snapshot",
    "Datastore.Allocate",
    "Datastore.AllocateSpace",
    "Datastore.AllocateTemplate",
    "Datastore.Audit",
    "SDN.Use",
    "Sys.AccessNetwork",
    "Sys.Audit",
];

/// How a cluster is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// The version that it behaves as.
    pub version: Version,
    /// Whether its nodes have ssh. Needs root.
    pub ssh: bool,
    /// Whether VMs that run are real QEMU processes; otherwise they run in name only.
    pub real_machines: bool,
    /// The folder of the storage that the test sees, too; a new one where this is `None`.
    pub shared: Option<PathBuf>,
    /// A file with authorities (PEM) that nodes trust when they fetch a URL.
    pub trusted_ca: Option<PathBuf>,
    /// What [`Proxmox::USER`](super::Proxmox::USER) and its token may do, everywhere.
    pub privileges: Vec<String>,
    /// Size of each storage in bytes.
    pub storage_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: Version::V9,
            ssh: false,
            real_machines: false,
            shared: None,
            trusted_ca: None,
            privileges: PRIVILEGES.map(str::to_owned).into(),
            storage_bytes: 8 << 30,
        }
    }
}

impl Options {
    /// A cluster of this version, without ssh.
    pub fn new(version: Version) -> Self {
        Self {
            version,
            ..Self::default()
        }
    }

    /// With ssh to its nodes and real VMs.
    #[must_use]
    pub fn with_ssh(mut self) -> Self {
        self.ssh = true;
        self.real_machines = true;
        self
    }

    /// Without one of the privileges.
    #[must_use]
    pub fn without(mut self, privilege: &str) -> Self {
        self.privileges.retain(|held| held != privilege);
        self
    }
}
