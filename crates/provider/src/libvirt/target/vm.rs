//! Domains of ours: defined, started, stopped, deleted.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use virt::domain::{Domain, DomainState};
use virt::enumutil::Enum;
use virt::error::Error as VirtError;
use virt_sys as sys;

use super::check;
use super::name::{self, Place};
use super::volume;
use crate::libvirt::Libvirt;
use crate::libvirt::xml::caps::Capabilities;
use crate::libvirt::xml::{DomainXml, render};
use crate::{CreatedVm, Error, Firmware, Kind, Owner, PowerState, VmId, VmSpec};

/// How long it may take until a VM runs, or does not any more.
const POWER_LIMIT: Duration = Duration::from_mins(1);

/// How long a VM must run to count as started: a processor that cannot run it stops it at once.
const STEADY: Duration = Duration::from_secs(1);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// The domain of that name if it is `owner`'s, nothing if there is none.
///
/// # Errors
/// [`Kind::NameTaken`] where it is another's.
pub(super) async fn find(libvirt: &Libvirt, vm: &str, owner: &Owner) -> Result<Option<VmId>, Error> {
    let object = object(vm);
    match look_up(libvirt, By::Name(vm.to_owned()), &object).await? {
        None => Ok(None),
        Some(domain) if is_owned(&domain, owner) => Ok(Some(VmId(domain.uuid))),
        Some(domain) => Err(taken(&object, &domain)),
    }
}

/// Defines a VM, or finds it.
pub(super) async fn create(libvirt: &Libvirt, spec: &VmSpec, owner: &Owner) -> Result<CreatedVm, Error> {
    name::check_vm_name(&spec.name)?;
    if let Some(id) = find(libvirt, &spec.name, owner).await? {
        return Ok(created(id, spec));
    }
    let object = object(&spec.name);
    let xml = domain_xml(libvirt, spec, owner).await?;
    let defined = libvirt
        .handle
        .call("define", &object, move |connect| {
            connect.define_domain_xml(&xml)?.uuid_string()
        })
        .await;
    match defined {
        Ok(uuid) => Ok(created(VmId(uuid), spec)),
        // Somebody may have been faster: another one of us, or another's VM of that name.
        Err(fault) => match find(libvirt, &spec.name, owner).await {
            Ok(Some(id)) => Ok(created(id, spec)),
            Err(found) if found.kind() == Kind::NameTaken => Err(found),
            _ => Err(explained(fault, &object, spec)),
        },
    }
}

/// libvirt calls a missing firmware a failed operation, and does not say what to do.
fn explained(fault: Error, object: &str, spec: &VmSpec) -> Error {
    let is_uefi = spec.hardware.firmware != Firmware::Bios;
    if !is_uefi || !fault.to_string().contains("firmware") {
        return fault;
    }
    Error::new(Kind::Unsupported, "define", object)
        .source(fault)
        .remedy("install a UEFI firmware for this kind of VM on the target host (Debian: package ovmf)")
}

fn created(id: VmId, spec: &VmSpec) -> CreatedVm {
    CreatedVm {
        id,
        name: spec.name.clone(),
    }
}

pub(super) async fn domain_xml(libvirt: &Libvirt, spec: &VmSpec, owner: &Owner) -> Result<String, Error> {
    let object = object(&spec.name);
    if spec.disks.len() != spec.hardware.disks.len() {
        let (volumes, disks) = (spec.disks.len(), spec.hardware.disks.len());
        return Err(Error::new(Kind::Bug, "define", object).detail(format!("{volumes} volumes for {disks} disks")));
    }
    for nic in &spec.hardware.nics {
        check::check_kind(&nic.attachment)?;
    }
    let mut volumes = Vec::with_capacity(spec.disks.len());
    for disk in &spec.disks {
        check::check_format(disk.format)?;
        let place = Place::owned(&disk.volume, owner)?;
        volumes.push((volume::describe(libvirt, &place).await?.path, disk.format));
    }
    let capabilities = libvirt
        .handle
        .call(
            "read the capabilities of",
            "the target host",
            virt::connect::Connect::capabilities,
        )
        .await?;
    let platform = Capabilities::parse(&capabilities)?.place(&spec.hardware)?;
    render(&spec.name, &spec.hardware, &volumes, &platform, owner)
        .map_err(|error| Error::new(Kind::Invalid, "describe", object).source(error))
}

/// Starts or stops a VM.
pub(super) async fn set_power(libvirt: &Libvirt, vm: &VmId, owner: &Owner, power: PowerState) -> Result<(), Error> {
    let object = object(&vm.0);
    match look_up(libvirt, By::Uuid(vm.0.clone()), &object).await? {
        None => {
            return Err(Error::new(Kind::NotFound, "set the power state of", object).detail("no domain has that UUID"));
        }
        Some(domain) if is_owned(&domain, owner) => {}
        Some(domain) => return Err(taken(&object, &domain)),
    }
    match power {
        PowerState::On => start(libvirt, vm).await,
        PowerState::Off => stop(libvirt, vm).await,
    }
}

