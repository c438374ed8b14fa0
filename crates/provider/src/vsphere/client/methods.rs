//! The methods that vmferry uses, typed. What each needs in privileges stands in `docs/providers/vsphere.md`.

use std::time::Duration;

use super::{Client, Trouble, escape, unescape};
use crate::Kind;
use crate::vsphere::soap::{Arg, Element, Moref};

/// How long what is quick may take: power, renaming, reconfiguring, making a VM without disks, deleting.
const QUICK: Duration = Duration::from_mins(5);

/// The object that a task made.
fn made(result: Option<&Element>) -> Result<Moref, Trouble> {
    let made = result.and_then(Element::moref);
    made.ok_or_else(|| Trouble::new(Kind::Failed, "the server does not say what it made"))
}

impl Client {
    /// The object at an inventory path (`DC/vm/folder/name`), where there is one.
    pub(crate) async fn find_by_path(&self, path: &str) -> Result<Option<Moref>, Trouble> {
        // A percent sign that begins no escape stands for itself.
        let parts = path.trim_matches('/').split('/').map(|part| escape(&unescape(part)));
        let args = [Arg::text("inventoryPath", parts.collect::<Vec<_>>().join("/"))];
        let answer = self
            .call(&self.content().search_index, "FindByInventoryPath", &args)
            .await?;
        Ok(answer.moref_at("returnval"))
    }

    /// Makes a snapshot of the disks, and waits for it.
    pub(crate) async fn create_snapshot(
        &self,
        vm: &Moref,
        name: &str,
        description: &str,
        quiesce: bool,
        limit: Duration,
    ) -> Result<Moref, Trouble> {
        let args = [
            Arg::text("name", name),
            Arg::text("description", description),
            Arg::text("memory", false),
            Arg::text("quiesce", quiesce),
        ];
        made(self.insist(vm, "CreateSnapshot_Task", &args, limit).await?.as_ref())
    }

    /// Removes a snapshot, not those that follow it, and waits until its changes are in the disks.
    pub(crate) async fn remove_snapshot(&self, snapshot: &Moref, limit: Duration) -> Result<(), Trouble> {
        let args = [Arg::text("removeChildren", false), Arg::text("consolidate", true)];
        self.task(snapshot, "RemoveSnapshot_Task", &args, limit).await.map(drop)
    }

    /// Merges the redo logs that a removed snapshot left behind.
    pub(crate) async fn consolidate(&self, vm: &Moref, limit: Duration) -> Result<(), Trouble> {
        self.task(vm, "ConsolidateVMDisks_Task", &[], limit).await.map(drop)
    }

    /// Asks for a lease on the disks of a VM that is off.
    pub(crate) async fn export_vm(&self, vm: &Moref) -> Result<Moref, Trouble> {
        self.call_for_moref(vm, "ExportVm", &[]).await
    }

    /// Asks for a lease on the disks as a snapshot has them.
    pub(crate) async fn export_snapshot(&self, snapshot: &Moref) -> Result<Moref, Trouble> {
        self.call_for_moref(snapshot, "ExportSnapshot", &[]).await
    }

    /// Asks for a lease on a VM to be made. `spec` is an `ImportSpec` named `spec`.
    pub(crate) async fn import_vapp(
        &self,
        pool: &Moref,
        spec: Arg,
        folder: &Moref,
        host: Option<&Moref>,
    ) -> Result<Moref, Trouble> {
        let mut args = vec![spec, Arg::moref("folder", folder)];
        args.extend(host.map(|host| Arg::moref("host", host)));
        self.call_for_moref(pool, "ImportVApp", &args).await
    }

    /// Makes a VM and waits for it. `config` is a `VirtualMachineConfigSpec` named `config`.
    pub(crate) async fn create_vm(
        &self,
        folder: &Moref,
        config: Arg,
        pool: &Moref,
        host: Option<&Moref>,
    ) -> Result<Moref, Trouble> {
        let mut args = vec![config, Arg::moref("pool", pool)];
        args.extend(host.map(|host| Arg::moref("host", host)));
        made(self.insist(folder, "CreateVM_Task", &args, QUICK).await?.as_ref())
    }

    /// Changes a VM. `spec` is a `VirtualMachineConfigSpec` named `spec`.
    pub(crate) async fn reconfigure(&self, vm: &Moref, spec: Arg, limit: Duration) -> Result<(), Trouble> {
        self.insist(vm, "ReconfigVM_Task", &[spec], limit).await.map(drop)
    }

    /// Starts a VM. A vCenter may choose another host of the cluster for it.
    pub(crate) async fn power_on(&self, vm: &Moref) -> Result<(), Trouble> {
        self.insist(vm, "PowerOnVM_Task", &[], QUICK).await.map(drop)
    }

    /// Stops a VM at once.
    pub(crate) async fn power_off(&self, vm: &Moref) -> Result<(), Trouble> {
        self.insist(vm, "PowerOffVM_Task", &[], QUICK).await.map(drop)
    }

    /// Deletes an object; a VM with all its files.
    pub(crate) async fn destroy(&self, object: &Moref) -> Result<(), Trouble> {
        self.task(object, "Destroy_Task", &[], QUICK).await.map(drop)
    }

    /// Moves a disk: names are datastore paths (`[ds] folder/disk.vmdk`).
    pub(crate) async fn move_virtual_disk(
        &self,
        from: &str,
        to: &str,
        datacenter: Option<&Moref>,
        limit: Duration,
    ) -> Result<(), Trouble> {
        let mut args = vec![Arg::text("sourceName", from)];
        args.extend(datacenter.map(|datacenter| Arg::moref("sourceDatacenter", datacenter)));
        args.push(Arg::text("destName", to));
        args.extend(datacenter.map(|datacenter| Arg::moref("destDatacenter", datacenter)));
        args.push(Arg::text("force", false));
        self.insist(self.disk_manager()?, "MoveVirtualDisk_Task", &args, limit)
            .await
            .map(drop)
    }

    /// Deletes a disk: its descriptor and its extents.
    pub(crate) async fn delete_virtual_disk(&self, name: &str, datacenter: Option<&Moref>) -> Result<(), Trouble> {
        let mut args = vec![Arg::text("name", name)];
        args.extend(datacenter.map(|datacenter| Arg::moref("datacenter", datacenter)));
        self.insist(self.disk_manager()?, "DeleteVirtualDisk_Task", &args, QUICK)
            .await
            .map(drop)
    }

    fn disk_manager(&self) -> Result<&Moref, Trouble> {
        let manager = self.content().virtual_disk_manager.as_ref();
        manager.ok_or_else(|| Trouble::new(Kind::Unsupported, "the server has no virtual disk manager"))
    }
}
