//! NFS over the network: `storage.type: nfs` with an `endpoint` and a `path`, without a mount and without privileges.
//!
//! The protocol is spoken by the crate nfs-rs, in this process: versions 3, 4.0 and 4.1 over TCP, with numbers for user and group
//! (`sec=sys`).
//!
//! - [`link`] keeps one connection, and makes it again when it breaks. Whatever was not committed by then is done again, inside the
//!   call, unless the server is silent for longer than the patience.
//! - [`session`] is the requests, [`tree`] walks folders, [`object`], [`upload`] and [`note`] are what the port asks for.
//! - [`trouble`] says what an answer means.
//!
//! Nothing is kept open on the server: what reads and writes does so by the file's handle, so a restart loses us nothing but
//! what was not committed, and that is noticed by the server's verifier.
//!
//! Architecture Invariant: nothing below the path is reached through a symbolic link. Names are looked up one by one in the folder
//! that was found before, by its handle, and what is no folder or no regular file is refused.
//!
//! Architecture Invariant: every address that is connected to was looked at by the [`HostPolicy`](crate::HostPolicy). Servers
//! that send their clients elsewhere (pNFS) are refused; referrals are not followed.

mod config;
mod dial;
mod link;
mod note;
mod object;
mod options;
mod part;
mod session;
mod tree;
mod trouble;
mod upload;

use async_trait::async_trait;
use vmferry_block::Buf;

pub use config::NfsConfig;
pub use options::{InvalidOption, MountOptions};

use crate::nfs::names;
use crate::{Error, ObjectKey, ObjectMeta, Part, PartBody, PartLimits, StagingStore, UploadId, Uploaded};
use config::Target;
use link::Link;
use object::OpenObjects;

/// A staging store on an NFS server.
///
/// ```
/// # use vmferry_staging::nfs::{NfsConfig, NfsServer};
/// let mut config = NfsConfig::new("nfs.example.com", "/exports/staging");
/// config.options = "vers=4,rw,sync".parse()?;
/// let store = NfsServer::new(config)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct NfsServer {
    link: Link,
    open: OpenObjects,
}

impl NfsServer {
    /// The store of this config. Nothing is connected to yet: the first call does.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::Kind::Invalid) where endpoint or path make no sense.
    pub fn new(config: NfsConfig) -> Result<Self, Error> {
        Ok(Self {
            link: Link::new(Target::new(config)?),
            open: OpenObjects::default(),
        })
    }
}

#[async_trait]
impl StagingStore for NfsServer {
    fn describe(&self) -> String {
        self.link.describe()
    }

    fn url(&self, key: &ObjectKey) -> String {
        self.link.url(key)
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
        let probe = names::probe();
        let probe = probe.as_str();
        let check = |session: session::Session| async move {
            tree::check(&session, need, probe).await?;
            Ok(session.clauses())
        };
        self.link.run("use", || self.describe(), check).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, Error> {
        object::head(&self.link, key).await
    }

    async fn read(&self, key: &ObjectKey, version: &str, offset: u64, bufs: Vec<Buf>) -> Result<Vec<Buf>, Error> {
        self.open.read(&self.link, key, version, offset, bufs).await
    }

    async fn begin(&self, key: &ObjectKey, most: u64, part_size: u64) -> Result<UploadId, Error> {
        upload::begin(&self.link, key, most, part_size).await
    }

    async fn parts(&self, key: &ObjectKey, upload: &UploadId) -> Result<Uploaded, Error> {
        upload::parts(&self.link, key, upload).await
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        offset: u64,
        body: PartBody,
    ) -> Result<Part, Error> {
        upload::put_part(&self.link, key, upload, number, offset, body).await
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        len: u64,
        parts: &[Part],
    ) -> Result<ObjectMeta, Error> {
        let numbers = parts.iter().map(|part| part.number).collect();
        upload::complete(&self.link, key, upload, len, numbers).await
    }

    async fn abort(&self, key: &ObjectKey) -> Result<(), Error> {
        upload::abort(&self.link, key).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        self.open.forget(key);
        object::delete(&self.link, key).await
    }

    async fn note(&self, key: &ObjectKey) -> Result<Option<String>, Error> {
        note::read(&self.link, key).await
    }

    async fn put_note(&self, key: &ObjectKey, text: &str) -> Result<(), Error> {
        note::write(&self.link, key, text).await
    }

    async fn delete_note(&self, key: &ObjectKey) -> Result<(), Error> {
        note::delete(&self.link, key).await
    }
}

#[cfg(test)]
mod tests;
