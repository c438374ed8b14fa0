//! Changes of what may not change, where no cluster refuses them; and who is told what of the labels.

use serde_json::json;
use vmferry_api::names::condition;
use vmferry_api::{Key, Phase, VMMigration};

use super::End;
use super::manifests::NS;
use super::scenarios::{condition_of, drive};
use crate::port::EventType;

#[test]
fn a_changed_source_target_or_storage_is_told_once_and_ignored() {
    let change = |migration: &mut VMMigration| {
        migration.spec.target_name = "elsewhere".into();
        migration.spec.storage.path = Some("/other".into());
        migration.spec.target_provider_ref.name = "nowhere".into();
        migration.metadata.generation = Some(2);
    };
    let mut calls = 0;
    // After each call of an undisturbed run in turn, once it has left Pending.
    loop {
        let mut drive = drive();
        let key = drive.add(|_| {});
        drive.until(&key, |drive| drive.phase(&key) != Phase::Pending);
        calls += 1;
        let until = drive.world.state().calls + calls;
        let ended = |drive: &super::Drive| drive.status(&key).completion_time.is_some();
        drive.until(&key, |drive| drive.world.state().calls >= until || ended(drive));
        if ended(&drive) {
            assert!(calls > 50);
            return;
        }
        change(drive.world.state().migrations.get_mut(&key).unwrap());
        assert_eq!(drive.run(&key), End::Ready, "changed after {calls} calls");
        let state = drive.world.state();
        assert!(state.target_vms.contains_key("web-copy") && !state.target_vms.contains_key("elsewhere"));
        assert_eq!(
            state.migrations[&key].spec.target_name, "elsewhere",
            "the spec is the user's"
        );
        let told: Vec<_> = state
            .events
            .iter()
            .filter(|event| event.reason == "SpecChangeIgnored")
            .collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].event_type, EventType::Warning);
        for part in [
            "spec.targetProviderRef",
            "spec.targetName",
            "spec.storage",
            "create it anew",
        ] {
            assert!(told[0].message.contains(part), "{part}: {}", told[0].message);
        }
        calls += 6;
    }
}

#[test]
fn a_change_before_it_leaves_pending_counts() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    drive.step(&key);
    assert_eq!(drive.phase(&key), Phase::Pending);
    drive.world.state().migrations.get_mut(&key).unwrap().spec.target_name = "later".into();
    drive.until(&key, |drive| drive.status(&key).completion_time.is_some());
    assert!(drive.world.state().target_vms.contains_key("later"));
}

#[test]
fn policies_are_followed_as_they_are_now() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    drive.until(&key, |drive| drive.phase(&key) == Phase::Creating);
    drive
        .world
        .state()
        .migrations
        .get_mut(&key)
        .unwrap()
        .spec
        .cleanup_policy
        .delete_intermediate = false;
    assert_eq!(drive.run(&key), End::Ready);
    assert!(
        drive
            .world
            .state()
            .events
            .iter()
            .all(|event| event.reason != "SpecChangeIgnored")
    );
}

#[test]
fn a_provider_that_is_not_ready_is_waited_for() {
    for side in ["a", "b"] {
        let mut drive = drive();
        let provider = Key::new(NS, side);
        let status = json!({"healthy": false});
        drive.world.state().providers.get_mut(&provider).unwrap().status = serde_json::from_value(status).unwrap();
        let key = drive.add(|_| {});
        drive.until(&key, |drive| drive.status(&key).retry_attempts == Some(1));
        let text = condition_of(&drive.status(&key), condition::VALIDATED);
        assert!(
            text.starts_with(&format!("False ProviderNotReady: Provider lab/{side} is not ready")),
            "{text}"
        );
        drive.world.state().providers.get_mut(&provider).unwrap().status = None;
        assert_eq!(drive.run(&key), End::Ready);
    }
}

#[test]
fn a_provider_that_goes_away_later_keeps_nothing_from_being_undone() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    drive.until(&key, |drive| drive.phase(&key) == Phase::Creating);
    let status = json!({"healthy": false});
    drive
        .world
        .state()
        .providers
        .get_mut(&Key::new(NS, "b"))
        .unwrap()
        .status = serde_json::from_value(status).unwrap();
    drive.world.state().delete(&key);
    assert_eq!(drive.run(&key), End::Gone);
}

#[test]
fn what_says_where_it_came_from_is_carried_to_the_target() {
    let mut drive = drive();
    let key = drive.add(|migration| {
        let text = |pairs: serde_json::Value| serde_json::from_value(pairs).unwrap();
        migration.metadata.labels = text(json!({"app": "mysql", "migration.virtrigaud.io/type": "upgrade"}));
        migration.metadata.annotations = text(json!({
            "migration.virtrigaud.io/requestor": "user@example.com", "migration.virtrigaud.io/reason": "Infrastructure upgrade",
            "migration.virtrigaud.io/ticket": "TICKET-12345", "example.com/other": "x"
        }));
    });
    assert_eq!(drive.run(&key), End::Ready);
    let state = drive.world.state();
    let declared = &state.vms[&Key::new(NS, "web-copy")].metadata;
    assert_eq!(
        json!(declared.labels),
        json!({
            "migration.virtrigaud.io/type": "upgrade", "migration.virtrigaud.io/source-provider": "libvirt",
            "migration.virtrigaud.io/target-provider": "libvirt"
        })
    );
    assert_eq!(
        json!(declared.annotations),
        json!({
            "migration.virtrigaud.io/requestor": "user@example.com", "migration.virtrigaud.io/reason": "Infrastructure upgrade",
            "migration.virtrigaud.io/ticket": "TICKET-12345"
        })
    );
    let labels = state.migrations[&key].metadata.labels.clone().unwrap();
    assert_eq!(
        (labels["app"].as_str(), labels["migration.virtrigaud.io/type"].as_str()),
        ("mysql", "upgrade")
    );
}
