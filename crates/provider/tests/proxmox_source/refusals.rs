//! What is refused before anything is made.

use vmferry_provider::{Kind, SourceHost as _};
use vmferry_testkit::proxmox::Version;

use super::*;

async fn refused(cluster: &Cluster, config: Config, kind: Kind, says: &str) {
    let before = cluster.inventory();
    let source = Proxmox::connect(config).await.unwrap();
    for error in [
        source.check_source(&vm(100, "vm")).await.unwrap_err(),
        source.freeze(&vm(100, "vm"), &owner(), false).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_nothing_left(cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_what_the_vm_is() {
    let cluster = cluster(Version::V8_4);
    cluster.seed(&two_disks(&cluster, 100, "vm"));
    cluster.lock_vm(100, Some("backup"));
    refused(&cluster, config(&cluster), Kind::Busy, "locked (backup)").await;
    cluster.lock_vm(100, None);
    cluster.set_config(100, "scsi2", Some("/dev/disk/by-id/wwn-0x5000,size=1G"));
    refused(
        &cluster,
        config(&cluster),
        Kind::Unsupported,
        "a device or file of the node",
    )
    .await;
    cluster.set_config(100, "scsi2", Some("local:100/vm-100-disk-1.raw,snapshot=1,size=16M"));
    refused(&cluster, config(&cluster), Kind::Unsupported, "snapshot=1").await;
    cluster.set_config(100, "scsi2", Some("local:100/vm-100-disk-7.raw,size=16M"));
    assert_eq!(cluster.violations(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_what_lets_us_in() {
    let mut cluster = cluster(Version::V8_4);
    cluster.seed(&two_disks(&cluster, 100, "vm"));
    let without = |change: fn(&mut Credentials, &Cluster), cluster: &Cluster| {
        let mut config = config(cluster);
        change(&mut config.credentials, cluster);
        config
    };
    let none = without(|credentials, _| credentials.ssh_private_key = None, &cluster);
    refused(&cluster, none, Kind::Unsupported, "ssh-privatekey").await;
    let stranger = without(
        |credentials, cluster| credentials.ssh_private_key = Some(SecretString::from(cluster.stranger_key())),
        &cluster,
    );
    refused(&cluster, stranger, Kind::Denied, "refused the key").await;
    let unknown = without(|credentials, _| credentials.known_hosts = Some(String::new()), &cluster);
    refused(&cluster, unknown, Kind::Untrusted, "has no key for it").await;
    let before = config(&cluster);
    cluster.change_host_keys();
    refused(&cluster, before, Kind::Untrusted, "has another key for it").await;
    let password = without(
        |credentials, _| {
            credentials.ssh_private_key = None;
            credentials.token_id = None;
            credentials.token_secret = None;
            credentials.username = Some(Cluster::ROOT.0.to_owned());
            credentials.password = Some(SecretString::from(Cluster::ROOT.1));
        },
        &cluster,
    );
    let source = Proxmox::connect(password).await.unwrap();
    source.check_source(&vm(100, "vm")).await.unwrap();
    assert_eq!(cluster.violations(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_the_node_that_answers() {
    let cluster = cluster(Version::V8_4);
    cluster.seed(&two_disks(&cluster, 100, "vm"));
    let mut other = config(&cluster);
    other.ssh.host = Some(cluster.ssh_host("pve2"));
    refused(&cluster, other, Kind::Invalid, "it is node pve2, not pve1").await;
    let mut same = config(&cluster);
    same.ssh.host = Some(cluster.ssh_host("pve1"));
    let source = Proxmox::connect(same).await.unwrap();
    source.check_source(&vm(100, "vm")).await.unwrap();
    let frozen = source.freeze(&vm(100, "vm"), &owner(), false).await;
    frozen.unwrap();
    source.release(&selector(100, "vm"), &owner(), false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn by_where_the_disks_of_a_running_vm_are() {
    let cluster = cluster(Version::V9);
    cluster.seed(&two_disks(&cluster, 100, "vm"));
    for path in [
        "rbd:ceph/vm-100-disk-0:conf=/etc/pve/ceph.conf",
        "/dev/rbd-pve/8a7b/ceph/vm-100-disk-0",
    ] {
        cluster.replace_command("pve1", "pvesm", Some(&format!("echo {path}")));
        let source = connect(&cluster).await;
        source.check_source(&vm(100, "vm")).await.unwrap();
        cluster.start_vm(100);
        refused(
            &cluster,
            config(&cluster),
            Kind::Unsupported,
            "stop the VM for the migration",
        )
        .await;
        cluster.stop_vm(100);
        cluster.replace_command("pve1", "pvesm", None);
    }
    assert_eq!(cluster.violations(), [""; 0]);
}
