//! What a domain says of its disks.

use virt::domain::Domain;
use virt::error::Error as VirtError;
use virt_sys as sys;

use crate::{c_string, check};

/// Sizes of a disk in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockInfo {
    /// What the guest sees.
    pub capacity: u64,
}

/// The sizes of a disk (`virDomainGetBlockInfo`). The wrapper of the crate `virt` drops the error and reads memory that was
/// never written.
pub fn block_info(domain: &Domain, disk: &str) -> Result<BlockInfo, VirtError> {
    let disk = c_string(disk)?;
    let mut info = sys::virDomainBlockInfo {
        capacity: 0,
        allocation: 0,
        physical: 0,
    };
    // SAFETY: the domain, the name and `info` are alive during the call.
    check(unsafe { sys::virDomainGetBlockInfo(domain.as_ptr(), disk.as_ptr(), &raw mut info, 0) })?;
    Ok(BlockInfo {
        capacity: info.capacity,
    })
}
