//! A server as such, and how a VM is found on it.

use std::net::IpAddr;

use async_trait::async_trait;

use super::VSphere;
use super::inventory::{self, VmInfo};
use crate::{Error, Hypervisor, Kind, Vm, VmId, VmSelector};

#[async_trait]
impl Hypervisor for VSphere {
    fn describe(&self) -> String {
        self.client.describe()
    }

    async fn check(&self) -> Result<(), Error> {
        let root = &self.client.content().root;
        let read = self.client.properties(root, &["name"]).await;
        read.map(drop)
            .map_err(|trouble| trouble.of("read the inventory of", self.describe()))
    }

    async fn find_vm(&self, vm: &VmSelector) -> Result<Vm, Error> {
        let info = self.look_up(vm).await?;
        let hardware = inventory::hardware(&self.client, &info).await?;
        Ok(Vm {
            id: VmId(info.moref.value),
            name: info.name,
            power: info.power,
            hardware,
        })
    }

    async fn addresses(&self, vm: &VmId) -> Result<Vec<IpAddr>, Error> {
        self.guest_addresses(vm).await
    }
}

impl VSphere {
    /// The VM that is selected, as the server describes it.
    pub(super) async fn look_up(&self, vm: &VmSelector) -> Result<VmInfo, Error> {
        let moref = inventory::find(&self.client, vm).await?;
        VmInfo::read(&self.client, &moref, &vm.name).await
    }
}

/// The error for an object that is not there.
pub(super) fn not_found(object: String, detail: &str) -> Error {
    Error::new(Kind::NotFound, "find", object).detail(detail.to_owned())
}
