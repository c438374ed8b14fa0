//! Which adapter stands behind a Provider and behind a storage.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::sync::OnceCell;
use vmferry_api::manifest::key_of;
use vmferry_api::{MigrationStorage, Provider, ProviderType, Secret, StorageType};
use vmferry_engine::port::Connector;
use vmferry_provider::credentials::Credentials;
use vmferry_provider::libvirt::{Config, Libvirt};
use vmferry_provider::{Hypervisor, Kind};
use vmferry_staging::StagingStore;
use vmferry_staging::nfs::MountedPath;

/// The variable of `spec.runtime.env` that names the storage for volumes.
const DEFAULT_STORAGE: &str = "PROVIDER_DEFAULT_STORAGE";

type Slot = Arc<OnceCell<Arc<dyn Hypervisor>>>;

/// Opens adapters, and keeps the connections to hypervisors.
pub struct Wiring {
    runtime_dir: PathBuf,
    hypervisors: Mutex<HashMap<String, Slot>>,
}

impl Wiring {
    /// Adapters whose sockets go to `runtime_dir`.
    pub fn new(runtime_dir: PathBuf) -> Self {
        Self {
            runtime_dir,
            hypervisors: Mutex::default(),
        }
    }

    /// The place for the connection of a provider. A provider that was declared anew is another one.
    fn slot(&self, provider: &Provider) -> Slot {
        let name = format!(
            "{} {}",
            key_of(provider),
            serde_json::to_string(&provider.spec).unwrap_or_default()
        );
        let mut slots = self.hypervisors.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(name).or_default())
    }

    async fn open(
        &self,
        provider: &Provider,
        secret: Option<&Secret>,
    ) -> Result<Arc<dyn Hypervisor>, vmferry_provider::Error> {
        let name = key_of(provider);
        if provider.spec.provider_type != ProviderType::Libvirt {
            let found = serde_json::to_string(&provider.spec.provider_type).unwrap_or_default();
            return Err(
                vmferry_provider::Error::new(Kind::Unsupported, "use", format!("Provider {name}"))
                    .detail(format!("spec.type {found} is not supported yet"))
                    .remedy("this version of vmferry takes spec.type libvirt"),
            );
        }
        if provider.spec.insecure_skip_verify == Some(true) {
            tracing::warn!(provider = %name, "spec.insecureSkipVerify is not honoured: hosts are always verified; \
                give known_hosts or ca.crt in the Secret");
        }
        let config = Config {
            endpoint: provider.spec.endpoint.clone(),
            credentials: credentials(secret)?,
            runtime_dir: self.runtime_dir.clone(),
            default_storage: default_storage(provider),
        };
        Ok(Arc::new(Libvirt::connect(config).await?))
    }
}

#[async_trait]
impl Connector for Wiring {
    async fn hypervisor(
        &self,
        provider: &Provider,
        secret: Option<&Secret>,
    ) -> Result<Arc<dyn Hypervisor>, vmferry_provider::Error> {
        let slot = self.slot(provider);
        slot.get_or_try_init(|| self.open(provider, secret)).await.cloned()
    }

    async fn staging(
        &self,
        storage: &MigrationStorage,
        _secret: Option<&Secret>,
    ) -> Result<Arc<dyn StagingStore>, vmferry_staging::Error> {
        let unsupported = |what: &str| {
            Err(vmferry_staging::Error::new(vmferry_staging::Kind::Invalid, "use", what.to_owned())
                .detail("it is not supported yet")
                .remedy("this version of vmferry takes spec.storage.type nfs with spec.storage.path, a mounted folder, and no endpoint"))
        };
        let set = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        match (storage.storage_type, set(&storage.path), set(&storage.endpoint)) {
            (StorageType::S3, ..) => unsupported("spec.storage.type s3"),
            (StorageType::Http, ..) => unsupported("spec.storage.type http"),
            (StorageType::Nfs, _, Some(endpoint)) => unsupported(&format!(
                "spec.storage.type nfs with spec.storage.endpoint {endpoint:?}"
            )),
            (StorageType::Nfs, path, None) => Ok(Arc::new(MountedPath::new(path.unwrap_or_default())?)),
        }
    }
}

/// The storage for volumes where a migration names none: `spec.defaults.datastore`, else the variable that other
/// operators of the group know.
fn default_storage(provider: &Provider) -> Option<String> {
    let declared = provider
        .spec
        .defaults
        .as_ref()
        .and_then(|defaults| defaults.datastore.clone());
    declared.or_else(|| {
        let variables = provider.spec.other.get("runtime")?.get("env")?.as_array()?;
        let variable = variables.iter().find(|variable| variable["name"] == DEFAULT_STORAGE)?;
        variable["value"].as_str().map(str::to_owned)
    })
}

