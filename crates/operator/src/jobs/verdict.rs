//! From what is seen of a job to how it is doing.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job as KubeJob;
use vmferry_engine::port::JobState;

use super::SILENT;
use super::beat::Beat;
use super::names::run_of;

/// How a Job is doing.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// Its worker said what came of it, and has stopped.
    Ended(JobState),
    /// It is being deleted.
    Ending {
        /// Nothing was heard of its worker for so long that nobody has to wait for the pod.
        abandoned: bool,
    },
    /// No lease is there yet that its worker could take.
    Ungranted,
    /// Its worker has not begun yet.
    Waiting,
    /// Its worker should have begun by now.
    NotStarted,
    /// Its worker is alive.
    Alive,
    /// Its worker has ended without having said what came of it.
    Lost,
    /// Nothing was heard of its worker for so long that it has stopped moving bytes, wherever it is.
    Silent,
}

/// `age` says for how long the lease was as it is, `start_limit` for how long a worker may take to begin.
pub(super) fn verdict(job: &KubeJob, beat: Option<&Beat>, age: Duration, start_limit: Duration) -> Verdict {
    let run = run_of(job);
    let granted = beat.filter(|beat| beat.run == run);
    if let Some(outcome) = granted.and_then(|beat| beat.outcome.clone()) {
        return Verdict::Ended(outcome);
    }
    if job.metadata.deletion_timestamp.is_some() {
        let abandoned = age >= SILENT;
        return Verdict::Ending { abandoned };
    }
    if has_ended(job) {
        return Verdict::Lost;
    }
    match granted {
        None => Verdict::Ungranted,
        Some(beat) if beat.is_held_by(run) && age >= SILENT => Verdict::Silent,
        Some(beat) if beat.is_held_by(run) => Verdict::Alive,
        Some(_) if age >= start_limit => Verdict::NotStarted,
        Some(_) => Verdict::Waiting,
    }
}

/// Whether no pod of it will run any more.
fn has_ended(job: &KubeJob) -> bool {
    const ENDS: [&str; 4] = ["Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"];
    let Some(status) = &job.status else {
        return false;
    };
    let said = status.conditions.iter().flatten();
    let mut said = said.filter(|condition| condition.status == "True");
    status.failed.unwrap_or(0) > 0 || said.any(|condition| ENDS.contains(&condition.type_.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use vmferry_engine::port::{FailureKind, JobFailure};

    use super::super::names::RUN;
    use super::*;

    const LIMIT: Duration = Duration::from_mins(10);

    fn job(status: &Value, deleted: Option<&str>) -> KubeJob {
        let metadata = json!({ "annotations": { RUN: "r1" }, "deletionTimestamp": deleted });
        serde_json::from_value(json!({ "metadata": metadata, "status": status })).unwrap()
    }

    fn running() -> KubeJob {
        job(&json!({ "active": 1 }), None)
    }

    fn deleted() -> KubeJob {
        job(&json!({ "active": 1 }), Some("2026-01-01T00:00:00Z"))
    }

    fn failed() -> KubeJob {
        job(&json!({ "failed": 1 }), None)
    }

    fn beat(run: &str, holder: Option<&str>, holder_run: &str) -> Beat {
        Beat {
            run: run.to_owned(),
            holder: holder.map(str::to_owned),
            holder_run: holder_run.to_owned(),
            ..Beat::default()
        }
    }

    #[track_caller]
    fn check(job: &KubeJob, beat: Option<&Beat>, seconds: u64, expected: &Verdict) {
        assert_eq!(verdict(job, beat, Duration::from_secs(seconds), LIMIT), *expected);
    }

    #[test]
    fn a_worker_is_alive_until_it_is_silent() {
        let held = beat("r1", Some("pod"), "r1");
        check(&running(), Some(&held), 0, &Verdict::Alive);
        check(&running(), Some(&held), 19, &Verdict::Alive);
        check(&running(), Some(&held), 20, &Verdict::Silent);
    }

    #[test]
    fn a_worker_that_has_not_begun_is_waited_for_but_not_for_ever() {
        for free in [beat("r1", None, ""), beat("r1", Some("older pod"), "r0")] {
            check(&running(), Some(&free), 20, &Verdict::Waiting);
            check(&running(), Some(&free), 600, &Verdict::NotStarted);
        }
    }

    #[test]
    fn a_lease_of_another_run_says_nothing() {
        let mut other = beat("r0", Some("pod"), "r0");
        other.outcome = Some(JobState::Succeeded(Vec::new()));
        check(&running(), Some(&other), 0, &Verdict::Ungranted);
        check(&running(), None, 0, &Verdict::Ungranted);
    }

    #[test]
    fn an_outcome_counts_whatever_became_of_the_job() {
        let failure = JobFailure {
            kind: FailureKind::Permanent,
            message: "no".into(),
        };
        for outcome in [JobState::Succeeded(Vec::new()), JobState::Failed(failure)] {
            let mut said = beat("r1", None, "");
            said.outcome = Some(outcome.clone());
            for job in [running(), failed(), deleted()] {
                check(&job, Some(&said), 99, &Verdict::Ended(outcome.clone()));
            }
        }
    }

    #[test]
    fn a_job_that_ended_without_an_outcome_is_lost() {
        let held = beat("r1", Some("pod"), "r1");
        check(&failed(), Some(&held), 0, &Verdict::Lost);
        check(&failed(), None, 0, &Verdict::Lost);
        let condition = |name, status| json!({ "conditions": [{ "type": name, "status": status }] });
        check(
            &job(&condition("Complete", "True"), None),
            Some(&held),
            0,
            &Verdict::Lost,
        );
        check(
            &job(&condition("Failed", "False"), None),
            Some(&held),
            0,
            &Verdict::Alive,
        );
    }

    #[test]
    fn the_pod_of_a_deleted_job_is_waited_for_until_it_is_silent() {
        let held = beat("r1", Some("pod"), "r1");
        check(&deleted(), Some(&held), 19, &Verdict::Ending { abandoned: false });
        check(&deleted(), Some(&held), 20, &Verdict::Ending { abandoned: true });
    }
}
