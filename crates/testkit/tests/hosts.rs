//! The kit itself: hosts come up, guests boot, and the check for leftovers finds what is left.

use std::path::Path;
use std::time::{Duration, Instant};

use vmferry_testkit::{Bus, DiskSpec, Format, GuestSpec, Host, MIB, World, image, run, wait_for};

#[test]
fn a_micro_guest_boots_on_a_session_host_and_counts() {
    let host = Host::session("a");
    let guest = host.boot(&GuestSpec::small("g1"));
    assert_eq!(guest.await_greeting(), 1);
    let first = wait_for("a counter", Duration::from_secs(10), || {
        Some(guest.counters()).filter(|counters| counters.a > 0)
    });
    let later = wait_for("a higher counter", Duration::from_secs(10), || {
        Some(guest.counters()).filter(|counters| counters.a > first.a)
    });
    assert_eq!(later.boots, 1);
    guest.destroy();
    guest.counters().assert_consistent();
    guest.start();
    assert_eq!(guest.await_greeting(), 2);
}

#[test]
fn a_system_host_is_reached_by_tcp_and_by_ssh_with_its_key_only() {
    let host = Host::system("b");
    assert!(
        run(std::process::Command::new("virsh").args(["-q", "-c", &host.tcp_uri(), "pool-list"])).contains("default")
    );
    let dir = tempfile::tempdir().unwrap();
    let ssh = |key: &str, known_hosts: &str| {
        let (key_file, hosts_file) = (dir.path().join("key"), dir.path().join("hosts"));
        let _ = std::fs::remove_file(&key_file);
        std::fs::write(&key_file, key).unwrap();
        std::fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(&hosts_file, known_hosts).unwrap();
        let authority = host.ssh().authority;
        let (address, port) = authority.split_once(':').unwrap();
        vmferry_testkit::try_run(
            std::process::Command::new("ssh")
                .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i"])
                .arg(&key_file)
                .arg("-o")
                .arg(format!("UserKnownHostsFile={}", hosts_file.display()))
                .args([
                    "-p",
                    port,
                    &format!("root@{address}"),
                    "test -S /run/libvirt/libvirt-sock && echo inside",
                ]),
        )
    };
    let access = host.ssh();
    assert_eq!(
        ssh(&access.private_key(), &access.known_hosts()).unwrap().trim(),
        "inside"
    );
    assert!(
        ssh(&access.stranger_key(), &access.known_hosts())
            .unwrap_err()
            .contains("Permission denied")
    );
    assert!(
        ssh(&access.private_key(), &access.impostor_hosts())
            .unwrap_err()
            .contains("verification failed")
    );
}

#[test]
fn two_disks_are_counted_on_any_bus() {
    let host = Host::system("a");
    for (name, bus) in [
        ("virtio", Bus::Virtio),
        ("scsi", Bus::Scsi),
        ("sata", Bus::Sata),
        ("ide", Bus::Ide),
    ] {
        let spec = GuestSpec::micro(name)
            .disk(DiskSpec::raw(16 * MIB).bus(bus))
            .disk(DiskSpec::qcow2(16 * MIB).bus(bus));
        let guest = host.boot(&spec);
        wait_for("a counter", Duration::from_secs(10), || {
            (guest.counters().a > 2).then_some(())
        });
        guest.destroy();
        let second = &guest.disks[1];
        guest
            .counters()
            .assert_consistent_with(vmferry_testkit::Counters::read_second_disk(&second.0, second.1));
    }
}

#[test]
fn a_backing_chain_holds_a_pattern_in_each_layer() {
    let host = Host::session("a");
    let spec = GuestSpec::micro("chain").disk(
        DiskSpec::qcow2(16 * MIB)
            .noise(MIB)
            .backing(&[Format::Raw, Format::Qcow2]),
    );
    let guest = host.boot(&spec);
    guest.destroy();
    for layer in 0..3_u8 {
        image::assert_pattern(
            &guest.disks[0].0,
            Format::Qcow2,
            4 * MIB + u64::from(layer) * 65536,
            65536,
            layer + 1,
        );
    }
}

#[test]
fn nothing_survives_a_host() {
    let host = Host::session("a");
    host.boot(&GuestSpec::small("g1"));
    let (dir, pids) = (host.dir().to_owned(), host.pids("guest=g1"));
    assert_eq!(pids.len(), 1);
    drop(host);
    assert!(!dir.exists());
    assert!(!Path::new(&format!("/proc/{}", pids[0])).exists());
}

#[test]
fn the_world_knows_what_came_and_what_went() {
    let host = Host::session("a");
    let folder = tempfile::tempdir().unwrap();
    let guest = host.boot(&GuestSpec::small("g1"));
    let look = || World::of(&[&host], &[folder.path()]);
    let before = look();
    before.assert_unchanged(&[&host], &[folder.path()]);

    std::fs::write(folder.path().join(".hidden"), "").unwrap();
    host.virsh(["vol-create-as", "default", "extra.qcow2", "1M", "--format", "qcow2"]);
    host.virsh(["checkpoint-create-as", "g1", "cp1"]);
    guest.destroy();
    let change = before.until(&look());
    for (text, list) in [
        ("/.hidden", &change.came),
        ("a volume default extra.qcow2", &change.came),
        ("a file pool/extra.qcow2", &change.came),
        ("a checkpoint g1 cp1", &change.came),
        ("a bitmap pool/g1-0.qcow2 cp1", &change.came),
        ("a domain g1 shut off", &change.came),
        ("a domain g1 running", &change.went),
        ("a process qemu-system-x86_64 guest=g1", &change.went),
    ] {
        assert!(
            list.iter().any(|line| line.contains(text)),
            "`{text}` is missing:\n{change}"
        );
    }
}

#[test]
fn a_host_is_up_in_seconds() {
    let start = Instant::now();
    let _host = Host::session("a");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
