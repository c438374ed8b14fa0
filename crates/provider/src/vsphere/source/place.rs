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
    use crate::vsphere::inventory::devices;
    use crate::vsphere::soap::Element;

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

    fn lease(keys: &[&str]) -> LeaseInfo {
        let device =
            |key: &&str| format!("<deviceUrl><key>{key}</key><url>https://h/{key}</url><disk>true</disk></deviceUrl>");
        let text: String = keys.iter().map(device).collect();
        LeaseInfo::of(&Element::parse(&format!("<info>{text}</info>")).unwrap())
    }

    fn disk(class: &str, number: i64, unit: i64) -> VirtualDisk {
        let text = format!(
            "<hardware xmlns:xsi='x'><device xsi:type='{class}'><key>1</key><busNumber>{number}</busNumber></device>\
             <device xsi:type='VirtualDisk'><key>2</key><controllerKey>1</controllerKey><unitNumber>{unit}</unitNumber></device>\
             </hardware>"
        );
        devices(&Element::parse(&text).unwrap()).0.remove(0)
    }

    #[test]
    fn a_disk_is_found_by_its_place_and_never_guessed() {
        let sas = disk("VirtualLsiLogicSASController", 0, 1);
        let found = |keys: &[&str], disks| device(&lease(keys), &sas, disks).map(|device| device.key.clone());
        let (exact, general) = ("/v/VirtualLsiLogicSASController0:1", "/v/VirtualSCSIController0:1");
        let sata = "/v/VirtualAHCIController0:1";
        assert_eq!(
            found(&[sata, exact, "/v/VirtualLsiLogicSASController0:0"], 3).as_deref(),
            Some(exact)
        );
        assert_eq!(found(&[sata, general], 2).as_deref(), Some(general));
        assert_eq!(found(&[sata], 2), None);
        assert_eq!(found(&[exact, exact], 2), None);
        assert_eq!(found(&["/v/something"], 1).as_deref(), Some("/v/something"));
        assert_eq!(found(&["/v/something"], 2), None);
        assert_eq!(found(&[], 1), None);
    }
}
