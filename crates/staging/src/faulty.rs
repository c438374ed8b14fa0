//! A store that fails on purpose, for tests: this call, that often, before or after it did its work, or never to answer.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use vmferry_block::Buf;

use crate::{Error, Kind, ObjectKey, ObjectMeta, Part, PartBody, PartLimits, StagingStore, UploadId, Uploaded};

/// A call of the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is named after its method")]
pub enum Call {
    Check,
    Head,
    Read,
    Begin,
    Parts,
    PutPart,
    Settle,
    Complete,
    Abort,
    Delete,
    Note,
    PutNote,
    DeleteNote,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Check,
        Self::Head,
        Self::Read,
        Self::Begin,
        Self::Parts,
        Self::PutPart,
        Self::Settle,
        Self::Complete,
        Self::Abort,
        Self::Delete,
        Self::Note,
        Self::PutNote,
        Self::DeleteNote,
    ];

    /// Those that change something.
    pub const CHANGES: [Self; 8] = [
        Self::Begin,
        Self::PutPart,
        Self::Settle,
        Self::Complete,
        Self::Abort,
        Self::Delete,
        Self::PutNote,
        Self::DeleteNote,
    ];
}

/// When a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before(Kind),
    After(Kind),
    Never,
}

/// What is to go wrong: some of the calls of one method, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    call: Call,
    which: (Bound<u64>, Bound<u64>),
    moment: Moment,
}

impl Trouble {
    /// They fail and do nothing.
    pub fn before(call: Call, which: impl RangeBounds<u64>, kind: Kind) -> Self {
        Self::new(call, &which, Moment::Before(kind))
    }

    /// They do their work and fail.
    pub fn after(call: Call, which: impl RangeBounds<u64>, kind: Kind) -> Self {
        Self::new(call, &which, Moment::After(kind))
    }

    /// They never answer.
    pub fn hang(call: Call, which: impl RangeBounds<u64>) -> Self {
        Self::new(call, &which, Moment::Never)
    }

    fn new(call: Call, which: &impl RangeBounds<u64>, moment: Moment) -> Self {
        let which = (which.start_bound().cloned(), which.end_bound().cloned());
        Self { call, which, moment }
    }
}

/// A store that fails on purpose, and counts.
pub struct Faulty {
    inner: Arc<dyn StagingStore>,
    troubles: Vec<Trouble>,
    calls: Mutex<BTreeMap<Call, u64>>,
    parts: Mutex<BTreeMap<u32, u64>>,
}

impl Faulty {
    /// `inner` with these troubles; where two fit, the first one happens.
    pub fn new(inner: Arc<dyn StagingStore>, troubles: impl Into<Vec<Trouble>>) -> Self {
        Self {
            inner,
            troubles: troubles.into(),
            calls: Mutex::default(),
            parts: Mutex::default(),
        }
    }

    /// How often a method was called.
    pub fn calls(&self, call: Call) -> u64 {
        *self
            .calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&call)
            .unwrap_or(&0)
    }

    /// How often each part arrived whole, whatever was said of it.
    pub fn parts_put(&self) -> BTreeMap<u32, u64> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn call<T>(&self, call: Call, work: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        let now = {
            let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            let count = calls.entry(call).or_default();
            *count += 1;
            *count
        };
        let fits = |trouble: &&Trouble| trouble.call == call && trouble.which.contains(&now);
        let fault = |kind| Error::new(kind, "use", self.describe()).detail(format!("{call:?} {now} fails on purpose"));
        match self.troubles.iter().find(fits).map(|trouble| trouble.moment) {
            None => work.await,
            Some(Moment::Before(kind)) => Err(fault(kind)),
            Some(Moment::After(kind)) => work.await.and(Err(fault(kind))),
            Some(Moment::Never) => std::future::pending().await,
        }
    }
}

#[async_trait]
impl StagingStore for Faulty {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn url(&self, key: &ObjectKey) -> String {
        self.inner.url(key)
    }

    fn limits(&self) -> PartLimits {
        self.inner.limits()
    }

