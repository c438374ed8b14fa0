//! Who may leave Pending, and what those are told who may not yet.

use std::time::Duration;

use futures::future::poll_immediate;
use proptest::prelude::*;
use vmferry_api::{Key, Phase};

use super::Drive;
use super::manifests::{self, NS};
use super::scenarios::drive;
use super::world::{Inject, World};
use crate::engine::Next;

/// Adds Provider `name` at this host.
fn provider(drive: &Drive, name: &str, host: &str) {
    let mut provider = manifests::provider(name);
    provider.spec.endpoint = format!("qemu+ssh://root@{host}/system");
    drive.world.state().providers.insert(Key::new(NS, name), provider);
}

/// Adds a migration of a VM of its own from one Provider to another, and lets it take its place in the line.
fn migration(drive: &mut Drive, name: &str, number: u32, from: &str, to: &str) -> Key {
    let vm = format!("vm-{name}");
    drive
        .world
        .state()
        .vms
        .insert(Key::new(NS, &vm), manifests::vm(&vm, from));
    let key = drive.add_as(name, number, |migration| {
        migration.spec.source_name = vm;
        migration.spec.target_name = format!("copy-{name}");
        migration.spec.target_provider_ref.name = to.to_owned();
    });
    assert_eq!(drive.step(&key), Some(Next::Now));
    drive.wait(Duration::from_secs(1));
    key
}

fn message(drive: &Drive, key: &Key) -> String {
    drive.status(key).message.unwrap_or_default()
}

#[test]
fn a_provider_has_a_limit_of_its_own_and_others_go_past_it() {
    let mut drive = drive();
    provider(&drive, "c", "c");
    provider(&drive, "d", "d");
    drive.config.max_per_provider = Some(1);
    drive.restart();
    let first = migration(&mut drive, "m1", 1, "a", "b");
    let second = migration(&mut drive, "m2", 2, "c", "b");
    let third = migration(&mut drive, "m3", 3, "d", "b");
    let other = migration(&mut drive, "m4", 4, "c", "d");
    for key in [&third, &second, &other, &first] {
        drive.step(key);
    }
    assert_eq!(drive.phase(&first), Phase::Validating);
    assert_eq!(drive.phase(&other), Phase::Validating, "it waits for nothing");
    assert_eq!(
        (drive.phase(&second), drive.phase(&third)),
        (Phase::Pending, Phase::Pending)
    );
    let slot = "Waiting for a free slot at Provider lab/b: at most 1 at once";
    assert_eq!(message(&drive, &second), format!("{slot}, taken by lab/m1"));
    assert_eq!(message(&drive, &third), format!("{slot}, behind lab/m2"));
    drive.until(&first, |drive| drive.status(&first).completion_time.is_some());
    drive.step(&third);
    assert_eq!(drive.phase(&third), Phase::Pending, "the second goes first");
    drive.until(&other, |drive| drive.status(&other).completion_time.is_some());
    drive.step(&second);
    assert_eq!(drive.phase(&second), Phase::Validating);
}

#[test]
fn what_nobody_drives_is_in_nobodys_way() {
    let mut drive = drive();
    drive.config.max_per_provider = Some(1);
    drive.config.max_concurrent = 1;
    drive.restart();
    let left = migration(&mut drive, "m1", 1, "a", "b");
    drive.step(&left);
    assert_eq!(drive.phase(&left), Phase::Validating);
    let ours = migration(&mut drive, "m2", 2, "a", "b");
    drive.step(&ours);
    assert_eq!(drive.phase(&ours), Phase::Pending);
    drive.config.bystanders = [left].into();
    drive.restart();
    drive.step(&ours);
    assert_eq!(drive.phase(&ours), Phase::Validating);
}

#[test]
fn two_providers_at_one_host_share_its_limit() {
    let mut drive = drive();
    provider(&drive, "b", "KVM.example.com");
    provider(&drive, "c", "other");
    provider(&drive, "b2", "kvm.example.com:2222");
    drive.config.max_per_host = Some(1);
    drive.restart();
    let first = migration(&mut drive, "m1", 1, "a", "b");
    let second = migration(&mut drive, "m2", 2, "c", "b2");
    drive.step(&first);
    drive.step(&second);
    assert_eq!(
        (drive.phase(&first), drive.phase(&second)),
        (Phase::Validating, Phase::Pending)
    );
    assert_eq!(
        message(&drive, &second),
        "Waiting for a free slot at host kvm.example.com: at most 1 at once, taken by lab/m1"
    );
}

#[test]
fn one_whose_provider_is_not_there_does_not_wait_for_it() {
    let mut drive = drive();
    drive.config.max_per_provider = Some(1);
    drive.config.max_per_host = Some(1);
    drive.restart();
    let key = migration(&mut drive, "m1", 1, "nowhere", "gone");
    drive.step(&key);
    assert_eq!(drive.phase(&key), Phase::Validating);
}

