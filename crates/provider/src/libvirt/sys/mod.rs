//! The calls into the C library that the crate `virt` does not wrap.
//!
//! The only module of this crate with `unsafe` in it. Every function takes and gives safe values, and blocks.
#![allow(unsafe_code)]

mod auth;
mod backup;
mod checkpoint;
mod domain;
mod upload;
mod volume;

use std::ffi::CString;

use virt::error::Error as VirtError;

pub(in crate::libvirt) use auth::{Login, open};
pub(in crate::libvirt) use backup::{abort_job, backup_begin, backup_xml, fs_freeze, fs_thaw};
pub(in crate::libvirt) use checkpoint::{checkpoint_delete, checkpoint_names};
pub(in crate::libvirt) use domain::block_info;
pub(in crate::libvirt) use upload::{send, send_hole};
pub(in crate::libvirt) use volume::vol_by_path;

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
