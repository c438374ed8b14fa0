//! The IP addresses of a guest, as its VMware Tools say them.

use std::net::IpAddr;

use super::VSphere;
use super::client::Props;
use super::inventory;
use super::soap::{Element, Moref};
use crate::addresses::reachable;
use crate::{Error, VmId};

const PATHS: [&str; 3] = ["guest.ipAddress", "guest.net", "guest.toolsRunningStatus"];

impl VSphere {
    /// The addresses by which others reach a guest.
    pub(super) async fn guest_addresses(&self, vm: &VmId) -> Result<Vec<IpAddr>, Error> {
        let read = self.client.properties(&Moref::vm(&vm.0), &PATHS).await;
        let object = || inventory::object(&self.client, &vm.0);
        let props = read.map_err(|trouble| trouble.of("ask for the addresses of", object()))?;
        Ok(told(&props))
    }
}

fn told(props: &Props) -> Vec<IpAddr> {
    // What it said last may still stand there when it says nothing any more.
    if props.text("guest.toolsRunningStatus") == Some("guestToolsNotRunning") {
        return Vec::new();
    }
    let nics = props.get("guest.net").map(Element::children).unwrap_or_default();
    let by_nic = nics.iter().flat_map(|nic| nic.all("ipAddress")).map(Element::text);
    reachable(by_nic.chain(props.text("guest.ipAddress")))
}
