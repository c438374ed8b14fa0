//! Which node, which storages, which way.

use super::place::Way;
use crate::proxmox::Proxmox;
use crate::proxmox::client::types::{Storage, Version};
use crate::{Error, Kind, Owner};

/// Since when files of content `import` are usable, and since when an upload takes images as such.
pub(super) const IMPORTS: Version = Version::new(8, 3);
const IMAGES: Version = Version::new(8, 4);

/// What was chosen for a VM.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub node: String,
    /// The storage for its disks.
    pub target: Storage,
    /// The storage for staged files; `None` where they are in a folder of the node that is no storage's.
    pub import: Option<Storage>,
    pub way: Way,
    /// On 8.3: the storage into which an image is taken out of its OVA.
    pub working: Option<String>,
}

/// Chooses. The same for all disks of a VM and for whoever asks again: a file on one node is of no use on another.
pub(super) async fn choose(proxmox: &Proxmox, storage: Option<&str>, owner: &Owner) -> Result<Choice, Error> {
    let version = proxmox.client.version().await?;
    let wanted = storage.or(proxmox.config.storage.as_deref());
    let mut refusal = None;
    for node in nodes(proxmox, owner).await? {
        let storages = proxmox.client.storages(&node).await?;
        match on_node(proxmox, &node, &storages, wanted, version) {
            Ok(choice) => return Ok(choice),
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    Err(refusal.unwrap_or_else(|| Error::new(Kind::Unreachable, "use", proxmox.object()).detail("no node is online")))
}

/// The nodes that may be taken, the best first: in an order that is the owner's.
async fn nodes(proxmox: &Proxmox, owner: &Owner) -> Result<Vec<String>, Error> {
    let nodes = proxmox.client.nodes().await?;
    if let Some(wanted) = &proxmox.config.node {
        let object = format!("node {wanted} of {}", proxmox.object());
        return match nodes.iter().find(|node| node.name == *wanted) {
            Some(node) if node.is_online() => Ok(vec![wanted.clone()]),
            Some(node) => {
                Err(Error::new(Kind::Unreachable, "use", object).detail(format!("the node is {}", node.status)))
            }
            None => Err(Error::new(Kind::NotFound, "use", object)
                .detail("the cluster has no such node")
                .remedy("name one of its nodes in the Provider's defaults")),
        };
    }
    let mut online: Vec<_> = nodes
        .into_iter()
        .filter(crate::proxmox::client::types::Node::is_online)
        .collect();
    // Not by what is free right now: that would be another node for the next disk.
    online.sort_by_cached_key(|node| {
        let hash = aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA256,
            format!("{}/{}", owner.uid, node.name).as_bytes(),
        );
        hash.as_ref().to_vec()
    });
    Ok(online.into_iter().map(|node| node.name).collect())
}

fn on_node(
    proxmox: &Proxmox,
    node: &str,
    storages: &[Storage],
    wanted: Option<&str>,
    version: Version,
) -> Result<Choice, Error> {
    let target = target(node, storages, wanted)?;
    if version < IMPORTS {
        if proxmox.may_use_nodes() {
            return by_ssh(proxmox, node, storages, target);
        }
        return Err(Error::new(Kind::Unsupported, "import disks into", proxmox.object())
            .detail(format!(
                "its version is {version}, and its API takes staged images from {IMPORTS} on"
            ))
            .remedy(
                "put ssh-privatekey, a key that root's account on the nodes accepts, and known_hosts into the Secret, so that \
                 disks come by ssh; or upgrade the cluster to 8.4 or later",
            ));
    }
    let import = match import(proxmox, node, storages, &target) {
        Ok(import) => import,
        Err(error) if error.kind() == Kind::Unsupported && proxmox.may_use_nodes() => {
            return by_ssh(proxmox, node, storages, target);
        }
        Err(error) => return Err(error),
    };
    let is_shared = proxmox
        .config
        .shared
        .as_ref()
        .is_some_and(|shared| shared.storage == import.name);
    let way = match is_shared {
        true => Way::Shared,
        false if version < IMAGES => Way::Ova,
        false => Way::Import,
    };
    let working = (way == Way::Ova)
        .then(|| working(node, storages, &target, &import))
        .transpose()?;
    Ok(Choice {
        node: node.to_owned(),
        target,
        import: Some(import),
        way,
        working,
    })
}

/// By ssh, into a folder on the named storage or the target where they have files, else into one of the node's own.
fn by_ssh(proxmox: &Proxmox, node: &str, storages: &[Storage], target: Storage) -> Result<Choice, Error> {
    let named = proxmox.config.import_storage.as_deref();
    let named = named.and_then(|name| storages.iter().find(|storage| storage.name == name));
    let is_fit = |storage: &&Storage| storage.has_files() && storage.holds("images");
    let import = named.filter(is_fit).or(Some(&target).filter(is_fit)).cloned();
    if let Some(import) = &import {
        usable(node, import)?;
    }
    Ok(Choice {
        node: node.to_owned(),
        target,
        import,
        way: Way::Node,
        working: None,
    })
}

/// Whether staged files of content `import` have no place on a node.
pub(super) fn has_no_import(proxmox: &Proxmox, storages: &[Storage], version: Version) -> bool {
    let any = |storage: &Storage| storage.holds("import") && storage.is_usable();
    let named = proxmox.config.import_storage.as_deref();
    let named = named.or(proxmox.config.shared.as_ref().map(|shared| shared.storage.as_str()));
    let mut fit = storages
        .iter()
        .filter(|storage| named.is_none_or(|name| storage.name == name));
    version < IMPORTS || !fit.any(any)
}

fn target(node: &str, storages: &[Storage], wanted: Option<&str>) -> Result<Storage, Error> {
    let takes: Vec<_> = storages.iter().filter(|storage| storage.holds("images")).collect();
    let names = || {
        takes
            .iter()
            .map(|storage| storage.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let Some(wanted) = wanted else {
        return match takes.as_slice() {
            [one] => usable(node, one).map(|()| (*one).clone()),
            _ => Err(Error::new(Kind::Invalid, "choose", format!("a storage on node {node}"))
                .detail(format!("these take disks: {}", names()))
                .remedy("name one in spec.targetStorageHint or as the Provider's default datastore")),
        };
    };
    let object = format!("storage {wanted} on node {node}");
    let Some(storage) = storages.iter().find(|storage| storage.name == wanted) else {
        return Err(Error::new(Kind::NotFound, "use", object)
            .detail(format!(
                "the node has none of that name that may be seen; these take disks: {}",
                names()
            ))
            .remedy("name another in spec.targetStorageHint, or give the token or user Datastore.Audit on it"));
    };
    if !storage.holds("images") {
        return Err(Error::new(Kind::Unsupported, "use", object)
            .detail(format!("it takes {} and no disks", storage.content))
            .remedy(format!(
                "enable it: pvesm set {wanted} --content {},images; or name another in spec.targetStorageHint",
                storage.content
            )));
    }
    usable(node, storage)?;
    Ok(storage.clone())
}

/// The storage for staged files: the one that is named, that of the shared folder, the target itself, or the first by name.
fn import(proxmox: &Proxmox, node: &str, storages: &[Storage], target: &Storage) -> Result<Storage, Error> {
    let shared = proxmox.config.shared.as_ref().map(|shared| shared.storage.as_str());
    let named = proxmox.config.import_storage.as_deref().or(shared);
    let remedy = |name: &str, content: &str| {
        format!(
            "enable it: pvesm set {name} --content {content},import; or name another storage for imports in the Provider"
        )
    };
    if let Some(name) = named {
        let object = format!("storage {name} on node {node}");
        let Some(storage) = storages.iter().find(|storage| storage.name == name) else {
            return Err(
                Error::new(Kind::NotFound, "use", object).detail("the node has none of that name that may be seen")
            );
        };
        if !storage.holds("import") {
            return Err(Error::new(Kind::Unsupported, "use", object)
                .detail(format!("it takes {} and no import", storage.content))
                .remedy(remedy(name, &storage.content)));
        }
        usable(node, storage)?;
        return Ok(storage.clone());
    }
    let mut able: Vec<_> = storages
        .iter()
        .filter(|storage| storage.holds("import") && storage.is_usable())
        .collect();
    able.sort_by_key(|storage| (storage.name != target.name, storage.name.clone()));
    if let Some(storage) = able.first() {
        return Ok((*storage).clone());
    }
    let files = storages.iter().find(|storage| storage.has_files());
    let (name, content) = files.map_or(("STORAGE", "…"), |storage| {
        (storage.name.as_str(), storage.content.as_str())
    });
    Err(Error::new(Kind::Unsupported, "use", format!("node {node}"))
        .detail("none of its storages has the content type import, which staged disks need")
        .remedy(remedy(name, content)))
}

/// Where an image is taken out of its OVA: a storage of files that takes disks.
fn working(node: &str, storages: &[Storage], target: &Storage, import: &Storage) -> Result<String, Error> {
    let is_fit = |storage: &&Storage| storage.has_files() && storage.holds("images") && storage.is_usable();
    let mut candidates = [import, target].into_iter().chain(storages);
    candidates.find(is_fit).map(|storage| storage.name.clone()).ok_or_else(|| {
        Error::new(Kind::Unsupported, "use", format!("node {node}"))
            .detail("before 8.4 an import takes a storage of files with the content type images to unpack into, and there is none")
            .remedy(format!("enable it: pvesm set {0} --content {1},images", import.name, import.content))
    })
}

fn usable(node: &str, storage: &Storage) -> Result<(), Error> {
    if storage.is_usable() {
        return Ok(());
    }
    Err(Error::new(
        Kind::Unreachable,
        "use",
        format!("storage {} on node {node}", storage.name),
    )
    .detail("it is switched off or not online")
    .remedy(format!(
        "look at it on the node: pvesm status --storage {}",
        storage.name
    )))
}
