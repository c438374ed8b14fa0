//! A VM as it is found, as far as the target needs to know it.

use std::time::Duration;

use super::guest::Slot;
use super::place::Home;
use super::spec::{Attached, UID};
use crate::vsphere::VSphere;
use crate::vsphere::client::{Client, Props, Trouble};
use crate::vsphere::soap::{Element, Moref};
use crate::{Error, Kind, Owner};

const VMX: &str = "config.files.vmPathName";
const OPTIONS: &str = "config.extraConfig";
const PATHS: [&str; 6] = [
    "name",
    "runtime.connectionState",
    "runtime.powerState",
    VMX,
    OPTIONS,
    "config.hardware.device",
];

/// How often, and with which pause, a VM is asked to go that another operation holds: the lease of a sink that was dropped ends soon.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(500);
/// After so many, an import that still holds it is one of a process that was killed.
const PATIENCE: u32 = 2;

/// A VM of the folder.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub moref: Moref,
    /// Whether it runs.
    pub on: bool,
    /// Datastore path of its `.vmx` file.
    pub vmx: String,
    /// Its disks.
    pub disks: Vec<Attached>,
    options: Vec<(String, String)>,
    controllers: Vec<Controller>,
}

#[derive(Debug, Clone)]
struct Controller {
    key: i64,
    class: String,
    bus: i64,
}

impl Found {
    /// The VM of that name in the folder, where there is one.
    ///
    /// # Errors
    /// [`Kind::NameTaken`] where something else has that name.
    pub async fn by_name(client: &Client, home: &Home, name: &str) -> Result<Option<Self>, Error> {
        let object = object(name);
        let child = home.child(client, name).await;
        let Some(moref) = child.map_err(|trouble| trouble.of("find", &object))? else {
            return Ok(None);
        };
        if moref.kind != "VirtualMachine" {
            return Err(taken(&object, &moref));
        }
        match Self::read(client, &moref).await {
            Ok(found) => Ok(Some(found)),
            // It went in between.
            Err(trouble) if trouble.kind == Kind::NotFound => Ok(None),
            Err(trouble) => Err(trouble.of("read", object)),
        }
    }

    /// The VM with this id. [`Kind::Unreachable`] where the server shows no configuration of it: nobody knows then whose it is.
    pub async fn read(client: &Client, moref: &Moref) -> Result<Self, Trouble> {
        let props = client.properties(moref, &PATHS).await?;
        Self::of(moref, &props)
    }

    fn of(moref: &Moref, props: &Props) -> Result<Self, Trouble> {
        let vmx = props.text(VMX).ok_or_else(|| unreadable(props))?;
        if let Some(fault) = props.refusal(OPTIONS) {
            return Err(fault.clone().into());
        }
        let children = |path| props.get(path).map(Element::children).unwrap_or_default();
        let option = |option: &Element| Some((option.text_at("key")?.to_owned(), option.text_at("value")?.to_owned()));
        let devices = children("config.hardware.device");
        Ok(Self {
            moref: moref.clone(),
            on: props.text("runtime.powerState") != Some("poweredOff"),
            vmx: vmx.to_owned(),
            disks: devices.iter().filter_map(disk).collect(),
            options: children(OPTIONS).iter().filter_map(option).collect(),
            controllers: devices.iter().filter_map(controller).collect(),
        })
    }

    /// Whether it carries the owner's UID.
    pub fn is_of(&self, owner: &Owner) -> bool {
        self.option(UID) == Some(&owner.uid)
    }

    /// An option of its configuration.
    pub fn option(&self, key: &str) -> Option<&str> {
        let mut found = self.options.iter().filter(|(found, _)| found == key);
        found.next().map(|(_, value)| value.as_str())
    }

    /// Its disk with this file.
    pub fn disk(&self, path: &str) -> Option<&Attached> {
        self.disks.iter().find(|disk| disk.path == path)
    }

    /// The key of the controller that a disk is to be on.
    pub fn controller(&self, slot: Slot) -> Option<i64> {
        let bus = i64::from(slot.bus);
        let fits = |found: &&Controller| found.class == slot.class.schema_type() && found.bus == bus;
        self.controllers.iter().find(fits).map(|found| found.key)
    }

    /// Stops and deletes it with all its files. Gone is success.
    pub async fn remove(&self, vsphere: &VSphere, object: &str) -> Result<(), Error> {
        let client = &vsphere.client;
        if self.on {
            match client.power_off(&self.moref).await {
                // It stopped, or went, by itself.
                Err(trouble) if trouble.kind == Kind::Busy || trouble.kind == Kind::NotFound => {}
                stopped => stopped.map_err(|trouble| trouble.of("stop", object))?,
            }
        }
        for attempt in 1.. {
            match client.destroy(&self.moref).await {
                Err(trouble) if trouble.kind == Kind::Busy && attempt < TRIES => {
                    if attempt >= PATIENCE {
                        self.cancel_import(client).await;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Err(trouble) if trouble.kind == Kind::NotFound => break,
                Err(trouble) if trouble.kind == Kind::Busy => {
                    return Err(trouble
                        .remedy("an import that was cut short holds it for some minutes; then it can be deleted")
                        .of("delete", object));
                }
                Err(trouble) => return Err(trouble.of("delete", object)),
                Ok(()) => break,
            }
        }
        Ok(())
    }

    /// Calls off the import that holds it. Whoever began that is gone, or is no longer the one that is to write: there is but one.
    async fn cancel_import(&self, client: &Client) {
        match client.cancel_import(&self.moref).await {
            Ok(true) => tracing::info!(vm = %self.moref, "called off an import that was cut short"),
            Ok(false) => {}
            // Then it ends by itself.
            Err(trouble) => tracing::debug!(vm = %self.moref, detail = trouble.detail, "could not call off an import"),
        }
    }
}

/// Why a VM has no configuration: it may not be seen, its host or its files are away, or it is still being made.
fn unreadable(props: &Props) -> Trouble {
    if let Some(fault) = props.refusal(VMX) {
        return fault.clone().into();
    }
    let state = props.text("runtime.connectionState").unwrap_or("unknown");
    let detail = format!("the server has no configuration of it; its connection state is {state}");
    Trouble::new(Kind::Unreachable, detail).remedy("bring its host and its datastore back")
}

fn disk(device: &Element) -> Option<Attached> {
    if device.schema_type() != Some("VirtualDisk") {
        return None;
    }
    let bytes = device.number_at("capacityInBytes").filter(|bytes| *bytes > 0);
    let bytes = bytes.or_else(|| device.number_at("capacityInKB")?.checked_mul(1024))?;
    Some(Attached {
        key: device.number_at("key")?,
        controller: device.number_at("controllerKey")?,
        unit: u32::try_from(device.number_at("unitNumber")?).ok()?,
        path: device.text_at("backing/fileName")?.to_owned(),
        capacity: u64::try_from(bytes).ok()?,
    })
}

fn controller(device: &Element) -> Option<Controller> {
    Some(Controller {
        key: device.number_at("key")?,
        class: device.schema_type()?.to_owned(),
        bus: device.number_at("busNumber")?,
    })
}

/// How messages call a VM.
pub(super) fn object(name: &str) -> String {
    format!("VM {name:?}")
}

/// The error where a name is another's.
pub(super) fn taken(object: &str, found: &Moref) -> Error {
    Error::new(Kind::NameTaken, "use", object)
        .detail(format!(
            "the folder has {found} of that name, which this migration did not make"
        ))
        .remedy("choose another spec.targetName or another VM folder, or remove what has the name")
}
