//! Exports that are broken off, and what the next attempt makes of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vmferry_image::ImageFormat::{self, Qcow2, Vmdk};
use vmferry_staging::{Discarded, StagingStore as _, discard};

use super::support::*;
use crate::export::{Tuning, export_tuned};
use crate::{ExportSpec, Kind, Progress, Report};

const EXTENTS: [(u64, u64); 3] = [(4096, 3 * MIB), (6 * MIB + 70_000, 5 * MIB), (30 * MIB, 300_000)];
const CAPACITY: u64 = 32 * MIB;

async fn untroubled(disk: &std::path::Path, format: ImageFormat) -> Report {
    let lab = Lab::new();
    let source = FileSource::raw(disk).await;
    export(&source, &*lab.store(), &spec(format, "frozen-1")).await.unwrap()
}

/// The ways in which stores take parts: one at a time or several, with a list of those that arrived or without.
fn ways() -> [Ways; 4] {
    let listed = || Some(Arc::default());
    let way = |in_flight, listed| Ways {
        in_flight,
        listed,
        ..Ways::default()
    };
    [way(1, None), way(3, None), way(1, listed()), way(4, listed())]
}

/// How many parts may be sent again for each time that the store or the process dies.
fn at_risk(ways: &Ways) -> usize {
    if ways.listed.is_some() {
        0
    } else {
        ways.in_flight as usize
    }
}

/// At every changing call of the store, in turn, the store dies: before the call or right after it did its work. The next
/// attempt, by a new process, comes to the same object, and sends again at most what was under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_dies_at_any_call() {
    let disks = Lab::new();
    let disk = disks.disk("disk.raw", CAPACITY, &EXTENTS, 1);
    let expected = untroubled(&disk, Qcow2).await;
    for ways in ways() {
        for fault in [Fault::Before, Fault::After] {
            let mut patience = 0;
            while !dies_at(patience, fault, &ways, &disk, Qcow2, &expected).await {
                // Every call of the beginning; later, parts and journals take turns.
                patience += if patience < 6 { 1 } else { 3 };
            }
            assert!(patience > 10, "the export has fewer calls than parts: {patience}");
        }
    }
}

/// The same of a VMDK, whose parts end in the middle of what is packed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_dies_while_a_vmdk_is_packed() {
    let disks = Lab::new();
    let disk = disks.disk("disk.raw", CAPACITY, &EXTENTS, 1);
    let expected = untroubled(&disk, Vmdk).await;
    let [alone, _, _, listed] = ways();
    for (ways, fault) in [(alone, Fault::After), (listed, Fault::Before)] {
        let mut patience = 5;
        while !dies_at(patience, fault, &ways, &disk, Vmdk, &expected).await {
            patience += 1;
        }
        assert!(patience > 10, "the export has fewer calls than parts: {patience}");
    }
}

/// Whether the export came to its end before the store died.
async fn dies_at(
    patience: i64,
    fault: Fault,
    ways: &Ways,
    disk: &std::path::Path,
    format: ImageFormat,
    expected: &Report,
) -> bool {
    let lab = Lab::new();
    if let Some(listed) = &ways.listed {
        listed.lock().unwrap().clear();
    }
    let source = FileSource::raw(disk).await;
    let first = Faulty::new(lab.store(), patience, fault).with(ways.clone());
    let attempt = export(&source, &first, &spec(format, "frozen-1")).await;
    let finished = attempt.is_ok();
    if let Err(error) = attempt {
        let unreachable = Kind::Staging(vmferry_staging::Kind::Unreachable);
        assert_eq!(error.kind(), unreachable, "{error}");
    }
    let second = Faulty::new(lab.store(), i64::MAX, fault).with(ways.clone());
    let source = FileSource::raw(disk).await;
    let report = export(&source, &second, &spec(format, "frozen-1")).await.unwrap();
    assert_eq!(
        (report.len, report.checksum, report.content_digest),
        (expected.len, expected.checksum, expected.content_digest),
        "{fault:?} {patience} {ways:?}"
    );
    same_disk(&lab.path("staging/ns/migration/disk-0"), format, disk);
    assert_eq!(lab.staged(), [".disk-0.note", "disk-0", "migration", "ns"]);
    let again = {
        let (first, second) = (first.puts.lock().unwrap(), second.puts.lock().unwrap());
        second.keys().filter(|number| first.contains_key(number)).count()
    };
    // The store died for the journal, too.
    let most = at_risk(ways);
    assert!(
        again <= most,
        "{again} parts were sent again after {fault:?} {patience} {ways:?}"
    );
    assert!(!finished || report.moved == 0);
    finished
}

