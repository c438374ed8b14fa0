//! A domain as the source side sees it: which of its drives are disks, and whether they can be moved at all.

use virt::error::Error as VirtError;
use virt_sys as sys_raw;

use crate::libvirt::Libvirt;
use crate::libvirt::xml::tree::Element;
use crate::libvirt::xml::{BackingXml, DeviceKind, DiskXml, DomainXml, SourceXml};
use crate::{Disk, Error, Hardware, ImageFormat, Kind, PowerState, Vm, VmSelector};

/// A domain and its disks.
#[derive(Debug, Clone)]
pub(in crate::libvirt) struct Domain {
    pub name: String,
    pub uuid: String,
    /// The number that it has while it runs. Another one means that it was restarted.
    pub id: Option<i32>,
    pub power: PowerState,
    /// Whether its memory is saved on the host, to go on from at the next start: shut off only to look at.
    pub is_saved: bool,
    /// Why it is in its state, as libvirt has it: shut down by its guest, destroyed, not known since the daemon started, …
    pub reason: String,
    /// What it is made of, without disks.
    pub hardware: Hardware,
    /// Its disks, in the order in which the guest finds them.
    pub disks: Vec<DomainDisk>,
    /// Whether the guest agent is connected right now.
    pub agent: bool,
    /// How messages call it.
    pub object: String,
}

/// A disk that can be moved.
#[derive(Debug, Clone)]
pub(in crate::libvirt) struct DomainDisk {
    /// As the neutral model has it.
    pub model: Disk,
    /// Its image.
    pub path: String,
    /// Whether its image is a block device.
    pub is_block: bool,
    /// The images under it, where libvirt tells.
    pub backing: Vec<BackingXml>,
}

/// The selector of a VM that was found.
pub(super) fn selector(vm: &Vm) -> VmSelector {
    VmSelector {
        id: Some(vm.id.0.clone()),
        name: vm.name.clone(),
    }
}

impl Domain {
    /// Reads a domain. Refuses disks that cannot be moved, and misses images that are not there.
    pub async fn read(libvirt: &Libvirt, vm: &VmSelector) -> Result<Self, Error> {
        let described = libvirt.with_domain("read", vm, |_, domain| {
            let inactive = domain.xml_desc(sys_raw::VIR_DOMAIN_XML_INACTIVE)?;
            let is_saved = domain.has_managed_save(0)?;
            let reason = format!("{:?}", domain.state()?.1);
            Ok((domain.is_active()?, is_saved, reason, domain.xml_desc(0)?, inactive))
        });
        let (active, is_saved, reason, live_text, inactive_text) = described.await?;
        let live = DomainXml::parse(&live_text)?;
        // The live description has what stands for `host-model`; the inactive one has `host-model`.
        let hardware = DomainXml::parse(&inactive_text)?.hardware;
        let object = libvirt.vm_object(&VmSelector {
            id: None,
            name: live.name.clone(),
        });
        let mut disks = Vec::new();
        for disk in live.disks.iter().filter(|disk| Self::is_disk(disk)) {
            disks.push(read_disk(libvirt, vm, &object, disk).await?);
        }
        Ok(Self {
            name: live.name,
            uuid: live.uuid,
            id: live.id,
            power: if active { PowerState::On } else { PowerState::Off },
            is_saved,
            reason,
            hardware,
            disks,
            agent: active && agent_is_connected(&live_text),
            object,
        })
    }

    /// Optical and floppy drives stay behind.
    pub fn is_disk(disk: &DiskXml) -> bool {
        matches!(disk.device, DeviceKind::Disk | DeviceKind::Lun)
    }

    /// The disk of that name.
    pub fn disk(&self, name: &str) -> Result<&DomainDisk, Error> {
        self.disks.iter().find(|disk| disk.model.name == name).ok_or_else(|| {
            Error::new(Kind::NotFound, "open", format!("disk {name:?} of {}", self.object))
                .detail("the VM has no such disk any more")
        })
    }
}

