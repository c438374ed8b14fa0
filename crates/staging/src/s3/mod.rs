//! S3: `storage.type: s3`, AWS or any server that speaks its protocol.
//!
//! An object is the object `<key>` of the bucket, made by a multipart upload. Beside it may stand small objects of ours, whose names
//! no key can have: `.<name>.note`, and `.<name>.uploads` where the server keeps no list of uploads. An object that may need more parts
//! than the server takes has segments below `.<name>.segments/` until it is complete.
//!
//! object_store makes the signatures; the calls are our own: it has none for listing parts and uploads, which is how an upload is taken
//! up by another process and how nothing is left behind, and it wants a part in memory as a whole.
//!
//! - [`Settings`] are what a user gives; `place` is the server and the bucket in them.
//! - `wire` makes, signs and sends a call, `refusal` understands what is no success, `xml` reads and writes.
//! - `object`, `upload` (with `multipart`, `part`, `manner`, `ledger`, `segments`) and `small` are the port's calls; `check` tries them.
//!
//! Architecture Invariant: an object says by a random mark in its metadata which upload it came from. So a completion whose answer
//! was lost is recognised, and an object of somebody else's is never taken for ours.

mod check;
mod ledger;
mod manner;
mod multipart;
mod object;
mod part;
mod place;
mod refusal;
mod segments;
mod settings;
mod sign;
mod small;
mod upload;
mod wire;
mod xml;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use vmferry_block::Buf;

use crate::{Error, ObjectKey, ObjectMeta, Part, PartBody, PartLimits, StagingStore, UploadId, Uploaded};
use ledger::Ledger;
use manner::Manner;
use refusal::Refusal;
use segments::{Segments, Shape};
pub use settings::{Settings, Spec};
use upload::Uploads;
use wire::Wire;

/// A staging store in a bucket.
///
/// It tries again by itself what is worth it (five times within a minute): it needs no decorator for that.
#[derive(Debug)]
pub struct Bucket {
    wire: Wire,
    ledger: Ledger,
    manner: Manner,
    segments: Segments,
    shape: Shape,
    /// The versions of our notes that were written last, in buckets that keep versions: each is deleted when the next one is written.
    notes: Mutex<HashMap<ObjectKey, String>>,
}

impl Bucket {
    /// The store that `settings` describe. Nothing is asked of the server yet: [`check`](StagingStore::check) does.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::Kind::Invalid) for what is no bucket, region, endpoint, key or certificate,
    /// [`Kind::Denied`](crate::Kind::Denied) for an address that may not be talked to.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        Ok(Self {
            wire: Wire::new(settings)?,
            ledger: Ledger::default(),
            manner: Manner::default(),
            segments: Segments::default(),
            shape: Shape::default(),
            notes: Mutex::default(),
        })
    }

    fn uploads(&self) -> Uploads<'_> {
        Uploads {
            wire: &self.wire,
            ledger: &self.ledger,
            manner: &self.manner,
            segments: &self.segments,
            shape: self.shape,
        }
    }

    /// The same, as if the server took no more than `count` parts of an object, and with segments of `segment` bytes: so tests
    /// need no terabytes.
    #[must_use]
    pub fn with_few_parts(mut self, count: u32, segment: u64) -> Self {
        self.shape = Shape { count, segment };
        self
    }

    /// How messages name an object.
    fn object(&self, key: &ObjectKey) -> String {
        format!("{} in {}", self.url(key), self.wire.place.describe())
    }

    fn named<'a>(&'a self, action: &'static str, key: &'a ObjectKey) -> impl Fn(Refusal) -> Error + 'a {
        move |refusal| refusal.trouble.of(action, self.object(key))
    }

    fn note_named<'a>(&'a self, action: &'static str, key: &'a ObjectKey) -> impl Fn(Refusal) -> Error + 'a {
        move |refusal| refusal.trouble.of(action, format!("the note of {}", self.object(key)))
    }

    /// Keeps the id of the note's version, and gives the one from before.
    fn exchange_note(&self, key: &ObjectKey, version: Option<String>) -> Option<String> {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match version {
            Some(version) => notes.insert(key.clone(), version),
            None => notes.remove(key),
        }
    }
}