#[test]
fn who_waits_says_so_once_and_asks_less_often_the_more_are_ahead() {
    let mut drive = drive();
    drive.config.max_concurrent = 1;
    drive.restart();
    let keys: Vec<_> = (1..=20)
        .map(|number| migration(&mut drive, &format!("m{number}"), number, "a", "b"))
        .collect();
    drive.step(&keys[0]);
    let waits: Vec<_> = keys[1..].iter().map(|key| drive.step(key)).collect();
    assert_eq!(waits[0], Some(Next::After(drive.config.poll)));
    assert_eq!(waits[18], Some(Next::After(drive.config.poll * 19)));
    let saves = |drive: &Drive| {
        drive
            .world
            .state()
            .trace
            .iter()
            .filter(|name| **name == "store.save")
            .count()
    };
    let lists = |drive: &Drive| {
        drive
            .world
            .state()
            .trace
            .iter()
            .filter(|name| **name == "store.migrations")
            .count()
    };
    let before = (saves(&drive), lists(&drive));
    for key in &keys[1..] {
        drive.step(key);
    }
    assert_eq!((saves(&drive), lists(&drive)), before, "who waits costs nothing");
}

#[test]
fn two_that_are_looked_at_at_once_do_not_both_take_the_last_slot() {
    let mut drive = drive();
    drive.config.max_concurrent = 1;
    drive.restart();
    let younger = migration(&mut drive, "b", 2, "a", "b");
    let older = migration(&mut drive, "a", 1, "a", "b");
    // They started in the same second, and the one whose name sorts first was written only after the line was formed.
    let same = drive.status(&younger).start_time;
    drive
        .world
        .state()
        .migrations
        .get_mut(&older)
        .unwrap()
        .status
        .as_mut()
        .unwrap()
        .start_time = None;
    let mut state = drive.world.state();
    let save = state.calls + 3;
    state.plan.insert(
        save,
        Inject::Crash {
            after: true,
            jobs_too: false,
        },
    );
    drop(state);
    let engine = drive.engine();
    let mut first = Box::pin(engine.step(&younger));
    assert!(
        futures::executor::block_on(poll_immediate(&mut first)).is_none(),
        "it is writing"
    );
    assert_eq!(drive.world.state().trace.last(), Some(&"store.save"));
    drive
        .world
        .state()
        .migrations
        .get_mut(&older)
        .unwrap()
        .status
        .as_mut()
        .unwrap()
        .start_time = same;
    let mut second = Box::pin(engine.step(&older));
    assert!(
        futures::executor::block_on(poll_immediate(&mut second)).is_none(),
        "it waits for its turn"
    );
    drop(first);
    let next = futures::executor::block_on(poll_immediate(&mut second))
        .unwrap()
        .unwrap();
    assert!(matches!(next, Next::After(_)));
    assert_eq!(
        (drive.phase(&younger), drive.phase(&older)),
        (Phase::Validating, Phase::Pending)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_limit_is_ever_exceeded_and_all_come_to_their_end(
        ways in prop::collection::vec((0_usize..3, 0_usize..3), 1..10),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
        total in 1_usize..5,
        per_provider in prop::option::of(1_usize..3),
        per_host in prop::option::of(1_usize..3),
    ) {
        let mut drive = Drive::new(World::new(1));
        // The third is another way to the host of the second.
        for (name, host) in [("p0", "h0"), ("p1", "h1"), ("p2", "h1")] {
            provider(&drive, name, host);
        }
        drive.config.max_concurrent = total;
        drive.config.max_per_provider = per_provider;
        drive.config.max_per_host = per_host;
        drive.restart();
        let keys: Vec<_> = ways.iter().zip(1..).map(|((from, to), number)| {
            migration(&mut drive, &format!("m{number}"), number, &format!("p{from}"), &format!("p{to}"))
        }).collect();
        let hosts = ["h0", "h1", "h1"];
        let check = |drive: &Drive| {
            let holds = |key: &&Key| drive.phase(key) != Phase::Pending && drive.status(key).completion_time.is_none();
            let held: Vec<_> = keys.iter().zip(&ways).filter(|(key, _)| holds(key)).map(|(_, way)| *way).collect();
            assert!(held.len() <= total);
            for index in 0..3 {
                let at = held.iter().filter(|(from, to)| *from == index || *to == index).count();
                assert!(at <= per_provider.unwrap_or(99), "{held:?}");
                let same = |provider: usize| hosts[provider] == hosts[index];
                let at = held.iter().filter(|(from, to)| same(*from) || same(*to)).count();
                assert!(at <= per_host.unwrap_or(99), "{held:?}");
            }
        };
        for index in order {
            if let Some(Next::After(_)) = drive.step(index.get(&keys)) {
                drive.wait(Duration::from_secs(1));
            }
            check(&drive);
        }
        for _ in 0..2000 {
            for key in &keys {
                drive.step(key);
                check(&drive);
            }
            drive.wait(Duration::from_secs(30));
            if keys.iter().all(|key| drive.status(key).completion_time.is_some()) {
                break;
            }
        }
        let ended = |key: &Key| drive.status(key).completion_time.is_some();
        prop_assert!(keys.iter().all(ended), "one waits for ever");
    }
}