async fn start(libvirt: &Libvirt, vm: &VmId) -> Result<(), Error> {
    let uuid = vm.0.clone();
    libvirt
        .handle
        .call_within(POWER_LIMIT, "start", object(&vm.0), move |connect| {
            let domain = connect.lookup_domain_by_uuid_string(&uuid)?;
            if domain.is_active()? { Ok(()) } else { domain.create() }
        })
        .await?;
    let steady = Instant::now() + STEADY;
    loop {
        let seen = match state(libvirt, vm).await? {
            State::Running => None,
            State::Off => Some("off".to_owned()),
            State::Other(state) => Some(state),
        };
        if let Some(seen) = seen {
            return Err(Error::new(Kind::Failed, "start", object(&vm.0))
                .detail(format!("it was started, and then it was {seen}"))
                .remedy("see its log on the target host, in /var/log/libvirt/qemu"));
        }
        if Instant::now() >= steady {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
}

async fn stop(libvirt: &Libvirt, vm: &VmId) -> Result<(), Error> {
    let uuid = vm.0.clone();
    libvirt
        .handle
        .call_within(POWER_LIMIT, "stop", object(&vm.0), move |connect| {
            destroy(&connect.lookup_domain_by_uuid_string(&uuid)?)
        })
        .await?;
    let limit = Instant::now() + POWER_LIMIT;
    while state(libvirt, vm).await? != State::Off {
        if Instant::now() >= limit {
            return Err(Error::new(Kind::Failed, "stop", object(&vm.0))
                .detail(format!("it still runs after {} s", POWER_LIMIT.as_secs())));
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Deletes a VM with all that libvirt keeps for it, but not its disks. One that is gone, or is another's, is success.
pub(super) async fn delete(libvirt: &Libvirt, vm: &str, owner: &Owner) -> Result<(), Error> {
    let uuid = match find(libvirt, vm, owner).await {
        Ok(Some(id)) => id.0,
        Ok(None) => return Ok(()),
        Err(fault) if fault.kind() == Kind::NameTaken => return Ok(()),
        Err(fault) => return Err(fault),
    };
    libvirt
        .handle
        .call_within(POWER_LIMIT, "delete", object(vm), move |connect| {
            // By UUID: the name may belong to another by now.
            let domain = match connect.lookup_domain_by_uuid_string(&uuid) {
                Err(error) if is_gone(&error) => return Ok(()),
                found => found?,
            };
            destroy(&domain)?;
            match domain.undefine_flags(EVERYTHING) {
                // It was gone with its process, or somebody was faster.
                Err(error) if is_gone(&error) => Ok(()),
                undefined => undefined,
            }
        })
        .await
}

/// All that libvirt keeps beside the definition and is to go with it.
const EVERYTHING: sys::virDomainUndefineFlagsValues = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | sys::VIR_DOMAIN_UNDEFINE_NVRAM;

/// Ends the VM's process where there is one.
fn destroy(domain: &Domain) -> Result<(), VirtError> {
    if !domain.is_active()? {
        return Ok(());
    }
    match domain.destroy() {
        // It ended by itself between the two calls.
        Err(_) if !domain.is_active().unwrap_or(true) => Ok(()),
        Err(error) if is_gone(&error) => Ok(()),
        destroyed => destroyed,
    }
}

fn is_gone(error: &VirtError) -> bool {
    error.code().to_raw() == sys::VIR_ERR_NO_DOMAIN
}

/// How a domain is looked up.
enum By {
    Name(String),
    Uuid(String),
}

async fn look_up(libvirt: &Libvirt, by: By, object: &str) -> Result<Option<DomainXml>, Error> {
    let text = libvirt
        .handle
        .call("look up", object, move |connect| {
            let found = match by {
                By::Name(name) => connect.lookup_domain_by_name(&name),
                By::Uuid(uuid) => connect.lookup_domain_by_uuid_string(&uuid),
            };
            match found.and_then(|domain| domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE)) {
                Err(error) if is_gone(&error) => Ok(None),
                described => described.map(Some),
            }
        })
        .await?;
    text.map(|text| DomainXml::parse(&text)).transpose()
}

fn is_owned(domain: &DomainXml, owner: &Owner) -> bool {
    domain.owner.as_ref() == Some(&owner.uid)
}

fn taken(object: &str, domain: &DomainXml) -> Error {
    Error::new(Kind::NameTaken, "use", object)
        .detail(format!(
            "the target host has a domain \"{}\" (UUID {}) that this migration did not make",
            domain.name, domain.uuid
        ))
        .remedy("choose another spec.targetName, or remove that domain")
}

fn object(vm: &str) -> String {
    format!("domain \"{vm}\"")
}

/// Whether a domain runs.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Running,
    Off,
    /// Neither, in libvirt's words.
    Other(String),
}

async fn state(libvirt: &Libvirt, vm: &VmId) -> Result<State, Error> {
    let uuid = vm.0.clone();
    let (state, reason) = libvirt
        .handle
        .call("look at", object(&vm.0), move |connect| {
            connect.lookup_domain_by_uuid_string(&uuid)?.state()
        })
        .await?;
    Ok(match state {
        Enum::Known(DomainState::Running | DomainState::Blocked) => State::Running,
        Enum::Known(DomainState::Shutoff | DomainState::Crashed) => State::Off,
        Enum::Known(other) => State::Other(match reason {
            Enum::Known(reason) => format!("{other:?} ({reason})"),
            Enum::Unknown(number) => format!("{other:?} (reason {number})"),
        }),
        Enum::Unknown(number) => State::Other(format!("in the state {number}")),
    })
}
