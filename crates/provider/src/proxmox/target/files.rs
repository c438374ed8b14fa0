//! Staged files of ours: fetched by the node, found, deleted.

use std::collections::HashSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::choose::IMPORTS;
use super::place::{Place, Way, stem};
use super::sink::part_of;
use super::{check, copies, node};
use crate::proxmox::Proxmox;
use crate::proxmox::client::Call;
use crate::proxmox::client::task::Upid;
use crate::proxmox::client::types::{Content, Node, Version};
use crate::{Error, Kind, Owner, Pull, VolumeSpec};

/// Since when a node fetches images.
const IMAGES: Version = Version::new(8, 4);
/// How long fetching, or copying an upload into its place, may take.
pub(super) const COPYING: Duration = Duration::from_hours(24);
/// How long deleting a file may take.
const DELETING: Duration = Duration::from_mins(5);

/// Has the node fetch an object; `false` where it cannot, with nothing left.
pub(super) async fn pull(
    proxmox: &Proxmox,
    place: &Place,
    object: &Pull,
    cancel: &CancellationToken,
) -> Result<bool, Error> {
    if matches!(place.way, Way::Ova | Way::Node) || proxmox.client.version().await? < IMAGES {
        return Ok(false);
    }
    room(proxmox, place, object.len).await?;
    let task = match running(proxmox, place).await? {
        Some(task) => task,
        None => match start(proxmox, place, object).await {
            Ok(task) => task,
            Err(error) if error.kind() == Kind::Denied => {
                tracing::info!(%error, "the node may not fetch the object; it is uploaded");
                return Ok(false);
            }
            Err(error) => return Err(error),
        },
    };
    let what = place.object();
    match proxmox
        .client
        .wait_or_cancel(&task, COPYING, "fetch", &what, cancel)
        .await
    {
        Ok(Some(_)) => return Ok(true),
        Ok(None) => {}
        Err(error) if matches!(error.kind(), Kind::NoSpace | Kind::Unreachable) => {
            remove(proxmox, place).await?;
            return Err(error);
        }
        Err(error) => tracing::warn!(%error, "the node could not fetch the object; it is uploaded"),
    }
    remove(proxmox, place).await?;
    Ok(false)
}

async fn start(proxmox: &Proxmox, place: &Place, object: &Pull) -> Result<Upid, Error> {
    use secrecy::ExposeSecret as _;

    // What an earlier attempt left would be in the way; with the right content it is kept.
    if let Some(found) = find(proxmox, place).await?
        && found.size.is_some_and(|size| size != object.len)
    {
        remove(proxmox, place).await?;
    }
    let checksum = object.checksum.to_string();
    let path = ["nodes", &place.node, "storage", &place.storage, "download-url"];
    let call = Call::post(&path, "fetch", place.object())
        .with("content", "import")
        .with("filename", place.file())
        .with("checksum-algorithm", "sha256")
        .with("checksum", checksum.trim_start_matches("sha256:"))
        .with("url", object.url.expose_secret());
    let upid: String = proxmox.client.send(&call).await?;
    Upid::parse(&upid)
}

/// The task that fetches this file, where there is one: another process began it.
async fn running(proxmox: &Proxmox, place: &Place) -> Result<Option<Upid>, Error> {
    let tasks = proxmox.client.running_tasks(&place.node).await?;
    let file = place.file();
    let found = tasks
        .iter()
        .find(|task| task.kind == "download" && task.id.as_deref() == Some(file.as_str()));
    found.map(|task| Upid::parse(&task.upid)).transpose()
}

/// Refuses where a file of `len` bytes would not fit.
pub(super) async fn room(proxmox: &Proxmox, place: &Place, len: u64) -> Result<(), Error> {
    let storages = proxmox.client.storages(&place.node).await?;
    match storages.iter().find(|storage| storage.name == place.storage) {
        Some(storage) => check::free(&place.node, storage, len),
        None => Err(Error::new(Kind::NotFound, "use", place.object()).detail("the node has no such storage any more")),
    }
}

/// The file of a place, if it is there.
pub(super) async fn find(proxmox: &Proxmox, place: &Place) -> Result<Option<Content>, Error> {
    let found = proxmox.client.content(&place.node, &place.storage, "import").await?;
    let volid = place.volid();
    Ok(found.into_iter().find(|entry| entry.volid == volid))
}

