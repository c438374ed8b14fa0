//! Addresses of a domain's interfaces.

use std::ffi::CStr;
use std::ptr;

use virt::domain::Domain;
use virt::error::Error as VirtError;
use virt_sys as sys;

use crate::{check, free};

/// Who is asked for addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teller {
    /// The QEMU guest agent.
    Agent,
    /// The DHCP servers of libvirt's own networks.
    Leases,
}

/// The addresses of all interfaces of a domain (`virDomainInterfaceAddresses`). The wrapper of the crate `virt` frees the list, and
/// none of what is in it.
pub fn interface_addresses(domain: &Domain, teller: Teller) -> Result<Vec<String>, VirtError> {
    let source = match teller {
        Teller::Agent => sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT,
        Teller::Leases => sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE,
    };
    let mut list: *mut sys::virDomainInterfacePtr = ptr::null_mut();
    // SAFETY: the domain and `list` are alive during the call. What is listed is ours: each interface is read, then freed
    // once with its addresses, and so is the list, which may be null where it is empty.
    unsafe {
        let count = sys::virDomainInterfaceAddresses(domain.as_ptr(), &raw mut list, source, 0);
        check(count)?;
        let mut found = Vec::new();
        for at in 0..usize::try_from(count).unwrap_or(0) {
            let interface = *list.add(at);
            for at in 0..(*interface).naddrs as usize {
                let text = (*(*interface).addrs.add(at)).addr;
                if !text.is_null() {
                    found.push(CStr::from_ptr(text).to_string_lossy().into_owned());
                }
            }
            sys::virDomainInterfaceFree(interface);
        }
        free(list.cast());
        Ok(found)
    }
}
