//! From a migration's storage to its staging store.

use std::sync::Arc;

use vmferry_api::{MigrationStorage, Secret, StorageType};
use vmferry_staging::http::{Credentials, HttpConfig, HttpStore};
use vmferry_staging::nfs::{InvalidOption, MountOptions, MountedPath, NfsConfig, NfsServer};
use vmferry_staging::retry::Retrying;
use vmferry_staging::{Error, HostPolicy, Kind, StagingStore, s3};

use super::secret::{NotText, Values};

/// The keys of a Secret for S3.
const S3_KEYS: [&str; 8] = [
    "accessKey",
    "accessKeyID",
    "secretKey",
    "secretAccessKey",
    "sessionToken",
    "region",
    "endpoint",
    "ca.crt",
];
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
        StorageType::S3 => s3(storage, values, hosts),
        StorageType::Http => http(storage, values, hosts),
        StorageType::Nfs => nfs(storage, values, hosts),
    }
}

/// The Secret's `accessKey` and `secretKey`, by either spelling, are required.
fn s3(storage: &MigrationStorage, values: Values<'_>, hosts: &HostPolicy) -> Result<Arc<dyn StagingStore>, Error> {
    let texts = values.texts(&S3_KEYS).map_err(not_text)?;
    let spec = s3::Spec {
        bucket: storage.bucket.as_deref(),
        region: storage.region.as_deref(),
        endpoint: storage.endpoint.as_deref(),
    };
    let settings = s3::Settings::from_secret(spec, |key| texts.get(key).cloned(), hosts.clone())?;
    Ok(Arc::new(s3::Bucket::new(&settings)?))
}

/// The Secret's `token`, or `username` and `password`; a server may also want none of them.
fn http(storage: &MigrationStorage, values: Values<'_>, hosts: &HostPolicy) -> Result<Arc<dyn StagingStore>, Error> {
    let (token, password) = (values.hidden("token"), values.hidden("password"));
    let (token, password) = (token.map_err(not_text)?, password.map_err(not_text)?);
    let username = values.line("username").map_err(not_text)?;
    let config = HttpConfig {
        endpoint: storage.endpoint.clone().unwrap_or_default(),
        credentials: Credentials::from_keys(token.as_ref(), username.as_deref(), password.as_ref())?,
        ca: values.text("ca.crt").map_err(not_text)?,
        hosts: hosts.clone(),
        silence: None,
    };
    Ok(Arc::new(HttpStore::new(&config)?))
}

/// With an endpoint over the network, without one as a mounted path, which is the only store that does not try again by itself.
fn nfs(storage: &MigrationStorage, values: Values<'_>, hosts: &HostPolicy) -> Result<Arc<dyn StagingStore>, Error> {
    let path = storage.path.clone().unwrap_or_default();
    let Some(endpoint) = storage.endpoint.clone().filter(|endpoint| !endpoint.is_empty()) else {
        return Ok(Arc::new(Retrying::new(Arc::new(MountedPath::new(path)?))));
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
    fn s3_takes_either_spelling_of_its_keys() {
        let at =
            |endpoint: Value| json!({ "type": "s3", "bucket": "vms", "region": "eu-west-1", "endpoint": endpoint });
        for secret in [
            json!({ "accessKey": "AK", "secretKey": "hunter2" }),
            json!({ "accessKeyID": "AK", "secretAccessKey": "hunter2", "sessionToken": "hunter2" }),
        ] {
            for endpoint in [
                json!("https://s3.example.com"),
                json!("s3.example.com:9000"),
                Value::Null,
            ] {
                assert_eq!(url(at(endpoint), &secret), "s3://vms/ns/m/disk");
            }
        }
        let good = json!({ "accessKey": "AK", "secretKey": "hunter2" });
        for (storage, secret, words) in [
            (
                at(Value::Null),
                json!({ "accessKey": "hunter2" }),
                ["secretKey", "credentialsSecretRef"],
            ),
            (
                at(json!("ftp://s3.example.com")),
                good.clone(),
                ["endpoint", "ftp://s3.example.com"],
            ),
            (
                json!({ "type": "s3", "bucket": "no bucket" }),
                good,
                ["no bucket", "bucket"],
            ),
        ] {
            refused(storage, &secret, &words);
        }
        let storage = serde_json::from_value(at(Value::Null)).unwrap();
        let Err(error) = open(&storage, None, &HostPolicy::default()) else {
            panic!("it was opened without a Secret");
        };
        assert!(
            error.to_string().contains("spec.storage.credentialsSecretRef"),
            "{error}"
        );
    }

    #[test]
    fn http_takes_a_token_or_a_name_and_a_password_or_neither() {
        let at = |endpoint: &str| json!({ "type": "http", "endpoint": endpoint });
        for secret in [
            json!({}),
            json!({ "token": "Bearer_hunter2" }),
            json!({ "username": "u", "password": "hunter2\n" }),
        ] {
            assert_eq!(
                url(at("https://h.example.com/x"), &secret),
                "https://h.example.com/x/ns/m/disk"
            );
        }
        for (endpoint, secret, words) in [
            ("https://h", json!({ "username": "u" }), ["Secret", "password"]),
            (
                "https://h",
                json!({ "token": "t", "password": "hunter2" }),
                ["Secret", "token"],
            ),
            ("https://u:hunter2@h", json!({}), ["spec.storage.endpoint", "Secret"]),
            ("h.example.com", json!({}), ["spec.storage.endpoint", "h.example.com"]),
            ("https://h", json!({ "ca.crt": "hunter2" }), ["ca.crt", "PEM"]),
        ] {
            refused(at(endpoint), &secret, &words);
        }
    }

    #[test]
    fn addresses_that_are_never_used_are_refused_at_once() {
        let keys = json!({ "accessKey": "AK", "secretKey": "hunter2" });
        for (storage, secret) in [
            (
                json!({ "type": "http", "endpoint": "http://169.254.169.254/x" }),
                json!({}),
            ),
            (
                json!({ "type": "s3", "bucket": "vms", "endpoint": "http://169.254.169.254" }),
                keys,
            ),
        ] {
            let Err(error) = opened(storage, &secret) else {
                panic!("it was opened");
            };
            assert_eq!(error.kind(), Kind::Denied, "{error}");
            assert!(error.to_string().contains("169.254.169.254"), "{error}");
        }
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
