//! Images in staging stores.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vmferry_api::{MigrationStorage, Secret, StorageType};
use vmferry_block::{AllocationMap, Buf, ReadAt};
use vmferry_image::{Image, ImageFormat};
use vmferry_mover::{ExportSpec, Progress, Report, export_disk};
use vmferry_provider::DiskSource;
use vmferry_staging::{ObjectKey, StagingStore};

use super::args::Access;
use super::place::{Object, Scheme, decode};
use crate::exit::Failure;
use crate::input;
use crate::wiring::storage;

/// The key of a Secret with what `mount -o` takes.
const MOUNT_OPTIONS: &str = "mountOptions";
/// Memory for what is written, in bytes.
const MEMORY: u64 = 48 << 20;
/// How long removing an upload that came to nothing may take.
const UNDO: Duration = Duration::from_secs(30);

/// An object and the store in which it is.
struct Found {
    store: Arc<dyn StagingStore>,
    key: ObjectKey,
}

/// An object as bytes to read. It need not be one of vmferry's.
pub async fn read(object: &Object, access: &Access) -> Result<Arc<dyn ReadAt>, Failure> {
    let found = open(object, access)?;
    let meta = found.store.head(&found.key).await.map_err(Failure::failed)?;
    let Some(meta) = meta else {
        let url = found.store.url(&found.key);
        return Err(Failure::failed(format!(
            "cannot read {url}: there is no such object; correct the name"
        )));
    };
    Ok(Arc::new(Bytes {
        store: found.store,
        key: found.key,
        version: meta.version,
        len: meta.len,
    }))
}

/// Writes a disk as a new object, and leaves nothing where that fails or `stop` is cancelled.
pub async fn write(
    image: &Arc<Image>,
    object: &Object,
    format: ImageFormat,
    access: &Access,
    stop: &CancellationToken,
) -> Result<Report, Failure> {
    let Found { store, key } = open(object, access)?;
    let url = store.url(&key);
    if store.head(&key).await.map_err(Failure::failed)?.is_some() {
        return Err(Failure::failed(format!(
            "cannot write {url}: it exists, and objects are never replaced; choose another name, or delete it first"
        )));
    }
    // Nobody takes it up again: the upload belongs to this process.
    let once = format!(
        "image-convert-{}-{:?}",
        std::process::id(),
        std::time::SystemTime::now()
    );
    let spec = ExportSpec {
        object: key.clone(),
        owner: once.clone(),
        frozen: once.clone(),
        format,
        memory: MEMORY,
    };
    let (source, progress) = (Arc::new(Disk(Arc::clone(image))), Arc::new(Progress::default()));
    let exported = Box::pin(export_disk(source, Arc::clone(&store), spec, progress, stop.clone())).await;
    let undo = async {
        match &exported {
            Ok(_) => store.delete_note(&key).await,
            // Without a note nothing was begun; one that is another's vouches for what is there.
            Err(_) if store.note(&key).await?.is_none() => Ok(()),
            Err(_) => vmferry_staging::discard(&*store, &key, &once, false).await.map(drop),
        }
    };
    let undone = in_time(undo).await;
    match (exported, undone) {
        (Ok(report), Ok(())) => Ok(report),
        (Ok(_), Err(why)) => Err(Failure::failed(format!(
            "{url} was written whole, and its journal is still there: {why}; delete the note beside it"
        ))),
        (Err(error), Ok(())) => Err(Failure::failed(error)),
        (Err(error), Err(why)) => {
            let mut failure = Failure::failed(error);
            failure.messages.push(format!(
                "what was uploaded of {url} is still there: {why}; remove it by hand"
            ));
            Err(failure)
        }
    }
}

/// The end of a clean-up, or why it did not come to it.
async fn in_time(work: impl Future<Output = Result<(), vmferry_staging::Error>>) -> Result<(), String> {
    match timeout(UNDO, work).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the store did not answer within {} s", UNDO.as_secs())),
    }
}

/// Removes an object that this process wrote.
pub async fn remove(object: &Object, access: &Access) -> Result<(), Failure> {
    let Found { store, key } = open(object, access)?;
    let deleted = in_time(store.delete(&key)).await;
    let url = store.url(&key);
    deleted.map_err(|why| Failure::failed(format!("{url} is still there: {why}; remove it by hand")))
}

/// Finds the store of an object. Nothing is connected to yet.
fn open(object: &Object, access: &Access) -> Result<Found, Failure> {
    let secret = match &access.secret {
        Some(path) => Some(secret(path)?),
        None => None,
    };
    let mut plan = plan(object, access).map_err(|why| Failure::bad_input(format!("{}: {why}", object.url)))?;
    let secret = with_mount_options(secret, plan.options.take());
    let hosts = access.hosts.policy().map_err(Failure::bad_input)?;
    let store = storage::open(&plan.storage, secret.as_ref(), &hosts).map_err(Failure::bad_input)?;
    Ok(Found { store, key: plan.key })
}

/// The one Secret of a manifest.
fn secret(path: &Path) -> Result<Secret, Failure> {
    let read = tokio::task::block_in_place(|| input::read(&[path.to_owned()]))?;
    let mut secrets = read.manifests.secrets.into_values();
    match (secrets.next(), secrets.next()) {
        (Some(secret), None) => Ok(secret.object),
        (found, _) => Err(Failure::bad_input(format!(
            "--secret {}: it declares {} Secret; give a file with exactly one",
            path.display(),
            if found.is_some() { "more than one" } else { "no" }
        ))),
    }
}

