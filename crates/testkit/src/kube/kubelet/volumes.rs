//! The volumes of a Pod: folders that are mounted for its process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Container, KeyToPath, Pod, Volume};

use super::api::{Node, namespace};

/// Where a container finds the token of its service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What can have mounts: the rest of the file system is the machine's.
const MOUNTABLE: [&str; 3] = ["/run/", "/var/run/", "/mnt/"];

/// A folder that a process sees elsewhere.
#[derive(Debug)]
pub(super) struct Mount {
    pub(super) folder: PathBuf,
    pub(super) at: String,
    pub(super) read_only: bool,
}

/// Fills the volumes of a Pod and gives the mounts of a container, or why it cannot have them.
pub(super) async fn mounts(node: &Node, pod: &Pod, container: &Container) -> Result<Vec<Mount>, String> {
    let mut folders = BTreeMap::new();
    for volume in pod.spec.iter().flat_map(|spec| &spec.volumes).flatten() {
        folders.insert(volume.name.as_str(), folder_of(node, pod, volume).await?);
    }
    let mut mounts = Vec::new();
    for wanted in container.volume_mounts.iter().flatten() {
        if wanted.mount_path == "/tmp" {
            continue;
        }
        if !MOUNTABLE.iter().any(|prefix| wanted.mount_path.starts_with(prefix)) {
            return Err(format!("this kubelet mounts nothing at {}", wanted.mount_path));
        }
        let folder = folders.get(wanted.name.as_str());
        let (folder, kept) = folder.ok_or_else(|| format!("there is no volume {}", wanted.name))?;
        mounts.push(Mount {
            folder: folder.join(wanted.sub_path.as_deref().unwrap_or_default()),
            at: wanted.mount_path.clone(),
            read_only: *kept || wanted.read_only.unwrap_or_default(),
        });
    }
    mounts.extend(account(node, pod).await?);
    Ok(mounts)
}

/// The folder of a volume, and whether it is read-only by its nature.
async fn folder_of(node: &Node, pod: &Pod, volume: &Volume) -> Result<(PathBuf, bool), String> {
    let folder = node.folder(pod).join("volumes").join(&volume.name);
    let missing = |what: &str, name: &str| format!("there is no {what} {name}, which the volume {} is of", volume.name);
    if let Some(secret) = &volume.secret {
        let name = secret.secret_name.clone().unwrap_or_default();
        let found = node.secret(pod, &name).await?;
        if found.is_none() && !secret.optional.unwrap_or_default() {
            return Err(missing("Secret", &name));
        }
        let data = found.and_then(|found| found.data).unwrap_or_default();
        let data = data.into_iter().map(|(key, ByteString(value))| (key, value)).collect();
        write_files(&folder, &data, secret.items.as_deref())?;
    } else if let Some(map) = &volume.config_map {
        let found = node.config_map(pod, &map.name).await?;
        if found.is_none() && !map.optional.unwrap_or_default() {
            return Err(missing("ConfigMap", &map.name));
        }
        let data = found.and_then(|found| found.data).unwrap_or_default();
        let data = data.into_iter().map(|(key, value)| (key, value.into_bytes())).collect();
        write_files(&folder, &data, map.items.as_deref())?;
    } else if volume.empty_dir.is_some() {
        make(&folder)?;
        return Ok((folder, false));
    } else if let Some(nfs) = &volume.nfs {
        let export = format!("{}:{}", nfs.server, nfs.path);
        let folder = node.spec.exports.get(&export).cloned();
        let folder = folder.ok_or_else(|| format!("{export} cannot be mounted: no such export"))?;
        return Ok((folder, nfs.read_only.unwrap_or_default()));
    } else {
        return Err(format!(
            "the volume {} is of a kind that this kubelet does not know",
            volume.name
        ));
    }
    Ok((folder, true))
}

/// What a process needs to speak to the API server as the Pod's service account, where it is to.
async fn account(node: &Node, pod: &Pod) -> Result<Option<Mount>, String> {
    let wanted = pod.spec.as_ref().and_then(|spec| spec.automount_service_account_token);
    if wanted == Some(false) {
        return Ok(None);
    }
    let folder = node.folder(pod).join("account");
    let files = BTreeMap::from([
        ("token".to_owned(), node.token(pod).await?.into_bytes()),
        ("ca.crt".to_owned(), node.ca.clone().into_bytes()),
        ("namespace".to_owned(), namespace(pod).into_bytes()),
    ]);
    write_files(&folder, &files, None)?;
    Ok(Some(Mount {
        folder,
        at: ACCOUNT.to_owned(),
        read_only: true,
    }))
}

/// Writes each key, or those that are asked for under the paths that are asked for.
fn write_files(folder: &Path, data: &BTreeMap<String, Vec<u8>>, items: Option<&[KeyToPath]>) -> Result<(), String> {
    make(folder)?;
    let Some(items) = items else {
        return data.iter().try_for_each(|(key, value)| write(&folder.join(key), value));
    };
    for item in items {
        let value = data
            .get(&item.key)
            .ok_or_else(|| format!("there is no key {}", item.key))?;
        let path = folder.join(&item.path);
        make(path.parent().unwrap_or(folder))?;
        write(&path, value)?;
    }
    Ok(())
}

fn make(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
