//! What is there: how a VM is found, and what it is made of.

mod device;
mod hardware;
mod vm;

pub(crate) use device::{Bus, VirtualDisk, devices};
pub(crate) use hardware::hardware;
pub(crate) use vm::VmInfo;

use super::client::{Client, unescape};
use super::hypervisor::not_found;
use super::soap::Moref;
use crate::{Error, Kind, VmSelector};

/// How many VMs of the same name are named in a message.
const NAMED: usize = 5;

/// Finds a VM: by its id where there is one, else by its inventory path where the name is one, else by its name, which only one VM
/// may have.
pub(crate) async fn find(client: &Client, selector: &VmSelector) -> Result<Moref, Error> {
    if let Some(id) = &selector.id {
        return Ok(Moref::vm(id.strip_prefix("VirtualMachine:").unwrap_or(id)));
    }
    if selector.name.contains('/') {
        by_path(client, &selector.name).await
    } else {
        by_name(client, &selector.name).await
    }
}

/// How messages call a VM.
pub(crate) fn object(client: &Client, name: &str) -> String {
    format!("VM {name:?} on {}", client.describe())
}

async fn by_path(client: &Client, path: &str) -> Result<Moref, Error> {
    let object = object(client, path);
    let found = client
        .find_by_path(path)
        .await
        .map_err(|trouble| trouble.of("find", &object))?;
    found.filter(|found| found.kind == "VirtualMachine").ok_or_else(|| {
        not_found(object, "there is no VM at that inventory path").remedy(
            "give the path as DATACENTER/vm/FOLDER/NAME (govc find / -type m lists them); a slash in a name is %2f",
        )
    })
}

async fn by_name(client: &Client, name: &str) -> Result<Moref, Error> {
    let object = object(client, name);
    let all = client
        .properties_below(&client.content().root, "VirtualMachine", &["name"])
        .await;
    let all = all.map_err(|trouble| trouble.of("find", &object))?;
    let is_named = |found: &str| found == name || unescape(found) == name;
    let mut found: Vec<Moref> = all
        .into_iter()
        .filter(|found| found.props.text("name").is_some_and(is_named))
        .map(|found| found.moref)
        .collect();
    found.sort();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(not_found(object, "no VM that the user may see has that name").remedy(
            "check the name, and that the user's role reaches the VM; or set id in the VirtualMachine's status",
        )),
        several => {
            let ids: Vec<&str> = several.iter().take(NAMED).map(|moref| moref.value.as_str()).collect();
            let more = if several.len() > NAMED { ", …" } else { "" };
            Err(Error::new(Kind::Invalid, "find", object)
                .detail(format!(
                    "{} VMs have that name: {}{more}",
                    several.len(),
                    ids.join(", ")
                ))
                .remedy(
                    "give the inventory path as the name, or set id in the VirtualMachine's status to one of these",
                ))
        }
    }
}
