//! Workers that are lost: killed, cut off, forbidden to go on. It is noticed in time, and the next one goes on where they were.

use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job as KubeJob;
use kube::api::DeleteParams;
use vmferry_engine::port::{Executor, JobState};

use crate::bed::{Bed, SLOWLY, lives, signal};

/// How long the loss of a worker may go unnoticed.
const NOTICED: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_noticed_and_the_next_one_goes_on() {
    let bed = Bed::new().await;
    let executor = bed.executor().await;
    let job = bed.job(0, Some(SLOWLY));
    let worker = bed.under_way(&executor, &job).await;
    signal(worker.pid, "KILL");
    let noticed = bed.until_absent(&executor, &job.id).await;
    assert!(noticed < NOTICED, "{noticed:?}");
    // As when the controller was killed as well: another one goes on.
    let report = bed.to_the_end(&*bed.executor().await, &job).await;
    assert!(report.moved < report.len, "{report:?}");
    bed.assert_staged();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_silent_is_given_up_and_never_moves_a_byte_again() {
    let bed = Bed::new().await;
    let executor = bed.executor().await;
    let job = bed.job(0, Some(SLOWLY));
    let worker = bed.under_way(&executor, &job).await;
    // As when its node is cut off, or stands still.
    signal(worker.pid, "STOP");
    let noticed = bed.until_absent(&executor, &job.id).await;
    assert!(noticed < NOTICED, "{noticed:?}");
    let report = bed.to_the_end(&executor, &job).await;
    assert!(report.moved < report.len, "{report:?}");
    bed.assert_staged();
    // It comes back to a world that went on without it.
    if lives(worker.pid) {
        signal(worker.pid, "CONT");
    }
    bed.until("it ended itself", async || (!lives(worker.pid)).then_some(()))
        .await;
    bed.assert_staged();
    executor.cancel(&job.id).await.unwrap();
    bed.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_its_role_stops_and_the_next_one_goes_on_when_it_has_it_again() {
    let bed = Bed::new().await;
    let executor = bed.executor().await;
    let job = bed.job(0, Some(SLOWLY / 4));
    let worker = bed.under_way(&executor, &job).await;
    bed.deny().await;
    let revoked = Instant::now();
    bed.until("the worker stopped", async || (!lives(worker.pid)).then_some(()))
        .await;
    assert!(revoked.elapsed() < Duration::from_secs(20), "{:?}", revoked.elapsed());
    bed.until_absent(&executor, &job.id).await;
    assert!(revoked.elapsed() < NOTICED, "{:?}", revoked.elapsed());
    bed.allow().await;
    let report = bed.to_the_end(&executor, &bed.job(0, None)).await;
    assert!(report.moved < report.len, "{report:?}");
    bed.assert_staged();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_somebody_else_deleted_is_started_again_and_only_one_worker_moves() {
    let bed = Bed::new().await;
    let executor = bed.executor().await;
    let job = bed.job(0, Some(SLOWLY));
    let worker = bed.under_way(&executor, &job).await;
    // In the background: the Job is gone at once, and its worker still moves.
    let name = format!("vmferry-{}", job.id);
    bed.api::<KubeJob>()
        .delete(&name, &DeleteParams::background())
        .await
        .unwrap();
    signal(worker.pid, "STOP");
    bed.until("another worker is there", async || {
        if executor.observe(&job.id).await.unwrap() == JobState::Absent {
            executor.start(&job).await.unwrap();
        }
        bed.kubelet.running().into_iter().find(|other| other.pid != worker.pid)
    })
    .await;
    // The old one holds the lease: nothing moves, however long it stands still.
    let staged = bed.staged();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bed.staged(), staged);
    signal(worker.pid, "CONT");
    let report = bed.to_the_end(&executor, &job).await;
    assert!(report.moved < report.len, "{report:?}");
    assert!(!lives(worker.pid));
    bed.assert_staged();
}
