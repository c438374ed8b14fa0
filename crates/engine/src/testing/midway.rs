//! What is taken away, changed or refused while a migration is under way.

use std::time::Duration;

use vmferry_api::names::condition;
use vmferry_api::{Key, Phase};
use vmferry_provider::{Hardware, PowerState};

use super::manifests::{self, NS};
use super::scenarios::{condition_of, drive};
use super::world::State;
use super::{Drive, End};
use crate::engine::Next;
use crate::port::FailureKind;

/// Takes something away, and gives back how to bring it back.
type Taken = fn(&mut State) -> Box<dyn FnOnce(&mut State)>;

const TAKEN: [(&str, Taken); 3] = [
    ("Secret lab/login", |state| {
        let secrets = std::mem::take(&mut state.secrets);
        Box::new(|state| state.secrets = secrets)
    }),
    ("Provider lab/", |state| {
        let providers = std::mem::take(&mut state.providers);
        Box::new(|state| state.providers = providers)
    }),
    ("VirtualMachine lab/web", |state| {
        let vms = std::mem::take(&mut state.vms);
        Box::new(|state| state.vms = vms)
    }),
];

#[test]
fn what_is_taken_away_for_a_moment_costs_an_attempt_and_no_more() {
    for (name, take) in TAKEN {
        let mut drive = drive();
        let key = drive.add(|_| {});
        drive.until(&key, |drive| !drive.world.state().jobs.is_empty());
        let give_back = {
            let mut state = drive.world.state();
            // The next one is to be started.
            state.jobs.clear();
            take(&mut state)
        };
        drive.until(&key, |drive| drive.status(&key).retry_attempts == Some(1));
        let status = drive.status(&key);
        assert_eq!(status.phase, Phase::Transferring, "{name}");
        let message = status.message.unwrap();
        assert!(
            message.contains(name) && message.contains("retry scheduled"),
            "{message}"
        );
        give_back(&mut drive.world.state());
        assert_eq!(drive.run(&key), End::Ready, "{name}");
    }
}

fn set_pool(drive: &Drive, pool: Option<&str>) {
    let mut state = drive.world.state();
    let provider = state.providers.get_mut(&Key::new(NS, "b")).unwrap();
    let defaults = serde_json::json!({"datastore": pool});
    provider.spec.defaults = pool.map(|_| serde_json::from_value(defaults).unwrap());
}

/// Volumes are made, found and deleted where they were to go when the migration was validated.
#[test]
fn a_providers_default_that_changes_moves_no_volume() {
    for (before, after) in [(None, Some("ssd")), (Some("ssd"), None), (Some("ssd"), Some("default"))] {
        for fails in [false, true] {
            let mut drive = drive();
            let key = drive.add(|_| {});
            set_pool(&drive, before);
            drive.until(&key, |drive| {
                drive.status(&key).disks.iter().any(|disk| disk.target_volume.is_some())
            });
            set_pool(&drive, after);
            if fails {
                drive.until(&key, |drive| drive.status(&key).import_task_ref.is_some());
                drive.until(&key, |drive| {
                    drive.world.state().jobs.keys().any(|id| id.starts_with("import"))
                });
                let fail = FailureKind::Permanent;
                drive.world.state().jobs.values_mut().for_each(|job| job.fail(fail));
            }
            // What is left behind is seen there.
            assert_eq!(drive.run(&key), if fails { End::Failed } else { End::Ready });
            let pool = before.unwrap_or("default");
            let volumes = drive.status(&key).disks;
            assert!(
                volumes
                    .iter()
                    .all(|disk| disk.target_volume.as_ref().is_none_or(|id| id.starts_with(pool)))
            );
        }
    }
}

#[test]
fn a_namespace_that_is_not_there_is_told_and_waited_for() {
    let mut drive = drive();
    let key = drive.add(|migration| migration.spec.target_namespace = Some("elsewhere".into()));
    drive.world.state().no_namespace = true;
    drive.until(&key, |drive| {
        let message = drive.status(&key).message.unwrap_or_default();
        message.contains("clean-up failed") || message.contains("elsewhere")
    });
    let status = drive.status(&key);
    assert_eq!((status.phase, status.completion_time), (Phase::Ready, None));
    let message = status.message.unwrap();
    assert!(
        message.contains("elsewhere") && message.contains("not found"),
        "{message}"
    );
    drive.world.state().no_namespace = false;
    drive.until(&key, |drive| drive.status(&key).completion_time.is_some());
    assert!(drive.world.state().vms.contains_key(&Key::new("elsewhere", "web-copy")));
}

/// Drives one whose jobs cannot be started until it says so; gives the waits.
fn refused(drive: &mut Drive, key: &Key) -> Vec<Duration> {
    let mut waits = Vec::new();
    while drive.status(key).retry_attempts.is_none() {
        if let Some(Next::After(wait)) = drive.step(key) {
            drive.wait(wait);
            if drive.status(key).retry_attempts.is_none() {
                let message = drive.status(key).message.unwrap();
                assert!(message.contains("cannot start the job"), "{message}");
                waits.push(wait);
            }
        }
        assert!(waits.len() < 100, "it is asked for ever");
    }
    waits
}

