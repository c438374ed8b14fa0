//! A store that tries again: what a cut connection, a server that restarts or one that asks for patience costs is a second, not
//! the attempt.
//!
//! Architecture Invariant: only calls that may be repeated are. [`begin`](StagingStore::begin) and
//! [`complete`](StagingStore::complete) are not: what they did before they failed can only be found out by whoever keeps the
//! journal. A part that flows past cannot be sent again, either.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::time::{Instant, sleep};
use vmferry_block::Buf;

use crate::{Error, Kind, ObjectKey, ObjectMeta, Part, PartBody, PartLimits, StagingStore, UploadId, Uploaded};

/// How often a call is made at most.
const TRIES: u32 = 5;
/// How long after the first try another one may begin.
const PATIENCE: Duration = Duration::from_mins(1);
/// The wait after the first try; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A store whose calls are made again when they fail in a way that may pass.
pub struct Retrying {
    inner: Arc<dyn StagingStore>,
}

impl Retrying {
    /// Tries again what `inner` fails at.
    pub fn new(inner: Arc<dyn StagingStore>) -> Self {
        Self { inner }
    }
}

/// One call and its tries.
struct Call {
    action: &'static str,
    since: Instant,
    tries: u32,
}

impl Call {
    fn new(action: &'static str) -> Self {
        Self {
            action,
            since: Instant::now(),
            tries: 0,
        }
    }

    /// Waits before the next try, or gives the error back where there shall be none.
    async fn failed(&mut self, error: Error) -> Result<(), Error> {
        self.tries += 1;
        let wait = (FIRST_WAIT * 2_u32.pow(self.tries - 1)).min(LONGEST_WAIT);
        // Between half and all of it: those who failed together do not come back together.
        let wait = wait.mul_f64(rand::random_range(0.5..=1.0));
        let may_pass = matches!(error.kind(), Kind::Unreachable | Kind::Busy | Kind::Failed);
        if !may_pass || self.tries >= TRIES || self.since.elapsed() + wait > PATIENCE {
            return Err(error);
        }
        tracing::debug!(action = self.action, tries = self.tries, %error, "trying again");
        sleep(wait).await;
        Ok(())
    }
}

/// Makes a call until it succeeds or must not be made again.
macro_rules! repeat {
    ($action:literal, $call:expr) => {{
        let mut tries = Call::new($action);
        loop {
            match $call.await {
                Ok(done) => break Ok(done),
                Err(error) => tries.failed(error).await?,
            }
        }
    }};
}

#[async_trait]
impl StagingStore for Retrying {
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
        repeat!("check", self.inner.check(need))
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, Error> {
        repeat!("head", self.inner.head(key))
    }

    async fn read(&self, key: &ObjectKey, version: &str, offset: u64, mut bufs: Vec<Buf>) -> Result<Vec<Buf>, Error> {
        let mut tries = Call::new("read");
        loop {
            let (lenders, lent): (Vec<_>, Vec<_>) = bufs.into_iter().map(Buf::lend).unzip();
            let outcome = self.inner.read(key, version, offset, lent).await.map(drop);
            let returned: Option<Vec<Buf>> = lenders.into_iter().map(vmferry_block::Lender::back).collect();
            match (outcome, returned) {
                (Ok(()), Some(read)) => return Ok(read),
                (Ok(()), None) => {
                    return Err(Error::new(Kind::Bug, "read", self.url(key)).detail("the store kept a buffer"));
                }
                (Err(error), Some(returned)) => {
                    tries.failed(error).await?;
                    bufs = returned;
                }
                // A call that was given up still holds them.
                (Err(error), None) => return Err(error),
            }
        }
    }

    async fn begin(&self, key: &ObjectKey, most: u64, part_size: u64) -> Result<UploadId, Error> {
        self.inner.begin(key, most, part_size).await
    }

    async fn parts(&self, key: &ObjectKey, upload: &UploadId) -> Result<Uploaded, Error> {
        repeat!("parts", self.inner.parts(key, upload))
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        offset: u64,
        mut body: PartBody,
    ) -> Result<Part, Error> {
        let mut tries = Call::new("put part");
        loop {
            let again = body.again();
            let error = match self.inner.put_part(key, upload, number, offset, body).await {
                Ok(part) => return Ok(part),
                Err(error) => error,
            };
            let Some(again) = again else { return Err(error) };
            tries.failed(error).await?;
            body = again;
        }
    }

    async fn settle(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        len: Option<u64>,
        alive: &(dyn Fn() + Send + Sync),
    ) -> Result<(), Error> {
        repeat!("settle", self.inner.settle(key, upload, len, alive))
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        len: u64,
        parts: &[Part],
    ) -> Result<ObjectMeta, Error> {
        self.inner.complete(key, upload, len, parts).await
    }

    async fn abort(&self, key: &ObjectKey) -> Result<(), Error> {
        repeat!("abort", self.inner.abort(key))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        repeat!("delete", self.inner.delete(key))
    }

    async fn presigned_url(&self, key: &ObjectKey, valid: Duration) -> Result<Option<SecretString>, Error> {
        repeat!("sign", self.inner.presigned_url(key, valid))
    }

    async fn note(&self, key: &ObjectKey) -> Result<Option<String>, Error> {
        repeat!("read note", self.inner.note(key))
    }

