//! A VMDK that may have more parts than S3 takes, on a real server that is told to take four.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vmferry_block::Buf;
use vmferry_image::ImageFormat::Vmdk;
use vmferry_staging::faulty::{Call, Faulty, Trouble};
use vmferry_staging::s3::{Bucket, Settings, Spec};
use vmferry_staging::{HostPolicy, Kind as Staging, StagingStore};
use vmferry_testkit::front::Front;
use vmferry_testkit::stores::SeaweedFs;

use super::sent::{Sent, export_of, made};
use super::support::*;
use crate::export::{Tuning, export_tuned};
use crate::{Error, Kind, Progress, Report};

const PART: u64 = 5 * MIB;
const CAPACITY: u64 = 64 * MIB;
/// 40 MiB that do not pack: nine parts, the first of them direct, the others in segments of three.
const EXTENTS: [(u64, u64); 2] = [(MIB, 25 * MIB), (40 * MIB + 4096, 15 * MIB)];

const TUNING: Tuning = Tuning {
    part_size: Some(PART),
    stall: None,
    patience: Some((0, Duration::ZERO)),
};

/// The store, as a new process opens it.
fn open(weed: &SeaweedFs) -> Arc<dyn StagingStore> {
    Arc::new(bucket(&weed.url()).with_few_parts(4, 2 * PART))
}

fn bucket(url: &str) -> Bucket {
    let (access, secret) = SeaweedFs::KEY;
    let spec = Spec {
        bucket: Some(SeaweedFs::BUCKET),
        region: None,
        endpoint: Some(url),
    };
    let keys = |name: &str| match name {
        "accessKey" => Some(access.to_owned()),
        "secretKey" => Some(secret.to_owned()),
        _ => None,
    };
    let settings = Settings::from_secret(spec, keys, HostPolicy::default()).unwrap();
    Bucket::new(&settings).unwrap()
}

async fn export(source: &FileSource, store: &dyn StagingStore, cancel: &CancellationToken) -> Result<Report, Error> {
    export_tuned(
        source,
        store,
        &spec(Vmdk, "frozen-1"),
        &Progress::default(),
        cancel,
        TUNING,
    )
    .await
}

/// Fetches the object, and compares it by qemu-img and by its checksum; nothing but it and its journal is there.
async fn is_whole(lab: &Lab, weed: &SeaweedFs, report: &Report, raw: &Path) -> Vec<u8> {
    let (store, key) = (open(weed), spec(Vmdk, "").object);
    let meta = store.head(&key).await.unwrap().unwrap();
    assert_eq!(meta.len, report.len);
    let bytes = store
        .read_one(&key, &meta.version, 0, Buf::alone(meta.len as usize))
        .await
        .unwrap()
        .to_vec();
    let staged = lab.path("staged.vmdk");
    std::fs::write(&staged, &bytes).unwrap();
    qemu_img(&["check", "-f", "vmdk", staged.to_str().unwrap()]);
    same_disk(&staged, Vmdk, raw);
    let mut sum = vmferry_block::ObjectHash::default();
    sum.update(&bytes);
    assert_eq!(sum.finish(), report.checksum);
    let mut left = weed.everything(SeaweedFs::BUCKET);
    left.retain(|name| !name.ends_with("/disk-0") && !name.ends_with("/.disk-0.note"));
    assert!(left.is_empty(), "{left:?}");
    bytes
}

async fn remove(weed: &SeaweedFs) {
    let (store, key) = (open(weed), spec(Vmdk, "").object);
    store.abort(&key).await.unwrap();
    store.delete(&key).await.unwrap();
    store.delete_note(&key).await.unwrap();
    let left = weed.everything(SeaweedFs::BUCKET);
    assert!(left.is_empty(), "{left:?}");
}