/// Adds what the URL says of the mount to what the Secret says.
fn with_mount_options(secret: Option<Secret>, options: Option<String>) -> Option<Secret> {
    let Some(options) = options else { return secret };
    let mut secret = secret.unwrap_or_default();
    let values = secret.data.get_or_insert_with(BTreeMap::new);
    let both = match values.get(MOUNT_OPTIONS) {
        Some(given) => [&given.0[..], b",", options.as_bytes()].concat(),
        None => options.into_bytes(),
    };
    values.entry(MOUNT_OPTIONS.to_owned()).or_default().0 = both;
    Some(secret)
}

/// Where an object is, in the words of a migration's storage.
struct Plan {
    storage: MigrationStorage,
    key: ObjectKey,
    options: Option<String>,
}

fn plan(object: &Object, access: &Access) -> Result<Plan, String> {
    let (scheme, rest) = object.url.split_once("://").ok_or("it is no URL")?;
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (rest, None),
    };
    if place.contains('#') || query.is_some_and(|query| query.contains('#')) {
        return Err("it has a fragment; write # as %23".to_owned());
    }
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    if host.is_empty() && object.scheme != Scheme::Nfs {
        return Err("it names no host or bucket".to_owned());
    }
    let path = String::from_utf8(decode(path)?).map_err(|_| "its path is not UTF-8 text".to_owned())?;
    let (folder, name) = match (object.scheme, path.rsplit_once('/')) {
        (Scheme::S3, _) | (_, None) => ("", path.as_str()),
        (_, Some((folder, name))) => (folder, name),
    };
    let key = name
        .parse()
        .map_err(|error: vmferry_staging::InvalidKey| error.to_string())?;
    let mut storage = MigrationStorage {
        storage_type: StorageType::S3,
        bucket: None,
        region: None,
        endpoint: None,
        path: None,
        credentials_secret_ref: None,
    };
    let mut options = None;
    match (object.scheme, query) {
        (Scheme::Nfs, query) => {
            storage.storage_type = StorageType::Nfs;
            storage.endpoint = Some(host.to_owned());
            storage.path = Some(format!("/{folder}"));
            options = query.map(|query| query.replace('&', ","));
        }
        (_, Some(_)) => return Err("what follows the ? is not known here".to_owned()),
        (Scheme::S3, None) => {
            storage.bucket = Some(host.to_owned());
            storage.region.clone_from(&access.region);
            storage.endpoint.clone_from(&access.endpoint);
        }
        (Scheme::Http, None) => {
            storage.storage_type = StorageType::Http;
            storage.endpoint = Some(format!("{scheme}://{host}/{folder}"));
        }
    }
    Ok(Plan { storage, key, options })
}

/// An object of a store as bytes to read, as long as it stays the same.
struct Bytes {
    store: Arc<dyn StagingStore>,
    key: ObjectKey,
    version: String,
    len: u64,
}

#[async_trait]
impl ReadAt for Bytes {
    fn size(&self) -> u64 {
        self.len
    }

    async fn read_at(&self, offset: u64, buf: Buf) -> io::Result<Buf> {
        let read = self.store.read_one(&self.key, &self.version, offset, buf).await;
        read.map_err(io::Error::other)
    }
}

/// An image as a disk that is exported.
struct Disk(Arc<Image>);

#[async_trait]
impl DiskSource for Disk {
    fn capacity(&self) -> u64 {
        self.0.capacity()
    }

    async fn map(&self) -> Result<AllocationMap, vmferry_provider::Error> {
        self.0.map().await.map_err(|error| unreadable(&error))
    }

    async fn read(&self, offset: u64, buf: Buf) -> Result<Buf, vmferry_provider::Error> {
        self.0.read(offset, buf).await.map_err(|error| unreadable(&error))
    }

    async fn finish(&self) -> Result<(), vmferry_provider::Error> {
        Ok(())
    }
}

fn unreadable(error: &vmferry_image::Error) -> vmferry_provider::Error {
    vmferry_provider::Error::new(vmferry_provider::Kind::Unsupported, "read", "the image").detail(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::place::Place;
    use super::*;

    fn planned(url: &str) -> Result<Plan, String> {
        let Place::Store(object) = Place::parse(url.as_ref()).map_err(|failure| failure.messages.concat())? else {
            panic!("{url} is no object");
        };
        let access = Access {
            secret: None,
            region: Some("r".into()),
            endpoint: None,
            hosts: crate::args::StorageHosts::default(),
        };
        plan(&object, &access)
    }

    #[test]
    fn urls_are_stores_and_keys() {
        let s3 = planned("s3://bucket/a/b.qcow2").unwrap();
        assert_eq!(
            (s3.storage.bucket.as_deref(), s3.key.as_str()),
            (Some("bucket"), "a/b.qcow2")
        );
        let http = planned("https://h:8443/dav/x/b.raw").unwrap();
        assert_eq!(http.storage.endpoint.as_deref(), Some("https://h:8443/dav/x"));
        assert_eq!(http.key.as_str(), "b.raw");
        let nfs = planned("nfs://h/export/b.raw?vers=3&port=2049").unwrap();
        assert_eq!(
            (nfs.storage.endpoint.as_deref(), nfs.storage.path.as_deref()),
            (Some("h"), Some("/export"))
        );
        assert_eq!(nfs.options.as_deref(), Some("vers=3,port=2049"));
        for bad in [
            "s3://bucket/",
            "s3:///k",
            "https://h/a?sig=x",
            "https://h/",
            "http://h/.hidden",
            "s3://b/a//b",
            "https://h/a#b",
        ] {
            assert!(planned(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_url_adds_to_the_mount_options_of_the_secret() {
        let secret = with_mount_options(None, Some("vers=3".into())).unwrap();
        let secret = with_mount_options(Some(secret), Some("port=1".into())).unwrap();
        assert_eq!(secret.data.unwrap()[MOUNT_OPTIONS].0, b"vers=3,port=1");
        assert!(with_mount_options(None, None).is_none());
    }
}
