//! Checkpoints.

use std::ffi::CStr;
use std::ptr;

use virt::domain::Domain;
use virt::error::Error as VirtError;
use virt_sys as sys;

use crate::{c_string, check, free};

/// Deletes a checkpoint and its bitmaps (`virDomainCheckpointDelete`). Whether there was one.
pub fn checkpoint_delete(domain: &Domain, name: &str) -> Result<bool, VirtError> {
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

/// The names of all checkpoints (`virDomainListAllCheckpoints`).
pub fn checkpoint_names(domain: &Domain) -> Result<Vec<String>, VirtError> {
    let mut list: *mut sys::virDomainCheckpointPtr = ptr::null_mut();
    // SAFETY: the domain and `list` are alive during the call. What is listed is ours: each checkpoint is read, then freed
    // once, and so is the list, which libvirt allocates even when it is empty.
    unsafe {
        let count = sys::virDomainListAllCheckpoints(domain.as_ptr(), &raw mut list, 0);
        check(count)?;
        let mut names = Vec::new();
        for at in 0..usize::try_from(count).unwrap_or(0) {
            let checkpoint = *list.add(at);
            let name = sys::virDomainCheckpointGetName(checkpoint);
            if !name.is_null() {
                names.push(CStr::from_ptr(name).to_string_lossy().into_owned());
            }
            sys::virDomainCheckpointFree(checkpoint);
        }
        free(list.cast());
        Ok(names)
    }
}