#[async_trait]
impl StagingStore for Bucket {
    fn describe(&self) -> String {
        format!("S3 {}", self.wire.place.describe())
    }

    fn url(&self, key: &ObjectKey) -> String {
        self.wire.place.s3_url(key.as_str())
    }

    /// 5 MiB to 5 GiB, 10,000 parts. AWS S3, "Multipart upload limits"; servers of one's own take 8 GiB. What is copied has 5 GiB at
    /// most.
    fn limits(&self) -> PartLimits {
        PartLimits {
            min: 5 << 20,
            max: if self.wire.place.is_aws { 5 << 30 } else { 8 << 30 },
            count: self.shape.count,
            joined: self.shape.most(),
            in_flight: 4,
        }
    }

    async fn check(&self, _need: u64) -> Result<Vec<String>, Error> {
        check::check(&self.uploads()).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, Error> {
        let head = object::head(&self.wire, key.as_str()).await;
        Ok(head.map_err(self.named("look up", key))?.map(|head| head.meta))
    }

    async fn read(&self, key: &ObjectKey, version: &str, offset: u64, mut bufs: Vec<Buf>) -> Result<Vec<Buf>, Error> {
        let read = object::read(&self.wire, key.as_str(), version, offset, &mut bufs).await;
        read.map_err(self.named("read", key))?;
        Ok(bufs)
    }

    async fn begin(&self, key: &ObjectKey, most: u64, part_size: u64) -> Result<UploadId, Error> {
        let begun = self.uploads().begin(key, most, part_size).await;
        begun.map_err(self.named("begin the upload of", key))
    }

    async fn parts(&self, key: &ObjectKey, upload: &UploadId) -> Result<Uploaded, Error> {
        let parts = self.uploads().parts(key, upload).await;
        parts.map_err(self.named("list the parts of", key))
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        _offset: u64,
        body: PartBody,
    ) -> Result<Part, Error> {
        let put = self.uploads().put_part(key, upload, number, body).await;
        put.map_err(|refusal| {
            refusal
                .trouble
                .of("upload", format!("part {number} of {}", self.object(key)))
        })
    }

    async fn settle(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        len: Option<u64>,
        alive: &(dyn Fn() + Send + Sync),
    ) -> Result<(), Error> {
        let settled = self.uploads().settle(key, upload, len, alive).await;
        settled.map_err(self.named("join the segments of", key))
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        len: u64,
        parts: &[Part],
    ) -> Result<ObjectMeta, Error> {
        let completed = self.uploads().complete(key, upload, len, parts).await;
        completed.map_err(self.named("complete", key))
    }

    async fn abort(&self, key: &ObjectKey) -> Result<(), Error> {
        let aborted = self.uploads().abort(key).await;
        aborted.map_err(self.named("abort the uploads of", key))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        let deleted = object::delete(&self.wire, key.as_str()).await;
        deleted.map_err(self.named("delete", key))
    }

    async fn presigned_url(&self, key: &ObjectKey, valid: Duration) -> Result<Option<SecretString>, Error> {
        let bucket_url = self.wire.place.url("", &[]);
        let signed = self.wire.signer().presign(&bucket_url, key, valid).await;
        signed
            .map(Some)
            .map_err(|trouble| trouble.of("sign a URL of", self.object(key)))
    }

    async fn note(&self, key: &ObjectKey) -> Result<Option<String>, Error> {
        let note = small::read(&self.wire, &note_name(key)).await;
        note.map_err(self.note_named("read", key))
    }

    async fn put_note(&self, key: &ObjectKey, text: &str) -> Result<(), Error> {
        let name = note_name(key);
        let named = self.note_named("write", key);
        let version = small::write(&self.wire, &name, text).await.map_err(&named)?;
        match self.exchange_note(key, version) {
            Some(old) => small::forget(&self.wire, &name, &old).await.map_err(named),
            None => Ok(()),
        }
    }

    async fn delete_note(&self, key: &ObjectKey) -> Result<(), Error> {
        self.exchange_note(key, None);
        let deleted = small::delete(&self.wire, &note_name(key)).await;
        deleted.map_err(self.note_named("delete", key))
    }
}

fn note_name(key: &ObjectKey) -> String {
    small::name_beside(key, "note")
}

#[cfg(test)]
mod tests;
