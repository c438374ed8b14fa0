//! Ways to a host, and what is in the way.

use secrecy::SecretString;
use vmferry_provider::credentials::Credentials;
use vmferry_provider::{Hypervisor, Kind, PowerState, VmSelector};
use vmferry_testkit::{GuestSpec, Host, World};

use crate::{Way, find, named};

#[tokio::test(flavor = "multi_thread")]
async fn unix_tcp_and_ssh_reach_a_host_and_leave_nothing() {
    let host = Host::system("a");
    host.define(&GuestSpec::small("g1"));
    let before = World::of(&[&host], &[]);
    for way in [Way::unix(&host), Way::tcp(&host), Way::ssh(&host)] {
        let libvirt = way.connect().await;
        libvirt.check().await.unwrap();
        assert!(
            libvirt.describe().contains("libvirt host qemu+"),
            "{}",
            libvirt.describe()
        );
        let vm = find(&libvirt, "g1").await;
        assert_eq!(
            (vm.name.as_str(), vm.power, vm.hardware.disks.len()),
            ("g1", PowerState::Off, 1)
        );
        assert_eq!(vm.hardware.disks[0].capacity, 16 << 20);
        let by_id = VmSelector {
            id: Some(vm.id.0.clone()),
            name: "other".into(),
        };
        assert_eq!(libvirt.find_vm(&by_id).await.unwrap().name, "g1");
        let missing = libvirt.find_vm(&named("g2")).await.unwrap_err();
        assert_eq!(missing.kind(), Kind::NotFound);
        assert!(
            missing.to_string().contains("\"g2\"") && missing.to_string().contains("virsh list"),
            "{missing}"
        );
        drop(libvirt);
        way.assert_clean();
    }
    before.assert_unchanged(&[&host], &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_takes_a_password_and_refuses_what_it_must() {
    let host = Host::system("a");
    let ssh = host.ssh();
    let with = |change: &dyn Fn(&mut Credentials)| {
        let mut credentials = Way::ssh(&host).config.credentials;
        change(&mut credentials);
        Way::to(host.ssh_uri(), credentials)
    };
    let password = with(&|c| {
        c.ssh_private_key = None;
        c.password = Some(SecretString::from(ssh.password()));
    });
    password.connect().await.check().await.unwrap();

    let refused = async |way: Way, kind: Kind, words: &[&str]| {
        let error = way.try_connect().await.err().unwrap();
        assert_eq!(error.kind(), kind, "{error}");
        for word in words {
            assert!(error.to_string().contains(word), "{error} has no {word:?}");
        }
        let shown = format!("{error:?} {way:?}", way = way.config);
        for secret in [ssh.password(), ssh.private_key(), "wrong password".to_owned()] {
            assert!(!shown.contains(secret.trim()), "a secret is shown");
        }
    };
    // First: sshd holds failed logins against an address for a while.
    let no_socket = Way::to(
        format!("{}?socket=/run/nothing", host.ssh_uri()),
        Way::ssh(&host).config.credentials,
    );
    refused(no_socket, Kind::Unreachable, &["/run/nothing", "libvirtd"]).await;
    let stranger = with(&|c| c.ssh_private_key = Some(SecretString::from(ssh.stranger_key())));
    refused(stranger, Kind::Denied, &["refused the key", "authorized_keys"]).await;
    let wrong = with(&|c| {
        c.ssh_private_key = None;
        c.password = Some(SecretString::from("wrong password"));
    });
    refused(wrong, Kind::Denied, &["refused the password"]).await;
    refused(
        with(&|c| c.ssh_private_key = None),
        Kind::Denied,
        &["neither a key nor a password"],
    )
    .await;
    let garbage = with(&|c| c.ssh_private_key = Some(SecretString::from("garbage")));
    refused(garbage, Kind::Invalid, &["ssh-privatekey"]).await;
    let impostor = with(&|c| c.known_hosts = Some(ssh.impostor_hosts()));
    refused(impostor, Kind::Untrusted, &["SHA256:", "another key", "ssh-keyscan"]).await;
    let unknown = with(&|c| c.known_hosts = Some(String::new()));
    refused(unknown, Kind::Untrusted, &["SHA256:", "no key for it"]).await;
    let home = with(&|c| c.known_hosts = None);
    refused(home, Kind::Untrusted, &[".ssh/known_hosts"]).await;
    let revoked = with(&|c| c.known_hosts = Some(format!("{0}\n@revoked {0}", ssh.known_hosts().trim())));
    refused(revoked, Kind::Untrusted, &["@revoked"]).await;
    let nowhere = Way::to(
        host.ssh_uri().replace(":2222", ":2"),
        Way::ssh(&host).config.credentials,
    );
    refused(nowhere, Kind::Unreachable, &["spec.endpoint"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_there_is_said_so() {
    for endpoint in [
        "qemu+unix:///system?socket=/nowhere/sock",
        "qemu+tcp://127.0.0.1:9/system",
    ] {
        let way = Way::to(endpoint.into(), Credentials::default());
        let error = way.try_connect().await.err().unwrap();
        assert_eq!(error.kind(), Kind::Unreachable, "{error}");
        assert!(error.to_string().contains("check spec.endpoint"), "{error}");
    }
    let way = Way::to("qemu+ext:///system?command=/bin/true".into(), Credentials::default());
    assert_eq!(way.try_connect().await.err().unwrap().kind(), Kind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_broke_is_made_anew() {
    let host = Host::system("a");
    host.define(&GuestSpec::small("g1"));
    let way = Way::ssh(&host);
    let libvirt = way.connect().await;
    libvirt.check().await.unwrap();
    for pid in host.pids("sshd-session").into_iter().chain(host.pids("sshd: root")) {
        let _ = std::process::Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status();
    }
    // What was under way may fail; what comes after finds the host again.
    let mut last = None;
    for _ in 0..50 {
        match libvirt.check().await {
            Ok(()) => return,
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{last:?}");
}