/// The credentials in a Secret of libvirt's.
fn credentials(secret: Option<&Secret>) -> Result<Credentials, vmferry_provider::Error> {
    let Some(secret) = secret else {
        return Ok(Credentials::default());
    };
    let empty = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&empty);
    let text = |key: &str| match data.get(key).map(|bytes| String::from_utf8(bytes.0.clone())) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(_)) => Err(vmferry_provider::Error::new(
            Kind::Invalid,
            "read",
            format!("the key {key} of Secret {}", key_of(secret)),
        )
        .detail("it is not UTF-8 text")
        .remedy("write it under stringData")),
    };
    let trimmed = |key: &str| Ok(text(key)?.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()));
    Ok(Credentials {
        username: trimmed("username")?,
        password: trimmed("password")?.map(SecretString::from),
        ssh_private_key: text("ssh-privatekey")?.map(SecretString::from),
        known_hosts: text("known_hosts")?,
        ca: text("ca.crt")?,
    })
}

#[cfg(test)]
mod tests {
    use vmferry_api::manifest::{Manifests, Source};

    use super::*;

    fn declared(text: &str) -> Manifests {
        Manifests::parse(&[Source {
            name: "t".to_owned(),
            text: text.to_owned(),
        }])
        .unwrap()
    }

    fn provider(spec: &str) -> Provider {
        let text =
            format!("apiVersion: infra.virtrigaud.io/v1beta1\nkind: Provider\nmetadata: {{name: p}}\nspec: {spec}\n");
        declared(&text).providers.into_values().next().unwrap().object
    }

    fn storage(fields: serde_json::Value) -> MigrationStorage {
        serde_json::from_value(fields).unwrap()
    }

    #[tokio::test]
    async fn a_type_that_is_not_there_yet_is_named_with_what_is() {
        let wiring = Wiring::new(PathBuf::from("/nonexistent"));
        for kind in ["vsphere", "proxmox", "firecracker", "qemu"] {
            let Err(error) = wiring
                .hypervisor(&provider(&format!("{{type: {kind}, endpoint: x}}")), None)
                .await
            else {
                panic!("{kind} was opened");
            };
            assert_eq!(error.kind(), Kind::Unsupported);
            let text = error.to_string();
            assert!(
                text.contains(kind) && text.contains("takes spec.type libvirt"),
                "{text}"
            );
        }
        for fields in [
            serde_json::json!({ "type": "s3", "bucket": "b", "region": "r" }),
            serde_json::json!({ "type": "http", "endpoint": "https://h" }),
            serde_json::json!({ "type": "nfs", "path": "/m", "endpoint": "nfs.example.com" }),
        ] {
            let Err(error) = wiring.staging(&storage(fields.clone()), None).await else {
                panic!("{fields} was opened");
            };
            let text = error.to_string();
            assert!(
                text.contains("spec.storage.type") && text.contains("nfs with spec.storage.path"),
                "{text}"
            );
        }
        let mounted = storage(serde_json::json!({ "type": "nfs", "path": "/m", "endpoint": "" }));
        assert!(wiring.staging(&mounted, None).await.is_ok());
    }

    #[test]
    fn the_keys_of_a_secret_become_credentials_that_do_not_print() {
        use secrecy::ExposeSecret;

        let manifests = declared(
            "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData:\n  username: root\n  password: \"hunter2\\n\"\n  ssh-privatekey: |\n    KEY\n  known_hosts: host key\n  ca.crt: PEM\n",
        );
        let secret = manifests.secrets.into_values().next().unwrap().object;
        let found = credentials(Some(&secret)).unwrap();
        assert_eq!(found.username.as_deref(), Some("root"));
        assert_eq!(found.password.as_ref().unwrap().expose_secret(), "hunter2");
        assert_eq!(found.ssh_private_key.as_ref().unwrap().expose_secret(), "KEY\n");
        assert_eq!(found.known_hosts.as_deref(), Some("host key"));
        assert_eq!(found.ca.as_deref(), Some("PEM"));
        let printed = format!("{found:?}");
        assert!(!printed.contains("hunter2") && !printed.contains("KEY"), "{printed}");
    }

    #[test]
    fn the_default_storage_is_found_where_users_have_it() {
        for (spec, storage) in [
            ("{type: libvirt, endpoint: x}", None),
            ("{type: libvirt, endpoint: x, defaults: {datastore: a}}", Some("a")),
            (
                "{type: libvirt, endpoint: x, runtime: {env: [{name: PROVIDER_DEFAULT_STORAGE, value: b}]}}",
                Some("b"),
            ),
        ] {
            assert_eq!(default_storage(&provider(spec)).as_deref(), storage, "{spec}");
        }
    }
}
