//! The VM: made, finished, started, stopped, deleted.

use std::time::Duration;

use super::carrier;
use super::found::{Found, object, taken};
use super::guest::{self, ANY_GUEST, Slot};
use super::name::{self, Carried, disk_path};
use super::place::{Home, Place};
use super::spec::{self, Attached, DISK, DISKS, NewVm};
use crate::vsphere::VSphere;
use crate::vsphere::client::Trouble;
use crate::vsphere::soap::Moref;
use crate::{CreatedVm, Error, Kind, NicAttachment, Owner, PowerState, VmId, VmSpec};

/// How long attaching, detaching or growing a disk may take.
const CHANGE: Duration = Duration::from_mins(5);

/// How long moving a disk may take: an instant on its datastore, a copy to another.
const MOVE: Duration = Duration::from_hours(6);

/// More disks than a VM can have.
const MOST_DISKS: usize = 256;

/// How long it may take until a VM runs, or does not any more.
const POWER: Duration = Duration::from_mins(2);

/// Makes a VM of disks that were imported, or finds it and does what is missing.
pub(super) async fn create(vsphere: &VSphere, spec: &VmSpec, owner: &Owner) -> Result<CreatedVm, Error> {
    name::check_vm_name(&spec.name)?;
    let object = object(&spec.name);
    if spec.disks.len() != spec.hardware.disks.len() {
        let (volumes, disks) = (spec.disks.len(), spec.hardware.disks.len());
        return Err(Error::new(Kind::Bug, "make", object).detail(format!("{volumes} volumes for {disks} disks")));
    }
    let volumes = spec.disks.iter().map(|disk| Carried::owned(&disk.volume, owner));
    let volumes = volumes.collect::<Result<Vec<_>, _>>()?;
    let slots = guest::slots(&spec.hardware.disks)?;
    let home = Home::find(vsphere).await?;
    let mut vm = match find(vsphere, &home, &spec.name, owner).await? {
        Some(vm) => vm,
        None => make(vsphere, spec, &volumes, &slots, owner).await?,
    };
    for (index, carried) in volumes.iter().enumerate() {
        let wanted = Wanted {
            object: &object,
            carried,
            index,
            slot: slots[index],
            capacity: spec.hardware.disks[index].capacity,
        };
        wanted.bring(vsphere, &home, &mut vm, owner).await?;
    }
    order_boot(vsphere, spec, &vm, &object).await?;
    Ok(CreatedVm {
        id: VmId(vm.moref.value),
        name: spec.name.clone(),
    })
}

/// The VM of that name if it is `owner`'s, nothing if there is none.
async fn find(vsphere: &VSphere, home: &Home, name: &str, owner: &Owner) -> Result<Option<Found>, Error> {
    match Found::by_name(&vsphere.client, home, name).await? {
        Some(found) if !found.is_of(owner) => Err(taken(&object(name), &found.moref)),
        found => Ok(found),
    }
}

/// Makes the VM, without disks.
async fn make(
    vsphere: &VSphere,
    spec: &VmSpec,
    volumes: &[Carried],
    slots: &[Slot],
    owner: &Owner,
) -> Result<Found, Error> {
    let place = Place::find(vsphere, volumes.first().map(|carried| carried.datastore.as_str())).await?;
    let wanted: Vec<&NicAttachment> = spec.hardware.nics.iter().map(|nic| &nic.attachment).collect();
    let networks = place.networks(vsphere, &wanted).await?;
    let mut guest_id = guest::guest_id(spec.hardware.guest_os.as_deref());
    loop {
        let new = NewVm {
            name: &spec.name,
            guest_id,
            datastore: &place.datastore,
            hardware: &spec.hardware,
            slots,
            networks: &networks,
            uid: &owner.uid,
        };
        let host = Some(&place.host);
        let made = vsphere
            .client
            .create_vm(&place.home.folder, new.config(), &place.pool, host);
        match made.await {
            // One that this server does not know: a newer one's, or an older one's.
            Err(trouble) if guest_id != ANY_GUEST && is_about_guest(&trouble) => guest_id = ANY_GUEST,
            Ok(_) => break,
            // Somebody may have been faster: another one of us, or another's VM of that name.
            Err(trouble) if trouble.kind == Kind::NameTaken || trouble.kind == Kind::Unreachable => {
                let found = find(vsphere, &place.home, &spec.name, owner).await?;
                return found.ok_or_else(|| trouble.of("make", object(&spec.name)));
            }
            Err(trouble) => return Err(trouble.of("make", object(&spec.name))),
        }
    }
    let found = find(vsphere, &place.home, &spec.name, owner).await?;
    found.ok_or_else(|| Error::new(Kind::Failed, "find", object(&spec.name)).detail("it was made, and is gone"))
}

