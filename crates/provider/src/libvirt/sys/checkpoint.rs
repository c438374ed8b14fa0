//! Checkpoints.

use virt::domain::Domain;
use virt::error::Error as VirtError;
use virt_sys as sys;

use super::{c_string, check};

/// Deletes a checkpoint and its bitmaps (`virDomainCheckpointDelete`). Whether there was one.
pub(in crate::libvirt) fn checkpoint_delete(domain: &Domain, name: &str) -> Result<bool, VirtError> {
    let name = c_string(name)?;
    // SAFETY: the domain and the name are alive during the calls. A checkpoint that is not null is ours: used, then freed
    // once.
    unsafe {
        let checkpoint = sys::virDomainCheckpointLookupByName(domain.as_ptr(), name.as_ptr(), 0);
        if checkpoint.is_null() {
            let error = VirtError::last_error();
            return match error.code().to_raw() {
                sys::VIR_ERR_NO_DOMAIN_CHECKPOINT => Ok(false),
                _ => Err(error),
            };
        }
        let deleted = check(sys::virDomainCheckpointDelete(checkpoint, 0));
        sys::virDomainCheckpointFree(checkpoint);
        deleted.map(|()| true)
    }
}
