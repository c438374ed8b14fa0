//! Disks that come as streams, and staged objects that are handed on as they are.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use vmferry_block::Buf;
use vmferry_image::ImageFormat::{self, Qcow2, Raw, Vmdk};
use vmferry_provider::DiskSink;
use vmferry_staging::StagingStore as _;

use super::sent::{self, Sent, export_of};
use super::support::*;
use crate::export::Tuning;
use crate::{Import, Kind, Progress, Report, TargetForm};

const CAPACITY: u64 = 20 * MIB;
const EXTENTS: [(u64, u64); 4] = [
    (0, 70_000),
    (5 * MIB + 4096, 3 * MIB),
    (9 * MIB, 512),
    (20 * MIB - 512, 512),
];

fn made(lab: &Lab) -> (PathBuf, Vec<u8>) {
    sent::made(lab, CAPACITY, &EXTENTS)
}

fn whole(bytes: &[u8]) -> Sent {
    Sent::new(bytes, CAPACITY)
}

/// A sink that takes bytes in order, and each once.
#[derive(Default)]
struct InOrder {
    bytes: Mutex<Vec<u8>>,
    finished: Mutex<Option<u64>>,
}

#[async_trait]
impl DiskSink for InOrder {
    fn concurrency(&self) -> usize {
        1
    }

    async fn write(&self, offset: u64, buf: Buf) -> Result<(), vmferry_provider::Error> {
        let mut bytes = self.bytes.lock().unwrap();
        assert_eq!(offset, bytes.len() as u64, "out of order");
        bytes.extend_from_slice(&buf);
        Ok(())
    }

