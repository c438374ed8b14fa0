//! What a guest finds: one table for disk controllers, one for network adapters, one for operating systems. They stand in
//! `docs/providers/vsphere.md` too.

use crate::{Disk, DiskBus, Error, Kind, ScsiController};

/// A class of disk controllers. They are in the order in which vSphere's disks are read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// IDE, which every VM has: two buses of two disks.
    Ide,
    /// Paravirtual SCSI.
    Pvscsi,
    /// LSI Logic SAS.
    LsiSas,
    /// LSI Logic Parallel.
    LsiLogic,
    /// SATA (AHCI).
    Sata,
}

impl Class {
    /// What a disk's guest has a driver for.
    fn of(disk: &Disk) -> Self {
        match (disk.bus, disk.controller) {
            (DiskBus::Virtio, _) | (DiskBus::Scsi, Some(ScsiController::Virtio | ScsiController::Pvscsi)) => {
                Self::Pvscsi
            }
            (DiskBus::Scsi, Some(ScsiController::Lsi53c1030 | ScsiController::Lsi53c895a)) => Self::LsiLogic,
            // Windows and Linux have its driver on board.
            (DiskBus::Scsi, Some(ScsiController::LsiSas1068 | ScsiController::Megasas) | None) => Self::LsiSas,
            (DiskBus::Ide, _) => Self::Ide,
            // vSphere has no disks on USB.
            (DiskBus::Sata | DiskBus::Usb, _) => Self::Sata,
        }
    }

    /// Its name in the API.
    pub fn schema_type(self) -> &'static str {
        match self {
            Self::Ide => "VirtualIDEController",
            Self::Pvscsi => "ParaVirtualSCSIController",
            Self::LsiSas => "VirtualLsiLogicSASController",
            Self::LsiLogic => "VirtualLsiLogicController",
            Self::Sata => "VirtualAHCIController",
        }
    }

    /// Whether it is SCSI; then it says that it is not shared.
    pub fn is_scsi(self) -> bool {
        matches!(self, Self::Pvscsi | Self::LsiSas | Self::LsiLogic)
    }

    /// Its place among buses.
    fn rank(self) -> u8 {
        match self {
            Self::Ide => 0,
            Self::Pvscsi | Self::LsiSas | Self::LsiLogic => 1,
            Self::Sata => 2,
        }
    }

    /// How many of its bus a VM can have.
    fn buses(self) -> u32 {
        if self == Self::Ide { 2 } else { 4 }
    }

    /// The units of disks on one of them. Of SCSI, 7 is the controller's own.
    fn unit(self, at: u32) -> Option<u32> {
        match self {
            Self::Ide => Some(at).filter(|at| *at < 2),
            Self::Sata => Some(at).filter(|at| *at < 30),
            _ => Some(at + u32::from(at >= 7)).filter(|unit| *unit < 16),
        }
    }
}

/// Where a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// The controller's class.
    pub class: Class,
    /// Number of the controller among those of its bus.
    pub bus: u32,
    /// The disk's place there.
    pub unit: u32,
}

impl Slot {
    /// The key of its controller in a specification, and as servers give it.
    pub fn controller_key(self) -> u32 {
        let first = match self.class {
            Class::Ide => 200,
            Class::Sata => 15000,
            _ => 1000,
        };
        first + self.bus
    }
}

/// Gives each disk its place, so that they are found in their order: a disk whose own controller would put it before the one that
/// precedes it goes to that one's.
pub(super) fn slots(disks: &[Disk]) -> Result<Vec<Slot>, Error> {
    let mut slots: Vec<Slot> = Vec::with_capacity(disks.len());
    // How many units of the last controller are taken.
    let mut taken = 0;
    for disk in disks {
        let wanted = Class::of(disk);
        let slot = match slots.last() {
            None => Slot {
                class: wanted,
                bus: 0,
                unit: 0,
            },
            Some(last) => {
                let class = if wanted.rank() < last.class.rank() {
                    last.class
                } else {
                    wanted
                };
                following(*last, class, taken).ok_or_else(|| {
                    Error::new(Kind::Unsupported, "attach", format!("disk {:?}", disk.name))
                        .detail("a VM of vSphere has no more room for disks behind the one before")
                        .remedy("migrate fewer disks, or put those on SCSI before those on SATA")
                })?
            }
        };
        let same = slots
            .last()
            .is_some_and(|last| (last.class, last.bus) == (slot.class, slot.bus));
        taken = if same { taken + 1 } else { 1 };
        slots.push(slot);
    }
    Ok(slots)
}

