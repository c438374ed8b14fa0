//! Where things go, and what is checked beforehand.

use vmferry_provider::{Kind, TargetHost};
use vmferry_testkit::MIB;
use vmferry_testkit::vsphere::Vsphere;

use super::*;

async fn placed(server: &Vsphere, placement: Placement) -> VSphere {
    VSphere::connect(Config {
        placement,
        ..config(server)
    })
    .await
    .unwrap()
}

#[track_caller]
fn told(checked: Result<(), Error>, kind: Kind, words: &[&str]) {
    let error = checked.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_one_is_taken_and_of_several_one_must_be_named() {
    let server = Vsphere::with(&Options {
        clusters: 2,
        hosts: 1,
        datastores: 2,
        ..Options::default()
    });
    let host = connect(&server).await;
    told(
        host.check_target(&plan(None), &owner()).await,
        Kind::Invalid,
        &["DC0_C0", "DC0_C1", "DC0_H0", "spec.defaults"],
    );
    let cluster = Placement {
        cluster: Some("DC0_C1".to_owned()),
        ..Placement::default()
    };
    let host = placed(&server, cluster.clone()).await;
    told(
        host.check_target(&plan(None), &owner()).await,
        Kind::Invalid,
        &["LocalDS_0", "LocalDS_1", "targetStorageHint"],
    );
    told(
        host.check_target(&plan(Some("LocalDS_7")), &owner()).await,
        Kind::NotFound,
        &["LocalDS_7", "LocalDS_1"],
    );
    for storage in ["LocalDS_1", "/DC0/datastore/LocalDS_1"] {
        host.check_target(&plan(Some(storage)), &owner()).await.unwrap();
    }
    for placement in [
        Placement {
            host: Some("DC0_H0".to_owned()),
            datastore: Some("LocalDS_0".to_owned()),
            ..Placement::default()
        },
        Placement {
            datacenter: Some("DC0".to_owned()),
            cluster: Some("/DC0/host/DC0_C0".to_owned()),
            resource_pool: Some("Resources".to_owned()),
            datastore: Some("LocalDS_0".to_owned()),
            ..Placement::default()
        },
    ] {
        let host = placed(&server, placement).await;
        host.check_target(&plan(None), &owner()).await.unwrap();
    }
    for (placement, word) in [
        (
            Placement {
                datacenter: Some("DC9".to_owned()),
                ..cluster.clone()
            },
            "DC0",
        ),
        (
            Placement {
                cluster: Some("DC0_C9".to_owned()),
                ..cluster.clone()
            },
            "DC0_C1",
        ),
        (
            Placement {
                host: Some("nobody".to_owned()),
                ..cluster.clone()
            },
            "DC0_C1_H0",
        ),
        (
            Placement {
                folder: Some("nowhere".to_owned()),
                ..cluster.clone()
            },
            "no VM folder",
        ),
        (
            Placement {
                resource_pool: Some("puddle".to_owned()),
                ..cluster
            },
            "no resource pool",
        ),
    ] {
        let host = placed(&server, placement).await;
        told(
            host.check_target(&plan(Some("LocalDS_0")), &owner()).await,
            Kind::NotFound,
            &[word],
        );
    }
    assert_nothing(&server.state());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_datastore_cluster_the_emptiest_member_that_works_is_taken() {
    let server = Vsphere::with(&Options {
        datastores: 3,
        pods: 1,
        ..Options::default()
    });
    let host = connect(&server).await;
    for (datastore, mib) in [("LocalDS_0", 500), ("LocalDS_1", 900), ("LocalDS_2", 700)] {
        server.set_capacity(datastore, mib * MIB);
    }
    let spec = VolumeSpec {
        storage: Some("DC0_POD0".to_owned()),
        ..volume(0)
    };
    let chosen = async || host.create_volume(&spec, &owner()).await.map(|volume| volume.id.0);
    assert_eq!(chosen().await.unwrap(), "LocalDS_1/vmferry-0f8fad5bd9cb-0");
    server.set_datastore("LocalDS_1", true, true);
    assert_eq!(chosen().await.unwrap(), "LocalDS_2/vmferry-0f8fad5bd9cb-0");
    server.set_datastore("LocalDS_2", false, false);
    assert_eq!(chosen().await.unwrap(), "LocalDS_0/vmferry-0f8fad5bd9cb-0");
    server.set_datastore("LocalDS_0", false, false);
    assert_eq!(chosen().await.unwrap_err().kind(), Kind::Unreachable);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_made_is_refused_beforehand() {
    for options in every_kind() {
        let esx = options.esx;
        let server = Vsphere::with(&options);
        let host = connect(&server).await;
        host.check_target(&plan(None), &owner()).await.unwrap();
        server.set_capacity("LocalDS_0", 40 * MIB);
        told(
            host.check_target(&plan(None), &owner()).await,
            Kind::NoSpace,
            &["64 MiB"],
        );
        server.set_capacity("LocalDS_0", 1 << 40);
        server.set_datastore("LocalDS_0", false, false);
        told(
            host.check_target(&plan(Some("LocalDS_0")), &owner()).await,
            Kind::Unreachable,
            &["not accessible"],
        );
        server.set_datastore("LocalDS_0", true, false);
        server.set_hosts("notResponding");
        told(
            host.check_target(&plan(None), &owner()).await,
            Kind::Unreachable,
            &["notResponding"],
        );
        server.set_hosts("connected");
        for (attachment, kind, word) in [
            (
                NicAttachment::Network("nowhere".to_owned()),
                Kind::NotFound,
                "VM Network",
            ),
            (
                NicAttachment::Bridge("br0".to_owned()),
                Kind::NotFound,
                "targetNetworkHints",
            ),
            (NicAttachment::User, Kind::Unsupported, "targetNetworkHints"),
        ] {
            let mut plan = plan(None);
            plan.attachments = vec![attachment];
            told(host.check_target(&plan, &owner()).await, kind, &[word]);
        }
        let name = TargetPlan {
            name: "x".repeat(81),
            ..plan(None)
        };
        told(host.check_target(&name, &owner()).await, Kind::Invalid, &["80"]);
        let default = Placement {
            network: Some("VM Network".to_owned()),
            ..Placement::default()
        };
        let host = placed(&server, default).await;
        let mut open = plan(None);
        open.attachments = vec![NicAttachment::User, NicAttachment::Bridge("br0".to_owned())];
        if !esx {
            open.attachments.push(NicAttachment::Network("DC0_DVPG0".to_owned()));
            open.attachments
                .push(NicAttachment::Network("/DC0/network/DC0_DVPG0".to_owned()));
        }
        host.check_target(&open, &owner()).await.unwrap();
        assert_nothing(&server.state());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_is_attached_to_a_distributed_portgroup() {
    let server = Vsphere::start();
    let host = connect(&server).await;
    let mut spec = spec(Vec::new(), &[]);
    spec.hardware.nics[0].attachment = NicAttachment::Network("DC0_DVPG0".to_owned());
    host.create_vm(&spec, &owner()).await.unwrap();
    let vm = server.state().vm("web").unwrap().clone();
    let networks: Vec<_> = vm.nics.iter().map(|nic| nic.network.as_str()).collect();
    assert_eq!(networks, ["DC0_DVPG0", "VM Network"]);
    host.delete_created("web", &owner()).await.unwrap();
    assert_nothing(&server.state());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_networks_of_a_name_none_is_guessed() {
    let server = Vsphere::with(&Options {
        portgroups: 2,
        ..Options::default()
    });
    let host = connect(&server).await;
    let wanted = |network: &str| TargetPlan {
        attachments: vec![NicAttachment::Network(network.to_owned())],
        ..plan(None)
    };
    host.check_target(&wanted("DC0_DVPG1"), &owner()).await.unwrap();
    server.rename("DC0_DVPG1", "DC0_DVPG0");
    told(
        host.check_target(&wanted("DC0_DVPG0"), &owner()).await,
        Kind::Invalid,
        &["dvportgroup-", "/DC0/network/DC0_DVPG0", "targetNetworkHints"],
    );
    host.check_target(&wanted("/DC0/network/DC0_DVPG0"), &owner())
        .await
        .unwrap();
}
