//! From a migration's storage to its staging store.

use std::sync::Arc;

use vmferry_api::{MigrationStorage, Secret, StorageType};
use vmferry_staging::nfs::MountedPath;
use vmferry_staging::{Error, HostPolicy, Kind, StagingStore};

/// Opens a storage. Nothing is connected to yet.
///
/// # Errors
/// What is missing or makes no sense, by field or by key of the Secret.
pub fn open(
    storage: &MigrationStorage,
    _secret: Option<&Secret>,
    _hosts: &HostPolicy,
) -> Result<Arc<dyn StagingStore>, Error> {
    let unsupported = |what: &str| {
        Err(Error::new(Kind::Invalid, "use", what.to_owned())
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn storage(fields: serde_json::Value) -> MigrationStorage {
        serde_json::from_value(fields).unwrap()
    }

    #[test]
    fn a_type_that_is_not_there_yet_is_named_with_what_is() {
        for fields in [
            json!({ "type": "s3", "bucket": "b", "region": "r" }),
            json!({ "type": "http", "endpoint": "https://h" }),
            json!({ "type": "nfs", "path": "/m", "endpoint": "nfs.example.com" }),
        ] {
            let Err(error) = open(&storage(fields.clone()), None, &HostPolicy::default()) else {
                panic!("{fields} was opened");
            };
            let text = error.to_string();
            assert!(
                text.contains("spec.storage.type") && text.contains("nfs with spec.storage.path"),
                "{text}"
            );
        }
        let mounted = storage(json!({ "type": "nfs", "path": "/m", "endpoint": "" }));
        assert!(open(&mounted, None, &HostPolicy::default()).is_ok());
    }
}