    async fn check(&self, need: u64) -> Result<Vec<String>, Error> {
        self.call(Call::Check, self.inner.check(need)).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, Error> {
        self.call(Call::Head, self.inner.head(key)).await
    }

    async fn read(&self, key: &ObjectKey, version: &str, offset: u64, bufs: Vec<Buf>) -> Result<Vec<Buf>, Error> {
        self.call(Call::Read, self.inner.read(key, version, offset, bufs)).await
    }

    async fn begin(&self, key: &ObjectKey, most: u64, part_size: u64) -> Result<UploadId, Error> {
        self.call(Call::Begin, self.inner.begin(key, most, part_size)).await
    }

    async fn parts(&self, key: &ObjectKey, upload: &UploadId) -> Result<Uploaded, Error> {
        self.call(Call::Parts, self.inner.parts(key, upload)).await
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        offset: u64,
        body: PartBody,
    ) -> Result<Part, Error> {
        let put = async {
            let part = self.inner.put_part(key, upload, number, offset, body).await?;
            let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
            *parts.entry(number).or_default() += 1;
            Ok(part)
        };
        self.call(Call::PutPart, put).await
    }

    async fn settle(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        len: Option<u64>,
        alive: &(dyn Fn() + Send + Sync),
    ) -> Result<(), Error> {
        let settle = self.inner.settle(key, upload, len, alive);
        self.call(Call::Settle, settle).await
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        len: u64,
        parts: &[Part],
    ) -> Result<ObjectMeta, Error> {
        let complete = self.inner.complete(key, upload, len, parts);
        self.call(Call::Complete, complete).await
    }

    async fn abort(&self, key: &ObjectKey) -> Result<(), Error> {
        self.call(Call::Abort, self.inner.abort(key)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        self.call(Call::Delete, self.inner.delete(key)).await
    }

    async fn presigned_url(&self, key: &ObjectKey, valid: Duration) -> Result<Option<SecretString>, Error> {
        self.inner.presigned_url(key, valid).await
    }

    async fn note(&self, key: &ObjectKey) -> Result<Option<String>, Error> {
        self.call(Call::Note, self.inner.note(key)).await
    }

    async fn put_note(&self, key: &ObjectKey, text: &str) -> Result<(), Error> {
        self.call(Call::PutNote, self.inner.put_note(key, text)).await
    }

    async fn delete_note(&self, key: &ObjectKey) -> Result<(), Error> {
        self.call(Call::DeleteNote, self.inner.delete_note(key)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{self, Subject as _};
    use crate::testing::Folder;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn conforms_without_troubles() {
        let folder = Folder::new(|inner| Arc::new(Faulty::new(inner, [])));
        conformance::run(&folder).await.unwrap();
    }

    #[tokio::test]
    async fn each_trouble_happens_where_it_was_put() {
        let folder = Folder::new(|inner| inner);
        let troubles = [
            Trouble::before(Call::PutNote, 2..=2, Kind::Busy),
            Trouble::after(Call::PutNote, 3..5, Kind::Denied),
            Trouble::hang(Call::PutNote, 6..),
        ];
        let store = Faulty::new(folder.open(), troubles);
        let key: ObjectKey = "disk".parse().unwrap();
        let mut seen = Vec::new();
        for text in ["1", "2", "3", "4", "5"] {
            let put = store.put_note(&key, text).await.map_err(|error| error.kind());
            seen.push((put, store.note(&key).await.unwrap().unwrap()));
        }
        let said = |kind: Option<Kind>, note: &str| (kind.map_or(Ok(()), Err), note.to_owned());
        assert_eq!(
            seen,
            [
                said(None, "1"),
                said(Some(Kind::Busy), "1"),
                said(Some(Kind::Denied), "3"),
                said(Some(Kind::Denied), "4"),
                said(None, "5")
            ]
        );
        let sixth = tokio::time::timeout(Duration::from_millis(20), store.put_note(&key, "6"));
        assert!(sixth.await.is_err(), "it answered");
        assert_eq!(store.calls(Call::PutNote), 6);
        store.delete_note(&key).await.unwrap();
    }
}