#[test]
fn a_job_that_is_refused_says_so_and_is_not_asked_for_without_end() {
    for phase in [Phase::Transferring, Phase::Importing] {
        let mut drive = drive();
        let key = drive.add(|_| {});
        drive.until(&key, |drive| {
            drive.phase(&key) == phase
                && !drive
                    .status(&key)
                    .disks
                    .iter()
                    .any(|disk| phase == Phase::Importing && disk.target_volume.is_none())
        });
        drive.until(&key, |drive| {
            phase != Phase::Importing || drive.status(&key).import_task_ref.is_some()
        });
        drive.world.state().busy = true;
        let waits = refused(&mut drive, &key);
        assert!(waits.is_sorted() && waits.len() < 20, "{waits:?}");
        assert!(waits.iter().sum::<Duration>() >= Duration::from_mins(4), "{waits:?}");
        assert!(drive.status(&key).message.unwrap().contains("the API server is busy"));
        drive.world.state().busy = false;
        assert_eq!(drive.run(&key), End::Ready, "{phase:?}");
    }
}

/// One that was looked at while the other was not known yet: it has begun, so the older one stays behind.
#[test]
fn one_that_has_begun_is_in_the_way_of_an_older_one() {
    let mut drive = drive();
    let younger = drive.add_as("a-younger", 2, |_| {});
    drive.wait(Duration::from_mins(1));
    drive.until(&younger, |drive| drive.phase(&younger) == Phase::Transferring);
    let older = drive.add(|_| {});
    drive.step(&older);
    {
        let mut state = drive.world.state();
        let before = state.migrations[&younger]
            .status
            .as_ref()
            .unwrap()
            .start_time
            .clone()
            .unwrap();
        let status = state.migrations.get_mut(&older).unwrap().status.as_mut().unwrap();
        status.start_time = Some(vmferry_api::Time(before.0 - Duration::from_secs(30)));
    }
    drive.until(&older, |drive| drive.status(&older).completion_time.is_some());
    let text = condition_of(&drive.status(&older), condition::VALIDATED);
    assert!(
        text.starts_with("False ConflictingMigration: ") && text.contains("lab/a-younger"),
        "{text}"
    );
    assert_eq!(drive.run(&younger), End::Ready);
}

#[test]
fn a_source_with_a_disk_that_was_not_exported_is_not_deleted() {
    let mut drive = drive();
    let key = drive.add(|migration| migration.spec.cleanup_policy.delete_source = true);
    drive.until(&key, |drive| drive.phase(&key) == Phase::Ready);
    let disks = |count| move |hardware: &mut Hardware| hardware.disks = manifests::hardware(count, 2).disks;
    disks(3)(&mut drive.world.state().source.as_mut().unwrap().0);
    drive.until(&key, |drive| {
        drive.status(&key).message.unwrap().contains("clean-up failed")
    });
    let message = drive.status(&key).message.unwrap();
    for part in ["vdc", "deleteSource", "VM web"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(drive.world.state().source.is_some());
    disks(2)(&mut drive.world.state().source.as_mut().unwrap().0);
    assert_eq!(drive.run(&key), End::Ready);
    assert!(drive.world.state().source_deleted);
}

#[test]
fn a_source_that_was_moved_shut_off_and_ran_since_is_not_deleted() {
    for runs_still in [true, false] {
        let mut drive = drive();
        drive.world.state().source.as_mut().unwrap().1 = PowerState::Off;
        let key = drive.add(|migration| migration.spec.cleanup_policy.delete_source = true);
        drive.until(&key, |drive| drive.phase(&key) == Phase::Ready);
        {
            let mut state = drive.world.state();
            state.written += 1;
            state.source.as_mut().unwrap().1 = if runs_still { PowerState::On } else { PowerState::Off };
        }
        drive.until(&key, |drive| {
            drive.status(&key).message.unwrap().contains("clean-up failed")
        });
        let message = drive.status(&key).message.unwrap();
        for part in ["VM web", "not as it was", "deleteSource"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(drive.world.state().source.is_some());
        let policy = |migration: &mut vmferry_api::VMMigration| migration.spec.cleanup_policy.delete_source = false;
        policy(drive.world.state().migrations.get_mut(&key).unwrap());
        assert_eq!(drive.run(&key), End::Ready);
        assert!(!drive.world.state().source_deleted);
    }
}

#[test]
fn a_source_that_was_moved_shut_off_and_stayed_so_is_deleted() {
    let mut drive = drive();
    drive.world.state().source.as_mut().unwrap().1 = PowerState::Off;
    let key = drive.add(|migration| migration.spec.cleanup_policy.delete_source = true);
    assert_eq!(drive.run(&key), End::Ready);
    assert!(drive.world.state().source_deleted);
    assert!(drive.status(&key).snapshot_id.unwrap().starts_with("offline-"));
}

#[test]
fn who_wants_the_source_after_all_keeps_it() {
    let mut drive = drive();
    let key = drive.add(|migration| migration.spec.cleanup_policy.delete_source = true);
    drive.until(&key, |drive| drive.phase(&key) == Phase::Ready);
    drive.world.state().source.as_mut().unwrap().0.disks = manifests::hardware(3, 2).disks;
    drive.until(&key, |drive| {
        drive.status(&key).message.unwrap().contains("clean-up failed")
    });
    let policy = |migration: &mut vmferry_api::VMMigration| migration.spec.cleanup_policy.delete_source = false;
    policy(drive.world.state().migrations.get_mut(&key).unwrap());
    assert_eq!(drive.run(&key), End::Ready);
    assert!(!drive.world.state().source_deleted);
}