/// The next place behind a disk: on its controller where that has the class and room, on a new one otherwise; past the last IDE
/// disk on SATA.
fn following(last: Slot, class: Class, taken: u32) -> Option<Slot> {
    if class == last.class
        && let Some(unit) = class.unit(taken)
    {
        return Some(Slot { unit, ..last });
    }
    let bus = if class.rank() == last.class.rank() {
        last.bus + 1
    } else {
        0
    };
    if bus < class.buses() {
        return Some(Slot { class, bus, unit: 0 });
    }
    let sata = Slot {
        class: Class::Sata,
        bus: 0,
        unit: 0,
    };
    (class == Class::Ide).then_some(sata)
}

/// The network adapter for a model of the source's.
pub(super) fn adapter(model: Option<&str>) -> &'static str {
    match model {
        Some("virtio" | "vmxnet3" | "virtio-net" | "virtio-net-pci") => "VirtualVmxnet3",
        Some("vmxnet2") => "VirtualVmxnet2",
        Some("e1000" | "e1000-82540em" | "e1000-82544gc" | "e1000-82545em") => "VirtualE1000",
        Some("pcnet") => "VirtualPCNet32",
        // Windows and Linux have its driver on board.
        _ => "VirtualE1000e",
    }
}

/// What a guest's operating system is where nobody knows.
pub(super) const ANY_GUEST: &str = "otherGuest64";

/// vSphere's name of a guest's operating system.
pub(super) fn guest_id(name: Option<&str>) -> &str {
    match name {
        Some(id) if id.ends_with("Guest") || id.ends_with("Guest64") || id.ends_with("_64Guest") => id,
        // Proxmox VE's.
        Some("l24" | "l26") => "otherLinux64Guest",
        Some("win11" | "win10") => "windows9_64Guest",
        Some("win8") => "windows8_64Guest",
        Some("win7") => "windows7_64Guest",
        Some("solaris") => "solaris11_64Guest",
        _ => ANY_GUEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageFormat;

    fn disk(bus: DiskBus, controller: Option<ScsiController>) -> Disk {
        Disk {
            name: "d".to_owned(),
            bus,
            controller,
            format: ImageFormat::Vmdk,
            capacity: 1 << 20,
            serial: None,
            boot_order: None,
        }
    }

    fn placed(disks: &[Disk]) -> Vec<(Class, u32, u32)> {
        let slots = slots(disks).unwrap();
        slots.iter().map(|slot| (slot.class, slot.bus, slot.unit)).collect()
    }

    #[test]
    fn disks_keep_their_order_whatever_they_are_on() {
        use Class::{Ide, LsiSas, Pvscsi, Sata};
        let virtio = disk(DiskBus::Virtio, None);
        let (sas, sata) = (disk(DiskBus::Scsi, None), disk(DiskBus::Sata, None));
        let ide = disk(DiskBus::Ide, None);
        assert_eq!(
            placed(&[virtio.clone(), sas.clone(), virtio.clone(), sata.clone(), sas.clone()]),
            [
                (Pvscsi, 0, 0),
                (LsiSas, 1, 0),
                (Pvscsi, 2, 0),
                (Sata, 0, 0),
                (Sata, 0, 1)
            ]
        );
        let many = vec![ide; 5];
        assert_eq!(
            placed(&many),
            [(Ide, 0, 0), (Ide, 0, 1), (Ide, 1, 0), (Ide, 1, 1), (Sata, 0, 0)]
        );
        let units: Vec<u32> = slots(&vec![virtio.clone(); 17])
            .unwrap()
            .iter()
            .map(|slot| slot.unit)
            .collect();
        assert_eq!(units[..9], [0, 1, 2, 3, 4, 5, 6, 8, 9]);
        assert_eq!(units[14..], [15, 0, 1]);
        assert_eq!(slots(&vec![virtio; 60]).unwrap().len(), 60);
        assert_eq!(slots(&vec![sas; 61]).unwrap_err().kind(), Kind::Unsupported);
        assert_eq!(slots(&vec![sata; 120]).unwrap()[119].bus, 3);
    }

    #[test]
    fn adapters_and_guests_have_a_default() {
        for (model, adapter_type) in [
            (Some("virtio"), "VirtualVmxnet3"),
            (Some("e1000"), "VirtualE1000"),
            (Some("rtl8139"), "VirtualE1000e"),
            (None, "VirtualE1000e"),
        ] {
            assert_eq!(adapter(model), adapter_type, "{model:?}");
        }
        for (name, id) in [
            (Some("ubuntu64Guest"), "ubuntu64Guest"),
            (Some("l26"), "otherLinux64Guest"),
            (Some("http://ubuntu.com/ubuntu/22.04"), ANY_GUEST),
            (None, ANY_GUEST),
        ] {
            assert_eq!(guest_id(name), id);
        }
    }
}
