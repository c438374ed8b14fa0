//! From a migration's storage to its staging store.

use std::sync::Arc;

use vmferry_api::{MigrationStorage, Secret, StorageType};
use vmferry_staging::nfs::{InvalidOption, MountOptions, MountedPath, NfsConfig, NfsServer};
use vmferry_staging::{Error, HostPolicy, Kind, StagingStore};

use super::secret::{NotText, Values};

/// The key of a Secret with what `mount -o` takes.
const MOUNT_OPTIONS: &str = "mountOptions";

/// Opens a storage. Nothing is connected to yet.
///
/// # Errors
/// What is missing or makes no sense, by field or by key of the Secret.
pub fn open(
    storage: &MigrationStorage,
    secret: Option<&Secret>,
    hosts: &HostPolicy,
) -> Result<Arc<dyn StagingStore>, Error> {
    let values = Values::of(secret);
    match storage.storage_type {
        StorageType::S3 => unsupported("spec.storage.type s3"),
        StorageType::Http => unsupported("spec.storage.type http"),
        StorageType::Nfs => nfs(storage, values, hosts),
    }
}

fn unsupported(what: &str) -> Result<Arc<dyn StagingStore>, Error> {
    Err(Error::new(Kind::Invalid, "use", what.to_owned())
        .detail("it is not supported yet")
        .remedy("this version of vmferry takes spec.storage.type nfs"))
}

/// With an endpoint over the network, without one as a mounted path.
fn nfs(storage: &MigrationStorage, values: Values<'_>, hosts: &HostPolicy) -> Result<Arc<dyn StagingStore>, Error> {
    let path = storage.path.clone().unwrap_or_default();
    let Some(endpoint) = storage.endpoint.clone().filter(|endpoint| !endpoint.is_empty()) else {
        return Ok(Arc::new(MountedPath::new(path)?));
    };
    let options = values.line(MOUNT_OPTIONS).map_err(not_text)?.unwrap_or_default();
    let options: MountOptions = options.parse().map_err(|error: InvalidOption| {
        let object = format!("the key {MOUNT_OPTIONS} of Secret {}", values.name());
        Error::new(Kind::Invalid, "use", object)
            .detail(error.to_string())
            .remedy("write it as for mount -o, for example vers=4.1,port=2049")
    })?;
    let config = NfsConfig {
        options,
        hosts: hosts.clone(),
        ..NfsConfig::new(endpoint, path)
    };
    Ok(Arc::new(NfsServer::new(config)?))
}

fn not_text(NotText { object }: NotText) -> Error {
    Error::new(Kind::Invalid, "read", object)
        .detail(NotText::DETAIL)
        .remedy(NotText::REMEDY)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::secret_of;
    use super::*;

    fn opened(storage: Value, secret: &Value) -> Result<Arc<dyn StagingStore>, Error> {
        let storage: MigrationStorage = serde_json::from_value(storage).unwrap();
        open(&storage, Some(&secret_of(secret)), &HostPolicy::default())
    }

    #[track_caller]
    fn url(storage: Value, secret: &Value) -> String {
        let store = opened(storage, secret).unwrap_or_else(|error| panic!("{error}"));
        store.url(&"ns/m/disk".parse().unwrap())
    }

    #[track_caller]
    fn refused(storage: Value, secret: &Value, words: &[&str]) {
        let Err(error) = opened(storage, secret) else {
            panic!("it was opened");
        };
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn nfs_is_a_path_here_or_on_a_server() {
        let none = json!({});
        for endpoint in [json!(""), Value::Null] {
            let mounted = json!({ "type": "nfs", "path": "/m", "endpoint": endpoint });
            assert_eq!(url(mounted, &none), "nfs:///m/ns/m/disk");
        }
        let served = json!({ "type": "nfs", "path": "/export", "endpoint": "nfs.example.com" });
        assert_eq!(url(served.clone(), &none), "nfs://nfs.example.com/export/ns/m/disk");
        assert_eq!(
            url(served.clone(), &json!({ "mountOptions": "vers=4,rw,sync\n" })),
            "nfs://nfs.example.com/export/ns/m/disk"
        );
        refused(
            served,
            &json!({ "mountOptions": "vers=5" }),
            &["mountOptions of Secret default/s", "vers=5"],
        );
        let strange = json!({ "type": "nfs", "path": "/export", "endpoint": "https://nfs.example.com" });
        refused(strange, &none, &["spec.storage.endpoint", "https://nfs.example.com"]);
    }
}
