//! A cluster as such, and how a VM is found in it.

use std::net::IpAddr;

use async_trait::async_trait;

use super::Proxmox;
use super::client::types::{Version, VmStatus};
use super::client::vm::Located;
use super::config::VmConfig;
use crate::{Error, Hypervisor, Kind, PowerState, Vm, VmId, VmSelector};

/// The oldest version that is known to work.
const OLDEST: Version = Version::new(7, 4);

#[async_trait]
impl Hypervisor for Proxmox {
    fn describe(&self) -> String {
        self.object()
    }

    async fn check(&self) -> Result<(), Error> {
        self.look().await
    }

    async fn find_vm(&self, vm: &VmSelector) -> Result<Vm, Error> {
        self.read_vm(vm).await.map(|(vm, _, _)| vm)
    }

    async fn addresses(&self, vm: &VmId) -> Result<Vec<IpAddr>, Error> {
        self.guest_addresses(vm).await
    }
}

impl Proxmox {
    /// Kind and endpoint.
    pub(crate) fn object(&self) -> String {
        self.client.object()
    }

    /// Whether it answers, lets us in, and is not too old.
    pub(crate) async fn look(&self) -> Result<(), Error> {
        let version = self.client.version().await?;
        if version >= OLDEST {
            return Ok(());
        }
        Err(Error::new(Kind::Unsupported, "use", self.object())
            .detail(format!("its version is {version}"))
            .remedy(format!("vmferry works with Proxmox VE from {OLDEST} on")))
    }

    /// Finds a VM, its node and its configuration: as it runs where it does, else as it will start.
    pub(crate) async fn read_vm(&self, selector: &VmSelector) -> Result<(Vm, Located, VmConfig), Error> {
        let found = self.client.look_up(selector).await?;
        let mut at = Located {
            vmid: found.vmid,
            node: found.node,
        };
        let status = self.client.vm_status(&mut at).await?;
        let power = power(&status);
        let options = self.client.vm_config(&mut at, power == PowerState::On).await?;
        let config = VmConfig::read(&options);
        let vm = Vm {
            id: VmId(at.vmid.to_string()),
            name: config
                .name
                .clone()
                .or(found.name)
                .unwrap_or_else(|| format!("VM {}", at.vmid)),
            power,
            hardware: config.hardware.clone(),
        };
        Ok((vm, at, config))
    }
}

/// Whether a VM runs. One that is paused has memory and may write its disks again.
pub(crate) fn power(status: &VmStatus) -> PowerState {
    if status.status == "running" {
        PowerState::On
    } else {
        PowerState::Off
    }
}
