//! `targetResourceHints` and `targetNetworkHints`, applied to the source's hardware.

use vmferry_api::{NetworkHint, VMMigrationSpec};
use vmferry_provider::{Hardware, Nic, NicAttachment};

use crate::failure::Failure;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The hardware of the target VM. MACs, order and everything that no hint names stay as they are.
pub(crate) fn apply(spec: &VMMigrationSpec, hardware: &Hardware) -> Result<Hardware, Failure> {
    let mut out = hardware.clone();
    let hints = spec.target_resource_hints.clone().unwrap_or_default();
    if let Some(cpu) = hints.cpu {
        out.vcpus = at_least_one("cpu", u64::from(cpu)).map(|_| cpu)?;
    }
    if let Some(memory) = hints.memory {
        out.memory_bytes = at_least_one("memory", memory)?.saturating_mul(MIB);
    }
    if let Some(disk) = hints.disk {
        grow(&mut out, disk)?;
    }
    attach(&mut out.nics, &spec.target_network_hints)?;
    match out.nics.iter().find_map(stranded) {
        Some(failure) => Err(failure),
        None => Ok(out),
    }
}

/// Capacity of disk `index` at the target: grown by the hint where it is the first, never shrunk.
pub(crate) fn capacity(spec: &VMMigrationSpec, index: usize, capacity: u64) -> u64 {
    let hint = spec.target_resource_hints.as_ref().and_then(|hints| hints.disk);
    match hint {
        Some(disk) if index == 0 => capacity.max(disk.saturating_mul(GIB)),
        _ => capacity,
    }
}

fn at_least_one(field: &str, value: u64) -> Result<u64, Failure> {
    if value == 0 {
        let text = format!("spec.targetResourceHints.{field} is 0; set it to at least 1, or leave it out");
        return Err(Failure::permanent("InvalidHint", text));
    }
    Ok(value)
}

fn grow(hardware: &mut Hardware, disk: u64) -> Result<(), Failure> {
    let Some(first) = hardware.disks.first_mut() else {
        return Ok(());
    };
    let wanted = disk.saturating_mul(GIB);
    if wanted < first.capacity {
        let least = first.capacity.div_ceil(GIB);
        let text = format!(
            "spec.targetResourceHints.disk is {disk} GB, smaller than disk {} of the source ({} bytes): a disk is never \
             shrunk; set it to at least {least}, or leave it out",
            first.name, first.capacity
        );
        return Err(Failure::permanent("InvalidHint", text));
    }
    first.capacity = wanted;
    Ok(())
}

/// A hint goes to the interface that it names. One whose name is no interface's (`Management`) goes to the next interface,
/// in order, that no hint names; `eth7` of a VM with two interfaces is an error, for it can only be a mistake.
fn attach(nics: &mut [Nic], hints: &[NetworkHint]) -> Result<(), Failure> {
    let mut taken: Vec<Option<usize>> = vec![None; nics.len()];
    let mut unnamed = Vec::new();
    for (index, hint) in hints.iter().enumerate() {
        match nics.iter().position(|nic| nic.name == hint.name) {
            Some(nic) if taken[nic].is_some() => return Err(twice(index, hint)),
            Some(nic) => taken[nic] = Some(index),
            None if is_interface(&hint.name) => return Err(no_interface(index, hint, nics)),
            None => unnamed.push(index),
        }
    }
    let mut free = (0..nics.len())
        .filter(|nic| taken[*nic].is_none())
        .collect::<Vec<_>>()
        .into_iter();
    for index in unnamed {
        let nic = free.next().ok_or_else(|| no_interface(index, &hints[index], nics))?;
        taken[nic] = Some(index);
    }
    for (nic, index) in nics.iter_mut().zip(taken) {
        if let Some(index) = index {
            nic.attachment = attachment(index, &hints[index])?;
        }
    }
    Ok(())
}

fn attachment(index: usize, hint: &NetworkHint) -> Result<NicAttachment, Failure> {
    match (&hint.network, &hint.bridge) {
        (Some(network), None) => Ok(NicAttachment::Network(network.clone())),
        (None, Some(bridge)) => Ok(NicAttachment::Bridge(bridge.clone())),
        _ => Err(Failure::permanent(
            "InvalidHint",
            format!(
                "spec.targetNetworkHints[{index}] ({}) must have exactly one of network and bridge",
                hint.name
            ),
        )),
    }
}

/// An interface that is attached to what no target has, and that no hint attaches to something else.
fn stranded(nic: &Nic) -> Option<Failure> {
    let NicAttachment::Other(what) = &nic.attachment else {
        return None;
    };
    let text = format!(
        "network interface {} of the source VM is attached to what no target has ({what}); add an entry to \
         spec.targetNetworkHints with name {} and a network or bridge of the target",
        nic.name, nic.name
    );
    Some(Failure::permanent("NetworkHintNeeded", text))
}

