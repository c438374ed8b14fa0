//! What a worker reads: the provider and the Secrets that its job names, each at the moment that it is needed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use k8s_openapi::ByteString;
use kube::{Api, Client};
use vmferry_api::{Key, ObjectMeta, Provider, Secret, VMMigration, VirtualMachine};
use vmferry_engine::port::{Store, StoreError};

use super::answer::{Trouble, ask, optional};

/// How long an API server that is away is asked again, before the worker gives up.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long it is left alone in between.
const PAUSE: Duration = Duration::from_secs(2);

/// The store of a worker. It holds nothing, writes nothing, and knows of no migration but its own job.
pub struct WorkerStore {
    client: Client,
    secrets: Option<PathBuf>,
}

impl WorkerStore {
    /// A store that reads what is not in the folder `secrets` from the API server.
    pub fn new(client: Client, secrets: Option<PathBuf>) -> Self {
        Self { client, secrets }
    }

    /// A Secret that was mounted.
    async fn mounted(&self, key: &Key) -> io::Result<Option<Secret>> {
        let Some(secrets) = &self.secrets else {
            return Ok(None);
        };
        let folder = secrets.join(&key.namespace).join(&key.name);
        let read = tokio::task::spawn_blocking(move || values(&folder));
        let data = read.await.map_err(io::Error::other)??;
        Ok(data.map(|data| Secret {
            metadata: ObjectMeta {
                name: Some(key.name.clone()),
                namespace: Some(key.namespace.clone()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..Secret::default()
        }))
    }
}

/// The values of a Secret, a file each; `None` where there is none, which a volume shows by being empty.
fn values(folder: &Path) -> io::Result<Option<BTreeMap<String, ByteString>>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut values = BTreeMap::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        // The kubelet's own, by which it changes all values at once.
        if name.is_empty() || name.starts_with("..") {
            continue;
        }
        values.insert(name, ByteString(std::fs::read(entry.path())?));
    }
    Ok((!values.is_empty()).then_some(values))
}

/// Asks again for as long as the trouble is one that passes.
async fn patiently<T, F>(mut call: impl FnMut() -> F) -> Result<Option<T>, Trouble>
where
    F: Future<Output = kube::Result<T>>,
{
    let began = Instant::now();
    loop {
        match optional(ask(call()).await) {
            Err(trouble) if trouble.passes() && began.elapsed() < PATIENCE => {
                tracing::warn!(%trouble, "asking again");
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

fn unread(object: String, detail: &dyn std::fmt::Display) -> StoreError {
    StoreError {
        action: "read",
        object,
        detail: detail.to_string(),
        conflict: false,
    }
}

/// A worker was asked for something that is the controller's.
fn not_here(action: &'static str, object: &str) -> StoreError {
    StoreError {
        action,
        object: object.to_owned(),
        detail: "a worker has no part in it".to_owned(),
        conflict: false,
    }
}

#[async_trait]
impl Store for WorkerStore {
    async fn migration(&self, key: &Key) -> Result<Option<VMMigration>, StoreError> {
        Err(not_here("read", &format!("VMMigration {key}")))
    }

    async fn migrations(&self) -> Result<Vec<VMMigration>, StoreError> {
        Err(not_here("list", "VMMigrations"))
    }

    async fn save(&self, _: &VMMigration) -> Result<(), StoreError> {
        Err(not_here("save", "a VMMigration"))
    }

    async fn virtual_machine(&self, key: &Key) -> Result<Option<VirtualMachine>, StoreError> {
        Err(not_here("read", &format!("VirtualMachine {key}")))
    }

    async fn create_virtual_machine(&self, _: &VirtualMachine) -> Result<bool, StoreError> {
        Err(not_here("create", "a VirtualMachine"))
    }

    async fn provider(&self, key: &Key) -> Result<Option<Provider>, StoreError> {
        let api: Api<Provider> = Api::namespaced(self.client.clone(), &key.namespace);
        let found = patiently(|| api.get(&key.name)).await;
        found.map_err(|trouble| unread(format!("Provider {key}"), &trouble))
    }

    async fn secret(&self, key: &Key) -> Result<Option<Secret>, StoreError> {
        let mounted = self.mounted(key).await;
        let mounted = mounted.map_err(|error| unread(format!("the mounted Secret {key}"), &error))?;
        if mounted.is_some() {
            return Ok(mounted);
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        let found = patiently(|| api.get(&key.name)).await;
        found.map_err(|trouble| unread(format!("Secret {key}"), &trouble))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_secret_is_its_files_and_none_where_there_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("ns/s");
        assert!(values(&secret).unwrap().is_none());
        std::fs::create_dir_all(secret.join("..data")).unwrap();
        assert!(values(&secret).unwrap().is_none());
        std::fs::write(secret.join("..data/ca.crt"), "PEM\n").unwrap();
        std::os::unix::fs::symlink("..data/ca.crt", secret.join("ca.crt")).unwrap();
        let found = values(&secret).unwrap().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found["ca.crt"].0, b"PEM\n");
    }
}