fn is_about_guest(trouble: &Trouble) -> bool {
    trouble.is("GuestOsNotSupported") || (trouble.kind == Kind::Invalid && trouble.detail.contains("guestId"))
}

/// Has the VM boot from the disks that the source boots from, where that is not the first one anyway.
async fn order_boot(vsphere: &VSphere, spec: &VmSpec, vm: &Found, object: &str) -> Result<(), Error> {
    let disks = &spec.hardware.disks;
    let mut order: Vec<_> = (0..disks.len())
        .filter(|index| disks[*index].boot_order.is_some())
        .collect();
    order.sort_by_key(|index| disks[*index].boot_order);
    if order.first().is_none_or(|first| *first == 0) {
        return Ok(());
    }
    let key = |index: &usize| Some(vm.disk(&disk_path(&vm.vmx, *index)?)?.key);
    let keys: Vec<i64> = order.iter().filter_map(key).collect();
    let change = spec::boot(&spec.hardware, &keys);
    let ordered = vsphere.client.reconfigure(&vm.moref, change, CHANGE).await;
    ordered.map_err(|trouble| trouble.of("set the boot order of", object))
}

/// A disk that the VM is to have.
struct Wanted<'a> {
    object: &'a str,
    carried: &'a Carried,
    index: usize,
    slot: Slot,
    /// In bytes.
    capacity: u64,
}

impl Wanted<'_> {
    /// Brings the disk from its carrier into the VM, from wherever an earlier attempt left it.
    async fn bring(&self, vsphere: &VSphere, home: &Home, vm: &mut Found, owner: &Owner) -> Result<(), Error> {
        let path = disk_path(&vm.vmx, self.index).ok_or_else(|| {
            Error::new(Kind::Failed, "use", self.object).detail(format!("its file {:?} is no .vmx", vm.vmx))
        })?;
        let carrier = carrier::find(vsphere, home, self.carried, owner).await?;
        if vm.disk(&path).is_none() {
            if let Some(carrier) = &carrier {
                self.fetch(vsphere, home, carrier, &path).await?;
            }
            self.attach(vsphere, vm, &path).await?;
        }
        self.grow(vsphere, vm, &path).await?;
        match &carrier {
            Some(carrier) => carrier.remove(vsphere, &self.carried.object()).await,
            None => Ok(()),
        }
    }

    /// Takes the disk off its carrier, which remembers where it lies, and moves its file beside the VM's.
    async fn fetch(&self, vsphere: &VSphere, home: &Home, carrier: &Found, path: &str) -> Result<(), Error> {
        let (client, disk) = (&vsphere.client, self.carried.object());
        let from = match carrier.disks.first() {
            Some(attached) => {
                let detached = client.reconfigure(&carrier.moref, spec::detach(attached), CHANGE).await;
                detached.map_err(|trouble| trouble.of("detach", &disk))?;
                &attached.path
            }
            None => carrier.option(DISK).ok_or_else(|| {
                Error::new(Kind::NotFound, "find", &disk)
                    .detail("its carrier has no disk, and does not say where it is")
            })?,
        };
        match client.move_virtual_disk(from, path, Some(&home.datacenter), MOVE).await {
            // It was moved by an attempt that was cut short; attaching it tells.
            Err(trouble) if trouble.kind == Kind::NotFound => Ok(()),
            // Such an attempt may still copy it to another datastore.
            Err(trouble) if trouble.is("FileAlreadyExists") => Err(trouble
                .meaning(Kind::Busy)
                .remedy("wait until the server has moved it: an attempt that was cut short began that")
                .of("move", &disk)),
            moved => moved.map_err(|trouble| trouble.of("move", &disk)),
        }
    }

    async fn attach(&self, vsphere: &VSphere, vm: &mut Found, path: &str) -> Result<(), Error> {
        let (client, disk) = (&vsphere.client, self.carried.object());
        let controller = vm.controller(self.slot).ok_or_else(|| {
            let class = self.slot.class.schema_type();
            Error::new(Kind::Failed, "attach", &disk).detail(format!("{} has lost its {class}", self.object))
        })?;
        let change = spec::attach(path, controller, self.slot.unit, self.capacity);
        let attached = client.reconfigure(&vm.moref, change, CHANGE).await;
        attached.map_err(|trouble| trouble.of("attach", &disk))?;
        *vm = read(vsphere, &vm.moref, self.object).await?;
        Ok(())
    }

    async fn grow(&self, vsphere: &VSphere, vm: &mut Found, path: &str) -> Result<(), Error> {
        let disk = vm.disk(path).ok_or_else(|| {
            Error::new(Kind::Failed, "attach", self.carried.object()).detail("it was attached, and is not there")
        })?;
        if disk.capacity >= self.capacity {
            return Ok(());
        }
        let larger = Attached {
            capacity: self.capacity,
            ..disk.clone()
        };
        let grown = vsphere.client.reconfigure(&vm.moref, spec::grow(&larger), CHANGE).await;
        grown.map_err(|trouble| trouble.of("grow", self.carried.object()))?;
        *vm = read(vsphere, &vm.moref, self.object).await?;
        Ok(())
    }
}

