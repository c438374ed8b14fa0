//! Exports that are broken off, and what the next attempt makes of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vmferry_image::ImageFormat::Qcow2;
use vmferry_staging::StagingStore as _;

use super::support::*;
use crate::export::{Tuning, export_tuned};
use crate::{ExportSpec, Kind, Progress, Report};

const EXTENTS: [(u64, u64); 3] = [(4096, 3 * MIB), (6 * MIB + 70_000, 5 * MIB), (30 * MIB, 300_000)];
const CAPACITY: u64 = 32 * MIB;

async fn untroubled(disk: &std::path::Path) -> Report {
    let lab = Lab::new();
    let source = FileSource::raw(disk).await;
    export(&source, &*lab.store(), &spec(Qcow2, "frozen-1")).await.unwrap()
}

/// At every changing call of the store, in turn, the store dies: before the call or right after it did its work. The next
/// attempts, each by a new process, come to the same object, and send again at most what was in flight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_dies_at_any_call() {
    let disks = Lab::new();
    let disk = disks.disk("disk.raw", CAPACITY, &EXTENTS, 1);
    let expected = untroubled(&disk).await;
    for fault in [Fault::Before, Fault::After] {
        let mut patience = 0;
        loop {
            let lab = Lab::new();
            let source = FileSource::raw(&disk).await;
            let first = Faulty::new(lab.store(), patience, fault);
            let attempt = export(&source, &first, &spec(Qcow2, "frozen-1")).await;
            let finished = attempt.is_ok();
            if let Err(error) = attempt {
                assert_eq!(
                    error.kind(),
                    Kind::Staging(vmferry_staging::Kind::Unreachable),
                    "{error}"
                );
            }
            let second = Faulty::new(lab.store(), i64::MAX, fault);
            let source = FileSource::raw(&disk).await;
            let report = export(&source, &second, &spec(Qcow2, "frozen-1")).await.unwrap();
            assert_eq!(
                (report.len, report.checksum, report.content_digest),
                (expected.len, expected.checksum, expected.content_digest),
                "{fault:?} {patience}"
            );
            same_disk(&lab.path("staging/ns/migration/disk-0"), Qcow2, &disk);
            assert_eq!(lab.staged(), [".disk-0.note", "disk-0", "migration", "ns"]);
            let again = {
                let (first, second) = (first.puts.lock().unwrap(), second.puts.lock().unwrap());
                second.keys().filter(|number| first.contains_key(number)).count()
            };
            // The store died for the journal, too: what was in flight or just arrived is not on record.
            assert!(again <= 4, "{again} parts were sent again after {fault:?} {patience}");
            if finished {
                assert_eq!(report.moved, 0);
                break;
            }
            // Every call of the beginning; later, parts and journals take turns.
            patience += if patience < 6 { 1 } else { 2 };
        }
        assert!(patience > 12, "the export has fewer calls than parts: {patience}");
    }
}

/// The process dies at any time: the future is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_at_any_time() {
    let disks = Lab::new();
    let disk = disks.disk("disk.raw", CAPACITY, &EXTENTS, 1);
    let expected = untroubled(&disk).await;
    let lab = Lab::new();
    let mut micros = 500;
    let (mut attempts, mut moved) = (0, 0);
    let report = loop {
        let store = Faulty::new(lab.store(), i64::MAX, Fault::Before);
        let source = FileSource::raw(&disk).await;
        let spec = spec(Qcow2, "frozen-1");
        let attempt = export(&source, &store, &spec);
        let outcome = tokio::time::timeout(Duration::from_micros(micros), attempt).await;
        moved += store.puts.lock().unwrap().len();
        attempts += 1;
        match outcome {
            Ok(report) => break report.unwrap(),
            // What was on its way to the disk still lands there, as it would with a kernel that survives the process.
            Err(_) => micros += 1000,
        }
    };
    assert_eq!(
        (report.checksum, report.content_digest),
        (expected.checksum, expected.content_digest)
    );
    same_disk(&lab.path("staging/ns/migration/disk-0"), Qcow2, &disk);
    assert!(attempts > 3, "nothing was interrupted");
    assert!(moved <= 9 + 4 * attempts, "{moved} parts in {attempts} attempts");
}

#[tokio::test]
async fn called_off_it_stops_at_once_and_can_go_on() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", CAPACITY, &EXTENTS, 1);
    let (source, spec) = (FileSource::raw(&disk).await, spec(Qcow2, "frozen-1"));
    let (progress, cancel) = (Progress::default(), CancellationToken::new());
    let store = Faulty::new(lab.store(), i64::MAX, Fault::Before);
    let off = async {
        while progress.moved() < 2 * MIB {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(export_tuned(&*source, &store, &spec, &progress, &cancel, SMALL), off);
    let first = store.puts.lock().unwrap().clone();
    assert!(!first.is_empty());
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled, "{error}");

    let progress = Progress::default();
    let report = export_tuned(&*source, &store, &spec, &progress, &CancellationToken::new(), SMALL)
        .await
        .unwrap();
    let total = store.puts.lock().unwrap().clone();
    assert!(total.values().all(|times| *times == 1), "sent again: {total:?}");
    assert_eq!(report.moved, report.len - first.len() as u64 * MIB);
    assert_eq!(
        (progress.snapshot().done, progress.snapshot().total),
        (report.len, report.len)
    );
    same_disk(&lab.path("staging/ns/migration/disk-0"), Qcow2, &disk);
}

