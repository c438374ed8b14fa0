//! The calls into the C library libvirt that the crate `virt` does not wrap, or does not wrap safely.
//!
//! Architecture Invariant: this crate is here for these calls, and no other has `unsafe` in it. Every function takes and gives
//! safe values, and blocks.
#![allow(unsafe_code)]

mod address;
mod auth;
mod backup;
mod checkpoint;
mod domain;
mod node;
mod upload;
mod volume;

use std::ffi::CString;

use virt::error::Error as VirtError;

pub use address::{Teller, interface_addresses};
pub use auth::{Login, open};
pub use backup::{abort_job, backup_begin, backup_xml, fs_freeze, fs_thaw};
pub use checkpoint::{checkpoint_delete, checkpoint_names};
pub use domain::block_info;
pub use node::cpu_time;
pub use upload::{send, send_hole};
pub use volume::vol_by_path;

/// `Err` with libvirt's last error where a call answered with a negative number.
fn check(answer: i32) -> Result<(), VirtError> {
    if answer < 0 {
        Err(VirtError::last_error())
    } else {
        Ok(())
    }
}

/// A C string; a NUL byte within is an invalid argument.
fn c_string(text: &str) -> Result<CString, VirtError> {
    Ok(CString::new(text)?)
}

unsafe extern "C" {
    /// The C library's. What libvirt allocates for its caller is freed with it.
    fn free(memory: *mut std::ffi::c_void);
}
