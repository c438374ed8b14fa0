//! The port of this crate.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use vmferry_block::Buf;

use crate::{Error, Kind, ObjectKey, PartBody};

/// A whole object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Length in bytes.
    pub len: u64,
    /// Changes whenever the object does: an ETag, or inode and modification time.
    pub version: String,
}

/// The id of an upload, valid in any process until it is completed or aborted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadId(pub String);

/// A part that arrived whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its number, from 0. Part `n` starts at `n` × the part size.
    pub number: u32,
    /// What the store wants to hear again on completion (S3: the ETag); empty where it wants nothing.
    pub tag: String,
}

/// What a store says of the parts of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uploaded {
    /// The upload is under way and these parts arrived.
    Parts(Vec<Part>),
    /// The upload is under way; the store keeps no list of parts, so the caller's own list counts.
    Unlisted,
    /// There is no such upload: completed, aborted or expired.
    Gone,
}

/// What a store asks of parts. All parts of an upload but the last are of one size.
///
/// A store that takes few parts at a time but writes each of them with many requests under way loses less of them when a
/// process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartLimits {
    /// Smallest size in bytes.
    pub min: u64,
    /// Largest size in bytes.
    pub max: u64,
    /// Largest number of parts.
    pub count: u32,
    /// The longest object, in bytes, that may have more parts than `count`, because the store joins them itself; 0 where it does not.
    /// It costs the store a copy of those that are too many, and wants [`settle`](StagingStore::settle) now and then.
    pub joined: u64,
    /// How many parts may be under way at once, at most.
    pub in_flight: u32,
}

/// A staging store.
#[async_trait]
pub trait StagingStore: Send + Sync {
    /// How messages name it: kind and place, never a credential.
    fn describe(&self) -> String;

    /// Where the object is, for the status: `s3://bucket/key`, `nfs:///path/key`.
    fn url(&self, key: &ObjectKey) -> String;

    /// What it asks of parts.
    fn limits(&self) -> PartLimits;

    /// Whether it answers, takes the credentials, can be written, and (where it can tell) has room for `need` bytes. Leaves
    /// nothing behind. Gives what is worth telling about it, as short clauses: how an upload is taken up again, say.
    async fn check(&self, need: u64) -> Result<Vec<String>, Error>;

    /// The object, if it exists and is whole.
    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, Error>;

    /// Fills the whole of each of `bufs`, one after another, from `offset` of the object with this version, and gives them
    /// back. What lies past the end is an error.
    async fn read(&self, key: &ObjectKey, version: &str, offset: u64, bufs: Vec<Buf>) -> Result<Vec<Buf>, Error>;

    /// [`read`](Self::read) into one buffer.
    async fn read_one(&self, key: &ObjectKey, version: &str, offset: u64, buf: Buf) -> Result<Buf, Error> {
        let read = self.read(key, version, offset, vec![buf]).await?;
        read.into_iter()
            .next()
            .ok_or_else(|| Error::new(Kind::Bug, "read", self.url(key)).detail("the store gave no buffer back"))
    }

    /// Starts an upload in parts of `part_size`, of `most` bytes or fewer: how many is said on completion.
    async fn begin(&self, key: &ObjectKey, most: u64, part_size: u64) -> Result<UploadId, Error>;

    /// The parts of an upload.
    async fn parts(&self, key: &ObjectKey, upload: &UploadId) -> Result<Uploaded, Error>;

    /// Stores a part whose first byte is at `offset` of the object. All but the last are of the upload's part size. Parts may
    /// come in parallel, out of order and again. When this returns, the part survives the end of this process.
    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        offset: u64,
        body: PartBody,
    ) -> Result<Part, Error>;

    /// Lets the store do what it has to do by itself with the parts that arrived, such as joining them, which may take long: once all of
    /// them arrived and `len` is known, all that can be done before the completion. Calls `alive` at least every few seconds while
    /// it gets on. May be called at any time, again, and beside other parts; may be dropped.
    async fn settle(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        len: Option<u64>,
        alive: &(dyn Fn() + Send + Sync),
    ) -> Result<(), Error> {
        let _ = (key, upload, len, alive);
        Ok(())
    }

    /// Makes an object of `len` bytes out of its parts, all at once: before, there is no object of this name; afterwards it is
    /// whole and durable. [`NameTaken`](crate::Kind::NameTaken) where an object of that name exists.
    async fn complete(&self, key: &ObjectKey, upload: &UploadId, len: u64, parts: &[Part])
    -> Result<ObjectMeta, Error>;

    /// Ends every upload of this key, if any, and gives its space back.
    async fn abort(&self, key: &ObjectKey) -> Result<(), Error>;

    /// Deletes the object, if it exists, and the folders that this leaves empty.
    async fn delete(&self, key: &ObjectKey) -> Result<(), Error>;

    /// A URL from which anybody can read the object for as long as it is `valid`, where the store has such. It is a secret.
    async fn presigned_url(&self, key: &ObjectKey, valid: Duration) -> Result<Option<SecretString>, Error> {
        let _ = (key, valid);
        Ok(None)
    }

    /// The note beside the object, if any.
    async fn note(&self, key: &ObjectKey) -> Result<Option<String>, Error>;

    /// Replaces the note beside the object, all at once.
    async fn put_note(&self, key: &ObjectKey, text: &str) -> Result<(), Error>;

    /// Deletes the note beside the object, if any.
    async fn delete_note(&self, key: &ObjectKey) -> Result<(), Error>;
}
