//! What is refused before anything is made.

use super::Guest;
use super::found::{Found, check_age};
use super::{clone, volume};
use crate::proxmox::Proxmox;
use crate::{Error, Kind};

/// Refuses what could not be exported.
pub(super) async fn check(proxmox: &Proxmox, guest: &Guest) -> Result<(), Error> {
    if let Some(lock) = &guest.config.lock {
        return Err(Error::new(Kind::Busy, "read", &guest.object)
            .detail(format!("it is locked ({lock})"))
            .remedy(format!(
                "wait until the other operation has ended; if it was cut short: qm unlock {}",
                guest.at.vmid
            )));
    }
    if guest.config.disks.is_empty() {
        return Err(Error::new(Kind::Unsupported, "move", &guest.object)
            .detail("it has no disk")
            .remedy("attach one"));
    }
    for drive in &guest.config.disks {
        let object = || format!("disk {:?} of {}", drive.option, guest.object);
        if drive.storage().is_none() {
            return Err(Error::new(Kind::Unsupported, "read", object())
                .detail(format!("it is a device or file of the node: {}", drive.volume))
                .remedy("move it to a storage of the cluster (qm disk import), or take it off the VM"));
        }
        if drive.is_transient {
            return Err(Error::new(Kind::Unsupported, "read", object())
                .detail("it throws away what the guest writes (snapshot=1), so it has no content that lasts")
                .remedy("set snapshot=0 on it, or take it off the VM"));
        }
    }
    if !proxmox.may_use_nodes() {
        let Some(shared) = &proxmox.config.shared else {
            return Err(Error::new(Kind::Unsupported, "read", &guest.object)
                .detail("Proxmox VE's API does not give the bytes of a disk, and there is nothing to log in to its node with")
                .remedy(
                    "put ssh-privatekey (and known_hosts) into the Provider's Secret, or name a storage that this machine has too",
                ));
        };
        return clone::check(proxmox, guest, shared).await;
    }
    // Logs in, too: a wrong key or an unknown host is said here.
    let places = volume::look(proxmox, guest).await?;
    if guest.is_running() {
        for (drive, place) in guest.config.disks.iter().zip(&places) {
            if !place.takes_changes() {
                let object = format!("disk {:?} of {}", drive.option, guest.object);
                return Err(Error::new(Kind::Unsupported, "read", object)
                    .detail(format!(
                        "while the VM runs, what its guest overwrites is kept beside the disk, and that cannot be done on its \
                         storage, which is Ceph's or another's without local paths: {}",
                        place.path
                    ))
                    .remedy("stop the VM for the migration, or move the disk to another storage (qm disk move)"));
            }
        }
        let shell = proxmox.shell(&guest.at.node).await?;
        let mut monitor = shell.monitor(guest.at.vmid, &guest.object).await?;
        check_age(&mut monitor, &guest.object).await?;
        let found = Found::read(&mut monitor).await?;
        for drive in &guest.config.disks {
            found.drive(&drive.option, &guest.object)?;
        }
    }
    Ok(())
}
