//! What a host says of its machine.

use std::ffi::CStr;

use virt::connect::Connect;
use virt::error::Error as VirtError;
use virt_sys as sys;

use crate::check;

/// Nanoseconds for which all processors together ran programs and the kernel since the machine was started
/// (`virNodeGetCPUStats`), idle time and guests aside. `None` where the host does not tell.
pub fn cpu_time(connect: &Connect) -> Result<Option<u64>, VirtError> {
    let all = sys::VIR_NODE_CPU_STATS_ALL_CPUS;
    let mut count = 0;
    // SAFETY: the connection is alive during the call. Without an array it only tells how long one is.
    check(unsafe { sys::virNodeGetCPUStats(connect.as_ptr(), all, std::ptr::null_mut(), &raw mut count, 0) })?;
    let empty = sys::virNodeCPUStats {
        field: [0; sys::VIR_NODE_CPU_STATS_FIELD_LENGTH as usize],
        value: 0,
    };
    let mut stats = vec![empty; usize::try_from(count).unwrap_or_default()];
    // SAFETY: the connection is alive during the call, and the array has as many elements as it is told.
    check(unsafe { sys::virNodeGetCPUStats(connect.as_ptr(), all, stats.as_mut_ptr(), &raw mut count, 0) })?;
    Ok(sum(&stats))
}

/// User and kernel time.
fn sum(stats: &[sys::virNodeCPUStats]) -> Option<u64> {
    let value = |name: &CStr| {
        let found = stats.iter().find(|stat| {
            let field = stat
                .field
                .iter()
                .map(|byte| u8::from_ne_bytes(byte.to_ne_bytes()))
                .take_while(|byte| *byte != 0);
            field.eq(name.to_bytes().iter().copied())
        });
        found.map(|stat| stat.value)
    };
    Some(value(sys::VIR_NODE_CPU_STATS_USER)? + value(sys::VIR_NODE_CPU_STATS_KERNEL)?)
}
