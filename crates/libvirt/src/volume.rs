//! Volumes by path.

use virt::connect::Connect;
use virt::error::Error as VirtError;
use virt::storage_vol::StorageVol;
use virt_sys as sys;

use crate::c_string;

/// The volume at `path` in any active pool (`virStorageVolLookupByPath`).
pub fn vol_by_path(connect: &Connect, path: &str) -> Result<StorageVol, VirtError> {
    let path = c_string(path)?;
    // SAFETY: the connection and the path are alive during the call. A volume that is not null is ours, and `StorageVol`
    // frees it.
    unsafe {
        let volume = sys::virStorageVolLookupByPath(connect.as_ptr(), path.as_ptr());
        if volume.is_null() {
            return Err(VirtError::last_error());
        }
        Ok(StorageVol::from_ptr(volume))
    }
}
