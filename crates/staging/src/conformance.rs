//! The conformance suite that every store runs.
//!
//! It says in code what the port says in words. A store's own tests give it a [`Subject`] and need only add what is theirs
//! alone.

use std::error::Error as StdError;
use std::sync::Arc;

use async_trait::async_trait;
use vmferry_block::Buf;

use crate::{Error, Kind, ObjectKey, ObjectMeta, Part, PartBody, StagingStore, UploadId, Uploaded};

/// What the suite needs from the tests of a store.
#[async_trait]
pub trait Subject: Send + Sync {
    /// Opens the store once more, as another process would: nothing is remembered from the last time.
    fn open(&self) -> Arc<dyn StagingStore>;

    /// Everything in the store, for messages: objects, uploads, notes, folders. Empty where the store is as new.
    async fn leftovers(&self) -> Vec<String>;
}

/// Success, or what is wrong.
pub type Outcome = Result<(), Box<dyn StdError + Send + Sync>>;

macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+).into());
        }
    };
}

/// Runs the whole suite, one case after the other.
///
/// # Errors
/// The first case that does not hold, by name.
pub async fn run(subject: &dyn Subject) -> Outcome {
    let named = |name: &'static str| move |error| format!("{name}: {error}");
    whole(subject)
        .await
        .map_err(named("parts in parallel, out of order and again"))?;
    resume(subject)
        .await
        .map_err(named("an upload taken up by another process"))?;
    abort(subject).await.map_err(named("abort"))?;
    no_overwrite(subject).await.map_err(named("no overwrite"))?;
    bad_parts(subject).await.map_err(named("parts that do not fit"))?;
    versions(subject).await.map_err(named("versions"))?;
    notes(subject).await.map_err(named("notes"))?;
    absent(subject).await.map_err(named("what does not exist"))?;
    let left = subject.leftovers().await;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

/// A test object: its bytes, cut into parts.
struct Sample {
    key: ObjectKey,
    bytes: Vec<u8>,
    part_size: u64,
}

impl Sample {
    /// Three parts, the last one short and of an odd length.
    fn new(store: &dyn StagingStore, key: &str, seed: u64) -> Result<Self, Box<dyn StdError + Send + Sync>> {
        let part_size = store.limits().min.max(64 << 10).next_multiple_of(4096);
        let len = usize::try_from(2 * part_size + part_size / 3 + 17)?;
        let mut state = seed;
        let byte = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        Ok(Self {
            key: key.parse()?,
            bytes: std::iter::repeat_with(byte).take(len).collect(),
            part_size,
        })
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Begins its upload as one that may become longer than it will.
    async fn begin(&self, store: &dyn StagingStore) -> Result<UploadId, Error> {
        let most = self.len() + 3 * self.part_size + 5;
        store.begin(&self.key, most, self.part_size).await
    }

    async fn complete(&self, store: &dyn StagingStore, upload: &UploadId, parts: &[Part]) -> Result<ObjectMeta, Error> {
        store.complete(&self.key, upload, self.len(), parts).await
    }

    /// Puts a part, in two pieces where it is long enough; the second one flows.
    async fn put(&self, store: &dyn StagingStore, upload: &UploadId, number: u32) -> Result<Part, Error> {
        let offset = u64::from(number) * self.part_size;
        let end = (offset + self.part_size).min(self.len());
        let part = &self.bytes[offset as usize..end as usize];
        let (front, back) = part.split_at(part.len() / 2 / 4096 * 4096);
        let body = if number == 1 {
            let (send, pieces) = tokio::sync::mpsc::channel(2);
            for piece in [front, back] {
                // There is room for both.
                let _ = send.try_send(Buf::copy_of(piece));
            }
            PartBody::flowing(part.len() as u64, pieces)
        } else {
            PartBody::held([Buf::copy_of(front), Buf::copy_of(back)])
        };
        store.put_part(&self.key, upload, number, offset, body).await
    }

    /// Uploads it in the plain way.
    async fn upload(&self, store: &dyn StagingStore) -> Result<ObjectMeta, Error> {
        let upload = self.begin(store).await?;
        let mut parts = Vec::new();
        for number in 0..3 {
            parts.push(self.put(store, &upload, number).await?);
        }
        self.complete(store, &upload, &parts).await
    }

    /// Compares ranges of the object: its start, across parts, at an odd offset, and its tail.
    async fn compare(&self, store: &dyn StagingStore, version: &str) -> Outcome {
        let len = self.bytes.len();
        let part = usize::try_from(self.part_size)?;
        for (offset, n) in [(0, 4096), (part - 4096, 8192), (12_345, 1001), (len - 17, 17), (0, len)] {
            let buf = store.read_one(&self.key, version, offset as u64, Buf::alone(n)).await?;
            ensure!(
                buf[..] == self.bytes[offset..offset + n],
                "{n} bytes at {offset} differ"
            );
        }
        let bufs = [4096, 1, 9000].map(Buf::alone);
        let bufs = store.read(&self.key, version, 4096, bufs.into()).await?;
        ensure!(
            bufs.iter().map(|buf| &buf[..]).collect::<Vec<_>>().concat() == self.bytes[4096..4096 + 13_097],
            "13097 bytes at 4096 in three buffers differ"
        );
        Ok(())
    }
}

fn kind_of<T>(outcome: Result<T, Error>) -> Option<Kind> {
    outcome.err().map(|error| error.kind())
}

/// Parts in parallel, out of order, and again; nothing of that name is there before the end.
async fn whole(subject: &dyn Subject) -> Outcome {
    let store = subject.open();
    let sample = Sample::new(&*store, "suite/whole/disk-0.qcow2", 1)?;
    store.check(sample.len()).await?;
    let upload = sample.begin(&*store).await?;
    let (last, first) = tokio::join!(sample.put(&*store, &upload, 2), sample.put(&*store, &upload, 0));
    let (second, again) = tokio::join!(sample.put(&*store, &upload, 1), sample.put(&*store, &upload, 2));
    last?;
    store.settle(&sample.key, &upload, None, &|| {}).await?;
    ensure!(
        store.head(&sample.key).await?.is_none(),
        "the object is there before it is complete"
    );
    let parts = [first?, second?, again?];
    let meta = sample.complete(&*store, &upload, &parts).await?;
    ensure!(
        meta.len == sample.len(),
        "{} bytes instead of {}",
        meta.len,
        sample.len()
    );
    let seen = store.head(&sample.key).await?;
    ensure!(
        seen.as_ref() == Some(&meta),
        "completed {meta:?}, but head says {seen:?}"
    );
    ensure!(
        store.parts(&sample.key, &upload).await? == Uploaded::Gone,
        "the upload outlives its completion"
    );
    sample.compare(&*store, &meta.version).await?;
    store.delete(&sample.key).await?;
    ensure!(store.head(&sample.key).await?.is_none(), "deleted, and still there");
    store.delete(&sample.key).await?;
    Ok(())
}

/// Whether these parts are listed, where the store keeps a list. It may leave out the last one of the object, which is short: not every
/// store can tell it from one that was cut.
async fn listed(store: &dyn StagingStore, key: &ObjectKey, upload: &UploadId, parts: &[Part]) -> Outcome {
    match store.parts(key, upload).await? {
        Uploaded::Unlisted => {}
        Uploaded::Parts(listed) => {
            let full: Vec<_> = parts.iter().filter(|part| part.number < 2).cloned().collect();
            ensure!(
                listed == parts || listed == full,
                "{parts:?} arrived, but {listed:?} are listed"
            );
        }
        Uploaded::Gone => return Err("the upload did not survive its process".into()),
    }
    Ok(())
}

/// Another process goes on with an upload, and sees its end.
async fn resume(subject: &dyn Subject) -> Outcome {
    let store = subject.open();
    let sample = Sample::new(&*store, "suite/resume/disk-0.qcow2", 2)?;
    let upload = sample.begin(&*store).await?;
    let mut parts = vec![sample.put(&*store, &upload, 1).await?];
    drop(store);

    let store = subject.open();
    listed(&*store, &sample.key, &upload, &parts).await?;
    parts.push(sample.put(&*store, &upload, 0).await?);
    parts.sort_by_key(|part| part.number);
    store.settle(&sample.key, &upload, None, &|| {}).await?;
    listed(&*subject.open(), &sample.key, &upload, &parts).await?;
    parts.push(sample.put(&*store, &upload, 2).await?);
    store.settle(&sample.key, &upload, Some(sample.len()), &|| {}).await?;
    let store = subject.open();
    listed(&*store, &sample.key, &upload, &parts).await?;
    let meta = sample.complete(&*store, &upload, &parts).await?;
    sample.compare(&*store, &meta.version).await?;

    let store = subject.open();
    ensure!(
        store.parts(&sample.key, &upload).await? == Uploaded::Gone,
        "a completed upload is still under way"
    );
    ensure!(
        store.head(&sample.key).await? == Some(meta),
        "another process does not see the completed object"
    );
    store.delete(&sample.key).await?;
    Ok(())
}

/// An abort ends every upload of its key, and of no other.
async fn abort(subject: &dyn Subject) -> Outcome {
    let store = subject.open();
    let sample = Sample::new(&*store, "suite/abort/disk", 3)?;
    let other = Sample::new(&*store, "suite/abort/disk.1", 4)?;
    let (first, second) = (sample.begin(&*store).await?, sample.begin(&*store).await?);
    let kept = other.begin(&*store).await?;
    for number in 0..2 {
        sample.put(&*store, &first, number).await?;
        sample.put(&*store, &second, number).await?;
    }
    sample.put(&*store, &first, 2).await?;
    store.settle(&sample.key, &first, None, &|| {}).await?;
    store.abort(&sample.key).await?;
    for upload in [&first, &second] {
        ensure!(
            store.parts(&sample.key, upload).await? == Uploaded::Gone,
            "an aborted upload is under way"
        );
        let kind = kind_of(sample.put(&*store, upload, 0).await);
        ensure!(kind == Some(Kind::UploadGone), "a part of an aborted upload: {kind:?}");
    }
    ensure!(
        store.head(&sample.key).await?.is_none(),
        "an aborted upload left an object"
    );
    ensure!(
        store.parts(&other.key, &kept).await? != Uploaded::Gone,
        "the abort of another key ended this upload"
    );
    store.abort(&other.key).await?;
    store.abort(&other.key).await?;
    let left = subject.leftovers().await;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

/// Completing onto an object that exists fails, and leaves it as it is.
async fn no_overwrite(subject: &dyn Subject) -> Outcome {
    let store = subject.open();
    let sample = Sample::new(&*store, "suite/taken/disk-0.qcow2", 5)?;
    let theirs = sample.upload(&*store).await?;
    let ours = Sample::new(&*store, "suite/taken/disk-0.qcow2", 6)?;
    let kind = kind_of(ours.upload(&*store).await);
    ensure!(kind == Some(Kind::NameTaken), "completing onto an object: {kind:?}");
    ensure!(
        store.head(&sample.key).await? == Some(theirs.clone()),
        "the object changed"
    );
    sample.compare(&*store, &theirs.version).await?;
    store.abort(&sample.key).await?;
    sample.compare(&*store, &theirs.version).await?;
    store.delete(&sample.key).await?;
    Ok(())
}

/// An upload with a part missing does not become an object.
async fn bad_parts(subject: &dyn Subject) -> Outcome {
    let store = subject.open();
    let sample = Sample::new(&*store, "suite/missing/disk-0.qcow2", 7)?;
    let upload = sample.begin(&*store).await?;
    let parts = [
        sample.put(&*store, &upload, 0).await?,
        sample.put(&*store, &upload, 2).await?,
    ];
    let complete = sample.complete(&*store, &upload, &parts).await;
    ensure!(complete.is_err(), "completed with a part missing");
    ensure!(
        store.head(&sample.key).await?.is_none(),
        "an object with a part missing"
    );
    store.abort(&sample.key).await?;
    Ok(())
}

/// An object that was replaced is not read as if it were the one that was opened.
async fn versions(subject: &dyn Subject) -> Outcome {
    let store = subject.open();
    let old = Sample::new(&*store, "suite/version/disk-0.qcow2", 8)?;
    let meta = old.upload(&*store).await?;
    store.read_one(&old.key, &meta.version, 0, Buf::alone(4096)).await?;
    let end = store
        .read_one(&old.key, &meta.version, meta.len - 10, Buf::alone(4096))
        .await;
    ensure!(end.is_err(), "a read past the end succeeds");

    let other = subject.open();
    other.delete(&old.key).await?;
    let kind = kind_of(store.read_one(&old.key, &meta.version, 4096, Buf::alone(4096)).await);
    ensure!(kind == Some(Kind::Changed), "reading a deleted object: {kind:?}");

    let new = Sample::new(&*store, "suite/version/disk-0.qcow2", 9)?;
    let replaced = new.upload(&*other).await?;
    ensure!(replaced.version != meta.version, "two objects, one version");
    let kind = kind_of(store.read_one(&old.key, &meta.version, 0, Buf::alone(4096)).await);
    ensure!(kind == Some(Kind::Changed), "reading a replaced object: {kind:?}");
    new.compare(&*store, &replaced.version).await?;
    store.delete(&new.key).await?;
    Ok(())
}

/// Notes are replaced as a whole and stand by themselves.
async fn notes(subject: &dyn Subject) -> Outcome {
    let store = subject.open();
    let key: ObjectKey = "suite/notes/disk-0.qcow2".parse()?;
    ensure!(store.note(&key).await?.is_none(), "a note before it was put");
    let (long, short) = ("long ".repeat(50_000), "short, ü");
    store.put_note(&key, &long).await?;
    ensure!(store.note(&key).await?.as_deref() == Some(&*long), "the note differs");
    ensure!(store.head(&key).await?.is_none(), "a note is taken for an object");
    store.put_note(&key, short).await?;
    let other = subject.open();
    ensure!(
        other.note(&key).await?.as_deref() == Some(short),
        "the note was not replaced"
    );
    for _ in 0..8 {
        let (wrote, seen) = tokio::join!(store.put_note(&key, &long), other.note(&key));
        wrote?;
        let seen = seen?;
        ensure!(
            [Some(&*long), Some(short)].contains(&seen.as_deref()),
            "half a note, of {:?} bytes",
            seen.map(|text| text.len())
        );
        store.put_note(&key, short).await?;
    }
    store.abort(&key).await?;
    store.delete(&key).await?;
    ensure!(store.note(&key).await?.is_some(), "the note went with the object");
    store.delete_note(&key).await?;
    store.delete_note(&key).await?;
    ensure!(store.note(&key).await?.is_none(), "deleted, and still there");
    Ok(())
}

/// What does not exist is said to be so, and removing it succeeds.
async fn absent(subject: &dyn Subject) -> Outcome {
    let store = subject.open();
    let sample = Sample::new(&*store, "suite/absent/disk-0.qcow2", 10)?;
    let nowhere = UploadId("no-such-upload".to_owned());
    ensure!(store.head(&sample.key).await?.is_none(), "an object that nobody put");
    ensure!(
        store.parts(&sample.key, &nowhere).await? == Uploaded::Gone,
        "an upload that nobody began"
    );
    let kind = kind_of(sample.put(&*store, &nowhere, 0).await);
    ensure!(kind == Some(Kind::UploadGone), "a part of no upload: {kind:?}");
    let kind = kind_of(store.read_one(&sample.key, "no-version", 0, Buf::alone(1)).await);
    ensure!(
        matches!(kind, Some(Kind::Changed | Kind::NotFound)),
        "reading nothing: {kind:?}"
    );
    store.abort(&sample.key).await?;
    store.delete(&sample.key).await?;
    store.delete_note(&sample.key).await?;
    Ok(())
}