async fn read(vsphere: &VSphere, vm: &Moref, object: &str) -> Result<Found, Error> {
    let found = Found::read(&vsphere.client, vm).await;
    found.map_err(|trouble| trouble.of("read", object))
}

/// Starts or stops a VM.
pub(super) async fn set_power(vsphere: &VSphere, vm: &VmId, owner: &Owner, power: PowerState) -> Result<(), Error> {
    let (client, moref) = (&vsphere.client, Moref::vm(&vm.0));
    let object = format!("VM {}", vm.0);
    let found = read(vsphere, &moref, &object).await?;
    if !found.is_of(owner) {
        return Err(taken(&object, &moref));
    }
    let (is_on, verb) = (
        power == PowerState::On,
        if power == PowerState::On { "start" } else { "stop" },
    );
    if found.on == is_on {
        return Ok(());
    }
    let asked = if is_on {
        client.power_on(&moref).await
    } else {
        client.power_off(&moref).await
    };
    match asked {
        // Somebody was faster, or it is as wanted by now.
        Err(trouble) if trouble.is("InvalidPowerState") => {}
        asked => asked.map_err(|trouble| trouble.of(verb, &object))?,
    }
    let wanted = if is_on { "poweredOn" } else { "poweredOff" };
    let paths = ["runtime.powerState", "runtime.question"];
    let look = |props: &crate::vsphere::client::Props| {
        let question = props
            .get("runtime.question")
            .and_then(|question| question.text_at("text"));
        match props.text("runtime.powerState") {
            Some(state) if state == wanted => Some(None),
            _ => question.map(|question| Some(question.to_owned())),
        }
    };
    match client.wait(&moref, &paths, POWER, look).await {
        Ok(Some(None)) => Ok(()),
        Ok(Some(Some(question))) => Err(Error::new(Kind::Failed, verb, object)
            .detail(format!("vSphere asks: {question}"))
            .remedy("answer the question in the vSphere client")),
        Ok(None) => {
            Err(Error::new(Kind::Failed, verb, object)
                .detail(format!("it is not {wanted} after {} s", POWER.as_secs())))
        }
        Err(trouble) => Err(trouble.of(verb, object)),
    }
}

/// Deletes a VM with its disks, those too that were moved to it and not attached yet. One that is gone, or is another's, is success.
pub(super) async fn delete(vsphere: &VSphere, name: &str, owner: &Owner) -> Result<(), Error> {
    let home = Home::find(vsphere).await?;
    let found = match find(vsphere, &home, name, owner).await {
        Ok(None) if was_being_made(vsphere, &home, name).await? => find(vsphere, &home, name, owner).await,
        found => found,
    };
    let vm = match found {
        Ok(Some(vm)) => vm,
        Ok(None) => return Ok(()),
        Err(error) if error.kind() == Kind::NameTaken => return Ok(()),
        Err(error) => return Err(error),
    };
    let count: usize = vm.option(DISKS).and_then(|count| count.parse().ok()).unwrap_or(0);
    for path in (0..count.min(MOST_DISKS)).filter_map(|index| disk_path(&vm.vmx, index)) {
        if vm.disk(&path).is_none() {
            carrier::delete_file(vsphere, &home, &path).await?;
        }
    }
    vm.remove(vsphere, &object(name)).await
}

/// Waits for VMs that are being made in the folder, and gives whether there was one. It may be ours: a process that was killed leaves
/// the task behind.
async fn was_being_made(vsphere: &VSphere, home: &Home, name: &str) -> Result<bool, Error> {
    let settled = vsphere.client.settled(&home.folder, "createvm", CHANGE).await;
    settled.map_err(|trouble| trouble.of("look for", object(name)))
}
