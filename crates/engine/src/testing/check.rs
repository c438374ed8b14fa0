//! What must hold after every step, and at the end: DESIGN's invariants as seen from outside.

use std::fmt::Write;

use vmferry_api::names::{condition, event};
use vmferry_api::{Condition, Key, Phase, VMMigration, VMMigrationStatus};
use vmferry_provider::{FrozenId, Owner, PowerState, VmSpec, VolumeSpec};

use super::drive::End;
use super::hosts::volume_id;
use super::manifests::{self, uid};
use super::world::{FakeFrozen, FakeObject, FakeUpload, FakeVm, FakeVolume, State, is_foreign};

const CONDITIONS: [&str; 10] = [
    condition::VALIDATED,
    condition::SNAPSHOTTED,
    condition::EXPORTED,
    condition::TRANSFERRING,
    condition::TRANSFERRED,
    condition::CONVERTED,
    condition::IMPORTED,
    condition::CREATED,
    condition::READY,
    condition::FAILED,
];
const EVENTS: [&str; 16] = [
    event::VALIDATION_STARTED,
    event::VALIDATION_SUCCESSFUL,
    event::SNAPSHOT_CREATED,
    event::EXPORT_STARTED,
    event::EXPORT_COMPLETED,
    event::TRANSFER_STARTED,
    event::TRANSFER_PROGRESS,
    event::TRANSFER_COMPLETED,
    event::IMPORT_STARTED,
    event::IMPORT_COMPLETED,
    event::VM_CREATED,
    event::MIGRATION_COMPLETED,
    event::RETRY_SCHEDULED,
    event::MAX_RETRIES_EXCEEDED,
    event::MIGRATION_FAILED,
    event::SPEC_CHANGE_IGNORED,
];

/// The owner of number `number`.
pub(crate) fn owner(number: u32) -> Owner {
    Owner::new(uid(number))
}

impl State {
    /// Things of others with names as like ours as can be.
    pub(super) fn seed(&mut self) {
        let foreign = Owner::new("ffffffff-d9cb-469f-a165-70867728950e");
        let object = FakeObject {
            frozen: "theirs".into(),
            content: 7,
            rotten: false,
        };
        for key in ["lab/m-ffffffffd9cb/vda.qcow2", "lab/m-ffffffffd9cb/vdb.qcow2"] {
            self.objects.insert(key.into(), object.clone());
            self.notes.insert(key.into(), "theirs".into());
            self.uploads.insert(key.into(), FakeUpload::default());
        }
        self.frozen.push(FakeFrozen {
            owner: foreign.clone(),
            id: "theirs".into(),
            holds: true,
            kept: true,
        });
        let spec = VolumeSpec {
            index: 0,
            vm_name: "web-copy".into(),
            storage: None,
            format: vmferry_provider::ImageFormat::Qcow2,
            capacity: 1,
        };
        let volume = FakeVolume {
            owner: foreign.clone(),
            spec: spec.clone(),
            content: Some(7),
        };
        self.volumes.insert(volume_id(&spec, &foreign), volume);
        let spec = VmSpec {
            name: "web-copy2".into(),
            hardware: manifests::hardware(0, 0),
            disks: Vec::new(),
        };
        self.target_vms.insert(
            spec.name.clone(),
            FakeVm {
                owner: foreign,
                spec,
                power: PowerState::On,
            },
        );
    }

    /// Everything that is another's, to compare.
    pub(super) fn foreign(&self) -> String {
        let theirs = |owner: &Owner| is_foreign(&owner.uid);
        let mut out = String::new();
        let mut show = |thing: &dyn std::fmt::Debug| writeln!(out, "{thing:?}").unwrap();
        self.objects
            .iter()
            .filter(|(key, _)| is_foreign(key))
            .for_each(|each| show(&each));
        self.uploads
            .iter()
            .filter(|(key, _)| is_foreign(key))
            .for_each(|each| show(&each));
        self.notes
            .iter()
            .filter(|(key, _)| is_foreign(key))
            .for_each(|each| show(&each));
        self.frozen
            .iter()
            .filter(|each| theirs(&each.owner) && each.kept)
            .for_each(|each| show(&each.id));
        self.volumes
            .values()
            .filter(|each| theirs(&each.owner))
            .for_each(|each| show(&each));
        self.target_vms
            .values()
            .filter(|each| theirs(&each.owner))
            .for_each(|each| show(&each));
        out
    }

    /// Everything that carries this owner, staged objects and the VM that is the user's aside if `ready`.
    pub(super) fn ours(&self, owner: &Owner) -> Vec<String> {
        let tag = owner.tag();
        let mut out = Vec::new();
        out.extend(
            self.objects
                .keys()
                .filter(|key| key.contains(&tag))
                .map(|key| format!("object {key}")),
        );
        out.extend(
            self.uploads
                .keys()
                .filter(|key| key.contains(&tag))
                .map(|key| format!("upload {key}")),
        );
        out.extend(
            self.notes
                .keys()
                .filter(|key| key.contains(&tag))
                .map(|key| format!("note {key}")),
        );
        let mine = |each: &Owner| each == owner;
        out.extend(
            self.frozen
                .iter()
                .filter(|each| mine(&each.owner))
                .map(|each| format!("frozen {}", each.id)),
        );
        out.extend(
            self.volumes
                .iter()
                .filter(|(_, each)| mine(&each.owner))
                .map(|(id, _)| format!("volume {id}")),
        );
        out.extend(
            self.target_vms
                .iter()
                .filter(|(_, each)| mine(&each.owner))
                .map(|(id, _)| format!("vm {id}")),
        );
        out
    }

