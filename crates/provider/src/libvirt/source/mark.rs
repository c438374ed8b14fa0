//! The mark on a domain whose guest vmferry is freezing, for whoever comes after a process that was killed meanwhile.
//!
//! It is an element of the domain's metadata, in the live description only: set before the guest is frozen, taken away after it
//! was thawed, and gone with the guest when that is shut off. The definition never has it.

use virt::domain::Domain as VirtDomain;
use virt::error::Error as VirtError;
use virt_sys as sys_raw;

use super::job::StateId;
use crate::libvirt::xml::tree::Element;

/// The mark's XML namespace.
const NAMESPACE: &str = "https://vmferry.dev/ns/quiesced/1";

/// Its prefix. libvirt puts it before the element's name.
const PREFIX: &str = "vmferry";

/// Only where the domain runs.
const LIVE: u32 = sys_raw::VIR_DOMAIN_AFFECT_LIVE;

const KIND: i32 = sys_raw::VIR_DOMAIN_METADATA_ELEMENT.cast_signed();

/// Marks the domain: the state `id` is being taken.
pub(super) fn set(domain: &VirtDomain, id: &StateId) -> Result<(), VirtError> {
    // The id is made of letters that XML knows nothing of.
    let mark = format!("<frozen by='{id}'/>");
    domain.set_metadata(KIND, Some(&mark), Some(PREFIX), Some(NAMESPACE), LIVE)
}

/// Takes the mark away.
pub(super) fn clear(domain: &VirtDomain) -> Result<(), VirtError> {
    domain.set_metadata(KIND, None, Some(PREFIX), Some(NAMESPACE), LIVE)
}

/// The state in the mark, where there is one.
pub(super) fn read(domain: &VirtDomain) -> Result<Option<String>, VirtError> {
    if !domain.is_active()? {
        return Ok(None);
    }
    match domain.metadata(KIND, Some(NAMESPACE), LIVE) {
        Ok(text) => {
            let by = Element::parse(&text).ok();
            Ok(by.and_then(|element| element.attr("by").map(str::to_owned)))
        }
        Err(error) if error.code().to_raw() == sys_raw::VIR_ERR_NO_DOMAIN_METADATA => Ok(None),
        Err(error) => Err(error),
    }
}
