//! From the names in a job to open adapters.

use std::sync::Arc;

use vmferry_api::{Key, MigrationStorage, Secret};
use vmferry_engine::port::{Connector, FailureKind, JobFailure, Store};
use vmferry_provider::Hypervisor;
use vmferry_staging::StagingStore;

use crate::failure::{self, failure};

/// The hypervisor of a Provider.
pub(crate) async fn hypervisor(
    connector: &dyn Connector,
    store: &dyn Store,
    key: &Key,
) -> Result<Arc<dyn Hypervisor>, JobFailure> {
    let found = store.provider(key).await.map_err(failure::store)?;
    let provider = found.ok_or_else(|| gone(&format!("Provider {key}")))?;
    let secret = match &provider.spec.credential_secret_ref {
        Some(reference) => {
            secret(
                store,
                reference.name.as_deref(),
                reference.namespace.as_deref(),
                &key.namespace,
            )
            .await?
        }
        None => None,
    };
    let opened = connector.hypervisor(&provider, secret.as_ref()).await;
    opened.map_err(failure::hypervisor)
}

/// The staging store of a migration in `namespace`.
pub(crate) async fn staging(
    connector: &dyn Connector,
    store: &dyn Store,
    storage: &MigrationStorage,
    namespace: &str,
) -> Result<Arc<dyn StagingStore>, JobFailure> {
    let secret = match &storage.credentials_secret_ref {
        Some(reference) => {
            secret(
                store,
                reference.name.as_deref(),
                reference.namespace.as_deref(),
                namespace,
            )
            .await?
        }
        None => None,
    };
    let opened = connector.staging(storage, secret.as_ref()).await;
    opened.map_err(failure::other)
}

async fn secret(
    store: &dyn Store,
    name: Option<&str>,
    namespace: Option<&str>,
    default: &str,
) -> Result<Option<Secret>, JobFailure> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let key = Key::new(namespace.unwrap_or(default), name);
    let found = store.secret(&key).await.map_err(failure::store)?;
    found.map(Some).ok_or_else(|| gone(&format!("Secret {key}")))
}

/// It was there when the migration was validated, and may be applied again.
fn gone(object: &str) -> JobFailure {
    failure(FailureKind::Retryable, format!("cannot find {object}; apply it again"))
}