    /// After every step.
    pub(super) fn check_step(&self, key: &Key, before: Option<&VMMigration>) {
        assert_eq!(self.violations, Vec::<String>::new());
        let Some(now) = self.migrations.get(key) else { return };
        let Some(status) = now.status.clone() else { return };
        assert!(status.progress <= 100);
        assert!(
            status.retry_attempts.unwrap_or(0) <= now.spec.retry_policy.max_attempts,
            "{status:?}"
        );
        let known = |each: &Condition| CONDITIONS.contains(&each.type_.as_str());
        assert!(status.conditions.iter().all(known), "{status:?}");
        // One that starts over has no conditions yet.
        let same_round = |old: &&VMMigrationStatus| old.earlier_attempts == status.earlier_attempts;
        for old in before
            .and_then(|before| before.status.as_ref())
            .filter(same_round)
            .into_iter()
            .flat_map(|old| &old.conditions)
        {
            let new = status.conditions.iter().find(|each| each.type_ == old.type_);
            let new = new.unwrap_or_else(|| panic!("condition {} vanished", old.type_));
            let same = old.status == new.status;
            assert!(
                !same || old.last_transition_time == new.last_transition_time,
                "{old:?} {new:?}"
            );
        }
        if status.phase == Phase::Ready {
            self.check_ready(now);
        } else {
            assert!(!self.source_deleted, "the source is gone in phase {:?}", status.phase);
        }
    }

    /// Ready: what was frozen is what arrived, in every disk, and the VM is what it should be.
    fn check_ready(&self, migration: &VMMigration) {
        let status = migration.status.clone().unwrap();
        let contents = &self.history[status.snapshot_id.as_ref().unwrap()];
        let vm = &self.target_vms[&migration.effective_spec().target_name];
        assert_eq!(vm.owner.uid, migration.metadata.uid.clone().unwrap());
        assert_eq!(vm.spec.disks.len(), contents.len());
        for (disk, content) in vm.spec.disks.iter().zip(contents) {
            assert_eq!(self.volumes[&disk.volume.0].content, Some(*content), "{disk:?}");
        }
    }

    /// At the end.
    pub(super) fn check_end(&self, key: &Key, owner: &Owner, end: End, last: &VMMigration) {
        assert!(!self.jobs.values().any(|job| job.job.owner == *owner), "a job is left");
        for event in &self.events {
            assert!(EVENTS.contains(&event.reason.as_str()), "{event:?}");
            assert!(!event.message.contains("hunter2"), "{event:?}");
        }
        let status = last.status.clone().unwrap_or_default();
        assert!(
            !serde_json::to_string(&status).unwrap().contains("hunter2"),
            "{status:?}"
        );
        let policy = last.spec.cleanup_policy;
        let arrived = status.phase == Phase::Ready;
        if !arrived {
            assert_eq!(self.ours(owner), Vec::<String>::new(), "left after {end:?}");
            assert!(
                !self.vms.contains_key(&Key::new(manifests::NS, "web-copy")),
                "a VirtualMachine is left"
            );
            assert!(!self.source_deleted);
            return;
        }
        let mut left = self.ours(owner);
        left.retain(|each| !each.starts_with("vm ") && !each.starts_with("volume "));
        if !policy.delete_intermediate {
            left.retain(|each| !each.starts_with("object "));
        }
        if !policy.delete_snapshot {
            left.retain(|each| !each.starts_with("frozen "));
        }
        assert_eq!(left, Vec::<String>::new(), "left after {end:?}");
        let Some(now) = self.migrations.get(key) else { return };
        let status = now.status.clone().unwrap();
        assert_eq!(status.progress, 100);
        assert!(status.completion_time.is_some());
        assert_eq!(self.source.is_none(), policy.delete_source);
        assert_eq!(
            self.objects.keys().any(|key| key.contains(&owner.tag())),
            !policy.delete_intermediate
        );
        let holds = |name: &str| {
            status
                .conditions
                .iter()
                .any(|each| each.type_ == name && each.status == "True")
        };
        for name in CONDITIONS
            .iter()
            .filter(|name| ![condition::TRANSFERRING, condition::FAILED].contains(name))
        {
            assert!(holds(name), "{name} is not True: {status:#?}");
        }
        let was_off = status
            .snapshot_id
            .as_deref()
            .is_some_and(|id| id.starts_with(FrozenId::OFFLINE));
        let power = if was_off { PowerState::Off } else { PowerState::On };
        assert_eq!(self.target_vms["web-copy"].power, power);
        let declared = &self.vms[&Key::new(manifests::NS, "web-copy")];
        let reference = declared.spec.imported_disk.clone().unwrap().migration_ref.unwrap();
        assert_eq!(reference.name, key.name);
    }
}
