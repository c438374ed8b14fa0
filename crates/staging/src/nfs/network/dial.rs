//! Connecting: from a name to an address that may be talked to, and to the first version that both sides speak.

use std::net::SocketAddr;
use std::sync::Arc;

use nfs_rs::{Mount, NfsError};
use rustix::io::Errno;
use url::Url;

use super::config::Target;
use super::options::Version;
use super::trouble::Trouble;
use crate::Kind;

/// The port of NFS. RFC 7530, section 3.1.
const PORT: u16 = 2049;

/// Connects, and says what is worth telling about the connection.
///
/// The name is resolved here and the addresses are what nfs-rs gets, so that none is connected to that was not looked at.
pub(super) async fn connect(target: &Target) -> Result<(Arc<dyn Mount>, Vec<String>), Trouble> {
    let mut addresses = target.hosts.resolve(&target.host, target.port.unwrap_or(PORT)).await?;
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut failures = Failures::default();
    for address in addresses {
        for version in &target.options.versions {
            match mount(target, address, *version).await {
                Ok(mount) => return Ok((Arc::from(mount), clauses(address, *version))),
                Err(trouble) => failures.add(*version, trouble),
            }
        }
    }
    Err(failures.into_trouble())
}

fn clauses(address: SocketAddr, version: Version) -> Vec<String> {
    vec![format!("{version} at {}", address.ip())]
}

async fn mount(target: &Target, address: SocketAddr, version: Version) -> Result<Box<dyn Mount>, Trouble> {
    let url = |reserved| url(target, address, version, reserved);
    let reserved = target.options.reserved_port;
    let wanted = reserved.unwrap_or_else(|| rustix::process::geteuid().is_root());
    let mount = match nfs_rs::parse_url_and_mount(&url(wanted)?).await {
        // Not every root may.
        Err(NfsError::Io(error))
            if wanted && reserved.is_none() && error.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            nfs_rs::parse_url_and_mount(&url(false)?).await?
        }
        outcome => outcome?,
    };
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
