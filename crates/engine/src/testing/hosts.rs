//! The fake hypervisors: `a`, which has the source VM, and `b`, the target.

use std::sync::Arc;

use async_trait::async_trait;
use vmferry_block::{AllocationMap, Buf};
use vmferry_fault::Fault;
use vmferry_provider::{
    CreatedVm, Creation, DiskInput, DiskSink, DiskSource, Error, Frozen, FrozenId, Hypervisor, ImageFormat, Kind,
    Owner, PowerState, SourceHost, TargetHost, TargetPlan, Vm, VmId, VmSelector, VmSpec, Volume, VolumeId, VolumeSpec,
};

use super::world::{FakeFrozen, FakeVm, FakeVolume, State, World};
use vmferry_api::Phase;

pub(crate) const SOURCE_ID: &str = "uuid-of-web";

pub(crate) struct Host {
    pub world: World,
    pub name: String,
}

fn planned(permanent: bool) -> Error {
    let kind = if permanent { Kind::Denied } else { Kind::Unreachable };
    Fault::new(kind, "use", "host").detail("planned")
}

fn fault<T>(kind: Kind, action: &'static str, object: impl Into<String>) -> Result<T, Error> {
    Err(Fault::new(kind, action, object))
}

pub(crate) fn volume_id(spec: &VolumeSpec, owner: &Owner) -> String {
    let pool = spec.storage.as_deref().unwrap_or("default");
    format!("{pool}/{}-{}-{}", spec.vm_name, spec.index, owner.tag())
}

impl Host {
    async fn call<T>(&self, name: &'static str, act: impl FnOnce(&mut State) -> Result<T, Error>) -> Result<T, Error> {
        self.world.call(name, planned, act).await
    }
}

#[async_trait]
impl Hypervisor for Host {
    fn describe(&self) -> String {
        format!("libvirt {}", self.name)
    }

    async fn check(&self) -> Result<(), Error> {
        self.call("host.check", |_| Ok(())).await
    }

    async fn find_vm(&self, vm: &VmSelector) -> Result<Vm, Error> {
        let source = self.name == "a";
        let find = |state: &mut State| {
            if source {
                let Some((hardware, power)) = &state.source else {
                    return fault(Kind::NotFound, "find VM", &vm.name);
                };
                let known = vm.id.as_deref().is_none_or(|id| id == SOURCE_ID);
                if !known || vm.name != "web" {
                    return fault(Kind::NotFound, "find VM", &vm.name);
                }
                return Ok(Vm {
                    id: VmId(SOURCE_ID.to_owned()),
                    name: "web".to_owned(),
                    power: *power,
                    hardware: hardware.clone(),
                });
            }
            let Some(found) = state.target_vms.get(&vm.name) else {
                return fault(Kind::NotFound, "find VM", &vm.name);
            };
            Ok(Vm {
                id: VmId(format!("uuid-of-{}", vm.name)),
                name: vm.name.clone(),
                power: found.power,
                hardware: found.spec.hardware.clone(),
            })
        };
        self.call("host.find_vm", find).await
    }
}

#[async_trait]
impl SourceHost for Host {
    async fn check_source(&self, _: &Vm) -> Result<(), Error> {
        self.call("source.check_source", |_| Ok(())).await
    }

    async fn freeze(&self, vm: &Vm, owner: &Owner, keep: bool) -> Result<Frozen, Error> {
        let freeze = |state: &mut State| {
            if let Some(old) = state.frozen.iter().find(|frozen| frozen.owner == *owner) {
                if !old.holds {
                    state.violation("freeze over what was never released");
                    return fault(Kind::Busy, "freeze", "web");
                }
                let id = old.id.clone();
                return Ok(frozen(&id));
            }
            let kind = if vm.power == PowerState::Off {
                FrozenId::OFFLINE
            } else {
                "frozen-"
            };
            let id = format!("{kind}{}", state.history.len());
            let contents = (0..vm.hardware.disks.len() as u64)
                .map(|index| state.written + index)
                .collect();
            state.history.insert(id.clone(), contents);
            state.frozen.push(FakeFrozen {
                owner: owner.clone(),
                id: id.clone(),
                holds: true,
                kept: keep,
            });
            Ok(frozen(&id))
        };
        self.call("source.freeze", freeze).await
    }

