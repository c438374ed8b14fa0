//! Sending into sparse streams.

use std::ffi::c_longlong;

use virt::error::Error as VirtError;
use virt::stream::Stream;
use virt_sys as sys;

use crate::check;

/// The most bytes that one message of libvirt's protocol carries (`VIR_NET_MESSAGE_LEGACY_PAYLOAD_MAX`): what its own
/// `virStreamSendAll` sends at a time.
const MESSAGE: usize = 262_120;

/// Sends all of `bytes`.
pub fn send(stream: &Stream, bytes: &[u8]) -> Result<(), VirtError> {
    for mut message in bytes.chunks(MESSAGE) {
        while !message.is_empty() {
            match usize::try_from(stream.send(message)?) {
                Ok(sent @ 1..) => message = message.get(sent..).unwrap_or_default(),
                // The stream blocks, so it never takes nothing.
                _ => return Err(VirtError::last_error()),
            }
        }
    }
    Ok(())
}

/// Sends a hole of `len` bytes (`virStreamSendHole`).
pub fn send_hole(stream: &Stream, len: u64) -> Result<(), VirtError> {
    let len = c_longlong::try_from(len).unwrap_or(c_longlong::MAX);
    // SAFETY: the stream is alive as long as `stream`.
    check(unsafe { sys::virStreamSendHole(stream.as_ptr(), len, 0) })
}
