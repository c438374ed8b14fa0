//! Connecting: from a name to an address that may be talked to, and to the first version that both sides speak.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use nfs_rs::Mount;
use rustix::io::Errno;
use tokio::net::TcpSocket;
use url::Url;

use super::config::Target;
use super::options::Version;
use super::trouble::Trouble;
use crate::Kind;

/// The port of NFS. RFC 7530, section 3.1.
const PORT: u16 = 2049;

/// A connection that was made.
pub(super) struct Found {
    pub(super) mount: Arc<dyn Mount>,
    pub(super) version: Version,
    address: SocketAddr,
}

impl Found {
    /// What is worth telling about it.
    pub(super) fn clauses(&self) -> Vec<String> {
        vec![format!("{} at {}", self.version, self.address.ip())]
    }
}

/// Connects by the first version that works, or by this one.
///
/// The name is resolved here and the addresses are what nfs-rs gets, so that none is connected to that was not looked at.
pub(super) async fn connect(target: &Target, only: Option<Version>) -> Result<Found, Trouble> {
    let mut addresses = target.hosts.resolve(&target.host, target.port.unwrap_or(PORT)).await?;
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut failures = Failures::default();
    for address in addresses {
        let mut is_silent = false;
        for version in target.options.versions.iter().copied() {
            // Minor versions share a port; version 3 may have another one.
            let is_hopeless = is_silent && version != Version::V3;
            if is_hopeless || only.is_some_and(|only| version != only) {
                continue;
            }
            match mount(target, address, version).await {
                Ok(mount) => {
                    return Ok(Found {
                        mount: Arc::from(mount),
                        version,
                        address,
                    });
                }
                Err(trouble) => {
                    is_silent = matches!(trouble, Trouble::Lost(_));
                    failures.add(version, trouble);
                }
            }
        }
    }
    Err(failures.into_trouble())
}

async fn mount(target: &Target, address: SocketAddr, version: Version) -> Result<Box<dyn Mount>, Trouble> {
    let reserved = target.options.reserved_port.unwrap_or_else(may_use_low_ports);
    let mount = nfs_rs::parse_url_and_mount(&url(target, address, version, reserved)?).await?;
    if mount.capabilities().pnfs {
        // Its layouts would send us to addresses that nobody looked at.
        let _ = mount.umount().await;
        return Err(Trouble::Final(
            Kind::Unfit,
            "it is a pNFS server, whose data servers may be at any address".to_owned(),
            Some("use vers=4.0 or vers=3 in the Secret's mountOptions"),
        ));
    }
    Ok(mount)
}

/// Whether this process may call from a port below 1024: root may, but not every root, and sometimes everybody.
fn may_use_low_ports() -> bool {
    let tried = TcpSocket::new_v4().and_then(|socket| socket.bind((Ipv4Addr::UNSPECIFIED, 1023).into()));
    !matches!(tried, Err(error) if error.kind() == ErrorKind::PermissionDenied)
}

/// The address of the export as nfs-rs reads it.
fn url(target: &Target, address: SocketAddr, version: Version, reserved: bool) -> Result<String, Trouble> {
    if version == Version::V3 && address.is_ipv6() {
        return Err(Trouble::Final(
            Kind::Unfit,
            "NFSv3 is not spoken over IPv6".to_owned(),
            Some("use vers=4 in the Secret's mountOptions, or an IPv4 address"),
        ));
    }
    let bug = || Trouble::Final(Kind::Bug, "its address makes no URL".to_owned(), None);
    let mut url = Url::parse(&format!("nfs://{address}/")).map_err(|_| bug())?;
    url.path_segments_mut()
        .map_err(|()| bug())?
        .clear()
        .extend(&target.segments);
    let options = &target.options;
    let mut query = url.query_pairs_mut();
    query.append_pair("version", version.number());
    query.append_pair("noresvport", if reserved { "false" } else { "true" });
    let numbers = [
        // Where none is given, version 3 asks the port mapper.
        (
            "nfsport",
            target
                .port
                .map(u32::from)
                .or((version != Version::V3).then_some(u32::from(PORT))),
        ),
        ("mountport", options.mount_port.map(u32::from)),
        ("uid", options.uid),
        ("gid", options.gid),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            query.append_pair(name, &number.to_string());
        }
    }
    drop(query);
    url.set_port(None).map_err(|()| bug())?;
    Ok(url.into())
}

/// Why each version at each address did not work.
#[derive(Debug, Default)]
struct Failures(Vec<(Version, Trouble)>);

impl Failures {
    fn add(&mut self, version: Version, trouble: Trouble) {
        tracing::debug!("{version} does not work: {}", trouble.text());
        self.0.push((version, trouble));
    }

    /// One trouble that says all. What the server answered about the path or about us counts more than that it does not speak a
    /// version; and as long as it cannot be reached, nothing is final.
    fn into_trouble(self) -> Trouble {
        let mut texts: Vec<String> = Vec::new();
        for (version, trouble) in &self.0 {
            texts.push(format!("{version}: {}", trouble.text()));
        }
        texts.dedup();
        let text = texts.join("; ");
        let rank = |trouble: &Trouble| match trouble {
            Trouble::Busy(_) => 0,
            Trouble::Final(Kind::Denied, ..) => 1,
            Trouble::Answer { errno, .. } if *errno != Errno::NOENT => 1,
            Trouble::Answer { .. } => 2,
            Trouble::Lost(_) | Trouble::Forgot => 3,
            Trouble::Final(..) | Trouble::Fault(_) => 4,
        };
        let first = self.0.into_iter().map(|(_, trouble)| trouble).min_by_key(rank);
        match first {
            None => Trouble::Lost("the host has no address".to_owned()),
            Some(Trouble::Busy(_)) => Trouble::Busy(text),
            Some(Trouble::Lost(_) | Trouble::Forgot) => Trouble::Lost(text),
            Some(Trouble::Answer { errno, .. }) => Trouble::answer(errno, text),
            Some(Trouble::Final(kind, _, remedy)) => Trouble::Final(kind, text, remedy),
            Some(fault @ Trouble::Fault(_)) => fault,
        }
    }
}
