//! The mount options of an NFS staging storage, as `mount` takes them.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// What `mountOptions` say: options of `mount(8)` and `nfs(5)`, separated by commas. Of an option that comes twice, the last counts.
///
/// | option | meaning |
/// | --- | --- |
/// | `vers`, `nfsvers` | `3`; `4` (4.1, then 4.0); `4.0`, `4.1` (that one); `4.2` (4.2, then 4.1). Without it: 4.1, 4.0, 3 in turn |
/// | `minorversion` | with `vers=4`: that one |
/// | `port`, `mountport` | TCP ports of the server and, for version 3, of its mount service; 2049, and what its port mapper says, without |
/// | `uid`, `gid` | the numbers that we give as our user's and group's; those of the process without |
/// | `resvport`, `noresvport` | whether to call from a port below 1024; without, where the process may |
/// | `rsize`, `wsize` | most bytes in one read and write request |
///
/// Accepted without a meaning here, since a store without a mount needs none of it: `rw`, `sync` and `async` (every part is made
/// durable before it counts), `hard` and `soft` (a call waits a minute for the server), `timeo`, `retrans`, `retry`, caches,
/// locks, `proto=tcp`, `sec=sys`, `_netdev`, `defaults`, and the like. Everything else is refused by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    pub(super) versions: Vec<Version>,
    pub(super) port: Option<u16>,
    pub(super) mount_port: Option<u16>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) reserved_port: Option<bool>,
    pub(super) read_size: Option<u32>,
    pub(super) write_size: Option<u32>,
}

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// RFC 1813.
    V3,
    /// RFC 7530.
    V40,
    /// RFC 8881.
    V41,
    /// RFC 7862.
    V42,
}

/// A mount option that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("mount option {option:?}: {why}")]
pub struct InvalidOption {
    option: String,
    why: &'static str,
}

/// Options without a value that change nothing here.
const PLAIN: &[&str] = &[
    "rw",
    "sync",
    "async",
    "defaults",
    "hard",
    "soft",
    "softerr",
    "bg",
    "fg",
    "intr",
    "nointr",
    "ac",
    "noac",
    "cto",
    "nocto",
    "lock",
    "nolock",
    "acl",
    "noacl",
    "rdirplus",
    "nordirplus",
    "sharecache",
    "nosharecache",
    "fsc",
    "nofsc",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "lazytime",
    "nodev",
    "nosuid",
    "noexec",
    "dev",
    "suid",
    "exec",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "tcp",
    "silent",
    "loud",
];

/// Options with a value that change nothing here, whatever the value.
const VALUED: &[&str] = &[
    "timeo",
    "retrans",
    "retry",
    "acregmin",
    "acregmax",
    "acdirmin",
    "acdirmax",
    "actimeo",
    "lookupcache",
    "local_lock",
    "nconnect",
    "max_connect",
    "namlen",
    "mountvers",
    "fsc",
    "comment",
];

/// What an option that nobody knows is answered with.
const ALLOWED: &str = "it is not known; vers, port, mountport, uid, gid, resvport, noresvport, rsize and wsize are honoured, \
     and the usual options without a meaning for a store that is not mounted (rw, sync, hard, timeo, ...) are accepted";

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            versions: vec![Version::V41, Version::V40, Version::V3],
            port: None,
            mount_port: None,
            uid: None,
            gid: None,
            reserved_port: None,
            read_size: None,
            write_size: None,
        }
    }
}

impl FromStr for MountOptions {
    type Err = InvalidOption;

    fn from_str(text: &str) -> Result<Self, InvalidOption> {
        let mut options = Self::default();
        let (mut version, mut minor) = (None, None);
        for option in text.split(',').map(str::trim).filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').map_or((option, None), |(n, v)| (n, Some(v)));
            // What nobody knows may be a password that was put in the wrong place.
            let refused = |why| InvalidOption {
                option: if why == ALLOWED { name } else { option }.to_owned(),
                why,
            };
            match (name, value) {
                ("vers" | "nfsvers", Some(value)) => version = Some(versions(value).map_err(refused)?),
                ("minorversion", Some(value)) => minor = Some(minor_version(value).map_err(refused)?),
                _ => options.set(name, value).map_err(refused)?,
            }
        }
        if let Some(versions) = version {
            options.versions = versions;
        }
        if let Some(minor) = minor {
            options.versions = vec![minor];
        }
        Ok(options)
    }
}