fn is_interface(name: &str) -> bool {
    name.strip_prefix("eth")
        .is_some_and(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}

fn no_interface(index: usize, hint: &NetworkHint, nics: &[Nic]) -> Failure {
    let names: Vec<_> = nics.iter().map(|nic| nic.name.as_str()).collect();
    let has = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    };
    Failure::permanent(
        "InvalidHint",
        format!(
            "spec.targetNetworkHints[{index}].name is {:?}, for which the source VM has no network interface (it has: \
             {has}); correct the name, or remove the hint",
            hint.name
        ),
    )
}

fn twice(index: usize, hint: &NetworkHint) -> Failure {
    Failure::permanent(
        "InvalidHint",
        format!(
            "spec.targetNetworkHints[{index}].name is {:?}, which another hint names already; remove one of the two",
            hint.name
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::manifests;
    use vmferry_api::ResourceHints;

    fn spec(hints: ResourceHints, networks: &[(&str, &str)]) -> VMMigrationSpec {
        let mut spec = manifests::migration("m", 1).spec;
        spec.target_resource_hints = Some(hints);
        spec.target_network_hints = networks
            .iter()
            .map(|(name, network)| NetworkHint {
                name: (*name).to_owned(),
                network: Some((*network).to_owned()),
                bridge: None,
            })
            .collect();
        spec
    }

    fn networks(hardware: &Hardware) -> Vec<&NicAttachment> {
        hardware.nics.iter().map(|nic| &nic.attachment).collect()
    }

    #[test]
    fn hints_override_and_everything_else_stays() {
        let hardware = manifests::hardware(2, 2);
        let hints = ResourceHints {
            cpu: Some(8),
            memory: Some(16384),
            disk: Some(7),
        };
        let out = apply(&spec(hints, &[("eth1", "dmz")]), &hardware).unwrap();
        assert_eq!((out.vcpus, out.memory_bytes), (8, 16 << 30));
        assert_eq!(out.disks[0].capacity, 7 << 30);
        assert_eq!(out.disks[1], hardware.disks[1]);
        assert_eq!(
            networks(&out),
            [&hardware.nics[0].attachment, &NicAttachment::Network("dmz".into())]
        );
        assert_eq!(out.nics[1].mac, hardware.nics[1].mac);
    }

    #[test]
    fn a_disk_never_shrinks() {
        let mut hardware = manifests::hardware(1, 0);
        hardware.disks[0].capacity = (3 << 30) + 1;
        let hints = |disk| ResourceHints {
            disk: Some(disk),
            ..ResourceHints::default()
        };
        let error = apply(&spec(hints(3), &[]), &hardware).unwrap_err();
        assert_eq!(error.kind, crate::port::FailureKind::Permanent);
        for part in ["spec.targetResourceHints.disk", "3 GB", "at least 4", "vda"] {
            assert!(error.message.contains(part), "{part}: {}", error.message);
        }
        assert_eq!(
            apply(&spec(hints(4), &[]), &hardware).unwrap().disks[0].capacity,
            4 << 30
        );
        assert_eq!(capacity(&spec(hints(3), &[]), 0, (3 << 30) + 1), (3 << 30) + 1);
        assert_eq!(capacity(&spec(hints(9), &[]), 1, 5), 5);
    }

    #[test]
    fn names_that_are_no_interface_go_by_order() {
        let out = apply(
            &spec(ResourceHints::default(), &[("lan", "a"), ("eth0", "b"), ("wan", "c")]),
            &manifests::hardware(1, 3),
        )
        .unwrap();
        let named = |name: &str| NicAttachment::Network(name.to_owned());
        assert_eq!(networks(&out), [&named("b"), &named("a"), &named("c")]);
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        for hints in [
            &[("eth2", "a")][..],
            &[("x", "a"), ("y", "b"), ("z", "c")],
            &[("eth0", "a"), ("eth0", "b")],
        ] {
            let error = apply(&spec(ResourceHints::default(), hints), &manifests::hardware(1, 2)).unwrap_err();
            assert!(error.message.contains("spec.targetNetworkHints["), "{}", error.message);
        }
        let error = apply(
            &spec(ResourceHints::default(), &[("eth2", "a")]),
            &manifests::hardware(1, 2),
        )
        .unwrap_err();
        assert!(
            error.message.contains("\"eth2\"") && error.message.contains("eth0, eth1"),
            "{}",
            error.message
        );
    }

    #[test]
    fn an_attachment_that_no_target_has_needs_a_hint() {
        let mut hardware = manifests::hardware(1, 2);
        hardware.nics[1].attachment = NicAttachment::Other("direct on eth0".into());
        let error = apply(&spec(ResourceHints::default(), &[]), &hardware).unwrap_err();
        for part in ["eth1", "direct on eth0", "spec.targetNetworkHints"] {
            assert!(error.message.contains(part), "{part}: {}", error.message);
        }
        assert!(apply(&spec(ResourceHints::default(), &[("eth1", "lan")]), &hardware).is_ok());
    }

    #[test]
    fn zero_makes_no_sense() {
        for hints in [
            ResourceHints {
                cpu: Some(0),
                ..ResourceHints::default()
            },
            ResourceHints {
                memory: Some(0),
                ..ResourceHints::default()
            },
        ] {
            assert!(apply(&spec(hints, &[]), &manifests::hardware(1, 1)).is_err());
        }
    }
}
