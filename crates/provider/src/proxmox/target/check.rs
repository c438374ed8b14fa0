//! What could not be made, before anything is.

use super::choose::{Choice, choose};
use super::hardware::Bridge;
use super::place::Way;
use super::{FORMATS, node, place, vm};
use crate::proxmox::Proxmox;
use crate::proxmox::client::types::Version;
use crate::{Error, ImageFormat, Kind, NicAttachment, Owner, TargetPlan};

/// A storage with less free than this is full. How much a disk will take is known only when it was read.
const LEAST_FREE: u64 = 64 << 20;
/// The longest name.
const LONGEST: usize = 253;
/// Since when attaching to a bridge takes a privilege.
const SDN: Version = Version::new(8, 0);

/// Checks a plan.
pub(super) async fn plan(proxmox: &Proxmox, plan: &TargetPlan, owner: &Owner) -> Result<(), Error> {
    proxmox.look().await?;
    name(&plan.name)?;
    place::mark(owner)?;
    for disk in &plan.disks {
        format(disk.format)?;
    }
    vm::find(proxmox, &plan.name, owner).await?;
    let mut storages: Vec<_> = plan.disks.iter().map(|disk| disk.storage.as_deref()).collect();
    storages.push(plan.storage.as_deref());
    storages.sort_unstable();
    storages.dedup();
    for storage in storages {
        let choice = choose(proxmox, storage, owner).await?;
        privileges(proxmox, &choice).await?;
        space(&choice, plan)?;
        if choice.way == Way::Node {
            node::check(proxmox, &choice, owner, LEAST_FREE).await?;
        }
        attachments(proxmox, &choice.node, &plan.attachments).await?;
        tracing::info!(
            node = choice.node,
            storage = choice.target.name,
            "disks come {}",
            way(&choice)
        );
    }
    Ok(())
}

/// How the bytes will come, in words.
pub(super) fn way(choice: &Choice) -> String {
    let storage = choice.import.as_ref().map_or("", |storage| &storage.name);
    match choice.way {
        Way::Node if storage.is_empty() => format!("by ssh, as files of node {} in {}", choice.node, node::FOLDER),
        Way::Node => format!(
            "by ssh, as files of node {} in a folder of storage {storage}",
            choice.node
        ),
        Way::Import => format!("as import files of storage {storage}, fetched by the node or uploaded"),
        Way::Ova => format!("as OVAs of storage {storage}, uploaded"),
        Way::Shared => format!("as files in the shared folder of storage {storage}"),
    }
}

/// A VM's name is a DNS name.
pub(super) fn name(name: &str) -> Result<(), Error> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if name.len() <= LONGEST && name.split('.').all(is_label) {
        return Ok(());
    }
    Err(Error::new(Kind::Invalid, "use", format!("the VM name {name:?}"))
        .detail("Proxmox VE takes DNS names only: letters, digits, dashes, and dots between")
        .remedy("choose another spec.targetName"))
}

/// Refuses a format that a staged image cannot have.
pub(super) fn format(format: ImageFormat) -> Result<(), Error> {
    if FORMATS.contains(&format) || format == ImageFormat::Vmdk {
        return Ok(());
    }
    Err(
        Error::new(Kind::Unsupported, "make", format!("a disk of format {format}"))
            .remedy("set spec.targetDiskFormat to qcow2 or raw, or leave it out"),
    )
}

fn space(choice: &Choice, plan: &TargetPlan) -> Result<(), Error> {
    let capacity: u64 = plan.disks.iter().map(|disk| disk.capacity).sum();
    // Thick volumes take their whole size at once.
    let needed = if choice.target.kind == "lvm" {
        capacity
    } else {
        LEAST_FREE
    };
    free(&choice.node, &choice.target, needed)?;
    if let Some(import) = &choice.import {
        free(&choice.node, import, LEAST_FREE)?;
    }
    Ok(())
}

/// Refuses a storage with less free. One that does not say is believed.
pub(super) fn free(node: &str, storage: &crate::proxmox::client::types::Storage, needed: u64) -> Result<(), Error> {
    match storage.avail {
        Some(free) if free < needed => Err(Error::new(
            Kind::NoSpace,
            "use",
            format!("storage {} on node {node}", storage.name),
        )
        .detail(format!(
            "{} MiB are free, {} MiB are needed",
            free >> 20,
            needed.div_ceil(1 << 20)
        ))
        .remedy("free some space in it (an import takes twice a disk's size for a while), or name another storage")),
        _ => Ok(()),
    }
}

