//! A store that keeps to a rate: so many bytes a second, both ways together.
//!
//! The rate is a [`Bucket`], which many may share. Each [`Limited`] asks it for one small slice after another and never has two
//! under way, so those who share a bucket take turns and get equal parts of it, however many requests each of them makes.
//!
//! A part that is held waits before it is sent, so no request is kept open for a rate's sake; one that flows past is held back
//! on its way.

use std::num::NonZeroU64;
use std::pin::pin;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{Either, select};
use secrecy::SecretString;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep_until};
use vmferry_block::Buf;

use crate::{Error, ObjectKey, ObjectMeta, Part, PartBody, PartLimits, StagingStore, UploadId, Uploaded};

/// What is asked for at once, in bytes.
const SLICE: u64 = 128 << 10;
/// How long a bucket that nobody asked saves up: enough that a timer's coarseness costs no throughput, too little to notice.
const SAVED: Duration = Duration::from_millis(50);
/// How often whoever waits gives a sign of life.
const SIGN: Duration = Duration::from_secs(1);

/// A rate in bytes per second, and how much of it is taken.
#[derive(Debug)]
pub struct Bucket {
    rate: NonZeroU64,
    /// When everything that was asked for is over.
    taken_until: StdMutex<Instant>,
}

impl Bucket {
    /// `rate` bytes per second for all who share it.
    pub fn new(rate: NonZeroU64) -> Self {
        Self {
            rate,
            taken_until: StdMutex::new(Instant::now()),
        }
    }

    /// The rate in bytes per second.
    pub fn rate(&self) -> NonZeroU64 {
        self.rate
    }

    /// Takes this many bytes; says when they may have passed.
    fn take(&self, bytes: u64) -> Instant {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate.get());
        let time = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let now = Instant::now();
        let mut until = self.taken_until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = (*until).max(now.checked_sub(SAVED).unwrap_or(now)) + time;
        *until
    }
}

/// Called while a transfer waits for its turn: it is alive.
pub type Alive = Arc<dyn Fn() + Send + Sync>;

/// A store that keeps to the rates of its buckets: one transfer's turn in them.
pub struct Limited {
    inner: Arc<dyn StagingStore>,
    turn: Turn,
}

struct Turn {
    buckets: Vec<Arc<Bucket>>,
    alive: Alive,
    /// One slice at a time.
    lane: Mutex<()>,
}

impl Turn {
    /// Waits until so many bytes may pass.
    async fn wait(&self, mut bytes: u64) {
        while bytes > 0 {
            let slice = bytes.min(SLICE);
            let _lane = self.lane.lock().await;
            let taken = self.buckets.iter().map(|bucket| bucket.take(slice));
            let Some(until) = taken.max() else { return };
            while Instant::now() < until {
                sleep_until(until.min(Instant::now() + SIGN)).await;
                (self.alive)();
            }
            bytes -= slice;
        }
    }

    /// Passes pieces on as fast as they may, for as long as somebody takes them.
    async fn pass(&self, mut from: mpsc::Receiver<Buf>, to: mpsc::Sender<Buf>) {
        while let Some(piece) = from.recv().await {
            self.wait(piece.len() as u64).await;
            if to.send(piece).await.is_err() {
                return;
            }
        }
    }
}

impl Limited {
    /// Holds `inner` to each of `buckets`, calling `alive` at least each second while something waits.
    pub fn new(inner: Arc<dyn StagingStore>, buckets: Vec<Arc<Bucket>>, alive: Alive) -> Self {
        let lane = Mutex::default();
        Self {
            inner,
            turn: Turn { buckets, alive, lane },
        }
    }
}

#[async_trait]
impl StagingStore for Limited {
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
        self.inner.check(need).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, Error> {
        self.inner.head(key).await
    }

    async fn read(&self, key: &ObjectKey, version: &str, offset: u64, bufs: Vec<Buf>) -> Result<Vec<Buf>, Error> {
        self.turn.wait(bufs.iter().map(|buf| buf.len() as u64).sum()).await;
        self.inner.read(key, version, offset, bufs).await
    }

    async fn begin(&self, key: &ObjectKey, most: u64, part_size: u64) -> Result<UploadId, Error> {
        self.inner.begin(key, most, part_size).await
    }

    async fn parts(&self, key: &ObjectKey, upload: &UploadId) -> Result<Uploaded, Error> {
        self.inner.parts(key, upload).await
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        offset: u64,
        body: PartBody,
    ) -> Result<Part, Error> {
        let len = body.len();
        match body.into_flowing() {
            Err(held) => {
                self.turn.wait(len).await;
                self.inner.put_part(key, upload, number, offset, held).await
            }
            Ok(pieces) => {
                let (send, metered) = mpsc::channel(1);
                let body = PartBody::flowing(len, metered);
                let put = self.inner.put_part(key, upload, number, offset, body);
                match select(put, pin!(self.turn.pass(pieces, send))).await {
                    Either::Left((put, _)) => put,
                    Either::Right(((), put)) => put.await,
                }
            }
        }
    }

    async fn settle(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        len: Option<u64>,
        alive: &(dyn Fn() + Send + Sync),
    ) -> Result<(), Error> {
        self.inner.settle(key, upload, len, alive).await
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
        self.inner.abort(key).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        self.inner.delete(key).await
    }

    async fn presigned_url(&self, key: &ObjectKey, valid: Duration) -> Result<Option<SecretString>, Error> {
        self.inner.presigned_url(key, valid).await
    }

    async fn note(&self, key: &ObjectKey) -> Result<Option<String>, Error> {
        self.inner.note(key).await
    }

