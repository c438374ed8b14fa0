//! Which adapter stands behind a Provider and behind a storage.

mod connections;
mod hypervisor;
mod secret;
pub mod storage;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use vmferry_api::{MigrationStorage, Provider, Secret};
use vmferry_engine::port::Connector;
use vmferry_provider::Hypervisor;
use vmferry_staging::limit::Bucket;
use vmferry_staging::{HostPolicy, StagingStore};

use self::connections::Connections;

/// Opens adapters, and keeps the connections to hypervisors.
pub struct Wiring {
    runtime_dir: PathBuf,
    hosts: HostPolicy,
    bandwidth: Option<Arc<Bucket>>,
    hypervisors: Connections,
}

impl Wiring {
    /// Adapters whose sockets go to `runtime_dir`, and that open storage at these hosts only.
    pub fn new(runtime_dir: PathBuf, hosts: HostPolicy) -> Self {
        Self {
            runtime_dir,
            hosts,
            bandwidth: None,
            hypervisors: Connections::default(),
        }
    }

    /// All transfers together keep to the rate of `bucket`.
    #[must_use]
    pub fn limited(mut self, bucket: Option<Bucket>) -> Self {
        self.bandwidth = bucket.map(Arc::new);
        self
    }
}

#[async_trait]
impl Connector for Wiring {
    async fn hypervisor(
        &self,
        provider: &Provider,
        secret: Option<&Secret>,
    ) -> Result<Arc<dyn Hypervisor>, vmferry_provider::Error> {
        let slot = self.hypervisors.slot(provider, secret);
        let open = || hypervisor::open(provider, secret, self.runtime_dir.clone());
        slot.get_or_try_init(open).await.cloned()
    }

    async fn staging(
        &self,
        storage: &MigrationStorage,
        secret: Option<&Secret>,
    ) -> Result<Arc<dyn StagingStore>, vmferry_staging::Error> {
        storage::open(storage, secret, &self.hosts)
    }

    fn bandwidth(&self) -> Option<Arc<Bucket>> {
        self.bandwidth.clone()
    }
}

/// What was declared in a text, for tests.
#[cfg(test)]
fn declared(text: &str) -> vmferry_api::manifest::Manifests {
    use vmferry_api::manifest::{Manifests, Source};
    let name = "t".to_owned();
    Manifests::parse(&[Source {
        name,
        text: text.to_owned(),
    }])
    .unwrap()
}

/// A Secret with these values, for tests.
#[cfg(test)]
fn secret_of(data: &serde_json::Value) -> Secret {
    let text =
        serde_json::json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" }, "stringData": data });
    declared(&text.to_string()).secrets.into_values().next().unwrap().object
}
