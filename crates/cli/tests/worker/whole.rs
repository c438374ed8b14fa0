//! Jobs from start to end: run, called off, asked for by two controllers at once.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job as KubeJob;
use k8s_openapi::api::core::v1::Secret;
use vmferry_engine::port::{Executor, FailureKind, JobId, JobState};

use crate::bed::{Bed, DATA, SLOWLY, lives};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_and_reports_whoever_asks_and_however_often() {
    let bed = Bed::new().await;
    let (one, other) = (bed.executor().await, bed.executor().await);
    let job = bed.job(0, Some(SLOWLY));
    assert_eq!(one.observe(&job.id).await.unwrap(), JobState::Absent);
    // As when a controller believes that it leads, and another one does.
    let (first, second) = tokio::join!(one.start(&job), other.start(&job));
    first.unwrap();
    second.unwrap();
    assert_eq!(bed.names::<KubeJob>().await, [format!("vmferry-{}", job.id)]);
    bed.under_way(&one, &job).await;
    assert_eq!(bed.kubelet.running().len(), 1);
    // The Secret was read when it was needed; what is under way does not need it any more.
    bed.delete::<Secret>("key").await;
    let (report, same) = tokio::join!(bed.to_the_end(&one, &job), bed.to_the_end(&other, &job));
    assert_eq!(report, same);
    assert!(report.moved >= DATA && report.moved == report.len, "{report:?}");
    bed.assert_staged();
    other.cancel(&job.id).await.unwrap();
    one.cancel(&job.id).await.unwrap();
    bed.assert_nothing_left().await;
    assert_eq!(one.observe(&job.id).await.unwrap(), JobState::Absent);

    // The next one has no Secret to begin with.
    let next = bed.job(1, None);
    one.start(&next).await.unwrap();
    let failure = bed
        .until("it failed", async || match one.observe(&next.id).await.unwrap() {
            JobState::Failed(failure) => Some(failure),
            _ => None,
        })
        .await;
    assert!(
        failure.message.contains("cannot find Secret default/key"),
        "{failure:?}"
    );
    // It was there when the migration was validated, and may be applied again.
    assert_eq!(failure.kind, FailureKind::Retryable);
    one.cancel(&next.id).await.unwrap();
    bed.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_called_off_moves_no_byte_more() {
    let bed = Bed::new().await;
    let executor = bed.executor().await;
    let job = bed.job(0, Some(SLOWLY));
    let worker = bed.under_way(&executor, &job).await;
    executor.cancel(&job.id).await.unwrap();
    assert!(!lives(worker.pid));
    bed.assert_nothing_left().await;
    let staged = bed.staged();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bed.staged(), staged);
    assert_eq!(executor.observe(&job.id).await.unwrap(), JobState::Absent);
    // What is not there is called off already.
    executor.cancel(&JobId(format!("{}9", job.id))).await.unwrap();

    // What arrived is not sent again.
    let report = bed.to_the_end(&executor, &bed.job(1, None)).await;
    assert!(report.moved < report.len, "{report:?}");
    bed.assert_staged();
}
