//! Opening a connection with credentials, never asking on the terminal.

use std::ffi::{c_int, c_uint, c_void};

use secrecy::{ExposeSecret, SecretString};
use virt::connect::Connect;
use virt::error::Error as VirtError;
use virt_sys as sys;

use crate::c_string;

/// What is answered when the server asks (SASL).
#[derive(Debug, Clone, Default)]
pub struct Login {
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<SecretString>,
}

/// Opens a connection to `uri`, answering what the server asks out of `login`.
pub fn open(uri: &str, login: &Login) -> Result<Connect, VirtError> {
    let uri = c_string(uri)?;
    let mut types = [
        sys::VIR_CRED_AUTHNAME.cast_signed(),
        sys::VIR_CRED_USERNAME.cast_signed(),
        sys::VIR_CRED_PASSPHRASE.cast_signed(),
        sys::VIR_CRED_NOECHOPROMPT.cast_signed(),
    ];
    let mut auth = sys::virConnectAuth {
        credtype: types.as_mut_ptr(),
        ncredtype: types.len() as c_uint,
        cb: Some(answer),
        cbdata: std::ptr::from_ref(login).cast_mut().cast::<c_void>(),
    };
    // SAFETY: `uri`, `types`, `auth` and `login` outlive the call, and libvirt keeps none of them after it. A connection
    // that is not null is ours to close, which `Connect` does.
    unsafe {
        let connection = sys::virConnectOpenAuth(uri.as_ptr(), &raw mut auth, 0);
        if connection.is_null() {
            return Err(VirtError::last_error());
        }
        Ok(Connect::from_ptr(connection))
    }
}

/// libvirt's callback: fills in each credential that was asked for. -1 ends the attempt.
///
/// # Safety
/// libvirt calls it with `count` credentials at `asked` and the `cbdata` of [`open`], a [`Login`].
unsafe extern "C" fn answer(asked: sys::virConnectCredentialPtr, count: c_uint, login: *mut c_void) -> c_int {
    // SAFETY: see above; the reference does not outlive the callback, so neither the call to `open`.
    let login = unsafe { &*login.cast::<Login>() };
    for at in 0..count as usize {
        // SAFETY: `at` is below the number of credentials that libvirt says are there, and it gave them to us to fill in.
        let credential = unsafe { &mut *asked.add(at) };
        let text = match credential.type_.cast_unsigned() {
            sys::VIR_CRED_AUTHNAME | sys::VIR_CRED_USERNAME => login.username.as_deref(),
            _ => login.password.as_ref().map(ExposeSecret::expose_secret),
        };
        let Some(text) = text.and_then(|text| c_string(text).ok()) else {
            return -1;
        };
        // SAFETY: the result must come from malloc, as libvirt frees it: `strdup` of a C string that is alive.
        credential.result = unsafe { strdup(text.as_ptr()) };
        credential.resultlen = text.as_bytes().len() as c_uint;
    }
    0
}

unsafe extern "C" {
    /// The C library's, which libvirt links: a copy in memory from `malloc`.
    fn strdup(text: *const std::ffi::c_char) -> *mut std::ffi::c_char;
}
