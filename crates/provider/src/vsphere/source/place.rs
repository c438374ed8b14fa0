//! Which of a lease's URLs is which disk. They come in any order, and not all are disks.

use crate::vsphere::inventory::{Bus, VirtualDisk};
use crate::vsphere::lease::{DeviceUrl, LeaseInfo};

/// A device's place as its key says it: `/vm-42/ParaVirtualSCSIController0:1`.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    class: &'a str,
    number: i64,
    unit: i64,
}

impl<'a> Place<'a> {
    fn parse(key: &'a str) -> Option<Self> {
        let last = key.rsplit('/').next()?;
        let (controller, unit) = last.rsplit_once(':')?;
        let class = controller.trim_end_matches(|c: char| c.is_ascii_digit());
        Some(Self {
            class,
            number: controller[class.len()..].parse().ok()?,
            unit: unit.parse().ok()?,
        })
    }
}

/// The URL of a disk, which is one of `disks` in all. It is found by its controller's class and its place there; then by bus and place, as
/// servers may call a controller by a more general class. Only where there is but one of both is nothing else asked.
pub(super) fn device<'l>(info: &'l LeaseInfo, disk: &VirtualDisk, disks: usize) -> Option<&'l DeviceUrl> {
    let urls: Vec<&DeviceUrl> = info.devices.iter().filter(|device| device.is_disk).collect();
    let controller = disk.controller.as_ref()?;
    let at = |device: &&&DeviceUrl, is_it: &dyn Fn(&str) -> bool| {
        Place::parse(&device.key)
            .is_some_and(|place| place.number == controller.number && place.unit == disk.unit && is_it(place.class))
    };
    let exact = urls
        .iter()
        .filter(|device| at(device, &|class| class == controller.class));
    let by_bus = urls
        .iter()
        .filter(|device| at(device, &|class| Bus::of_class(class) == Some(controller.bus)));
    let single = match urls.as_slice() {
        [url] if disks == 1 => Some(*url),
        _ => None,
    };
    only(exact).or_else(|| only(by_bus)).or(single)
}

/// The only one of several.
fn only<'l, 'd: 'l>(mut found: impl Iterator<Item = &'l &'d DeviceUrl>) -> Option<&'d DeviceUrl> {
    let first = found.next()?;
    found.next().is_none().then_some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_where_a_disk_is() {
        let place = Place::parse("/vm-42/ParaVirtualSCSIController0:12").unwrap();
        assert_eq!(
            (place.class, place.number, place.unit),
            ("ParaVirtualSCSIController", 0, 12)
        );
        let host = Place::parse("VirtualAHCIController3:0").unwrap();
        assert_eq!((host.class, host.number, host.unit), ("VirtualAHCIController", 3, 0));
        for key in ["", "/vm-42/nvram", "/vm-42/disk:1", "/vm-42/X0:y"] {
            assert_eq!(Place::parse(key), None, "{key}");
        }
    }
}
