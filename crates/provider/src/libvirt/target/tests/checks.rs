//! What is refused before anything is made.

use vmferry_testkit::{GuestSpec, World};

use super::{owner, session, volume_spec};
use crate::{Error, ImageFormat, Kind, NicAttachment, TargetHost, TargetPlan};

fn plan() -> TargetPlan {
    TargetPlan {
        name: "web".to_owned(),
        storage: None,
        disks: vec![volume_spec("web", 0, ImageFormat::Qcow2, 1 << 30)],
        attachments: vec![NicAttachment::User],
    }
}

fn assert_says(result: Result<(), Error>, kind: Kind, parts: &[&str]) {
    let error = result.unwrap_err();
    let message = error.to_string();
    assert_eq!(error.kind(), kind, "{message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is missing in: {message}");
    }
}

#[tokio::test]
async fn each_obstacle_is_named_with_its_remedy() {
    let (host, connected) = session().await;
    let libvirt = &connected.libvirt;
    host.add_pool("off");
    host.virsh(["pool-destroy", "off"]);
    let network = host.dir().join("network.xml");
    std::fs::write(
        &network,
        "<network><name>idle</name><bridge name='vmferrybr7'/></network>",
    )
    .unwrap();
    host.virsh(["net-define", network.to_str().unwrap()]);
    let world = World::of(&[&host], &[]);
    let check = async |change: &dyn Fn(&mut TargetPlan)| {
        let mut plan = plan();
        change(&mut plan);
        libvirt.check_target(&plan, &owner()).await
    };
    let attach = async |attachment: NicAttachment| check(&|plan| plan.attachments.push(attachment.clone())).await;

    check(&|_| {}).await.unwrap();
    let missing = check(&|plan| plan.storage = Some("fast".to_owned())).await;
    assert_says(
        missing,
        Kind::NotFound,
        &["\"fast\"", "it has default", "spec.targetStorageHint"],
    );
    let missing = check(&|plan| plan.disks[0].storage = Some("fast".to_owned())).await;
    assert_says(missing, Kind::NotFound, &["\"fast\""]);
    let inactive = check(&|plan| plan.storage = Some("off".to_owned())).await;
    assert_says(
        inactive,
        Kind::NotFound,
        &["\"off\"", "not active", "virsh pool-start off"],
    );
    let vmdk = check(&|plan| plan.disks[0].format = ImageFormat::Vmdk).await;
    assert_says(
        vmdk,
        Kind::Unsupported,
        &["vmdk", "spec.targetDiskFormat", "qcow2 or raw"],
    );
    let path = check(&|plan| plan.name = "../web".to_owned()).await;
    assert_says(path, Kind::Invalid, &["../web", "spec.targetName"]);

    let network = attach(NicAttachment::Network("lan".to_owned())).await;
    assert_says(network, Kind::NotFound, &["\"lan\"", "spec.targetNetworkHints"]);
    let idle = attach(NicAttachment::Network("idle".to_owned())).await;
    assert_says(idle, Kind::NotFound, &["\"idle\"", "virsh net-start idle"]);
    let bridge = attach(NicAttachment::Bridge("nobr0".to_owned())).await;
    assert_says(bridge, Kind::NotFound, &["\"nobr0\"", "spec.targetNetworkHints"]);
    let other = attach(NicAttachment::Other("direct on eno1".to_owned())).await;
    assert_says(other, Kind::Unsupported, &["direct on eno1", "spec.targetNetworkHints"]);
    attach(NicAttachment::Bridge("vmferrybr7".to_owned())).await.unwrap();

    world.assert_unchanged(&[&host], &[]);
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused() {
    let (host, connected) = session().await;
    let guest = host.define(&GuestSpec::small("web"));
    let world = World::of(&[&host], &[]);
    let taken = connected.libvirt.check_target(&plan(), &owner()).await;
    assert_says(taken, Kind::NameTaken, &["\"web\"", "UUID", "spec.targetName"]);
    world.assert_unchanged(&[&host], &[]);
    drop(guest);
}
