//! A libvirt host as such, and how a VM is found on it.

use std::net::IpAddr;

use async_trait::async_trait;
use virt::connect::Connect;
use virt::domain::Domain as VirtDomain;
use virt::error::Error as VirtError;

use super::Libvirt;
use super::source::Domain;
use crate::{Error, Hypervisor, Kind, Vm, VmId, VmSelector};

#[async_trait]
impl Hypervisor for Libvirt {
    fn describe(&self) -> String {
        format!("libvirt host {}", self.handle.endpoint())
    }

    async fn check(&self) -> Result<(), Error> {
        let object = self.describe();
        let kind = self.handle.call("ask", &object, Connect::driver_type).await?;
        if kind.eq_ignore_ascii_case("qemu") {
            return Ok(());
        }
        Err(Error::new(Kind::Unsupported, "use", object).detail(format!("its hypervisor is {kind}, not QEMU/KVM")))
    }

    async fn find_vm(&self, vm: &VmSelector) -> Result<Vm, Error> {
        let domain = Domain::read(self, vm).await?;
        let mut hardware = domain.hardware.clone();
        hardware.disks = domain.disks.iter().map(|disk| disk.model.clone()).collect();
        Ok(Vm {
            id: VmId(domain.uuid.clone()),
            name: domain.name.clone(),
            power: domain.power,
            hardware,
        })
    }

    async fn addresses(&self, vm: &VmId) -> Result<Vec<IpAddr>, Error> {
        self.guest_addresses(vm).await
    }
}

impl Libvirt {
    /// Calls libvirt with a domain, looked up by id (UUID or name) where there is one, else by name.
    pub(super) async fn with_domain<T, F>(&self, action: &'static str, vm: &VmSelector, f: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connect, &VirtDomain) -> Result<T, VirtError> + Send + 'static,
    {
        let selector = vm.clone();
        let object = self.vm_object(vm);
        let answer = self
            .handle
            .call(action, &object, move |connect| match look_up(connect, &selector) {
                Ok(domain) => f(connect, &domain).map(Some),
                Err(error) if error.code().to_raw() == virt_sys::VIR_ERR_NO_DOMAIN => Ok(None),
                Err(error) => Err(error),
            });
        answer.await?.ok_or_else(|| {
            Error::new(Kind::NotFound, "find", object)
                .detail("the host has no domain of that name or UUID")
                .remedy("set id in the VirtualMachine's status to the domain's name or UUID (virsh list --all --uuid --name)")
        })
    }

    /// Whether the host has no such domain. That something of a domain is missing (an image, a pool) is not the same.
    pub(super) async fn is_gone(&self, vm: &VmSelector) -> Result<bool, Error> {
        let selector = vm.clone();
        let find = self.handle.call("find", self.vm_object(vm), move |connect| {
            match look_up(connect, &selector) {
                Err(error) if error.code().to_raw() == virt_sys::VIR_ERR_NO_DOMAIN => Ok(true),
                found => found.map(|_| false),
            }
        });
        find.await
    }

    /// How messages call a VM.
    pub(super) fn vm_object(&self, vm: &VmSelector) -> String {
        format!("VM {:?} on {}", vm.name, self.handle.endpoint())
    }
}

/// A UUID wins over a name that looks like one, as in `virsh`.
pub(super) fn look_up(connect: &Connect, vm: &VmSelector) -> Result<VirtDomain, VirtError> {
    let Some(id) = &vm.id else {
        return connect.lookup_domain_by_name(&vm.name);
    };
    let is_uuid = id.len() == 36 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    match is_uuid.then(|| connect.lookup_domain_by_uuid_string(id)) {
        Some(Ok(domain)) => Ok(domain),
        Some(Err(error)) if error.code().to_raw() != virt_sys::VIR_ERR_NO_DOMAIN => Err(error),
        _ => connect.lookup_domain_by_name(id),
    }
}
