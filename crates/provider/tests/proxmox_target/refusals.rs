//! What is refused before anything is made.

use vmferry_provider::{Error, ImageFormat, Kind, NicAttachment, TargetHost, TargetPlan};
use vmferry_testkit::proxmox::{Options, Proxmox, SeedVm, Version};

use crate::site::{NAME, Site, owner, plan, volume};

async fn refused(site: &Site, plan: &TargetPlan) -> Error {
    let error = site.host().await.check_target(plan, &owner()).await.unwrap_err();
    site.assert_sound();
    error
}

fn simple() -> TargetPlan {
    plan(vec![volume(0, ImageFormat::Qcow2)])
}

#[tokio::test]
async fn before_8_3_no_disk_gets_in_without_ssh() {
    for version in [Version::V7_4, Version::V8_2] {
        let mut site = Site::new(version);
        let error = refused(&site, &simple()).await;
        assert_eq!(error.kind(), Kind::Unsupported);
        for word in ["from 8.3 on", "ssh-privatekey", "known_hosts", "8.4"] {
            assert!(error.to_string().contains(word), "{error}");
        }
        // The password of another user than root lets nobody in to a node.
        let credentials = &mut site.config.credentials;
        (credentials.token_id, credentials.token_secret) = (None, None);
        credentials.username = Some(Proxmox::USER.0.to_owned());
        credentials.password = Some(Proxmox::USER.1.into());
        assert_eq!(refused(&site, &simple()).await.kind(), Kind::Unsupported);
    }
}

#[tokio::test]
async fn each_missing_privilege_is_named_with_its_path() {
    for (privilege, path) in [
        ("VM.Allocate", "/vms"),
        ("VM.Config.Disk", "/vms"),
        ("Datastore.AllocateSpace", "/storage/local"),
        ("Datastore.AllocateTemplate", "/storage/local"),
        ("Datastore.Allocate", "/storage/local"),
        ("SDN.Use", "/sdn/zones/localnetwork/vmbr0"),
    ] {
        let site = Site::with(&Options::new(Version::V9).without(privilege));
        let error = refused(&site, &simple()).await;
        assert_eq!(error.kind(), Kind::Denied, "{privilege}");
        assert!(
            error.to_string().contains(&format!("lacks {privilege} on {path}")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_storage_that_will_not_do_is_named_with_what_to_do() {
    let mut site = Site::new(Version::V9);
    let mut named = simple();
    for disk in &mut named.disks {
        disk.storage = Some("nope".to_owned());
    }
    let error = refused(&site, &named).await;
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("local-lvm"), "{error}");

    site.config.import_storage = Some(Proxmox::PLAIN.to_owned());
    let error = refused(&site, &simple()).await;
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(
        error
            .to_string()
            .contains("pvesm set plain --content images,rootdir,import"),
        "{error}"
    );

    site.config.import_storage = None;
    site.cluster.fill_storage(Proxmox::LOCAL, 1 << 20);
    let error = refused(&site, &simple()).await;
    assert_eq!(error.kind(), Kind::NoSpace);

    site.config.storage = None;
    let error = refused(&site, &simple()).await;
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains("targetStorageHint"), "{error}");

    site.cluster.storage_active(Proxmox::LOCAL, false);
    site.config.storage = Some(Proxmox::LOCAL.to_owned());
    assert_eq!(refused(&site, &simple()).await.kind(), Kind::Unreachable);
}

#[tokio::test]
async fn names_networks_and_nodes_are_looked_at() {
    let mut site = Site::new(Version::V9);
    let mut other = simple();
    other.name = "web 1".to_owned();
    assert_eq!(refused(&site, &other).await.kind(), Kind::Invalid);
    let mut other = simple();
    other.attachments = vec![NicAttachment::Bridge("vmbr9.5".to_owned())];
    let error = refused(&site, &other).await;
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("vmbr0"), "{error}");
    other.attachments = vec![NicAttachment::Other("direct on eth0".to_owned())];
    assert_eq!(refused(&site, &other).await.kind(), Kind::Unsupported);
    site.cluster.seed(&SeedVm::new(120, NAME));
    let error = refused(&site, &simple()).await;
    assert_eq!(error.kind(), Kind::NameTaken);
    assert!(error.to_string().contains("120"), "{error}");
    site.cluster.remove_vm(120);
    site.config.node = Some("pve9".to_owned());
    assert_eq!(refused(&site, &simple()).await.kind(), Kind::NotFound);
    site.config.node = Some("pve2".to_owned());
    site.cluster.node_down("pve2");
    assert_eq!(refused(&site, &simple()).await.kind(), Kind::Unreachable);
}

#[tokio::test]
async fn without_a_node_all_disks_go_to_the_same() {
    let mut site = Site::new(Version::V9);
    site.config.node = None;
    let host = site.host().await;
    host.check_target(&simple(), &owner()).await.unwrap();
    let mut nodes = Vec::new();
    for index in 0..5 {
        let made = host
            .create_volume(&volume(index, ImageFormat::Qcow2), &owner())
            .await
            .unwrap();
        nodes.push(made.id.0.split('/').next().unwrap().to_owned());
    }
    nodes.dedup();
    assert_eq!(nodes.len(), 1, "{nodes:?}");
    site.assert_sound();
}
