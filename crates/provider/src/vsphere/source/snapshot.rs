//! Snapshots: made, found again and removed.

use std::time::Duration;

use super::super::VSphere;
use super::offline;
use crate::vsphere::client::{Client, Trouble};
use crate::vsphere::inventory::VmInfo;
use crate::vsphere::soap::{Element, Moref};
use crate::{Error, Frozen, FrozenId, Kind, Owner, PowerState, VmSelector};

/// How long making one may take: the guest gets up to 15 minutes for its file systems.
const CREATE: Duration = Duration::from_mins(20);
/// How long is waited for its removal at once: what was written since it was made is merged meanwhile.
const REMOVE: Duration = Duration::from_mins(10);

/// How the owner's snapshot is known.
pub(super) struct Mark {
    name: String,
    uid: String,
}

/// A snapshot of ours.
pub(super) struct Snapshot {
    moref: Moref,
    name: String,
    is_quiesced: bool,
}

impl Mark {
    pub(super) fn of(owner: &Owner) -> Result<Self, Error> {
        let tag = owner.tag();
        if tag.len() == 12 {
            return Ok(Self {
                name: format!("vmferry-{tag}"),
                uid: owner.uid.clone(),
            });
        }
        let object = format!("a snapshot with the UID {:?}", owner.uid);
        Err(Error::new(Kind::Invalid, "mark", object)
            .detail("it has fewer than twelve hex digits")
            .remedy("use a UUID"))
    }

    fn description(&self) -> String {
        format!(
            "Made by vmferry for the migration {}, which removes it when it has ended.",
            self.uid
        )
    }

    fn is_on(&self, snapshot: &Element) -> bool {
        let description = snapshot.text_at("description").unwrap_or_default();
        snapshot.text_at("name") == Some(&self.name) && description.contains(&self.uid)
    }
}

impl Snapshot {
    pub(super) fn frozen(self) -> Frozen {
        let how = if self.is_quiesced {
            "file systems quiesced"
        } else {
            "not quiesced"
        };
        Frozen {
            detail: format!("snapshot {:?}, {how}", self.name),
            id: FrozenId(self.moref.value),
        }
    }
}

/// The owner's snapshots of a VM. There is one, unless somebody copied it.
pub(super) fn find(vm: &VmInfo, mark: &Mark) -> Vec<Snapshot> {
    let read = |tree: &Element| {
        Some(Snapshot {
            moref: tree.moref_at("snapshot")?,
            name: mark.name.clone(),
            is_quiesced: tree.flag_at("quiesced").unwrap_or(false),
        })
    };
    let ours = all(vm).into_iter().filter(|tree| mark.is_on(tree));
    ours.filter_map(read).collect()
}

/// A snapshot of a VM by its id.
pub(super) fn by_id(vm: &VmInfo, id: &str) -> Option<Moref> {
    let mut morefs = all(vm).into_iter().filter_map(|tree| tree.moref_at("snapshot"));
    morefs.find(|moref| moref.value == id)
}

/// All snapshots of a VM, each before those that follow it.
fn all(vm: &VmInfo) -> Vec<&Element> {
    let mut found = Vec::new();
    let mut open: Vec<&Element> = vm
        .snapshots
        .iter()
        .flat_map(|info| info.all("rootSnapshotList"))
        .collect();
    while let Some(tree) = open.pop() {
        found.push(tree);
        open.extend(tree.all("childSnapshotList"));
    }
    found
}

/// Freezes: a snapshot of a VM that runs, nothing for one that is shut off.
pub(super) async fn create(client: &Client, vm: &VmInfo, mark: &Mark) -> Result<Frozen, Error> {
    if vm.power == PowerState::Off {
        return Ok(Frozen {
            id: offline::state(vm),
            detail: "the VM is shut off: its disks are read as they are".to_owned(),
        });
    }
    let make = |quiesce| async move {
        let description = mark.description();
        client
            .create_snapshot(&vm.moref, &mark.name, &description, quiesce, CREATE)
            .await
    };
    let quiesce = vm.tools_run && !vm.is_suspended;
    let (made, how) = match make(quiesce).await {
        Err(trouble) if quiesce && is_about_quiescing(&trouble) => {
            tracing::warn!(
                vm = vm.object,
                detail = trouble.detail,
                "the guest could not be quiesced"
            );
            remove_failed(client, vm, mark).await?;
            (
                make(false).await,
                format!("not quiesced, since that failed: {}", trouble.detail),
            )
        }
        made if quiesce => (made, "file systems quiesced by VMware Tools".to_owned()),
        made if vm.is_suspended => (made, "not quiesced: the VM is suspended".to_owned()),
        made => (made, "not quiesced: VMware Tools do not run".to_owned()),
    };
    let snapshot = made.map_err(|trouble| trouble.of("make a snapshot of", &vm.object))?;
    Ok(Frozen {
        id: FrozenId(snapshot.value),
        detail: format!("snapshot {:?}, {how}", mark.name),
    })
}

