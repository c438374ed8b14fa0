//! Deleting a VM that has been moved.

use crate::vsphere::VSphere;
use crate::{Error, Kind, PowerState, VmSelector};

/// Deletes the VM with its files, stopping it first.
pub(super) async fn delete(vsphere: &VSphere, selector: &VmSelector) -> Result<(), Error> {
    let vm = match vsphere.look_up(selector).await {
        Err(error) if error.kind() == Kind::NotFound => return Ok(()),
        answer => answer?,
    };
    if vm.power == PowerState::On {
        match vsphere.client.power_off(&vm.moref).await {
            // It went off by itself meanwhile; whether it did is seen by what comes next.
            Err(trouble) if !trouble.is("InvalidPowerState") => return Err(trouble.of("stop", &vm.object)),
            _ => {}
        }
    }
    match vsphere.client.destroy(&vm.moref).await {
        Err(trouble) if trouble.kind != Kind::NotFound => Err(trouble.of("delete", &vm.object)),
        _ => Ok(()),
    }
}
