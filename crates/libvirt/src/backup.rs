//! Backup jobs, and the guest agent's freeze and thaw.

use std::ffi::CStr;
use std::ptr;

use virt::domain::Domain;
use virt::error::Error as VirtError;
use virt_sys as sys;

use crate::{c_string, check, free};

/// Starts a backup job (`virDomainBackupBegin`), with a checkpoint where one is given.
pub fn backup_begin(domain: &Domain, backup: &str, checkpoint: Option<&str>) -> Result<(), VirtError> {
    let backup = c_string(backup)?;
    let checkpoint = checkpoint.map(c_string).transpose()?;
    let checkpoint = checkpoint.as_ref().map_or(ptr::null(), |text| text.as_ptr());
    // SAFETY: the domain is alive as long as `domain`, the strings as long as the call.
    check(unsafe { sys::virDomainBackupBegin(domain.as_ptr(), backup.as_ptr(), checkpoint, 0) })
}

/// The XML of the backup job that is under way (`virDomainBackupGetXMLDesc`), `None` where there is none.
pub fn backup_xml(domain: &Domain) -> Result<Option<String>, VirtError> {
    // SAFETY: the domain is alive as long as `domain`. A text that is not null is ours: copied, then freed once.
    unsafe {
        let text = sys::virDomainBackupGetXMLDesc(domain.as_ptr(), 0);
        if text.is_null() {
            let error = VirtError::last_error();
            return match error.code().to_raw() {
                sys::VIR_ERR_NO_DOMAIN_BACKUP => Ok(None),
                _ => Err(error),
            };
        }
        let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
        free(text.cast());
        Ok(Some(copy))
    }
}

/// Ends the job that is under way (`virDomainAbortJob`).
pub fn abort_job(domain: &Domain) -> Result<(), VirtError> {
    // SAFETY: the domain is alive as long as `domain`.
    check(unsafe { sys::virDomainAbortJob(domain.as_ptr()) })
}

/// Freezes all file systems through the guest agent (`virDomainFSFreeze`). How many.
pub fn fs_freeze(domain: &Domain) -> Result<i32, VirtError> {
    // SAFETY: the domain is alive as long as `domain`; no list means all mount points.
    let count = unsafe { sys::virDomainFSFreeze(domain.as_ptr(), ptr::null_mut(), 0, 0) };
    check(count).map(|()| count)
}

/// Thaws all file systems through the guest agent (`virDomainFSThaw`). How many were frozen.
pub fn fs_thaw(domain: &Domain) -> Result<i32, VirtError> {
    // SAFETY: the domain is alive as long as `domain`; no list means all mount points.
    let count = unsafe { sys::virDomainFSThaw(domain.as_ptr(), ptr::null_mut(), 0, 0) };
    check(count).map(|()| count)
}