/// Whether a snapshot failed over the guest, and would not without it.
fn is_about_quiescing(trouble: &Trouble) -> bool {
    let name = trouble
        .fault
        .as_ref()
        .map(|fault| fault.name.as_str())
        .unwrap_or_default();
    name.contains("Quiesce") || name == "ToolsUnavailable" || trouble.detail.to_lowercase().contains("quiesc")
}

/// Removes what a failed attempt may have left.
async fn remove_failed(client: &Client, vm: &VmInfo, mark: &Mark) -> Result<(), Error> {
    let again = VmInfo::read(client, &vm.moref, &vm.name).await?;
    for snapshot in find(&again, mark) {
        remove_one(client, &again, &snapshot).await?;
    }
    Ok(())
}

/// Removes the owner's snapshots, and merges what their removal left unmerged, now or the last time.
pub(super) async fn remove(vsphere: &VSphere, selector: &VmSelector, mark: &Mark) -> Result<(), Error> {
    let client = &vsphere.client;
    let mut vm = vsphere.look_up(selector).await?;
    let mut ours = find(&vm, mark);
    if ours.is_empty() && was_being_made(client, &vm).await? {
        vm = vsphere.look_up(selector).await?;
        ours = find(&vm, mark);
    }
    if ours.is_empty() {
        merge_left(client, &vm).await;
        return Ok(());
    }
    for snapshot in &ours {
        remove_one(client, &vm, snapshot).await?;
    }
    let after = vsphere.look_up(selector).await?;
    if after.needs_consolidation {
        consolidate(client, &after).await?;
    }
    if find(&after, mark).is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Busy, "remove the snapshot of", &after.object).detail("it is still there"))
}

/// Waits for a snapshot that is being made, and gives whether there was one. It may be ours: a process that was killed, or lost its
/// connection, leaves the task behind, and whose it is shows only when the snapshot is there.
async fn was_being_made(client: &Client, vm: &VmInfo) -> Result<bool, Error> {
    let settled = client.settled(&vm.moref, "createsnapshot", CREATE).await;
    settled.map_err(|trouble| trouble.of("wait for the snapshot of", &vm.object))
}

/// Merges what a removal may have left before. Whose it is shows nowhere, and merging loses nothing. So what stands in its way is no
/// obstacle to us: it may be another's, for good.
async fn merge_left(client: &Client, vm: &VmInfo) {
    if vm.needs_consolidation
        && let Err(error) = consolidate(client, vm).await
    {
        tracing::warn!(vm = vm.object, %error, "disks need to be consolidated");
    }
}

async fn consolidate(client: &Client, vm: &VmInfo) -> Result<(), Error> {
    let merged = client.consolidate(&vm.moref, REMOVE).await;
    merged.map_err(|trouble| {
        later(trouble)
            .of("consolidate the disks of", &vm.object)
            .remedy("consolidate them in the vSphere Client (Snapshots > Consolidate)")
    })
}

async fn remove_one(client: &Client, vm: &VmInfo, snapshot: &Snapshot) -> Result<(), Error> {
    match client.remove_snapshot(&snapshot.moref, REMOVE).await {
        Err(trouble) if trouble.kind != Kind::NotFound => {
            let object = format!("snapshot {:?} of {}", snapshot.name, vm.object);
            Err(later(trouble).of("remove", object))
        }
        _ => Ok(()),
    }
}

/// What may succeed when it is tried again: a backup that holds the disks, a lease that still ends.
fn later(trouble: Trouble) -> Trouble {
    match trouble.kind {
        Kind::Failed | Kind::Invalid => trouble.meaning(Kind::Busy),
        _ => trouble,
    }
}
