//! Drives: `scsi0: local-lvm:vm-100-disk-0,size=32G`.

use std::fmt;

use super::property::{Properties, decode, size};
use crate::{DiskBus, ImageFormat};

/// Where a drive is plugged in. Ordered as Proxmox VE orders them: by bus, then by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot {
    /// The bus.
    pub(crate) bus: Bus,
    /// The number on it.
    pub(crate) number: u32,
}

/// A bus of drives, in the order in which Proxmox VE looks for one to boot from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Bus {
    /// IDE.
    Ide,
    /// SCSI, by the controller that `scsihw` says.
    Scsi,
    /// virtio-blk.
    Virtio,
    /// SATA.
    Sata,
}

impl Bus {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Ide, Self::Scsi, Self::Virtio, Self::Sata];

    /// As it stands in options: `scsi` of `scsi0`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ide => "ide",
            Self::Scsi => "scsi",
            Self::Virtio => "virtio",
            Self::Sata => "sata",
        }
    }

    /// How many slots it has.
    pub(crate) fn slots(self) -> u32 {
        match self {
            Self::Ide => 4,
            Self::Scsi => 31,
            Self::Virtio => 16,
            Self::Sata => 6,
        }
    }

    /// In the neutral model.
    pub(crate) fn model(self) -> DiskBus {
        match self {
            Self::Ide => DiskBus::Ide,
            Self::Scsi => DiskBus::Scsi,
            Self::Virtio => DiskBus::Virtio,
            Self::Sata => DiskBus::Sata,
        }
    }
}

impl Slot {
    /// Reads `scsi0`. `None` for what is no slot of a disk: `efidisk0`, `unused0`, `scsihw`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (bus, number) = Bus::ALL
            .iter()
            .find_map(|bus| Some((*bus, text.strip_prefix(bus.name())?)))?;
        let is_plain = number == "0" || (!number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit()));
        let number = number.parse().ok().filter(|_| is_plain)?;
        (number < bus.slots()).then_some(Self { bus, number })
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.bus.name(), self.number)
    }
}

/// A drive with a volume: a disk, a CD-ROM, the variables of the firmware, the state of a TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Drive {
    /// What it is plugged into, as the option is called: `scsi0`, `efidisk0`.
    pub(crate) option: String,
    /// Its volume (`local-lvm:vm-100-disk-0`), or a path, `none`, `cdrom`.
    pub(crate) volume: String,
    /// Whether it is a CD-ROM drive, one for cloud-init among them.
    pub(crate) is_cdrom: bool,
    /// Virtual size in bytes, where it is written down.
    pub(crate) size: Option<u64>,
    /// Format of the volume.
    pub(crate) format: ImageFormat,
    /// Serial number that the guest sees.
    pub(crate) serial: Option<String>,
    /// Whether what the guest writes is thrown away, or it is left out of snapshots: neither can be copied as it is.
    pub(crate) is_transient: bool,
    /// Efidisk: whether the keys of Secure Boot are in it.
    pub(crate) has_keys: bool,
}

impl Drive {
    /// Reads the value of an option that is a drive.
    pub(crate) fn parse(option: &str, text: &str) -> Option<Self> {
        let properties = Properties::parse(text);
        let volume = properties
            .first_or("file")
            .or_else(|| properties.get("volume"))?
            .to_owned();
        Some(Self {
            option: option.to_owned(),
            is_cdrom: properties.get("media") == Some("cdrom") || matches!(volume.as_str(), "none" | "cdrom"),
            size: properties.get("size").and_then(size),
            format: format(&properties, &volume),
            serial: properties.get("serial").map(decode),
            is_transient: properties.is_on("snapshot"),
            has_keys: properties.is_on("pre-enrolled-keys"),
            volume,
        })
    }

    /// The storage that its volume is in; `None` for a path.
    pub(crate) fn storage(&self) -> Option<&str> {
        let (storage, name) = self.volume.split_once(':')?;
        (!storage.is_empty() && !storage.contains('/') && !name.is_empty()).then_some(storage)
    }
}

/// The format: what is said, or what the volume's name ends in. Volumes without an ending are block devices.
fn format(properties: &Properties<'_>, volume: &str) -> ImageFormat {
    let ending = volume
        .rsplit('/')
        .next()
        .and_then(|name| name.rsplit_once('.'))
        .map(|(_, ending)| ending);
    match properties.get("format").or(ending) {
        Some("qcow2") => ImageFormat::Qcow2,
        Some("vmdk") => ImageFormat::Vmdk,
        _ => ImageFormat::Raw,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slots_are_told_from_other_options() {
        for text in ["scsi0", "scsi30", "virtio15", "sata5", "ide3"] {
            assert_eq!(Slot::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "scsi",
            "scsihw",
            "scsi31",
            "scsi01",
            "scsi-1",
            "scsi+1",
            "virtio16",
            "virtiofs0",
            "ide4",
            "efidisk0",
            "unused0",
        ] {
            assert_eq!(Slot::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_drive_is_read() {
        let text = "local:100/vm-100-disk-0.qcow2,size=32G,serial=a%2Cb,iothread=1";
        let drive = Drive::parse("scsi0", text).unwrap();
        assert_eq!(drive.storage(), Some("local"));
        assert_eq!((drive.size, drive.format), (Some(32 << 30), ImageFormat::Qcow2));
        assert_eq!(drive.serial.as_deref(), Some("a,b"));
        assert!(!drive.is_cdrom && !drive.is_transient);
        let block = Drive::parse("virtio0", "file=lvm:vm-1.5-disk-0,snapshot=1").unwrap();
        assert!(block.is_transient && block.format == ImageFormat::Raw);
        assert!(Drive::parse("ide2", "none,media=cdrom").unwrap().is_cdrom);
        assert!(
            Drive::parse("ide2", "local:vm-100-cloudinit,media=cdrom")
                .unwrap()
                .is_cdrom
        );
        let path = Drive::parse("scsi1", "/dev/disk/by-id/x:1").unwrap();
        assert_eq!(path.storage(), None);
        assert!(
            Drive::parse("efidisk0", "l:vm-1-disk-1,efitype=4m,pre-enrolled-keys=1")
                .unwrap()
                .has_keys
        );
        assert_eq!(Drive::parse("scsi0", "size=1G"), None);
    }

    proptest! {
        #[test]
        fn any_slot_reads_as_it_is_written(bus in 0_usize..4, number in 0_u32..40) {
            let bus = Bus::ALL[bus];
            let text = format!("{}{number}", bus.name());
            prop_assert_eq!(Slot::parse(&text), (number < bus.slots()).then_some(Slot { bus, number }));
        }

        #[test]
        fn nothing_makes_it_panic(option in ".{0,12}", text in ".*") {
            let _ = Slot::parse(&option);
            if let Some(drive) = Drive::parse(&option, &text) {
                let _ = drive.storage();
            }
        }
    }
}
