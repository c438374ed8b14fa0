//! The volumes of a VM as its node sees them.

use serde::Deserialize;

use super::Guest;
use crate::proxmox::Proxmox;
use crate::proxmox::config::Drive;
use crate::proxmox::ssh::{Shell, quote};
use crate::{Error, ImageFormat, Kind};

/// A volume of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The path that QEMU opens it by: of a file, of a device, or a URL as Ceph has it.
    pub path: String,
    /// How its file looks from outside: size and time of the last write. Empty for what is no file.
    pub stamp: String,
}

impl Place {
    /// Whether a volume for what a guest overwrites can be made beside this one, and opened by its path. One of Ceph's is a URL;
    /// or, with krbd, a device that is there only after the volume was mapped.
    pub(super) fn takes_changes(&self) -> bool {
        self.path.starts_with('/') && !self.path.starts_with("/dev/rbd")
    }
}

/// Where the volumes of a VM's disks are, in their order.
pub(super) async fn look(proxmox: &Proxmox, guest: &Guest) -> Result<Vec<Place>, Error> {
    let shell = proxmox.shell(&guest.at.node).await?;
    let volumes: Vec<_> = guest.config.disks.iter().map(|drive| quote(&drive.volume)).collect();
    let script = format!(
        "set -e\nfor volume in {}; do\npath=$(pvesm path \"$volume\")\nprintf '%s\\n' \"$path\"\n\
         if [ -f \"$path\" ]; then stat -Lc '%s %y' -- \"$path\"; else echo; fi\ndone\n",
        volumes.join(" ")
    );
    let object = format!("the volumes of {}", guest.object);
    let said = shell.run(&script, "find", &object).await?;
    let lines: Vec<&str> = said.lines().collect();
    let places = lines.chunks_exact(2).map(|pair| Place {
        path: pair[0].to_owned(),
        stamp: pair[1].to_owned(),
    });
    let places: Vec<_> = places.collect();
    if places.len() == guest.config.disks.len() {
        return Ok(places);
    }
    Err(Error::new(Kind::Failed, "find", object).detail(format!("pvesm path said {said:?}")))
}

/// What `qemu-img info` says of an image.
#[derive(Debug, Deserialize)]
struct Info {
    #[serde(rename = "virtual-size")]
    virtual_size: u64,
    #[serde(rename = "full-backing-filename")]
    backing: Option<String>,
}

/// The virtual size of a volume in bytes. It is refused where its chain leaves its storage.
///
/// A thin LVM volume of a VM that does not run may not be active yet: then it is made so.
pub(super) async fn capacity(shell: &Shell, drive: &Drive, path: &str, object: &str) -> Result<u64, Error> {
    let script = format!(
        "{}qemu-img info -U --output=json --backing-chain -f {} -- {}",
        activation(path),
        format(drive),
        quote(path)
    );
    let said = shell.run(&script, "look into", object).await?;
    let chain: Vec<Info> = serde_json::from_str(&said)
        .map_err(|error| Error::new(Kind::Failed, "look into", object).detail(format!("qemu-img: {error}")))?;
    for backing in chain.iter().filter_map(|info| info.backing.as_deref()) {
        if !stays_in_storage(path, backing) {
            return Err(Error::new(Kind::Hostile, "read", object)
                .detail(format!("its backing file {backing} is not in the same storage"))
                .remedy("make the disk independent of it: qm disk move, or a full clone"));
        }
    }
    let top = chain
        .first()
        .ok_or_else(|| Error::new(Kind::Failed, "look into", object).detail("qemu-img says nothing"))?;
    Ok(top.virtual_size)
}

/// `images/100/vm-100-disk-0.qcow2` may stand on `images/200/base-200-disk-0.qcow2`; a device on one of its group.
fn stays_in_storage(path: &str, backing: &str) -> bool {
    let folder = |path: &str, up: usize| path.rsplitn(up + 1, '/').last().map(str::to_owned);
    let up = if path.starts_with("/dev/") { 1 } else { 2 };
    !backing.split('/').any(|part| part == "..")
        && path.starts_with('/')
        && folder(path, up).is_some_and(|storage| !storage.is_empty() && backing.starts_with(&format!("{storage}/")))
}

/// What makes a volume of LVM active where it is not: nobody has used it since the node started.
pub(super) fn activation(path: &str) -> String {
    match path.strip_prefix("/dev/") {
        Some(name) if name.matches('/').count() == 1 => {
            format!("[ -e {} ] || lvchange -ay -K {} >&2\n", quote(path), quote(name))
        }
        _ => String::new(),
    }
}

/// A drive's format, as QEMU calls it.
pub(super) fn format(drive: &Drive) -> &'static str {
    match drive.format {
        ImageFormat::Qcow2 => "qcow2",
        ImageFormat::Vmdk => "vmdk",
        ImageFormat::Raw => "raw",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_stays_in_its_storage() {
        let path = "/var/lib/vz/images/100/vm-100-disk-0.qcow2";
        assert!(stays_in_storage(path, "/var/lib/vz/images/9/base-9-disk-0.qcow2"));
        for backing in [
            "/etc/shadow",
            "/var/lib/vz/images/../../x",
            "nbd://x",
            "/var/lib/vz/template/iso/x.iso",
        ] {
            assert!(!stays_in_storage(path, backing), "{backing}");
        }
        assert!(stays_in_storage("/dev/pve/vm-1-disk-0", "/dev/pve/snap"));
        assert!(!stays_in_storage("/dev/pve/vm-1-disk-0", "/dev/sda"));
        assert!(!stays_in_storage("rbd:pool/x", "rbd:pool/y"));
    }

    #[test]
    fn only_volumes_of_lvm_are_activated() {
        assert!(activation("/dev/pve/vm-1-disk-0").contains("lvchange -ay -K 'pve/vm-1-disk-0'"));
        assert_eq!(activation("/dev/zvol/tank/vm-1-disk-0"), "");
        assert_eq!(activation("/var/lib/vz/images/1/x.raw"), "");
    }
}
