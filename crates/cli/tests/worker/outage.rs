//! The API server is away in mid-transfer.

use std::time::Duration;

use vmferry_engine::port::{Executor, JobState};

use crate::bed::{Bed, SLOWLY, lives};

#[tokio::test(flavor = "multi_thread")]
async fn a_short_outage_is_nothing_and_a_long_one_costs_a_worker() {
    let mut bed = Bed::new().await;
    let executor = bed.executor().await;
    let job = bed.job(0, Some(SLOWLY / 8));
    let worker = bed.under_way(&executor, &job).await;

    bed.cluster.kill_api_server();
    assert!(!matches!(executor.observe(&job.id).await, Ok(JobState::Absent)));
    tokio::time::sleep(Duration::from_secs(2)).await;
    bed.cluster.start_api_server();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(matches!(executor.observe(&job.id).await, Ok(JobState::Running(_))));
    assert!(lives(worker.pid), "{}", bed.kubelet.logs());

    bed.cluster.kill_api_server();
    bed.until("the worker stopped", async || (!lives(worker.pid)).then_some(()))
        .await;
    let staged = bed.staged();
    // Nobody knows what became of it, so nothing is said and nothing is done.
    assert!(!matches!(
        executor.observe(&job.id).await,
        Ok(JobState::Absent | JobState::Failed(_))
    ));
    bed.cluster.start_api_server();
    assert_eq!(bed.staged(), staged);
    let report = bed.to_the_end(&executor, &bed.job(0, None)).await;
    assert!(report.moved < report.len, "{report:?}");
    bed.assert_staged();
}
