//! Whole jobs on the inline executor: disks that are files, staging that is a folder.

#![expect(clippy::unwrap_used, reason = "only tests are built from this")]

mod files;

use std::sync::Arc;
use std::time::{Duration, Instant};

use files::{Files, MIB, job};
use vmferry_engine::port::{Direction, DiskTarget, Executor, FailureKind, Job, JobId, JobState};
use vmferry_provider::{ImageFormat, VolumeId};
use vmferry_worker::InlineExecutor;

async fn end(executor: &InlineExecutor, id: &JobId) -> JobState {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        match executor.observe(id).await.unwrap() {
            JobState::Running(disks) => {
                assert_eq!(disks.len(), 2);
                assert!(Instant::now() < limit, "the job does not end");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            state => return state,
        }
    }
}

/// The import that follows an export.
fn import_after(export: &Job, state: &JobState, readback: bool) -> Job {
    let JobState::Succeeded(reports) = state else {
        panic!("{state:?}")
    };
    let mut import = export.clone();
    import.id = JobId("import-1".to_owned());
    import.direction = Direction::Import {
        provider: files::provider_key(),
        readback,
    };
    for (disk, report) in import.disks.iter_mut().zip(reports) {
        disk.target = Some(DiskTarget {
            volume: VolumeId(format!("{}-arrived", disk.name)),
            format: ImageFormat::Raw,
            capacity: disk.capacity + MIB,
            checksum: report.checksum.clone(),
            content_digest: report.content_digest.clone(),
        });
    }
    import
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_disks_go_there_and_arrive() {
    let files = Files::new(3 * MIB);
    let executor = InlineExecutor::new(files.connector(), files.store());
    let export = job(3 * MIB);
    assert_eq!(executor.observe(&export.id).await.unwrap(), JobState::Absent);
    let mut ended = executor.ended();
    executor.start(&export).await.unwrap();
    executor.start(&export).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(20), ended.changed()).await;
    told.unwrap().unwrap();
    assert_eq!(*ended.borrow(), 1, "one job ran, and whoever waits is told of its end");
    let exported = executor.observe(&export.id).await.unwrap();

    let import = import_after(&export, &exported, true);
    executor.start(&import).await.unwrap();
    let imported = end(&executor, &import.id).await;
    let (JobState::Succeeded(there), JobState::Succeeded(here)) = (&exported, &imported) else {
        panic!("{imported:?}")
    };
    let digests = |reports: &[vmferry_engine::port::DiskReport]| -> Vec<_> {
        reports
            .iter()
            .map(|report| (report.checksum.clone(), report.content_digest.clone()))
            .collect()
    };
    assert_eq!(digests(there), digests(here));
    for disk in ["vda", "vdb"] {
        let (from, to) = (files.read(disk), files.read(&format!("{disk}-arrived")));
        assert!(from[..] == to[..from.len()], "{disk} differs");
        assert_eq!(to.len(), from.len() + MIB as usize);
    }
    // Done is done: the same job again is the same outcome, and a new attempt moves nothing.
    executor.start(&export).await.unwrap();
    assert_eq!(executor.observe(&export.id).await.unwrap(), exported);
    let again = Job {
        id: JobId("export-2".to_owned()),
        ..export
    };
    executor.start(&again).await.unwrap();
    let JobState::Succeeded(reports) = end(&executor, &again.id).await else {
        panic!()
    };
    assert!(reports.iter().all(|report| report.moved == 0));
    assert!(executor.running().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_volume_that_gives_its_bytes_is_read_back() {
    let files = Files::new(3 * MIB);
    let executor = InlineExecutor::new(files.connector(), files.store());
    let export = job(3 * MIB);
    executor.start(&export).await.unwrap();
    let exported = end(&executor, &export.id).await;
    let mut counts = Vec::new();
    for (id, readback, is_sealed) in [("1", false, false), ("2", true, false), ("3", true, true)] {
        if is_sealed {
            files.seal_second_volume();
        }
        let mut import = import_after(&export, &exported, readback);
        import.id = JobId(format!("import-{id}"));
        let before = files.reads();
        executor.start(&import).await.unwrap();
        assert!(matches!(end(&executor, &import.id).await, JobState::Succeeded(_)));
        counts.push(files.reads() - before);
    }
    assert_eq!(counts[0], 0);
    assert!(counts[2] > 0 && counts[2] < counts[1], "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_called_off_moves_nothing_more_and_can_go_on() {
    let files = Files::new(24 * MIB);
    files.slow(Duration::from_millis(3));
    let executor = InlineExecutor::new(files.connector(), files.store());
    let export = job(24 * MIB);
    executor.start(&export).await.unwrap();
    while files.reads() < 6 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let running = executor.running();
    assert_eq!(running[0].disks[0].0, "vda");
    assert!(running[0].is_export);
    executor.cancel(&export.id).await.unwrap();
    executor.cancel(&export.id).await.unwrap();
    assert_eq!(executor.observe(&export.id).await.unwrap(), JobState::Absent);
    let (reads, staged) = (files.reads(), files.staged_bytes());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        (files.reads(), files.staged_bytes()),
        (reads, staged),
        "it goes on after it was called off"
    );

    files.slow(Duration::ZERO);
    executor.start(&export).await.unwrap();
    assert!(matches!(end(&executor, &export.id).await, JobState::Succeeded(_)));
}

#[tokio::test]
async fn failures_say_what_they_mean_for_the_migration() {
    let files = Files::new(MIB);
    let executor = InlineExecutor::new(files.connector(), files.store());
    let export = job(MIB);
    let attempt = async |job: &Job| {
        executor.start(job).await.unwrap();
        match end(&executor, &job.id).await {
            JobState::Failed(failure) => failure,
            state => panic!("{state:?}"),
        }
    };

    files.lose_frozen_state(true);
    assert_eq!(attempt(&export).await.kind, FailureKind::FrozenStateGone);
    files.lose_frozen_state(false);

    let mut grown = export.clone();
    grown.disks[1].capacity += 512;
    let failure = attempt(&grown).await;
    assert_eq!(failure.kind, FailureKind::FrozenStateGone);
    assert!(failure.message.contains("vdb"), "{failure:?}");

    let mut nowhere = export.clone();
    nowhere.storage.path = Some(files.path("missing").display().to_string());
    assert_eq!(attempt(&nowhere).await.kind, FailureKind::Permanent);

    let mut unknown = export.clone();
    let Direction::Export { provider, .. } = &mut unknown.direction else {
        panic!()
    };
    provider.name = "nobody".to_owned();
    let failure = attempt(&unknown).await;
    // It was validated, so it may come back.
    assert_eq!(failure.kind, FailureKind::Retryable);
    assert!(failure.message.contains("Provider ns/nobody"), "{failure:?}");

    // A failed job is started anew under the same id.
    executor.start(&export).await.unwrap();
    let exported = end(&executor, &export.id).await;
    let import = import_after(&export, &exported, false);
    let staged = files.path("staging/ns/vm/vda.qcow2");
    let mut bytes = std::fs::read(&staged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&staged, bytes).unwrap();
    let failure = attempt(&import).await;
    assert_eq!(failure.kind, FailureKind::StagedCorrupt, "{failure:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_stops_all_and_lets_nothing_start() {
    let files = Files::new(24 * MIB);
    files.slow(Duration::from_millis(5));
    let executor = Arc::new(InlineExecutor::new(files.connector(), files.store()));
    executor.start(&job(24 * MIB)).await.unwrap();
    executor.shutdown().await.unwrap();
    assert!(executor.running().is_empty());
    assert!(executor.start(&job(24 * MIB)).await.is_err());
}