#[tokio::test]
async fn a_resumed_export_does_not_read_what_was_sent() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", CAPACITY, &[(0, 16 * MIB)], 1);
    let spec = spec(Qcow2, "frozen-1");
    let source = FileSource::raw(&disk).await;
    // Two for the journal, one to abort, one to begin; then parts and journals by turns.
    let store = Faulty::new(lab.store(), 24, Fault::Before);
    export(&source, &store, &spec).await.unwrap_err();
    let sent = store.puts.lock().unwrap().len() as u64;
    assert!(sent > 6, "{sent}");
    let source = FileSource::raw(&disk).await;
    export(&source, &*lab.store(), &spec).await.unwrap();
    let read = source.bytes.load(Ordering::Relaxed) as u64;
    assert!(
        read <= (16 - sent + 5) * MIB,
        "{} MiB were read after {sent} parts",
        read / MIB
    );
}

/// Another point in time: nothing of the first may be in the object.
#[tokio::test]
async fn another_frozen_state_starts_over() {
    let lab = Lab::new();
    let (old, new) = (
        lab.disk("old.raw", CAPACITY, &EXTENTS, 1),
        lab.disk("new.raw", CAPACITY, &EXTENTS, 99),
    );
    let source = FileSource::raw(&old).await;
    let store = Faulty::new(lab.store(), 14, Fault::Before);
    export(&source, &store, &spec(Qcow2, "frozen-1")).await.unwrap_err();
    assert!(!store.puts.lock().unwrap().is_empty());

    let source = FileSource::raw(&new).await;
    let report = export(&source, &*lab.store(), &spec(Qcow2, "frozen-2")).await.unwrap();
    assert_eq!(report.moved, report.len);
    same_disk(&lab.path("staging/ns/migration/disk-0"), Qcow2, &new);
    assert_eq!(lab.staged(), [".disk-0.note", "disk-0", "migration", "ns"]);

    // Also when the first one was whole: it is ours, and it is old.
    let source = FileSource::raw(&old).await;
    export(&source, &*lab.store(), &spec(Qcow2, "frozen-3")).await.unwrap();
    same_disk(&lab.path("staging/ns/migration/disk-0"), Qcow2, &old);
}

#[tokio::test]
async fn a_lost_frozen_state_leaves_nothing() {
    let lab = Lab::new();
    let source = FileSource::raw(&lab.disk("disk.raw", CAPACITY, &EXTENTS, 1)).await;
    source.gone.store(true, Ordering::Relaxed);
    let error = export(&source, &*lab.store(), &spec(Qcow2, "frozen-1"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::FrozenStateGone, "{error}");
    assert!(lab.staged().is_empty(), "{:?}", lab.staged());
}

#[tokio::test]
async fn a_name_that_is_not_ours_is_left_alone() {
    let lab = Lab::new();
    let source = FileSource::raw(&lab.disk("disk.raw", CAPACITY, &EXTENTS, 1)).await;
    let refused = async |spec: &ExportSpec| {
        let error = export(&source, &*lab.store(), spec).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Staging(vmferry_staging::Kind::NameTaken), "{error}");
        error.to_string()
    };
    let ours = spec(Qcow2, "frozen-1");
    std::fs::create_dir_all(lab.path("staging/ns/migration")).unwrap();
    let object = lab.path("staging/ns/migration/disk-0");
    std::fs::write(&object, "theirs").unwrap();
    refused(&ours).await;
    lab.store().put_note(&ours.object, "not a journal").await.unwrap();
    refused(&ours).await;
    assert_eq!(std::fs::read(&object).unwrap(), b"theirs");

    std::fs::remove_file(&object).unwrap();
    lab.store().delete_note(&ours.object).await.unwrap();
    export(&source, &*lab.store(), &ours).await.unwrap();
    let theirs = ExportSpec {
        owner: "uid-2".to_owned(),
        ..ours.clone()
    };
    assert!(refused(&theirs).await.contains("uid-1"));
    // Replaced behind our back: the journal does not vouch for it.
    std::fs::write(&object, "theirs").unwrap();
    refused(&ours).await;
    assert_eq!(std::fs::read(&object).unwrap(), b"theirs");
}

#[tokio::test]
async fn a_store_that_hangs_is_given_up() {
    let lab = Lab::new();
    let source = FileSource::raw(&lab.disk("disk.raw", CAPACITY, &EXTENTS, 1)).await;
    let store = Faulty::new(lab.store(), 9, Fault::Hang);
    let tuning = Tuning {
        stall: Some(Duration::from_millis(300)),
        ..SMALL
    };
    let started = Instant::now();
    let (progress, cancel) = (Progress::default(), CancellationToken::new());
    let error = export_tuned(&*source, &store, &spec(Qcow2, "frozen-1"), &progress, &cancel, tuning)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Stalled, "{error}");
    assert!(started.elapsed() < Duration::from_secs(3));
    export(&source, &*lab.store(), &spec(Qcow2, "frozen-1")).await.unwrap();
}

#[tokio::test]
async fn a_finished_export_is_not_done_again() {
    let lab = Lab::new();
    let source = FileSource::raw(&lab.disk("disk.raw", CAPACITY, &EXTENTS, 1)).await;
    let spec = spec(Qcow2, "frozen-1");
    let first = export(&source, &*lab.store(), &spec).await.unwrap();
    let read = source.bytes.load(Ordering::Relaxed);
    let second = export(&source, &*lab.store(), &spec).await.unwrap();
    assert_eq!(source.bytes.load(Ordering::Relaxed), read);
    assert_eq!(second, Report { moved: 0, ..first });
    let _: Arc<FileSource> = source;
}