    async fn frozen(&self, _: &Vm, owner: &Owner) -> Result<Option<Frozen>, Error> {
        let find = |state: &mut State| {
            let found = state.frozen.iter().find(|each| each.owner == *owner && each.holds);
            let found = found
                .map(|each| each.id.clone())
                .or_else(|| state.offline_after_release());
            Ok(found.map(|id| frozen(&id)))
        };
        self.call("source.frozen", find).await
    }

    async fn release(&self, _: &VmSelector, owner: &Owner, keep: bool) -> Result<(), Error> {
        let release = |state: &mut State| {
            state
                .frozen
                .retain(|frozen| frozen.owner != *owner || (keep && frozen.kept));
            Ok(())
        };
        self.call("source.release", release).await
    }

    async fn open_disk(&self, vm: &Vm, frozen: &FrozenId, disk: &str) -> Result<DiskInput, Error> {
        let capacity = vm
            .hardware
            .disks
            .iter()
            .find(|each| each.name == disk)
            .map(|each| each.capacity);
        let open = |state: &mut State| {
            if !state.frozen.iter().any(|each| each.id == frozen.0 && each.holds) {
                return fault(Kind::FrozenStateGone, "open", disk);
            }
            let world = self.world.clone();
            Ok(DiskInput::Random(Arc::new(OpenDisk {
                world,
                capacity: capacity.unwrap(),
            })))
        };
        self.call("source.open_disk", open).await
    }

    async fn delete_source(&self, vm: &VmSelector) -> Result<(), Error> {
        let delete = |state: &mut State| {
            let asked = |migration: &vmferry_api::VMMigration| {
                let phase = migration.status.as_ref().map(|status| status.phase);
                migration.spec.cleanup_policy.delete_source && phase == Some(Phase::Ready)
            };
            if !state.migrations.values().any(asked) || vm.id.as_deref() != Some(SOURCE_ID) {
                state.violation(format!("source {vm:?} deleted before it was time"));
            }
            state.source = None;
            state.source_deleted = true;
            Ok(())
        };
        self.call("source.delete_source", delete).await
    }
}

fn frozen(id: &str) -> Frozen {
    Frozen {
        id: FrozenId(id.to_owned()),
        detail: "as fakes do".to_owned(),
    }
}

struct OpenDisk {
    world: World,
    capacity: u64,
}

#[async_trait]
impl DiskSource for OpenDisk {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    async fn map(&self) -> Result<AllocationMap, Error> {
        let full = |_: &mut State| Ok(AllocationMap::full(self.capacity));
        self.world.call("disk.map", planned, full).await
    }

    async fn read(&self, _: u64, _: Buf) -> Result<Buf, Error> {
        unreachable!("the engine moves no bytes")
    }

    async fn finish(&self) -> Result<(), Error> {
        unreachable!("the engine moves no bytes")
    }
}

#[async_trait]
impl TargetHost for Host {
    fn native_format(&self) -> ImageFormat {
        ImageFormat::Qcow2
    }