/// Connections break all the time: one pass follows the other, and it is one export.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_goes_on_by_itself() {
    let disks = Lab::new();
    let disk = disks.disk("disk.raw", CAPACITY, &EXTENTS, 1);
    let expected = untroubled(&disk, Qcow2).await;
    let tuning = Tuning {
        patience: Some((2, Duration::from_millis(1))),
        ..SMALL
    };
    for ways in ways() {
        for fault in [Fault::Before, Fault::After] {
            // A fault at every third call lets each pass put something, once there is an upload.
            let ways = Ways {
                one_of: 7,
                ..ways.clone()
            };
            if let Some(listed) = &ways.listed {
                listed.lock().unwrap().clear();
            }
            let (lab, source) = (Lab::new(), FileSource::raw(&disk).await);
            let store = Faulty::new(lab.store(), 5, fault).with(ways.clone());
            let (progress, cancel) = (Progress::default(), CancellationToken::new());
            let report = export_tuned(&*source, &store, &spec(Qcow2, "frozen-1"), &progress, &cancel, tuning)
                .await
                .unwrap();
            assert_eq!((report.checksum, report.len), (expected.checksum, expected.len));
            same_disk(&lab.path("staging/ns/migration/disk-0"), Qcow2, &disk);
            let faults = store.faults();
            assert!(faults > 0);
            let again: usize = store.puts.lock().unwrap().values().map(|times| times - 1).sum();
            assert!(
                again <= faults * at_risk(&ways),
                "{again} parts were sent again in {faults} faults"
            );
        }
    }
}

/// Parts that are too large for the memory flow past, and go on after a fault as others do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_parts_flow_past() {
    let disks = Lab::new();
    let disk = disks.disk("disk.raw", 80 * MIB, &[(0, 30 * MIB), (40 * MIB, 33 * MIB)], 1);
    let small = ExportSpec {
        memory: 0,
        ..spec(Qcow2, "frozen-1")
    };
    let expected = untroubled(&disk, Qcow2).await;
    let tuning = Tuning {
        part_size: Some(20 * MIB),
        patience: Some((2, Duration::from_millis(1))),
        ..SMALL
    };
    for fault in [Fault::Before, Fault::After] {
        let (lab, source) = (Lab::new(), FileSource::raw(&disk).await);
        let ways = Ways {
            one_of: 5,
            ..Ways::default()
        };
        let store = Faulty::new(lab.store(), 5, fault).with(ways);
        let (progress, cancel) = (Progress::default(), CancellationToken::new());
        let report = export_tuned(&*source, &store, &small, &progress, &cancel, tuning)
            .await
            .unwrap();
        assert_eq!((report.checksum, report.len), (expected.checksum, expected.len));
        same_disk(&lab.path("staging/ns/migration/disk-0"), Qcow2, &disk);
        assert!(store.faults() > 0);
        assert!(store.puts.lock().unwrap().len() == 4);
    }
}