async fn read_disk(libvirt: &Libvirt, vm: &VmSelector, vm_object: &str, disk: &DiskXml) -> Result<DomainDisk, Error> {
    let object = format!("disk {:?} of {vm_object}", disk.target);
    if let Some((why, remedy)) = refusal(disk) {
        return Err(Error::new(Kind::Unsupported, "move", object).detail(why).remedy(remedy));
    }
    let format = disk.format.as_deref().unwrap_or("raw");
    let Ok(format @ (ImageFormat::Raw | ImageFormat::Qcow2)) = format.parse() else {
        return Err(Error::new(Kind::Unsupported, "move", object)
            .detail(format!("its format is {format}, not raw or qcow2"))
            .remedy("convert its image (qemu-img convert -O qcow2)"));
    };
    let (path, is_block) = image_path(libvirt, &object, &disk.source).await?;
    let target = disk.target.clone();
    let info = libvirt.with_domain("read the size of a disk of", vm, move |_, domain| {
        vmferry_libvirt::block_info(domain, &target)
    });
    let info = info.await.map_err(|error| match error.kind() {
        Kind::NotFound => Error::new(Kind::NotFound, "find", format!("image {path} of {object}"))
            .source(error)
            .remedy("put the image back, or detach the disk"),
        _ => error,
    })?;
    let Some(model) = disk.to_disk(format, info.capacity) else {
        return Err(Error::new(Kind::Unsupported, "move", object)
            .detail(format!("its bus is {}", disk.bus_name))
            .remedy("attach it on virtio, scsi, sata, ide or usb"));
    };
    Ok(DomainDisk {
        model,
        path,
        is_block,
        backing: disk.backing.clone().unwrap_or_default(),
    })
}

/// Why a disk cannot be moved, and what to do.
fn refusal(disk: &DiskXml) -> Option<(String, &'static str)> {
    let why = |why: &str| why.to_owned();
    let detach = "detach it, or replace it by a disk with an image file";
    Some(match &disk.source {
        _ if disk.device == DeviceKind::Lun => (why("it is a SCSI device that is passed through"), detach),
        SourceXml::Empty => (why("it has no image"), "attach an image, or detach the disk"),
        SourceXml::Other(kind) => (
            format!("its source is {kind}, not a file, a volume or a block device"),
            detach,
        ),
        _ if disk.transient => (
            why("it is transient: its content is thrown away"),
            "make it persistent, or detach it",
        ),
        _ if disk.shareable => (
            why("it is shareable: other VMs may write it"),
            "detach it, or make it exclusive",
        ),
        _ if disk.encrypted => (why("it is encrypted"), "decrypt its image first (qemu-img convert)"),
        _ if disk.sliced => (
            why("only a slice of its file is the disk"),
            "copy the slice to an image of its own",
        ),
        _ if disk.mirrored => (
            why("a block job copies it right now"),
            "wait until the job ends, or abort it",
        ),
        _ => return None,
    })
}

/// The path of a disk's image, and whether it is a block device.
async fn image_path(libvirt: &Libvirt, object: &str, source: &SourceXml) -> Result<(String, bool), Error> {
    match source {
        SourceXml::File(path) => Ok((path.clone(), false)),
        SourceXml::Block(path) => Ok((path.clone(), true)),
        SourceXml::Volume { pool, volume } => {
            let (pool, volume) = (pool.clone(), volume.clone());
            let object = format!("volume {volume:?} of pool {pool:?}, the image of {object}");
            let find = libvirt.handle.call("find", object, move |connect| {
                let volume = connect
                    .lookup_storage_pool_by_name(&pool)?
                    .lookup_storage_vol_by_name(&volume)?;
                let is_block = volume.info()?.kind == sys_raw::VIR_STORAGE_VOL_BLOCK;
                Ok((volume.path()?, is_block))
            });
            find.await
        }
        SourceXml::Empty | SourceXml::Other(_) => Err(Error::new(Kind::Bug, "find the image of", object)),
    }
}

/// Whether the agent's channel has someone at the other end.
fn agent_is_connected(live: &str) -> bool {
    let Ok(root) = Element::parse(live) else { return false };
    let Some(devices) = root.child("devices") else {
        return false;
    };
    devices.all("channel").any(|channel| {
        let target = |name| channel.attr_at(&["target"], name);
        target("name") == Some("org.qemu.guest_agent.0") && target("state") == Some("connected")
    })
}

/// Whether libvirt says that there is nothing of the kind.
pub(super) fn is_missing(error: &VirtError) -> bool {
    [
        sys_raw::VIR_ERR_NO_STORAGE_VOL,
        sys_raw::VIR_ERR_NO_STORAGE_POOL,
        sys_raw::VIR_ERR_NO_DOMAIN,
    ]
    .contains(&error.code().to_raw())
}