    fn formats(&self) -> &'static [ImageFormat] {
        &[ImageFormat::Qcow2, ImageFormat::Raw]
    }

    async fn check_target(&self, plan: &TargetPlan, owner: &Owner) -> Result<(), Error> {
        let check = |state: &mut State| {
            if plan
                .storage
                .as_deref()
                .is_some_and(|pool| !["default", "ssd"].contains(&pool))
            {
                return fault(Kind::NotFound, "find", "pool");
            }
            if plan
                .attachments
                .iter()
                .any(|each| format!("{each:?}").contains("nowhere"))
            {
                return fault(Kind::NotFound, "find", "network nowhere");
            }
            match state.target_vms.get(&plan.name) {
                Some(vm) if vm.owner != *owner => fault(Kind::NameTaken, "create VM", &plan.name),
                _ => Ok(()),
            }
        };
        self.call("target.check_target", check).await
    }

    async fn create_volume(&self, spec: &VolumeSpec, owner: &Owner) -> Result<Volume, Error> {
        let id = volume_id(spec, owner);
        let create = |state: &mut State| {
            let volume = state.volumes.entry(id.clone()).or_insert_with(|| FakeVolume {
                owner: owner.clone(),
                spec: spec.clone(),
                content: None,
            });
            if volume.spec != *spec {
                state.violation(format!("{id} found again with other properties"));
            }
            Ok(Volume {
                id: VolumeId(id.clone()),
                format: spec.format,
            })
        };
        self.call("target.create_volume", create).await
    }

    async fn open_sink(
        &self,
        _: &VolumeId,
        _: &Owner,
        _: u64,
        _: Option<vmferry_block::Digest>,
    ) -> Result<Arc<dyn DiskSink>, Error> {
        unreachable!("the engine moves no bytes")
    }

    fn reads_back(&self, volume: &VolumeId) -> bool {
        // That of a second disk does not give its bytes.
        !volume.0.contains("-1-")
    }

    async fn open_volume(&self, _: &VolumeId, _: ImageFormat) -> Result<Arc<dyn DiskSource>, Error> {
        unreachable!("the engine moves no bytes")
    }

    async fn delete_volume(&self, spec: &VolumeSpec, owner: &Owner) -> Result<(), Error> {
        let id = volume_id(spec, owner);
        let delete = |state: &mut State| {
            let used = state
                .target_vms
                .values()
                .any(|vm| vm.spec.disks.iter().any(|disk| disk.volume.0 == id));
            if used {
                state.violation(format!("{id} deleted below its VM"));
            }
            state.volumes.remove(&id);
            Ok(())
        };
        self.call("target.delete_volume", delete).await
    }

    async fn create_vm(&self, spec: &VmSpec, owner: &Owner) -> Result<Creation, Error> {
        let create = |state: &mut State| {
            let vm = state.target_vms.entry(spec.name.clone()).or_insert_with(|| FakeVm {
                owner: owner.clone(),
                spec: spec.clone(),
                power: PowerState::Off,
            });
            if vm.owner != *owner {
                return fault(Kind::NameTaken, "create VM", &spec.name);
            }
            Ok(Creation::Done(CreatedVm {
                id: VmId(format!("uuid-of-{}", spec.name)),
                name: spec.name.clone(),
            }))
        };
        self.call("target.create_vm", create).await
    }

    async fn set_power(&self, vm: &VmId, owner: &Owner, power: PowerState) -> Result<(), Error> {
        let set = |state: &mut State| {
            let boots = state.boots;
            let found = state
                .target_vms
                .iter_mut()
                .find(|(name, _)| vm.0 == format!("uuid-of-{name}"));
            match found {
                Some((_, found)) if found.owner == *owner => {
                    found.power = if boots { power } else { PowerState::Off };
                    Ok(())
                }
                _ => {
                    state.violation(format!("power of {vm:?} set, which is not ours"));
                    fault(Kind::NotFound, "start", &vm.0)
                }
            }
        };
        self.call("target.set_power", set).await
    }

    async fn delete_created(&self, name: &str, owner: &Owner) -> Result<(), Error> {
        let delete = |state: &mut State| {
            if state.target_vms.get(name).is_some_and(|vm| vm.owner == *owner) {
                state.target_vms.remove(name);
            }
            Ok(())
        };
        self.call("target.delete_created", delete).await
    }
}