/// The process dies at any time: the future is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_at_any_time() {
    let disks = Lab::new();
    let disk = disks.disk("disk.raw", CAPACITY, &EXTENTS, 1);
    let expected = untroubled(&disk, Qcow2).await;
    let lab = Lab::new();
    let mut micros = 500;
    let (mut attempts, mut moved) = (0, 0);
    let report = loop {
        let store = Faulty::new(lab.store(), i64::MAX, Fault::Before);
        let source = FileSource::raw(&disk).await;
        let spec = spec(Qcow2, "frozen-1");
        let attempt = export(&source, &store, &spec);
        let outcome = tokio::time::timeout(Duration::from_micros(micros), attempt).await;
        moved += store.puts.lock().unwrap().values().sum::<usize>();
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
    assert!(moved <= 9 + attempts, "{moved} parts in {attempts} attempts");
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

/// Whoever tidies up after a migration goes by the journal: what the export refused stays.
#[tokio::test]
async fn what_is_not_ours_is_not_tidied_up_either() {
    let lab = Lab::new();
    let source = FileSource::raw(&lab.disk("disk.raw", CAPACITY, &EXTENTS, 1)).await;
    let (ours, store) = (spec(Qcow2, "frozen-1"), lab.store());
    let object = lab.path("staging/ns/migration/disk-0");
    let discarded = async |recorded| discard(&*store, &ours.object, &ours.owner, recorded).await.unwrap();
    std::fs::create_dir_all(lab.path("staging/ns/migration")).unwrap();

    // There before us, with a note of another's and without.
    std::fs::write(&object, "theirs").unwrap();
    for note in ["not a journal", r#"{"owner": "uid-2", "sealed": {}}"#] {
        store.put_note(&ours.object, note).await.unwrap();
        export(&source, &*store, &ours).await.unwrap_err();
        assert_eq!(discarded(true).await, Discarded::NotOurs);
        assert_eq!(store.note(&ours.object).await.unwrap().as_deref(), Some(note));
    }
    store.delete_note(&ours.object).await.unwrap();
    export(&source, &*store, &ours).await.unwrap_err();
    assert_eq!(discarded(false).await, Discarded::NotOurs);
    assert_eq!(std::fs::read(&object).unwrap(), b"theirs");
    std::fs::remove_file(&object).unwrap();

    // It came while we were uploading, or when all but the name was there.
    for patience in (8..).step_by(3) {
        let dying = Faulty::new(lab.store(), patience, Fault::Before);
        if export(&source, &dying, &ours).await.is_ok() {
            assert_eq!(discarded(false).await, Discarded::All);
            break;
        }
        std::fs::write(&object, "theirs").unwrap();
        export(&source, &*lab.store(), &ours).await.unwrap_err();
        assert_eq!(discarded(false).await, Discarded::NotOurs);
        assert_eq!(lab.staged(), ["disk-0", "migration", "ns"]);
        assert_eq!(std::fs::read(&object).unwrap(), b"theirs");
        std::fs::remove_file(&object).unwrap();
    }

    // It came after ours was there.
    export(&source, &*store, &ours).await.unwrap();
    std::fs::write(&object, "theirs").unwrap();
    export(&source, &*store, &ours).await.unwrap_err();
    assert_eq!(discarded(false).await, Discarded::NotOurs);
    assert_eq!(std::fs::read(&object).unwrap(), b"theirs");
    std::fs::remove_file(&object).unwrap();

    // Ours goes: whole, in parts, and where its note was lost.
    export(&source, &*store, &ours).await.unwrap();
    assert_eq!(discarded(false).await, Discarded::All);
    let dying = Faulty::new(lab.store(), 12, Fault::Before);
    export(&source, &dying, &ours).await.unwrap_err();
    assert_eq!(discarded(false).await, Discarded::All);
    export(&source, &*store, &ours).await.unwrap();
    store.delete_note(&ours.object).await.unwrap();
    assert_eq!(discarded(true).await, Discarded::All);
    assert_eq!(lab.staged(), [""; 0]);
}

/// Where no rename refuses a name that is taken, the object gets its name by a second link: a kill may leave both.
#[tokio::test]
async fn a_kill_between_the_two_names_of_an_object_costs_nothing() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", CAPACITY, &EXTENTS, 1);
    let linked = async |frozen: &str| {
        let source = FileSource::raw(&disk).await;
        let ways = Ways {
            dies_linked: true,
            ..Ways::default()
        };
        let store = Faulty::new(lab.store(), i64::MAX, Fault::Before).with(ways);
        export(&source, &store, &spec(Qcow2, frozen)).await.unwrap_err();
        assert_eq!(lab.staged().len(), 5, "both names are there: {:?}", lab.staged());
    };
    for next in ["frozen-1", "frozen-2"] {
        linked("frozen-1").await;
        let source = FileSource::raw(&disk).await;
        let report = export(&source, &*lab.store(), &spec(Qcow2, next)).await.unwrap();
        assert_eq!(report.moved == 0, next == "frozen-1");
        same_disk(&lab.path("staging/ns/migration/disk-0"), Qcow2, &disk);
        assert_eq!(lab.staged(), [".disk-0.note", "disk-0", "migration", "ns"]);
        lab.store().delete(&spec(Qcow2, next).object).await.unwrap();
        lab.store().delete_note(&spec(Qcow2, next).object).await.unwrap();
    }
    // Another's object of the same length is not ours because we would have made it so long.
    linked("frozen-1").await;
    let object = lab.path("staging/ns/migration/disk-0");
    let theirs = vec![7; std::fs::metadata(&object).unwrap().len() as usize];
    std::fs::remove_file(&object).unwrap();
    std::fs::write(&object, &theirs).unwrap();
    let source = FileSource::raw(&disk).await;
    let error = export(&source, &*lab.store(), &spec(Qcow2, "frozen-1"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Staging(vmferry_staging::Kind::NameTaken), "{error}");
    assert!(std::fs::read(&object).unwrap() == theirs);
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
