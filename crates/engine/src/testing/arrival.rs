//! What arrives at the target: power, hints, names.

use vmferry_api::names::condition;
use vmferry_api::{DiskFormat, Key, Phase, PowerStateSpec, ResourceHints};
use vmferry_provider::{ImageFormat, NicAttachment, PowerState};

use super::End;
use super::manifests::{self, NS, hints};
use super::scenarios::{condition_of, drive};
use super::world::FakeVm;

#[test]
fn power_is_as_declared_or_else_as_it_was() {
    use PowerStateSpec::{Off, OffGraceful, On};
    // As the source runs, what its VirtualMachine says, what the target's says: what the target does.
    let cases = [
        (PowerState::On, None, None, PowerState::On),
        (PowerState::Off, None, None, PowerState::Off),
        (PowerState::Off, Some(On), None, PowerState::On),
        (PowerState::On, Some(Off), None, PowerState::Off),
        (PowerState::On, Some(Off), Some(On), PowerState::On),
        (PowerState::On, Some(On), Some(OffGraceful), PowerState::Off),
    ];
    for (found, source, target, expected) in cases {
        let mut drive = drive();
        let key = drive.add(|_| {});
        {
            let mut state = drive.world.state();
            state.source.as_mut().unwrap().1 = found;
            state.vms.get_mut(&Key::new(NS, "web")).unwrap().spec.power_state = source;
            if target.is_some() {
                let mut vm = manifests::vm("web-copy", "b");
                vm.spec.power_state = target;
                state.vms.insert(Key::new(NS, "web-copy"), vm);
            }
        }
        drive.until(&key, |drive| drive.status(&key).completion_time.is_some());
        let state = drive.world.state();
        assert_eq!(
            state.target_vms["web-copy"].power, expected,
            "{found:?} {source:?} {target:?}"
        );
        let declared = &state.vms[&Key::new(NS, "web-copy")].spec;
        match target {
            Some(_) => assert_eq!(
                (declared.power_state, &declared.imported_disk),
                (target, &None),
                "it stays as it was"
            ),
            None => assert_eq!(declared.power_state == Some(On), expected == PowerState::On),
        }
        assert_eq!(
            state.migrations[&key]
                .status
                .as_ref()
                .unwrap()
                .target_vm_ref
                .as_ref()
                .unwrap()
                .name,
            "web-copy"
        );
    }
}

#[test]
fn a_target_that_does_not_stay_up_fails_and_is_removed() {
    let mut drive = drive();
    drive.world.state().boots = false;
    let key = drive.add(|_| {});
    assert_eq!(drive.run(&key), End::Failed);
    let status = drive.status(&key);
    assert!(condition_of(&status, condition::READY).starts_with("False TargetNotRunning"));
    assert_eq!(status.retry_attempts, Some(3));
}

#[test]
fn hints_and_format_reach_the_target() {
    let mut drive = drive();
    let key = drive.add(|migration| {
        migration.spec.target_disk_format = Some(DiskFormat::Raw);
        migration.spec.target_network_hints = hints(&[("eth1", "lan")]);
        migration.spec.target_resource_hints = Some(ResourceHints {
            cpu: Some(3),
            memory: Some(512),
            disk: Some(5),
        });
    });
    assert_eq!(drive.run(&key), End::Ready);
    let state = drive.world.state();
    let vm = &state.target_vms["web-copy"].spec;
    assert_eq!((vm.hardware.vcpus, vm.hardware.memory_bytes), (3, 512 << 20));
    assert_eq!(vm.hardware.nics[1].attachment, NicAttachment::Network("lan".into()));
    assert_eq!(vm.hardware.nics[1].mac, manifests::hardware(1, 2).nics[1].mac);
    let sizes: Vec<_> = vm
        .disks
        .iter()
        .map(|disk| state.volumes[&disk.volume.0].spec.capacity >> 30)
        .collect();
    assert_eq!(sizes, [5, 3]);
    assert!(vm.disks.iter().all(|disk| disk.format == ImageFormat::Raw));
    let status = state.migrations[&key].status.clone().unwrap();
    assert_eq!(
        status.disks[0].format.as_deref(),
        Some("qcow2"),
        "staged as qcow2, decoded on its way in"
    );
    let declared = state.vms[&Key::new(NS, "web-copy")].spec.imported_disk.clone().unwrap();
    assert_eq!((declared.size_gib, declared.format.as_deref()), (Some(5), Some("raw")));
}

#[test]
fn a_vm_that_takes_the_name_meanwhile_is_never_touched() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    drive.until(&key, |drive| drive.phase(&key) == Phase::Creating);
    let theirs = drive.world.state().target_vms["web-copy2"].clone();
    let theirs = FakeVm {
        owner: vmferry_provider::Owner::new("eeeeeeee"),
        ..theirs
    };
    drive.world.state().target_vms.insert("web-copy".into(), theirs.clone());
    assert_eq!(drive.run(&key), End::Failed);
    assert_eq!(drive.world.state().target_vms["web-copy"], theirs);
    assert!(condition_of(&drive.status(&key), condition::CREATED).starts_with("False TargetNameTaken"));
}

#[test]
fn a_source_that_changed_its_disks_meanwhile_is_not_guessed_at() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    drive.until(&key, |drive| drive.phase(&key) == Phase::Creating);
    drive.world.state().source.as_mut().unwrap().0.disks.remove(0);
    assert_eq!(drive.run(&key), End::Failed);
    let text = condition_of(&drive.status(&key), condition::CREATED);
    assert!(
        text.starts_with("False SourceChanged") && text.contains("vda, vdb"),
        "{text}"
    );
}

#[test]
fn a_declared_vm_that_is_another_is_not_referred_to() {
    let mut drive = drive();
    drive
        .world
        .state()
        .vms
        .insert(Key::new(NS, "web-copy"), manifests::vm("web-copy", "a"));
    let key = drive.add(|_| {});
    drive.until(&key, |drive| drive.status(&key).completion_time.is_some());
    let status = drive.status(&key);
    assert_eq!((status.phase, status.target_vm_ref), (Phase::Ready, None));
}

#[test]
fn what_cannot_be_read_back_is_told() {
    for readback in [false, true] {
        let mut drive = drive();
        drive.config.readback = readback;
        drive.restart();
        let key = drive.add(|_| {});
        assert_eq!(drive.run(&key), End::Ready);
        let state = drive.world.state();
        let told = state.events.iter().find(|event| event.reason == "ImportCompleted");
        let told = &told.unwrap().message;
        let second = state.migrations[&key].status.as_ref().unwrap().disks[1].name.clone();
        assert_eq!(told.contains("not read back"), readback, "{told}");
        assert!(!readback || told.contains(&format!("bytes: {second})")), "{told}");
    }
}
