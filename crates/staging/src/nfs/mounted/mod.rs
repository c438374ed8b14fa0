//! NFS as a mounted path: `storage.type: nfs` with a `path` and no `endpoint`.
//!
//! Architecture Invariant: nothing below `path` is reached through a symbolic link. Folders are walked one by one, each
//! opened without following links, and files are opened by their name in an open folder. Whoever can write into the staging
//! folder cannot make vmferry read or write outside it.

mod calls;
mod fault;
mod io;
mod note;
mod object;
mod tree;
mod upload;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use vmferry_block::Buf;

use crate::{Error, Kind, ObjectKey, ObjectMeta, Part, PartBody, PartLimits, StagingStore, UploadId, Uploaded};
use calls::{Abandoned, Calls};
use object::OpenObjects;
use tree::Tree;

/// How long one call may take before the server counts as not answering. A hard NFS mount would wait for ever.
const LIMIT: Duration = Duration::from_mins(1);
/// The same for a whole part, which is up to 1 GiB.
const PART_LIMIT: Duration = Duration::from_mins(10);

/// A staging store on a mounted path.
#[derive(Debug)]
pub struct MountedPath {
    tree: Arc<Tree>,
    open: Arc<OpenObjects>,
    calls: Calls,
}

impl MountedPath {
    /// The store at `path`, an absolute path on this machine. Nothing is touched yet: [`check`](StagingStore::check) does.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where the path is not absolute.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        if !path.is_absolute() {
            return Err(Error::new(Kind::Invalid, "use", format!("staging path {}", path.display()))
                .detail("it is not an absolute path")
                .remedy(
                    "set spec.storage.path to the folder at which the NFS export is mounted, for example /mnt/staging",
                ));
        }
        Ok(Self {
            tree: Arc::new(Tree::new(path)),
            open: Arc::default(),
            calls: Calls::default(),
        })
    }

    /// Runs `work` where it may block, for at most `limit`.
    async fn blocking<T, F>(&self, action: &'static str, limit: Duration, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Tree) -> Result<T, Error> + Send + 'static,
    {
        let tree = Arc::clone(&self.tree);
        let silent = |detail: String| {
            Error::new(Kind::Unreachable, action, self.describe())
                .detail(detail)
                .remedy("check that the NFS server answers and that the mount is healthy")
        };
        match self.calls.run(limit, move || work(&tree)).await {
            Ok(outcome) => outcome,
            Err(Abandoned::Late) => Err(silent(format!("no answer within {} s", limit.as_secs_f32()))),
            Err(Abandoned::Hanging(count)) => Err(silent(format!(
                "{count} calls to it hang, and no more are made until one of them comes back"
            ))),
            Err(Abandoned::Panicked(join)) => Err(Error::new(Kind::Bug, action, self.describe()).source(join)),
        }
    }
}

#[async_trait]
impl StagingStore for MountedPath {
    fn describe(&self) -> String {
        self.tree.describe()
    }

    fn url(&self, key: &ObjectKey) -> String {
        format!("nfs://{}", self.tree.path_of(key))
    }

    fn limits(&self) -> PartLimits {
        PartLimits {
            min: 1 << 20,
            max: 1 << 30,
            count: u32::MAX,
            joined: 0,
            in_flight: 1,
        }
    }

    async fn check(&self, need: u64) -> Result<Vec<String>, Error> {
        self.blocking("check", LIMIT, move |tree| tree.check(need)).await?;
        Ok(Vec::new())
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, Error> {
        let key = key.clone();
        self.blocking("look up", LIMIT, move |tree| object::head(tree, &key))
            .await
    }

    async fn read(&self, key: &ObjectKey, version: &str, offset: u64, bufs: Vec<Buf>) -> Result<Vec<Buf>, Error> {
        let (key, version, open) = (key.clone(), version.to_owned(), Arc::clone(&self.open));
        self.blocking("read", LIMIT, move |tree| {
            let mut at = offset;
            let read = |buf: Buf| {
                let len = buf.len() as u64;
                let buf = open.read(tree, &key, &version, at, buf)?;
                at += len;
                Ok(buf)
            };
            bufs.into_iter().map(read).collect()
        })
        .await
    }

    async fn begin(&self, key: &ObjectKey, most: u64, part_size: u64) -> Result<UploadId, Error> {
        let key = key.clone();
        self.blocking("upload", LIMIT, move |tree| upload::begin(tree, &key, most, part_size))
            .await
    }

    async fn parts(&self, key: &ObjectKey, upload: &UploadId) -> Result<Uploaded, Error> {
        let (key, upload) = (key.clone(), upload.clone());
        self.blocking("look up", LIMIT, move |tree| upload::parts(tree, &key, &upload))
            .await
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        offset: u64,
        body: PartBody,
    ) -> Result<Part, Error> {
        let (key, upload) = (key.clone(), upload.clone());
        self.blocking("upload", PART_LIMIT, move |tree| {
            upload::put_part(tree, &key, &upload, number, offset, body)
        })
        .await
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        len: u64,
        parts: &[Part],
    ) -> Result<ObjectMeta, Error> {
        let (key, upload) = (key.clone(), upload.clone());
        let numbers = parts.iter().map(|part| part.number).collect();
        self.blocking("complete", PART_LIMIT, move |tree| {
            upload::complete(tree, &key, &upload, len, numbers)
        })
        .await
    }

    async fn abort(&self, key: &ObjectKey) -> Result<(), Error> {
        let key = key.clone();
        self.blocking("abort", LIMIT, move |tree| upload::abort(tree, &key))
            .await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        let (key, open) = (key.clone(), Arc::clone(&self.open));
        self.blocking("delete", LIMIT, move |tree| {
            open.forget(&key);
            object::delete(tree, &key)
        })
        .await
    }

    async fn note(&self, key: &ObjectKey) -> Result<Option<String>, Error> {
        let key = key.clone();
        self.blocking("read", LIMIT, move |tree| note::read(tree, &key)).await
    }

    async fn put_note(&self, key: &ObjectKey, text: &str) -> Result<(), Error> {
        let (key, text) = (key.clone(), text.to_owned());
        self.blocking("write", LIMIT, move |tree| note::write(tree, &key, &text))
            .await
    }

    async fn delete_note(&self, key: &ObjectKey) -> Result<(), Error> {
        let key = key.clone();
        self.blocking("delete", LIMIT, move |tree| note::delete(tree, &key))
            .await
    }
}

#[cfg(test)]
mod tests;
