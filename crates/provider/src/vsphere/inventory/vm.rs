//! A VM as the server describes it.

use super::device::{VirtualDisk, VirtualNic, devices};
use super::object;
use crate::vsphere::client::{Client, Props, unescape};
use crate::vsphere::soap::{Element, Moref};
use crate::{Error, Firmware, Kind, PowerState};

const PATHS: [&str; 14] = [
    "name",
    "config.bootOptions",
    "config.changeVersion",
    "config.firmware",
    "config.guestId",
    "config.hardware",
    "config.keyId",
    "guest.toolsRunningStatus",
    "guest.toolsVersionStatus2",
    "network",
    "runtime.connectionState",
    "runtime.consolidationNeeded",
    "runtime.powerState",
    "snapshot",
];

/// A VM, with what its source needs to know of it.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "that many things are or are not so, each by itself"
)]
pub(crate) struct VmInfo {
    /// The VM.
    pub(crate) moref: Moref,
    /// How messages call it.
    pub(crate) object: String,
    /// Its name.
    pub(crate) name: String,
    /// Whether it runs; suspended counts as running, since it goes on from there.
    pub(crate) power: PowerState,
    /// Whether it stands still with its memory on disk.
    pub(crate) is_suspended: bool,
    /// Changes with every change of its configuration.
    pub(crate) change_version: String,
    /// How it boots.
    pub(crate) firmware: Firmware,
    /// Devices in the order in which they are booted from, by key.
    pub(crate) boot_order: Vec<i64>,
    /// What it calls the guest's operating system.
    pub(crate) guest_id: Option<String>,
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// Memory in MiB.
    pub(crate) memory_mib: u64,
    /// Whether its configuration is encrypted, as it is with a virtual TPM.
    pub(crate) is_encrypted: bool,
    /// Whether VMware Tools are installed.
    pub(crate) has_tools: bool,
    /// Whether VMware Tools run.
    pub(crate) tools_run: bool,
    /// Whether redo logs are there that belong to no snapshot.
    pub(crate) needs_consolidation: bool,
    /// Its disks.
    pub(crate) disks: Vec<VirtualDisk>,
    /// Its network interfaces.
    pub(crate) nics: Vec<VirtualNic>,
    /// The networks that it is attached to.
    pub(crate) networks: Vec<Moref>,
    /// Its snapshots, as `VirtualMachineSnapshotInfo`.
    pub(crate) snapshots: Option<Element>,
}

impl VmInfo {
    /// Reads it. `called` is what the user calls it.
    pub(crate) async fn read(client: &Client, moref: &Moref, called: &str) -> Result<Self, Error> {
        let object = object(client, called);
        let props = client
            .properties(moref, &PATHS)
            .await
            .map_err(|trouble| match trouble.kind {
                Kind::NotFound => Error::new(Kind::NotFound, "find", &object)
                    .detail(format!("the server has no VM {}: {}", moref.value, trouble.detail))
                    .remedy("set id in the VirtualMachine's status to the VM's managed object id (govc ls -i)"),
                _ => trouble.of("read", &object),
            })?;
        Self::of(moref, object, &props)
    }

    fn of(moref: &Moref, object: String, props: &Props) -> Result<Self, Error> {
        let Some(hardware) = props.get("config.hardware") else {
            return Err(unreadable(object, props));
        };
        let (disks, nics) = devices(hardware);
        let number = |path| hardware.number_at(path).and_then(|number| u64::try_from(number).ok());
        let state = props.text("runtime.powerState").unwrap_or("poweredOff");
        let boot = props.get("config.bootOptions");
        let secure_boot = boot
            .and_then(|boot| boot.flag_at("efiSecureBootEnabled"))
            .unwrap_or(false);
        let order = boot.into_iter().flat_map(|boot| boot.all("bootOrder"));
        let tools = props.text("guest.toolsVersionStatus2");
        let tools_run = props.text("guest.toolsRunningStatus") == Some("guestToolsRunning");
        Ok(Self {
            name: unescape(props.text("name").unwrap_or_default()),
            power: match state {
                "poweredOff" => PowerState::Off,
                _ => PowerState::On,
            },
            is_suspended: state == "suspended",
            change_version: props.text("config.changeVersion").unwrap_or_default().to_owned(),
            firmware: match props.text("config.firmware") {
                Some("efi") => Firmware::Uefi { secure_boot },
                _ => Firmware::Bios,
            },
            boot_order: order.filter_map(|device| device.number_at("deviceKey")).collect(),
            guest_id: props.text("config.guestId").map(str::to_owned),
            cpus: number("numCPU")
                .and_then(|cpus| u32::try_from(cpus).ok())
                .unwrap_or(1)
                .max(1),
            memory_mib: number("memoryMB").unwrap_or(0),
            is_encrypted: props.get("config.keyId").is_some_and(|key| !key.children().is_empty()),
            has_tools: tools_run || tools.is_some_and(|tools| tools != "guestToolsNotInstalled"),
            tools_run,
            needs_consolidation: props.flag("runtime.consolidationNeeded") == Some(true),
            disks,
            nics,
            networks: props.morefs("network"),
            snapshots: props.get("snapshot").cloned(),
            moref: moref.clone(),
            object,
        })
    }
}

/// Why a VM has no hardware: it may not be seen, or its host or its files are away.
fn unreadable(object: String, props: &Props) -> Error {
    if let Some(fault) = props.refusal("config.hardware") {
        return crate::vsphere::client::Trouble::from(fault.clone()).of("read", object);
    }
    let state = props.text("runtime.connectionState").unwrap_or("unknown");
    Error::new(Kind::Unreachable, "read", object)
        .detail(format!(
            "the server has no configuration of it; its connection state is {state}"
        ))
        .remedy("bring its host and its datastore back")
}
