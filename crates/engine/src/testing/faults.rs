//! The important tests: a crash or a failure at every port call in turn, and random mishaps in any number.

use proptest::prelude::*;
use vmferry_api::names::{ANNOTATION_CANCEL, ANNOTATION_RETRY};
use vmferry_api::{CleanupPolicy, GoDuration, RetryPolicy};

use super::world::{Inject, World};
use super::{Drive, End};
use crate::port::FailureKind;

/// Runs a migration of two disks with these mishaps; gives its end and how many calls were made.
fn run(plan: &[(u64, Inject)], policy: CleanupPolicy) -> (End, Vec<&'static str>) {
    let mut drive = Drive::new(World::new(2));
    drive.world.state().plan = plan.iter().copied().collect();
    let key = drive.add(|migration| migration.spec.cleanup_policy = policy);
    let end = drive.run(&key);
    let trace = drive.world.state().trace.clone();
    (end, trace)
}

fn policies() -> [CleanupPolicy; 3] {
    let policy = |delete_intermediate, delete_snapshot, delete_source| CleanupPolicy {
        delete_intermediate,
        delete_snapshot,
        delete_source,
    };
    [
        policy(true, true, false),
        policy(false, false, false),
        policy(true, true, true),
    ]
}

/// Each of these mishaps at each port call in turn; `expect` is how each must end.
fn at_every_call(injects: &[Inject], policies: &[CleanupPolicy], expect: &[End]) {
    for policy in policies.iter().copied() {
        let (end, trace) = run(&[], policy);
        assert_eq!(end, End::Ready);
        assert!(trace.len() > 60, "{}", trace.len());
        for (index, name) in trace.iter().enumerate() {
            for inject in injects {
                let (end, _) = run(&[(index as u64 + 1, *inject)], policy);
                assert!(
                    expect.contains(&end),
                    "{inject:?} at call {} ({name}): {end:?}",
                    index + 1
                );
            }
        }
    }
}

#[test]
fn a_crash_before_or_after_any_port_call_and_any_write_changes_nothing() {
    let mut injects = Vec::new();
    for after in [false, true] {
        for jobs_too in [false, true] {
            injects.push(Inject::Crash { after, jobs_too });
        }
    }
    at_every_call(&injects, &policies(), &[End::Ready]);
}

#[test]
fn a_passing_failure_of_any_port_call_is_got_over() {
    let injects = [false, true].map(|after| Inject::Fail {
        permanent: false,
        after,
    });
    at_every_call(&injects, &policies(), &[End::Ready]);
}

#[test]
fn a_restarted_vm_and_rotten_objects_are_got_over_at_any_time() {
    let injects = [Inject::Restart, Inject::Corrupt, Inject::WrongBytes];
    at_every_call(&injects, &policies()[..1], &[End::Ready]);
}

#[test]
fn a_lost_or_failing_job_is_got_over_at_any_time() {
    let injects = [
        Inject::LoseJobs,
        Inject::FailJobs(FailureKind::Retryable),
        Inject::FailJobs(FailureKind::FrozenStateGone),
        Inject::FailJobs(FailureKind::StagedCorrupt),
    ];
    at_every_call(&injects, &policies()[..1], &[End::Ready]);
}

#[test]
fn a_lasting_failure_of_any_port_call_leaves_nothing_behind() {
    let injects = [false, true].map(|after| Inject::Fail { permanent: true, after });
    at_every_call(&injects, &policies(), &[End::Ready, End::Failed]);
}

#[test]
fn a_deletion_at_any_time_leaves_nothing_behind() {
    at_every_call(&[Inject::Delete], &policies(), &[End::Gone, End::Ready]);
}

#[test]
fn a_cancellation_at_any_time_leaves_nothing_behind() {
    let cancel = Inject::Annotate(ANNOTATION_CANCEL, "now");
    at_every_call(&[cancel], &policies(), &[End::Failed, End::Ready]);
}

#[test]
fn a_retry_that_is_asked_for_at_any_time_does_no_harm() {
    let retry = Inject::Annotate(ANNOTATION_RETRY, "now");
    at_every_call(&[retry], &policies()[..1], &[End::Ready]);
}

#[test]
fn clean_up_survives_a_crash_or_failure_at_any_call_too() {
    // A failure late enough that everything is there to be undone, then one more mishap at every call after it.
    let (_, trace) = run(&[], policies()[0]);
    let create = trace.iter().position(|name| *name == "target.create_vm").unwrap() as u64 + 1;
    for first in [
        Inject::Fail {
            permanent: true,
            after: true,
        },
        Inject::Delete,
        Inject::Annotate(ANNOTATION_CANCEL, "now"),
    ] {
        let (end, trace) = run(&[(create, first)], policies()[0]);
        assert!(end == End::Failed || end == End::Gone);
        for call in create + 1..=trace.len() as u64 {
            for after in [false, true] {
                for inject in [
                    Inject::Crash { after, jobs_too: true },
                    Inject::Fail {
                        permanent: false,
                        after,
                    },
                    Inject::Fail { permanent: true, after },
                ] {
                    let (again, _) = run(&[(create, first), (call, inject)], policies()[0]);
                    // Where the first failure was not recorded, the call was simply made again.
                    assert!(
                        again == end || again == End::Ready,
                        "{first:?}, then {inject:?} at call {call}: {again:?}"
                    );
                }
            }
        }
    }
}

fn inject() -> impl Strategy<Value = Inject> {
    prop_oneof![
        4 => any::<bool>().prop_map(|after| Inject::Fail { permanent: false, after }),
        1 => any::<bool>().prop_map(|after| Inject::Fail { permanent: true, after }),
        4 => (any::<bool>(), any::<bool>()).prop_map(|(after, jobs_too)| Inject::Crash { after, jobs_too }),
        2 => Just(Inject::Restart),
        2 => Just(Inject::Corrupt),
        1 => Just(Inject::WrongBytes),
        2 => Just(Inject::LoseJobs),
        1 => Just(Inject::FailJobs(FailureKind::Retryable)),
        1 => Just(Inject::FailJobs(FailureKind::FrozenStateGone)),
        1 => Just(Inject::FailJobs(FailureKind::StagedCorrupt)),
        1 => Just(Inject::FailJobs(FailureKind::Permanent)),
        1 => Just(Inject::Delete),
        1 => Just(Inject::Annotate(ANNOTATION_CANCEL, "1")),
        1 => Just(Inject::Annotate(ANNOTATION_RETRY, "1")),
        1 => Just(Inject::Annotate(ANNOTATION_RETRY, "2")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_mishap_breaks_an_invariant(
        plan in prop::collection::btree_map(1_u64..220, inject(), 0..14),
        disks in 1_usize..4,
        delete_intermediate: bool,
        delete_snapshot: bool,
        delete_source: bool,
        max_attempts in 0_u32..8,
        backoff in prop_oneof![Just(0_u64), Just(1), Just(300)],
    ) {
        let mut drive = Drive::new(World::new(disks));
        drive.world.state().plan = plan.clone();
        let key = drive.add(|migration| {
            migration.spec.cleanup_policy = CleanupPolicy { delete_intermediate, delete_snapshot, delete_source };
            migration.spec.retry_policy = RetryPolicy {
                max_attempts,
                backoff_duration: GoDuration(std::time::Duration::from_secs(backoff)),
                max_backoff_duration: GoDuration(std::time::Duration::from_mins(30)),
            };
        });
        let end = drive.run(&key);
        if plan.is_empty() {
            prop_assert_eq!(end, End::Ready);
        }
    }
}