impl MountOptions {
    fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), &'static str> {
        match (name, value) {
            ("port", Some(value)) => self.port = port(value)?,
            ("mountport", Some(value)) => self.mount_port = port(value)?,
            ("uid", Some(value)) => self.uid = Some(number(value)?),
            ("gid", Some(value)) => self.gid = Some(number(value)?),
            ("rsize", Some(value)) => self.read_size = size(value)?,
            ("wsize", Some(value)) => self.write_size = size(value)?,
            ("resvport", None) => self.reserved_port = Some(true),
            ("noresvport", None) => self.reserved_port = Some(false),
            ("ro", None) => return Err("a staging storage is written to; use rw"),
            ("proto" | "mountproto", Some("tcp" | "tcp6")) | ("sec", Some("sys")) => {}
            ("proto" | "mountproto", Some(_)) | ("udp" | "rdma", None) => return Err("only tcp is spoken"),
            ("sec", Some(_)) => {
                return Err(
                    "only sec=sys is spoken; mount the export and leave spec.storage.endpoint away for Kerberos",
                );
            }
            (name, None) if PLAIN.contains(&name) || name.starts_with("x-") => {}
            (name, Some(_)) if VALUED.contains(&name) || name.starts_with("x-") => {}
            _ => return Err(ALLOWED),
        }
        Ok(())
    }
}

fn versions(text: &str) -> Result<Vec<Version>, &'static str> {
    Ok(match text {
        "3" => vec![Version::V3],
        "4" => vec![Version::V41, Version::V40],
        "4.0" => vec![Version::V40],
        "4.1" => vec![Version::V41],
        "4.2" => vec![Version::V42, Version::V41],
        _ => return Err("the versions are 3, 4, 4.0, 4.1 and 4.2"),
    })
}

fn minor_version(text: &str) -> Result<Version, &'static str> {
    match text {
        "0" => Ok(Version::V40),
        "1" => Ok(Version::V41),
        "2" => Ok(Version::V42),
        _ => Err("the minor versions are 0, 1 and 2"),
    }
}

/// A port; 0 stands for none, as `nfs(5)` has it.
fn port(text: &str) -> Result<Option<u16>, &'static str> {
    let port = text.parse::<u16>().map_err(|_| "give a port, 1 to 65535")?;
    Ok((port > 0).then_some(port))
}

fn number(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "give a number: names are not looked up")
}

/// A size of requests; below 4096 counts as 4096, and 0 as none.
fn size(text: &str) -> Result<Option<u32>, &'static str> {
    let size = text.parse::<u32>().map_err(|_| "give a number of bytes")?;
    Ok((size > 0).then_some(size.max(4096)))
}

impl Version {
    /// As nfs-rs wants to hear it.
    pub(super) fn number(self) -> &'static str {
        match self {
            Self::V3 => "3",
            Self::V40 => "4.0",
            Self::V41 => "4.1",
            Self::V42 => "4.2",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NFSv{}", self.number())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> MountOptions {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_tried_in_their_order() {
        use Version::{V3, V40, V41, V42};
        for (text, expected) in [
            ("", vec![V41, V40, V3]),
            ("rw,sync", vec![V41, V40, V3]),
            ("vers=4,rw,sync", vec![V41, V40]),
            ("nfsvers=4.2", vec![V42, V41]),
            ("vers=4.1", vec![V41]),
            ("vers=4.0", vec![V40]),
            ("vers=3,nolock", vec![V3]),
            ("vers=3,vers=4", vec![V41, V40]),
            ("minorversion=1,vers=4", vec![V41]),
        ] {
            assert_eq!(parse(text).versions, expected, "{text:?}");
        }
    }

    #[test]
    fn what_has_a_meaning_is_taken() {
        let options =
            parse(" port=2050, mountport=20048,uid=107,gid=36,noresvport,rsize=65536,wsize=1000,hard,timeo=600 ");
        assert_eq!((options.port, options.mount_port), (Some(2050), Some(20048)));
        assert_eq!((options.uid, options.gid), (Some(107), Some(36)));
        assert_eq!((options.read_size, options.write_size), (Some(65536), Some(4096)));
        assert_eq!(options.reserved_port, Some(false));
        assert_eq!(parse("noresvport,resvport").reserved_port, Some(true));
        assert_eq!(
            parse("port=0,rsize=0,defaults,_netdev,x-systemd.automount"),
            MountOptions::default()
        );
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        for (text, part) in [
            ("rw,ro", "\"ro\": a staging storage is written to"),
            ("vers=2", "3, 4, 4.0, 4.1 and 4.2"),
            ("vers", "not known"),
            ("port=70000", "1 to 65535"),
            ("uid=kvm", "names are not looked up"),
            ("sec=krb5p", "only sec=sys"),
            ("proto=rdma", "only tcp"),
            ("udp", "only tcp"),
            ("hrad", "\"hrad\": it is not known; vers, port"),
            ("password=hush", "\"password\": it is not known"),
        ] {
            let error = text.parse::<MountOptions>().unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[ a-z0-9=.,_-]{0,60}") {
            if let Err(error) = text.parse::<MountOptions>() {
                prop_assert!(text.contains(&error.option));
            }
        }

        #[test]
        fn harmless_options_change_nothing(chosen in proptest::collection::vec(proptest::sample::select(PLAIN), 0..8), at in 0_usize..8) {
            let mut options = chosen;
            let at = at.min(options.len());
            options.insert(at, "uid=7");
            prop_assert_eq!(parse(&options.join(",")), MountOptions { uid: Some(7), ..MountOptions::default() });
        }
    }
}
