//! What libvirt's errors mean, in one place.

use virt::error::Error as VirtError;
use virt_sys as sys;

use crate::{Error, Kind};

/// The fault for an error that libvirt gave while doing `action` to `object`.
pub(in crate::libvirt) fn fault(action: &'static str, object: impl Into<String>, error: VirtError) -> Error {
    let fault = Error::new(kind(&error), action, object).detail(error.message());
    fault.source(error)
}

/// The kind by libvirt's error number ([virErrorNumber](https://libvirt.org/html/libvirt-virterror.html#virErrorNumber)).
///
/// Where one number stands for several things, the message decides: libvirt has had these words for many years.
pub(in crate::libvirt) fn kind(error: &VirtError) -> Kind {
    match error.code().to_raw() {
        sys::VIR_ERR_NO_DOMAIN
        | sys::VIR_ERR_NO_NETWORK
        | sys::VIR_ERR_NO_STORAGE_POOL
        | sys::VIR_ERR_NO_STORAGE_VOL
        | sys::VIR_ERR_NO_DOMAIN_CHECKPOINT
        | sys::VIR_ERR_NO_DOMAIN_BACKUP => Kind::NotFound,
        sys::VIR_ERR_DOM_EXIST | sys::VIR_ERR_NETWORK_EXIST | sys::VIR_ERR_STORAGE_VOL_EXIST => Kind::NameTaken,
        sys::VIR_ERR_AUTH_FAILED
        | sys::VIR_ERR_AUTH_CANCELLED
        | sys::VIR_ERR_AUTH_UNAVAILABLE
        | sys::VIR_ERR_ACCESS_DENIED
        | sys::VIR_ERR_OPERATION_DENIED => Kind::Denied,
        sys::VIR_ERR_RPC
        | sys::VIR_ERR_NO_CONNECT
        | sys::VIR_ERR_INVALID_CONN
        | sys::VIR_ERR_UNKNOWN_HOST
        | sys::VIR_ERR_NO_SERVER
        | sys::VIR_ERR_NO_CLIENT => by_words(error, Kind::Unreachable),
        sys::VIR_ERR_GNUTLS_ERROR => Kind::Untrusted,
        sys::VIR_ERR_NO_SUPPORT
        | sys::VIR_ERR_CONFIG_UNSUPPORTED
        | sys::VIR_ERR_OPERATION_UNSUPPORTED
        | sys::VIR_ERR_ARGUMENT_UNSUPPORTED => Kind::Unsupported,
        sys::VIR_ERR_INVALID_ARG | sys::VIR_ERR_XML_ERROR | sys::VIR_ERR_XML_DETAIL | sys::VIR_ERR_PARSE_FAILED => {
            Kind::Invalid
        }
        sys::VIR_ERR_OPERATION_TIMEOUT | sys::VIR_ERR_RESOURCE_BUSY => Kind::Busy,
        _ => by_words(error, Kind::Failed),
    }
}

/// Tells apart what libvirt reports as a system error, an internal error or a failed operation.
fn by_words(error: &VirtError, otherwise: Kind) -> Kind {
    let words = error.message();
    let any = |needles: &[&str]| needles.iter().any(|needle| words.contains(needle));
    if any(&["No space left on device", "Disk quota exceeded"]) {
        Kind::NoSpace
    } else if any(&["Permission denied", "authentication failed", "not authorized"]) {
        Kind::Denied
    } else if any(&["certificate"]) {
        Kind::Untrusted
    } else if any(&[
        "unable to connect to server",
        "Failed to connect socket",
        "Connection refused",
        "Connection reset",
        "Broken pipe",
        "End of file while reading data",
        "client socket is closed",
        "connection closed due to keepalive timeout",
        "Cannot recv data",
        "Cannot write data",
    ]) {
        Kind::Unreachable
    } else if any(&["No such file or directory"]) {
        Kind::NotFound
    } else {
        otherwise
    }
}
