//! The node on which a VM is.

use serde::de::DeserializeOwned;

use super::types::VmResource;
use super::{Call, Client};
use crate::{Error, Kind, VmSelector};

/// A VM and the node that it was on when it was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located {
    /// Its id, unique in the cluster.
    pub(crate) vmid: u64,
    /// Its node.
    pub(crate) node: String,
}

impl Client {
    /// All VMs of the cluster that may be seen, without containers.
    pub(crate) async fn vms(&self) -> Result<Vec<VmResource>, Error> {
        let call = Call::get(&["cluster", "resources"], "list the VMs of", self.object()).with("type", "vm");
        let found: Vec<VmResource> = self.send(&call).await?;
        Ok(found.into_iter().filter(|vm| vm.kind == "qemu").collect())
    }

    /// The VM that a selector means: by its VMID where there is one, else by a name that only one VM has.
    ///
    /// # Errors
    /// [`Kind::NotFound`] where there is none, [`Kind::Invalid`] where several have the name or the id is no number.
    pub(crate) async fn look_up(&self, selector: &VmSelector) -> Result<VmResource, Error> {
        let object = self.vm_object(selector);
        let all = self.vms().await?;
        if let Some(id) = &selector.id {
            let vmid = parse_vmid(id, &object)?;
            return all.into_iter().find(|vm| vm.vmid == vmid).ok_or_else(|| {
                missing(
                    &object,
                    &format!("there is no VM {vmid} that the token or user may see"),
                )
            });
        }
        let mut named = all
            .into_iter()
            .filter(|vm| vm.name.as_deref() == Some(selector.name.as_str()));
        let Some(found) = named.next() else {
            return Err(missing(
                &object,
                "there is no VM of that name that the token or user may see",
            ));
        };
        let others: Vec<_> = named.map(|vm| vm.vmid.to_string()).collect();
        if others.is_empty() {
            return Ok(found);
        }
        Err(Error::new(Kind::Invalid, "find", object)
            .detail(format!(
                "several VMs have that name: {}, {}",
                found.vmid,
                others.join(", ")
            ))
            .remedy("set id in the VirtualMachine's status to the VMID"))
    }

    /// The node on which a VM is now.
    pub(crate) async fn node_of(&self, vmid: u64) -> Result<String, Error> {
        let found = self.vms().await?.into_iter().find(|vm| vm.vmid == vmid);
        found
            .map(|vm| vm.node)
            .ok_or_else(|| missing(&format!("VM {vmid}"), "the cluster has no such VM"))
    }

    /// Sends a call to the node on which a VM is; once more, to the other, where it has moved. `at` says where it is now.
    pub(crate) async fn send_at<T: DeserializeOwned>(
        &self,
        at: &mut Located,
        call: impl Fn(&Located) -> Call,
    ) -> Result<T, Error> {
        let error = match self.send(&call(at)).await {
            Err(error) if error.kind() == Kind::NotFound => error,
            sent => return sent,
        };
        let now = self.node_of(at.vmid).await?;
        if now == at.node {
            return Err(error);
        }
        tracing::info!(vmid = at.vmid, from = %at.node, to = %now, "the VM has moved to another node");
        at.node = now;
        self.send(&call(at)).await
    }

    /// How messages call a VM.
    pub(crate) fn vm_object(&self, vm: &VmSelector) -> String {
        match &vm.id {
            Some(id) => format!("VM {:?} (VMID {id}) on {}", vm.name, self.object()),
            None => format!("VM {:?} on {}", vm.name, self.object()),
        }
    }
}

/// A VMID.
pub(crate) fn parse_vmid(text: &str, object: &str) -> Result<u64, Error> {
    let number = text
        .parse::<u64>()
        .ok()
        .filter(|number| (100..1_000_000_000).contains(number));
    number.ok_or_else(|| {
        Error::new(Kind::Invalid, "find", object)
            .detail(format!("{text:?} is no VMID"))
            .remedy("set id in the VirtualMachine's status to the VMID, a number from 100 on")
    })
}

fn missing(object: &str, detail: &str) -> Error {
    Error::new(Kind::NotFound, "find", object)
        .detail(detail)
        .remedy("set id in the VirtualMachine's status to the VMID, and give the token or user VM.Audit on it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vmid_is_a_number_from_100_on() {
        assert_eq!(parse_vmid("100", "x").unwrap(), 100);
        for text in ["", "99", "-100", "1000000000", "web", "100 "] {
            assert_eq!(parse_vmid(text, "x").unwrap_err().kind(), Kind::Invalid, "{text}");
        }
    }
}