/// Broken off before and after each of its calls in turn, killed in the middle, and gone on with by another process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vmdk_is_taken_up_in_segments() {
    let (lab, weed) = (Lab::new(), SeaweedFs::start());
    let raw = lab.disk("disk.raw", CAPACITY, &EXTENTS, 1);
    let source = FileSource::raw(&raw).await;
    let whole = export(&source, &*open(&weed), &CancellationToken::new()).await.unwrap();
    assert!(whole.len > 8 * PART, "{whole:?}");
    let bytes = is_whole(&lab, &weed, &whole, &raw).await;
    remove(&weed).await;

    let mut sent = BTreeMap::<u32, u64>::new();
    let kind = Staging::Unreachable;
    let troubles = [
        vec![Trouble::before(Call::PutPart, 4.., kind)],
        vec![Trouble::after(Call::Settle, 2.., kind)],
        vec![Trouble::before(Call::Settle, 1.., kind)],
        vec![Trouble::before(Call::Complete, 1.., kind)],
        vec![Trouble::after(Call::Complete, 1.., kind)],
    ];
    let count = |sent: &mut BTreeMap<u32, u64>, store: &Faulty| {
        for (number, times) in store.parts_put() {
            *sent.entry(number).or_default() += times;
        }
    };
    for troubles in troubles {
        let store = Faulty::new(open(&weed), troubles);
        let error = export(&source, &store, &CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Staging(kind), "{error}");
        count(&mut sent, &store);
    }
    let store = Faulty::new(open(&weed), []);
    let report = export(&source, &store, &CancellationToken::new()).await.unwrap();
    count(&mut sent, &store);
    assert_eq!(
        (report.len, report.checksum, report.content_digest),
        (whole.len, whole.checksum, whole.content_digest)
    );
    assert_eq!(sent.keys().copied().collect::<Vec<_>>(), (0..9).collect::<Vec<_>>());
    assert!(sent.values().all(|times| *times == 1), "sent again: {sent:?}");
    assert!(is_whole(&lab, &weed, &report, &raw).await == bytes);
    remove(&weed).await;

    // Cancelled while the store joins, and dropped at any moment, as a kill would.
    let store = Faulty::new(open(&weed), vec![Trouble::hang(Call::Settle, 1..)]);
    let cancel = CancellationToken::new();
    let cancelling = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        cancel.cancel();
    };
    let (cancelled, ()) = tokio::join!(export(&source, &store, &cancel), cancelling);
    assert_eq!(cancelled.unwrap_err().kind(), Kind::Cancelled);
    for wait in [100, 200, 300, 400] {
        let (store, cancel) = (open(&weed), CancellationToken::new());
        let killed = tokio::time::timeout(Duration::from_millis(wait), export(&source, &*store, &cancel));
        drop(killed.await);
    }
    let report = export(&source, &*open(&weed), &CancellationToken::new()).await.unwrap();
    assert!(is_whole(&lab, &weed, &report, &raw).await == bytes);
    remove(&weed).await;
}

/// It cannot be taken up: a failure in the middle begins it anew, and nothing of the first time stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_staged_in_segments() {
    let (lab, weed) = (Lab::new(), SeaweedFs::start());
    let (raw, bytes) = made(&lab, CAPACITY, &EXTENTS);
    let troubles = vec![Trouble::after(Call::PutPart, 7..=7, Staging::Unreachable)];
    let store = Faulty::new(open(&weed), troubles);
    let tuning = Tuning {
        patience: Some((3, Duration::from_millis(10))),
        ..TUNING
    };
    let (opened, report) = export_of(&store, |_| Sent::new(&bytes, CAPACITY), tuning).await;
    assert_eq!(opened, 2);
    assert!(is_whole(&lab, &weed, &report.unwrap(), &raw).await == bytes);
    remove(&weed).await;
}

/// Nothing is set otherwise: what only may become long is not copied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_of_terabytes_costs_no_copy() {
    let (lab, weed) = (Lab::new(), SeaweedFs::start());
    let (raw, bytes) = made(&lab, CAPACITY, &EXTENTS);
    let front = Front::to(&weed.address());
    let (url, tuning) = (front.url(), Tuning::default());
    for most in [500 << 30, 4 << 40] {
        front.forget();
        let sent = |_| Sent {
            most: Some(most),
            ..Sent::new(&bytes, CAPACITY)
        };
        let (_, report) = export_of(&bucket(&url), sent, tuning).await;
        is_whole(&lab, &weed, &report.unwrap(), &raw).await;
        assert_eq!(front.count("PUT", "disk-0?partNumber="), 3, "parts of 16 MiB");
        // The probe is all that there was of segments.
        assert_eq!(front.count("POST", ".segments/"), front.count("POST", "probe-copy"));
        remove(&weed).await;
    }
}