/// Deletes the file of a place. Gone is success.
pub(super) async fn remove(proxmox: &Proxmox, place: &Place) -> Result<(), Error> {
    if place.way == Way::Node {
        return node::remove(proxmox, place).await;
    }
    if find(proxmox, place).await?.is_none() {
        return Ok(());
    }
    delete_one(proxmox, &place.node, &place.storage, &place.volid()).await
}

async fn delete_one(proxmox: &Proxmox, node: &str, storage: &str, volid: &str) -> Result<(), Error> {
    let deleted = match proxmox.client.delete_content(node, storage, volid).await {
        Ok(None) => Ok(()),
        Ok(Some(task)) => {
            let what = format!("volume {volid}");
            proxmox.client.wait(&task, DELETING, "delete", &what).await.map(|_| ())
        }
        Err(error) => Err(error),
    };
    match deleted {
        Err(error) if error.kind() != Kind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Deletes the file of a disk of `owner`, wherever it was put: what is chosen now need not be what was chosen then.
pub(super) async fn delete(proxmox: &Proxmox, spec: &VolumeSpec, owner: &Owner) -> Result<(), Error> {
    let stem = stem(spec.index, owner)?;
    if let Some(shared) = &proxmox.config.shared {
        part_of(&shared.path, &stem).remove().await?;
    }
    let version = proxmox.client.version().await?;
    let mut seen = HashSet::new();
    let nodes = proxmox.client.nodes().await?;
    for node in nodes.iter().filter(|node| node.is_online()) {
        node::delete(proxmox, &node.name, &stem, owner).await?;
        if version < IMPORTS {
            continue;
        }
        for task in proxmox.client.running_tasks(&node.name).await? {
            if task.kind == "download" && task.id.as_deref().is_some_and(|id| is_of(id, &stem)) {
                proxmox.client.stop_task(&Upid::parse(&task.upid)?).await?;
            }
        }
        copies::end(proxmox, &node.name, &stem).await?;
        for storage in proxmox.client.storages(&node.name).await? {
            let is_new = !storage.shared || seen.insert(storage.name.clone());
            if !is_new || !storage.holds("import") || !storage.has_files() || !storage.is_usable() {
                continue;
            }
            for entry in proxmox.client.content(&node.name, &storage.name, "import").await? {
                let file = entry.volid.rsplit('/').next().unwrap_or_default();
                if is_of(file, &stem) {
                    delete_one(proxmox, &node.name, &storage.name, &entry.volid).await?;
                }
            }
        }
    }
    down(proxmox, &nodes, &stem, version).await
}

/// Refuses to say that a file is gone where a node is down that may have it: one that the Provider does not rule out,
/// and that has a place for it which no other node sees.
async fn down(proxmox: &Proxmox, nodes: &[Node], stem: &str, version: Version) -> Result<(), Error> {
    let config = &proxmox.config;
    let is_candidate = |node: &&Node| !node.is_online() && config.node.as_ref().is_none_or(|one| *one == node.name);
    let mut down = nodes.iter().filter(is_candidate).peekable();
    if down.peek().is_none() {
        return Ok(());
    }
    let mut storages = proxmox.client.configured_storages().await?;
    let shared = config.shared.as_ref().map(|shared| &shared.storage);
    if let Some(named) = config.import_storage.as_ref().or(shared) {
        storages.retain(|storage| storage.name == *named);
    }
    let has_place = |node: &&Node| {
        let mut fit = storages.iter().filter(|storage| storage.takes_imports_on(&node.name));
        // A disk that comes by ssh has its state in a folder of the node, wherever the file is.
        let by_ssh = version < IMPORTS || fit.clone().next().is_none();
        (by_ssh && proxmox.may_use_nodes()) || fit.any(|storage| !storage.is_shared())
    };
    let Some(node) = down.find(has_place) else {
        return Ok(());
    };
    let object = format!("the staged file {stem} on node {}", node.name);
    Err(Error::new(Kind::Unreachable, "delete", object)
        .detail(format!("the node is {}, and the file may be there", node.status))
        .remedy("bring the node up again, or take it out of the cluster: pvecm delnode NODE"))
}

/// Whether a file is the disk with this stem, in whatever format.
pub(super) fn is_of(file: &str, stem: &str) -> bool {
    file.strip_prefix(stem).is_some_and(|rest| rest.starts_with('.'))
}
