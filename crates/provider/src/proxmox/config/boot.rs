//! The boot order: `boot: order=scsi0;net0`, or the older `boot: cdn` with `bootdisk: scsi0`.

use super::drive::{Bus, Slot};
use super::property::Properties;

/// The disks that are booted from, in order; `disks` are those that there are.
pub(crate) fn order(boot: Option<&str>, bootdisk: Option<&str>, disks: &[Slot]) -> Vec<Slot> {
    let properties = Properties::parse(boot.unwrap_or_default());
    if let Some(order) = properties.get("order") {
        let mut slots: Vec<Slot> = Vec::new();
        for slot in order.split(';').filter_map(|name| Slot::parse(name.trim())) {
            if disks.contains(&slot) && !slots.contains(&slot) {
                slots.push(slot);
            }
        }
        return slots;
    }
    let legacy = properties.first_or("legacy").unwrap_or("cdn");
    if !legacy.contains('c') {
        return Vec::new();
    }
    // Without a word Proxmox VE takes the first there is.
    let named = bootdisk.and_then(Slot::parse).filter(|slot| disks.contains(slot));
    named.or_else(|| disks.iter().min().copied()).into_iter().collect()
}

/// Puts disks in the order in which the guest finds them: by bus, the one that is booted from first, and on a bus by number. Where
/// the boot order names all of them, they are in that order.
pub(crate) fn sort(disks: &mut [Slot], order: &[Slot]) {
    let place = |slot: &Slot| order.iter().position(|other| other == slot).unwrap_or(usize::MAX);
    if order.len() == disks.len() {
        disks.sort_by_key(place);
        return;
    }
    let first = |bus: Bus| order.iter().position(|slot| slot.bus == bus).unwrap_or(usize::MAX);
    disks.sort_by_key(|slot| (first(slot.bus), slot.bus, slot.number));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slots(names: &str) -> Vec<Slot> {
        names
            .split_whitespace()
            .map(|name| Slot::parse(name).unwrap())
            .collect()
    }

    #[test]
    fn both_forms_are_read() {
        let disks = slots("scsi0 scsi1 virtio0");
        let read = |boot, bootdisk| order(boot, bootdisk, &disks);
        assert_eq!(
            read(Some("order=virtio0;net0;ide2;scsi1"), None),
            slots("virtio0 scsi1")
        );
        assert_eq!(read(Some("order=scsi1;scsi1;"), None), slots("scsi1"));
        assert_eq!(read(Some("order=net0"), None), slots(""));
        assert_eq!(read(Some("cdn"), Some("scsi1")), slots("scsi1"));
        assert_eq!(read(Some("legacy=c"), Some("sata0")), slots("scsi0"));
        assert_eq!(read(None, None), slots("scsi0"));
        assert_eq!(read(Some("dn"), Some("scsi1")), slots(""));
    }

    #[test]
    fn disks_come_as_the_guest_finds_them() {
        let sorted = |disks: &str, order: &str| {
            let mut disks = slots(disks);
            sort(&mut disks, &slots(order));
            disks
        };
        assert_eq!(sorted("scsi10 scsi2 scsi0", "scsi2"), slots("scsi0 scsi2 scsi10"));
        assert_eq!(sorted("ide0 virtio1 virtio0", "virtio1"), slots("virtio0 virtio1 ide0"));
        assert_eq!(
            sorted("virtio0 scsi0 virtio1", "virtio0 scsi0 virtio1"),
            slots("virtio0 scsi0 virtio1")
        );
        assert_eq!(sorted("scsi0 scsi1", "scsi1 scsi0"), slots("scsi1 scsi0"));
    }

    proptest! {
        #[test]
        fn sorting_loses_nothing(numbers in proptest::collection::btree_set((0_usize..4, 0_u32..4), 0..9), text in ".*") {
            let disks: Vec<_> = numbers.iter().map(|(bus, number)| Slot { bus: Bus::ALL[*bus], number: *number }).collect();
            let order = order(Some(&text), None, &disks);
            prop_assert!(order.iter().all(|slot| disks.contains(slot)));
            let mut sorted = disks.clone();
            sort(&mut sorted, &order);
            sorted.sort_unstable();
            prop_assert_eq!(sorted, disks);
        }
    }
}