    async fn put_note(&self, key: &ObjectKey, text: &str) -> Result<(), Error> {
        repeat!("put note", self.inner.put_note(key, text))
    }

    async fn delete_note(&self, key: &ObjectKey) -> Result<(), Error> {
        repeat!("delete note", self.inner.delete_note(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{self, Subject as _};
    use crate::faulty::{Call as Name, Faulty, Trouble};
    use crate::testing::Folder;

    fn faulty(folder: &Folder, troubles: Vec<Trouble>) -> (Arc<Faulty>, Retrying) {
        let faulty = Arc::new(Faulty::new(folder.open(), troubles));
        (Arc::clone(&faulty), Retrying::new(faulty))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn conforms() {
        let folder = Folder::new(|inner| Arc::new(Retrying::new(inner)));
        conformance::run(&folder).await.unwrap();
    }

    /// Every call that may be repeated fails twice, now before it did its work and now after.
    #[tokio::test(start_paused = true)]
    async fn conforms_where_every_call_fails_twice() {
        let repeated = Name::ALL
            .into_iter()
            .filter(|call| !matches!(call, Name::Begin | Name::Complete | Name::PutPart));
        let twice = repeated.flat_map(|call| {
            [
                Trouble::before(call, 1..=1, Kind::Unreachable),
                Trouble::after(call, 2..=2, Kind::Busy),
            ]
        });
        let troubles: Vec<_> = twice.collect();
        let folder = Folder::new(move |inner| Arc::new(Retrying::new(Arc::new(Faulty::new(inner, troubles.clone())))));
        conformance::run(&folder).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn five_tries_and_no_more() {
        let folder = Folder::new(|inner| inner);
        let (inner, store) = faulty(&folder, vec![Trouble::before(Name::Head, 1.., Kind::Failed)]);
        let since = Instant::now();
        let error = store.head(&"a/disk".parse().unwrap()).await.unwrap_err();
        assert_eq!((error.kind(), inner.calls(Name::Head)), (Kind::Failed, 5));
        assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
        assert!(since.elapsed() > Duration::from_secs(1), "{:?}", since.elapsed());
    }

    #[tokio::test]
    async fn what_cannot_pass_is_not_tried_again() {
        let folder = Folder::new(|inner| inner);
        for kind in [Kind::Denied, Kind::NoSpace, Kind::Changed, Kind::Unfit, Kind::Bug] {
            let (inner, store) = faulty(&folder, vec![Trouble::before(Name::Head, 1.., kind)]);
            let error = store.head(&"a/disk".parse().unwrap()).await.unwrap_err();
            assert_eq!((error.kind(), inner.calls(Name::Head)), (kind, 1));
        }
    }

    #[tokio::test]
    async fn what_must_not_be_repeated_is_not() {
        let folder = Folder::new(|inner| inner);
        let troubles = [Name::Begin, Name::Complete].map(|call| Trouble::after(call, 1..=1, Kind::Unreachable));
        let (inner, store) = faulty(&folder, troubles.into());
        let key: ObjectKey = "a/disk".parse().unwrap();
        assert!(store.begin(&key, 4, 1 << 20).await.is_err());
        let upload = store.begin(&key, 4, 1 << 20).await.unwrap();
        let (send, pieces) = tokio::sync::mpsc::channel(1);
        send.send(Buf::copy_of(b"abcd")).await.unwrap();
        drop(send);
        let body = PartBody::flowing(4, pieces);
        let part = store.put_part(&key, &upload, 0, 0, body).await.unwrap();
        assert!(store.complete(&key, &upload, 4, &[part]).await.is_err());
        assert_eq!((inner.calls(Name::Begin), inner.calls(Name::Complete)), (2, 1));
        assert!(store.head(&key).await.unwrap().is_some());

        let (inner, store) = faulty(&folder, vec![Trouble::before(Name::PutPart, 1..=1, Kind::Unreachable)]);
        let upload = store.begin(&"b".parse().unwrap(), 4, 1 << 20).await.unwrap();
        let (_send, pieces) = tokio::sync::mpsc::channel(1);
        let body = PartBody::flowing(4, pieces);
        let put = store.put_part(&"b".parse().unwrap(), &upload, 0, 0, body).await;
        assert!(put.is_err() && inner.calls(Name::PutPart) == 1);
    }

    #[tokio::test]
    async fn a_read_that_failed_fills_the_same_buffers() {
        let folder = Folder::new(|inner| inner);
        let troubles = vec![
            Trouble::after(Name::Read, 1..=1, Kind::Unreachable),
            Trouble::before(Name::PutPart, 1..=1, Kind::Busy),
        ];
        let (_, store) = faulty(&folder, troubles);
        let key: ObjectKey = "disk".parse().unwrap();
        let upload = store.begin(&key, 6, 1 << 20).await.unwrap();
        let body = PartBody::held([Buf::copy_of(b"abcdef")]);
        let part = store.put_part(&key, &upload, 0, 0, body).await.unwrap();
        let meta = store.complete(&key, &upload, 6, &[part]).await.unwrap();
        let mut buf = Buf::copy_of(b"0123456789");
        let view = buf.narrow(3..7);
        let mut buf = store.read_one(&key, &meta.version, 1, buf).await.unwrap();
        buf.restore(view);
        assert_eq!(&*buf, b"012bcde789");
    }
}