    async fn finish(&self, len: u64) -> Result<(), vmferry_provider::Error> {
        *self.finished.lock().unwrap() = Some(len);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_staged_as_it_is_and_arrives() {
    let lab = Lab::new();
    let (raw, bytes) = made(&lab);
    let (opened, sent) = export_of(&*lab.store(), |_| whole(&bytes), SMALL).await;
    let sent = sent.unwrap();
    assert_eq!(
        (opened, sent.len, sent.moved),
        (1, bytes.len() as u64, bytes.len() as u64)
    );
    assert!(std::fs::read(lab.path("staging/ns/migration/disk-0")).unwrap() == bytes);

    // The same disk, read at any offset, has the same content.
    let other = Lab::new();
    let random = export(&*FileSource::raw(&raw).await, &*other.store(), &spec(Qcow2, "frozen-1"))
        .await
        .unwrap();
    assert_eq!(sent.content_digest, random.content_digest);

    for target in [Raw, Qcow2] {
        let spec = import_spec(&spec(Vmdk, "frozen-1"), &sent, CAPACITY, target);
        let volume = lab.path("volume");
        let sink = FileSink::anew(&volume, 4).await;
        let got = import(lab.store(), spec, sink).await.unwrap();
        assert_eq!((got.checksum, got.content_digest), (sent.checksum, sent.content_digest));
        same_disk(&volume, target, &raw);
    }

    // It is there, so nothing is read again.
    let (_, again) = export_of(&*lab.store(), |_| whole(b""), SMALL).await;
    assert_eq!(again.unwrap(), Report { moved: 0, ..sent });
}

/// At each length that a cut may leave: within the header, a grain, the tables, right before the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_early_or_is_damaged_is_no_object() {
    let lab = Lab::new();
    let (_, bytes) = made(&lab);
    let len = bytes.len();
    for cut in [0, 100, 512, 70_000, len / 2, MIB as usize, len - len % MIB as usize] {
        let (_, sent) = export_of(&*lab.store(), |_| whole(&bytes[..cut]), SMALL).await;
        let error = sent.unwrap_err();
        assert_eq!(
            error.kind(),
            Kind::Source(vmferry_provider::Kind::Failed),
            "{cut}: {error}"
        );
        assert!(!lab.path("staging/ns/migration/disk-0").exists(), "{cut}");
    }
    let mut damaged = bytes.clone();
    for byte in &mut damaged[len / 2..len / 2 + 64] {
        *byte ^= 0x55;
    }
    let (_, sent) = export_of(&*lab.store(), |_| whole(&damaged), SMALL).await;
    assert_eq!(sent.unwrap_err().kind(), Kind::Source(vmferry_provider::Kind::Failed));
    let (_, sent) = export_of(&*lab.store(), |_| whole(&bytes), SMALL).await;
    assert_eq!(sent.unwrap().len, len as u64);
}

/// Asserts that a stream is refused for good: it is opened once, and nothing is staged.
async fn refused(lab: &Lab, make: impl Fn(usize) -> Sent + Send + Sync, word: &str) {
    let (opened, sent) = export_of(&*lab.store(), make, SMALL).await;
    let error = sent.unwrap_err();
    let kind = Kind::Source(vmferry_provider::Kind::Unsupported);
    assert_eq!((opened, error.kind()), (1, kind), "{error}");
    assert!(error.to_string().contains(word), "{error}");
    assert!(!lab.path("staging/ns/migration/disk-0").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_a_disk_of_another_size_is_refused() {
    let lab = Lab::new();
    let (_, bytes) = made(&lab);
    for capacity in [CAPACITY - 512, CAPACITY + 512, 2 * CAPACITY] {
        refused(&lab, |_| Sent::new(&bytes, capacity), &capacity.to_string()).await;
    }
    // The last sector of the disk need not be whole.
    let (_, sent) = export_of(&*lab.store(), |_| Sent::new(&bytes, CAPACITY - 1), SMALL).await;
    sent.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_grains_are_out_of_order_is_refused() {
    let lab = Lab::new();
    let (_, mut bytes) = made(&lab);
    // The overhead is where the first grain begins; each is a place, a length and its data, up to a whole sector.
    let first = 512 * usize::try_from(u64::from_le_bytes(bytes[64..72].try_into().unwrap())).unwrap();
    let len = |at: usize| {
        let data = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap());
        (12 + data as usize).next_multiple_of(512)
    };
    let (one, other) = (len(first), len(first + len(first)));
    bytes[first..first + one + other].rotate_left(one);
    refused(&lab, |_| whole(&bytes), "out of order").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_did_not_hold_leaves_nothing() {
    let lab = Lab::new();
    let (_, bytes) = made(&lab);
    let gone = |_| Sent {
        finish: Some(vmferry_provider::Kind::FrozenStateGone),
        ..whole(&bytes)
    };
    let (_, sent) = export_of(&*lab.store(), gone, SMALL).await;
    assert_eq!(sent.unwrap_err().kind(), Kind::FrozenStateGone);
    assert!(
        lab.staged().iter().all(|name| !name.contains("disk-0")),
        "{:?}",
        lab.staged()
    );
}

/// The store fails once, at each of its changing calls in turn: the stream is read again from its front.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_in_between_gets_it_once_more() {
    let disks = Lab::new();
    let (_, bytes) = made(&disks);
    let tuning = Tuning {
        patience: Some((2, std::time::Duration::from_millis(1))),
        ..SMALL
    };
    let mut calls = 0;
    loop {
        let lab = Lab::new();
        let once = Ways {
            one_of: i64::MAX,
            ..Ways::default()
        };
        let store = Faulty::new(lab.store(), calls, Fault::Before).with(once);
        let (opened, sent) = export_of(&store, |_| whole(&bytes), tuning).await;
        assert_eq!(sent.unwrap().len, bytes.len() as u64, "{calls}");
        assert!(std::fs::read(lab.path("staging/ns/migration/disk-0")).unwrap() == bytes);
        if store.faults() == 0 {
            break;
        }
        assert_eq!(opened, 2, "{calls}");
        calls += 1;
    }
    assert!(calls > 6, "an upload has more calls than that: {calls}");
}

/// Every pass moves bytes, and none comes to the end: that is not gone on with for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_always_fails_late_is_given_up() {
    let disks = Lab::new();
    let (_, bytes) = made(&disks);
    let tuning = Tuning {
        patience: Some((2, std::time::Duration::from_millis(1))),
        ..SMALL
    };
    let lab = Lab::new();
    let opened = AtomicUsize::new(0);
    let store = Faulty::new(lab.store(), 6, Fault::Before).with(Ways {
        one_of: 7,
        ..Ways::default()
    });
    let make = |_| {
        opened.fetch_add(1, Ordering::SeqCst);
        whole(&bytes)
    };
    let (_, sent) = export_of(&store, make, tuning).await;
    assert_eq!(
        sent.unwrap_err().kind(),
        Kind::Staging(vmferry_staging::Kind::Unreachable)
    );
    assert_eq!(opened.into_inner(), 3);
}

async fn handed_on(lab: &Lab, raw: &Path, format: ImageFormat, reads: i64) {
    let (spec, sink) = (spec(format, "frozen-1"), Arc::new(InOrder::default()));
    let sent = export(&*FileSource::raw(raw).await, &*lab.store(), &spec)
        .await
        .unwrap();
    let mut spec = import_spec(&spec, &sent, CAPACITY, format);
    spec.form = TargetForm::Object;
    let store = Arc::new(Faulty::new(lab.store(), i64::MAX, Fault::Before).fails_to_read(reads));
    let cancel = CancellationToken::new();
    let import = Import::open(Arc::clone(&store) as _, spec, &cancel).await.unwrap();
    assert_eq!((import.target_len(), import.written()), (sent.len, 0));
    let got = import
        .run(Arc::clone(&sink) as _, &Progress::default(), &cancel)
        .await
        .unwrap();
    assert_eq!(
        (got.len, got.checksum, got.content_digest),
        (sent.len, sent.checksum, sent.content_digest)
    );
    assert!(*sink.bytes.lock().unwrap() == std::fs::read(lab.path("staging/ns/migration/disk-0")).unwrap());
    assert_eq!(*sink.finished.lock().unwrap(), Some(sent.len));
    lab.store().delete(&import_key()).await.unwrap();
    lab.store().delete_note(&import_key()).await.unwrap();
}

fn import_key() -> vmferry_staging::ObjectKey {
    spec(Vmdk, "frozen-1").object
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_handed_on_byte_for_byte() {
    let lab = Lab::new();
    let raw = lab.disk("disk.raw", CAPACITY, &EXTENTS, 1);
    for format in [Vmdk, Qcow2, Raw] {
        handed_on(&lab, &raw, format, i64::MAX).await;
        // The store's reads fail now and then.
        handed_on(&lab, &raw, format, 2).await;
    }
}

/// What is not what was exported is never finished.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_object_is_not_handed_on_to_its_end() {
    let lab = Lab::new();
    let raw = lab.disk("disk.raw", CAPACITY, &EXTENTS, 1);
    for format in [Vmdk, Qcow2] {
        let spec = spec(format, "frozen-1");
        let sent = export(&*FileSource::raw(&raw).await, &*lab.store(), &spec)
            .await
            .unwrap();
        let object = lab.path("staging/ns/migration/disk-0");
        let mut bytes = std::fs::read(&object).unwrap();
        let middle = bytes.len() - 300_000;
        bytes[middle] ^= 1;
        std::fs::write(&object, bytes).unwrap();
        let mut spec = import_spec(&spec, &sent, CAPACITY, format);
        spec.form = TargetForm::Object;
        let (cancel, sink) = (CancellationToken::new(), Arc::new(InOrder::default()));
        let import = Import::open(lab.store(), spec, &cancel).await.unwrap();
        let got = import.run(Arc::clone(&sink) as _, &Progress::default(), &cancel).await;
        assert_eq!(got.unwrap_err().kind(), Kind::StagedCorrupt);
        assert_eq!(*sink.finished.lock().unwrap(), None);
        lab.store().delete(&import_key()).await.unwrap();
        lab.store().delete_note(&import_key()).await.unwrap();
    }
}