    async fn put_note(&self, key: &ObjectKey, text: &str) -> Result<(), Error> {
        self.inner.put_note(key, text).await
    }

    async fn delete_note(&self, key: &ObjectKey) -> Result<(), Error> {
        self.inner.delete_note(key).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::conformance::{self, Subject as _};
    use crate::testing::Folder;

    const MIB: u64 = 1 << 20;

    fn bucket(rate: u64) -> Arc<Bucket> {
        Arc::new(Bucket::new(NonZeroU64::new(rate).unwrap()))
    }

    fn turn(buckets: &[&Arc<Bucket>]) -> Turn {
        Turn {
            buckets: buckets.iter().map(|bucket| Arc::clone(bucket)).collect(),
            alive: Arc::new(|| {}),
            lane: Mutex::default(),
        }
    }

    #[track_caller]
    fn about(found: Duration, seconds: f64) {
        let found = found.as_secs_f64();
        assert!(
            (found - seconds).abs() < seconds / 50.0 + 0.06,
            "{found} s, not {seconds} s"
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn conforms() {
        let shared = bucket(400 * MIB);
        let folder = Folder::new(move |inner| {
            let buckets = vec![Arc::clone(&shared), bucket(400 * MIB)];
            Arc::new(Limited::new(inner, buckets, Arc::new(|| {})))
        });
        conformance::run(&folder).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_take_their_time() {
        let since = Instant::now();
        turn(&[&bucket(MIB)]).wait(10 * MIB).await;
        about(since.elapsed(), 10.0);
        let since = Instant::now();
        turn(&[&bucket(10_000 * MIB)]).wait(10_000 * MIB).await;
        about(since.elapsed(), 1.0);
        let since = Instant::now();
        turn(&[&bucket(2 * MIB), &bucket(MIB)]).wait(3 * MIB).await;
        about(since.elapsed(), 3.0);
        turn(&[]).wait(u64::MAX).await;
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_share_get_equal_parts_however_much_they_ask_for() {
        let shared = bucket(10 * MIB);
        let (greedy, modest) = (turn(&[&shared]), turn(&[&shared]));
        let since = Instant::now();
        let many = futures::future::join_all((0..8).map(|_| greedy.wait(10 * MIB)));
        let one = async {
            modest.wait(10 * MIB).await;
            since.elapsed()
        };
        let (_, first) = tokio::join!(many, one);
        about(first, 2.0);
        about(since.elapsed(), 9.0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slower_by_itself_leaves_the_rest_to_others() {
        let shared = bucket(10 * MIB);
        let (slow, fast) = (turn(&[&shared, &bucket(MIB)]), turn(&[&shared]));
        let since = Instant::now();
        let slow = async {
            slow.wait(4 * MIB).await;
            since.elapsed()
        };
        let fast = async {
            fast.wait(9 * MIB).await;
            since.elapsed()
        };
        let (slow, fast) = tokio::join!(slow, fast);
        about(slow, 4.0);
        about(fast, 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_that_rested_saves_up_next_to_nothing() {
        let bucket = bucket(MIB);
        tokio::time::sleep(Duration::from_mins(10)).await;
        let since = Instant::now();
        turn(&[&bucket]).wait(2 * MIB).await;
        about(since.elapsed(), 2.0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_alive_each_second() {
        let signs = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&signs);
        let mut turn = turn(&[&bucket(1024)]);
        turn.alive = Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        turn.wait(60 << 10).await;
        assert!(signs.load(Ordering::Relaxed) >= 60, "{signs:?}");
    }

    /// Real time: the mounted path works on threads of its own.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn parts_and_reads_keep_to_the_rate() {
        let folder = Folder::new(|inner| inner);
        let store = Limited::new(folder.open(), vec![bucket(8 * MIB)], Arc::new(|| {}));
        let key: ObjectKey = "disk".parse().unwrap();
        let upload = store.begin(&key, 2 * MIB, MIB).await.unwrap();
        let piece = || Buf::copy_of(&vec![7; 1 << 19]);
        let since = Instant::now();
        let held = PartBody::held([piece(), piece()]);
        let first = store.put_part(&key, &upload, 0, 0, held).await.unwrap();
        let (send, pieces) = mpsc::channel(2);
        send.send(piece()).await.unwrap();
        send.send(piece()).await.unwrap();
        drop(send);
        let flowing = PartBody::flowing(MIB, pieces);
        let second = store.put_part(&key, &upload, 1, MIB, flowing).await.unwrap();
        assert!(since.elapsed() > Duration::from_millis(190), "{:?}", since.elapsed());
        let meta = store.complete(&key, &upload, 2 * MIB, &[first, second]).await.unwrap();
        let since = Instant::now();
        store
            .read(&key, &meta.version, 0, vec![Buf::alone(1 << 21)])
            .await
            .unwrap();
        assert!(since.elapsed() > Duration::from_millis(190), "{:?}", since.elapsed());
    }

    /// A store that gives up on a flowing part is heard, though more pieces are to come.
    #[tokio::test]
    async fn a_flowing_part_that_fails_does_so_at_once() {
        let folder = Folder::new(|inner| inner);
        let store = Limited::new(folder.open(), vec![bucket(MIB)], Arc::new(|| {}));
        let (_send, pieces) = mpsc::channel(1);
        let upload = UploadId("no-such-upload".to_owned());
        let key = "disk".parse().unwrap();
        let put = store.put_part(&key, &upload, 0, 0, PartBody::flowing(9, pieces));
        let error = tokio::time::timeout(Duration::from_secs(30), put).await.unwrap();
        assert!(error.is_err());
    }
}
