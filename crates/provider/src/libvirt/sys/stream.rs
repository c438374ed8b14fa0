//! Sparse streams, and volumes by path.

use std::ffi::c_longlong;

use virt::connect::Connect;
use virt::error::Error as VirtError;
use virt::storage_vol::StorageVol;
use virt::stream::Stream;
use virt_sys as sys;

use super::{c_string, check};

/// What comes next out of a sparse stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::libvirt) enum Piece {
    /// That many bytes were put at the front of the buffer.
    Data(usize),
    /// That many zero bytes, which are not sent.
    Hole(u64),
    /// The end.
    End,
}

/// Receives the next piece of a stream that was opened sparse (`virStreamRecvFlags`, `virStreamRecvHole`).
pub(in crate::libvirt) fn receive(stream: &Stream, buf: &mut [u8]) -> Result<Piece, VirtError> {
    /// What `virStreamRecvFlags` answers at a hole.
    const AT_HOLE: i32 = -3;
    // SAFETY: the stream is alive as long as `stream`, and libvirt writes at most `buf.len()` bytes to `buf`.
    let answer = unsafe {
        sys::virStreamRecvFlags(
            stream.as_ptr(),
            buf.as_mut_ptr().cast(),
            buf.len(),
            sys::VIR_STREAM_RECV_STOP_AT_HOLE,
        )
    };
    match answer {
        AT_HOLE => {
            let mut len: c_longlong = 0;
            // SAFETY: as above; `len` is alive during the call.
            check(unsafe { sys::virStreamRecvHole(stream.as_ptr(), &raw mut len, 0) })?;
            Ok(Piece::Hole(u64::try_from(len).unwrap_or(0)))
        }
        0 => Ok(Piece::End),
        count => usize::try_from(count)
            .map(Piece::Data)
            .map_err(|_| VirtError::last_error()),
    }
}

/// The volume at `path` in any active pool (`virStorageVolLookupByPath`).
pub(in crate::libvirt) fn vol_by_path(connect: &Connect, path: &str) -> Result<StorageVol, VirtError> {
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
