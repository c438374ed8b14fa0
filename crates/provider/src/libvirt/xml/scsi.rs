//! SCSI controllers: which one a disk hangs on, since a guest needs its driver to boot.

use super::tree::Element;
use crate::{Disk, DiskBus, ScsiController};

/// Disks of a controller here. The smallest takes seven.
const AT_MOST: u32 = 7;

/// The model of the controller that a `<disk>` hangs on, where it is one that can be named.
pub(super) fn model_of(devices: &Element, disk: &Element) -> Option<ScsiController> {
    if disk.attr_at(&["target"], "bus") != Some("scsi") {
        return None;
    }
    let index = |element: Option<&str>| element.unwrap_or("0").to_owned();
    let wanted = index(disk.attr_at(&["address"], "controller"));
    let mut controllers = devices
        .all("controller")
        .filter(|controller| controller.attr("type") == Some("scsi"));
    let model = controllers
        .find(|controller| index(controller.attr("index")) == wanted)?
        .attr("model")?;
    Some(match model {
        "virtio-scsi" | "virtio-transitional" | "virtio-non-transitional" => ScsiController::Virtio,
        "vmpvscsi" => ScsiController::Pvscsi,
        "lsisas1068" => ScsiController::LsiSas1068,
        "lsilogic" => ScsiController::Lsi53c895a,
        "lsisas1078" => ScsiController::Megasas,
        _ => return None,
    })
}

/// The bus of a disk here. QEMU has no 53C1030; guests that know that one know AHCI.
pub(super) fn bus(disk: &Disk) -> DiskBus {
    match (disk.bus, disk.controller) {
        (DiskBus::Scsi, Some(ScsiController::Lsi53c1030)) => DiskBus::Sata,
        (bus, _) => bus,
    }
}

/// Where a disk hangs: the controller's index, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    model: ScsiController,
    controller: usize,
    number: u32,
}

/// The controllers of a domain.
pub(super) struct Controllers {
    places: Vec<Option<Place>>,
    models: Vec<ScsiController>,
}

impl Controllers {
    /// What these disks need: a controller for each model, and one more for each seven disks of it.
    pub(super) fn of(disks: &[Disk]) -> Self {
        let mut used: Vec<(ScsiController, u32)> = Vec::new();
        let mut place = |disk: &Disk| {
            if bus(disk) != DiskBus::Scsi {
                return None;
            }
            let model = disk.controller.unwrap_or(ScsiController::Virtio);
            let has_room = |(known, count): &(ScsiController, u32)| *known == model && *count < AT_MOST;
            let controller = used.iter().position(has_room).unwrap_or(used.len());
            if controller == used.len() {
                used.push((model, 0));
            }
            let number = used[controller].1;
            used[controller].1 += 1;
            Some(Place {
                model,
                controller,
                number,
            })
        };
        let places = disks.iter().map(&mut place).collect();
        let models = used.into_iter().map(|(model, _)| model).collect();
        Self { places, models }
    }

    /// The `<controller>` elements.
    pub(super) fn elements(&self) -> impl Iterator<Item = Element> {
        self.models.iter().enumerate().map(|(index, model)| {
            Element::new("controller")
                .with("type", "scsi")
                .with("index", index.to_string())
                .with("model", name(*model))
        })
    }

    /// The `<address>` of a disk. On one controller with virtio, libvirt's own are as good.
    pub(super) fn address(&self, disk: usize) -> Option<Element> {
        if self.models == [ScsiController::Virtio] {
            return None;
        }
        let place = self.places.get(disk).copied().flatten()?;
        // The 53C895A has units of one target, the others targets.
        let (target, unit) = match place.model {
            ScsiController::Lsi53c895a => (0, place.number),
            _ => (place.number, 0),
        };
        Some(
            Element::new("address")
                .with("type", "drive")
                .with("controller", place.controller.to_string())
                .with("bus", "0")
                .with("target", target.to_string())
                .with("unit", unit.to_string()),
        )
    }
}

/// A model as libvirt calls it.
fn name(model: ScsiController) -> &'static str {
    match model {
        // Disks of a 53C1030 hang on SATA.
        ScsiController::Virtio | ScsiController::Lsi53c1030 => "virtio-scsi",
        ScsiController::Pvscsi => "vmpvscsi",
        ScsiController::LsiSas1068 => "lsisas1068",
        ScsiController::Lsi53c895a => "lsilogic",
        ScsiController::Megasas => "lsisas1078",
    }
}
