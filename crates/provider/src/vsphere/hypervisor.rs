//! A server as such, and how a VM is found on it.

use async_trait::async_trait;

use super::VSphere;
use super::inventory::{self, VmInfo};
use crate::{Error, Hypervisor, Kind, Vm, VmSelector};

#[async_trait]
impl Hypervisor for VSphere {
    fn describe(&self) -> String {
        self.name()
    }

    async fn check(&self) -> Result<(), Error> {
        self.answers().await
    }

    async fn find_vm(&self, vm: &VmSelector) -> Result<Vm, Error> {
        self.neutral(vm).await
    }
}

impl VSphere {
    /// How messages name it.
    pub(crate) fn name(&self) -> String {
        self.client.describe()
    }

    /// Whether the session is good for reading the inventory.
    pub(crate) async fn answers(&self) -> Result<(), Error> {
        let root = &self.client.content().root;
        let read = self.client.properties(root, &["name"]).await;
        read.map(drop)
            .map_err(|trouble| trouble.of("read the inventory of", self.name()))
    }

    /// The VM that is selected, with its hardware.
    pub(crate) async fn look_up(&self, selector: &VmSelector) -> Result<VmInfo, Error> {
        let moref = inventory::find(&self.client, selector).await?;
        VmInfo::read(&self.client, &moref, &selector.name).await
    }

    /// The VM in the neutral model.
    pub(crate) async fn neutral(&self, selector: &VmSelector) -> Result<Vm, Error> {
        let info = self.look_up(selector).await?;
        let hardware = inventory::hardware(&self.client, &info).await?;
        Ok(Vm {
            id: crate::VmId(info.moref.value.clone()),
            name: info.name,
            power: info.power,
            hardware,
        })
    }
}

/// The error for an object that is not there.
pub(super) fn not_found(object: String, detail: &str) -> Error {
    Error::new(Kind::NotFound, "find", object).detail(detail.to_owned())
}