/// Compares what the token or user may do with what is needed, so that nothing fails half-way.
async fn privileges(proxmox: &Proxmox, choice: &Choice) -> Result<(), Error> {
    if proxmox.client.user() == "root@pam" {
        return Ok(());
    }
    let vm = [
        "VM.Allocate",
        "VM.Audit",
        "VM.Config.CPU",
        "VM.Config.Disk",
        "VM.Config.HWType",
        "VM.Config.Memory",
        "VM.Config.Network",
        "VM.Config.Options",
        "VM.PowerMgmt",
    ];
    let mut needed = vec![
        ("/vms".to_owned(), vm.to_vec()),
        (
            format!("/storage/{}", choice.target.name),
            vec!["Datastore.AllocateSpace", "Datastore.Audit"],
        ),
    ];
    let import = match choice.way {
        Way::Node => Vec::new(),
        Way::Shared => vec!["Datastore.Allocate", "Datastore.AllocateSpace", "Datastore.Audit"],
        Way::Import | Way::Ova => {
            vec![
                "Datastore.Allocate",
                "Datastore.AllocateSpace",
                "Datastore.AllocateTemplate",
                "Datastore.Audit",
            ]
        }
    };
    if let Some(storage) = choice.import.as_ref().filter(|_| choice.way != Way::Node) {
        needed.push((format!("/storage/{}", storage.name), import));
    }
    if let Some(working) = &choice.working {
        needed.push((format!("/storage/{working}"), vec!["Datastore.AllocateSpace"]));
    }
    for (path, privileges) in needed {
        let held = proxmox.client.privileges(&path).await?;
        let missing: Vec<_> = privileges.into_iter().filter(|name| !held.contains(*name)).collect();
        if !missing.is_empty() {
            return Err(lacking(proxmox, &path, &missing.join(", ")));
        }
    }
    Ok(())
}

fn lacking(proxmox: &Proxmox, path: &str, missing: &str) -> Error {
    Error::new(Kind::Denied, "use", format!("{path} of {}", proxmox.object()))
        .detail(format!("{} lacks {missing} on {path}", proxmox.client.user()))
        .remedy(format!(
            "give it a role with {missing} there: pveum acl modify {path} --tokens ID --roles ROLE (see \
             docs/providers/proxmox.md)"
        ))
}

async fn attachments(proxmox: &Proxmox, node: &str, attachments: &[NicAttachment]) -> Result<(), Error> {
    let bridges = proxmox.client.bridges(node).await?;
    let version = proxmox.client.version().await?;
    for attachment in attachments {
        let Some(bridge) = Bridge::of(attachment, &bridges, proxmox.config.bridge.as_deref())? else {
            continue;
        };
        if !bridges.contains(&bridge.name) {
            return Err(Error::new(
                Kind::NotFound,
                "use",
                format!("bridge {:?} on node {node}", bridge.name),
            )
            .detail(format!("the node has {}", bridges.join(", ")))
            .remedy("name a bridge or an SDN vnet in spec.targetNetworkHints, with a VLAN tag as BRIDGE.TAG"));
        }
        let path = format!("/sdn/zones/localnetwork/{}", bridge.name);
        if version >= SDN && bridge.name.starts_with("vmbr") && proxmox.client.user() != "root@pam" {
            let held = proxmox.client.privileges(&path).await?;
            if !held.contains("SDN.Use") {
                return Err(lacking(proxmox, &path, "SDN.Use"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_name() {
        let long = ["a"; 127].join(".");
        for good in ["web", "web-1.example.org", "1", long.as_str()] {
            name(good).unwrap();
        }
        for bad in [
            "",
            "web 1",
            "-web",
            "web-",
            "web_1",
            "a..b",
            "münchen",
            "a/b",
            &"a".repeat(64),
            &format!("{long}.b"),
        ] {
            assert_eq!(name(bad).unwrap_err().kind(), Kind::Invalid, "{bad}");
        }
    }
}
