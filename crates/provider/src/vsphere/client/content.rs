//! What a server says of itself before anybody logs in.

use super::call::{Request, send};
use super::session::Ticket;
use super::{Endpoint, Http, Trouble};
use crate::vsphere::soap::{Element, Moref};
use crate::{Error, Kind};

/// The oldest version of the API: the one that is spoken, which has all that is needed.
const OLDEST: (u32, u32) = (6, 7);

/// What to do about a server that is too old.
const UPGRADE: &str = "upgrade it to vSphere 6.7 or later";

/// The server's own objects, and what it is.
#[derive(Debug, Clone)]
pub(crate) struct ServiceContent {
    /// The root of the inventory.
    pub(crate) root: Moref,
    /// Reads properties.
    pub(crate) property_collector: Moref,
    /// Makes views.
    pub(crate) view_manager: Moref,
    /// Finds by path.
    pub(crate) search_index: Moref,
    /// Logs in and out.
    pub(crate) session_manager: Moref,
    /// Moves and deletes disks, where it can.
    pub(crate) virtual_disk_manager: Option<Moref>,
    /// Whether it is a vCenter, not a host.
    pub(crate) is_vcenter: bool,
    /// Name and version, as in `VMware vCenter Server 8.0.2 build-22385739`.
    pub(crate) full_name: String,
    /// Version of the API, as in `8.0.2.0`.
    pub(crate) api_version: String,
}

impl ServiceContent {
    /// Asks for it.
    pub(super) async fn read(http: &Http, endpoint: &Endpoint) -> Result<Self, Trouble> {
        let request = Request {
            this: &Moref::new("ServiceInstance", "ServiceInstance"),
            method: "RetrieveServiceContent",
            args: &[],
        };
        let called = send(http, endpoint, &request, &Ticket::default()).await;
        let called = called.map_err(|trouble| {
            if trouble.detail.contains("nsupported version") {
                trouble.meaning(Kind::Unsupported).remedy(UPGRADE)
            } else {
                trouble
            }
        })?;
        let content = called.response.child("returnval").and_then(Self::of);
        content.ok_or_else(|| Trouble::new(Kind::Unsupported, "it does not say what it is, as vCenter and ESXi do"))
    }

    fn of(content: &Element) -> Option<Self> {
        let about = content.child("about")?;
        Some(Self {
            root: content.moref_at("rootFolder")?,
            property_collector: content.moref_at("propertyCollector")?,
            view_manager: content.moref_at("viewManager")?,
            search_index: content.moref_at("searchIndex")?,
            session_manager: content.moref_at("sessionManager")?,
            virtual_disk_manager: content.moref_at("virtualDiskManager"),
            is_vcenter: about.text_at("apiType") == Some("VirtualCenter"),
            full_name: about.text_at("fullName").unwrap_or("unknown").to_owned(),
            api_version: about.text_at("apiVersion").unwrap_or_default().to_owned(),
        })
    }

    /// Refuses a server that is too old.
    pub(super) fn check(&self, object: &str) -> Result<(), Error> {
        let mut parts = self.api_version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if version >= OLDEST {
            return Ok(());
        }
        Err(Error::new(Kind::Unsupported, "use", object)
            .detail(format!(
                "{} has version {} of the API",
                self.full_name, self.api_version
            ))
            .remedy(UPGRADE))
    }
}
