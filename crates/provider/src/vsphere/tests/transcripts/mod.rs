//! The client against answers in the shapes of vCenter 6.7, 7.0, 8.0 and ESXi, as they are documented and known: they lie in
//! `crates/provider/tests/transcripts`, one file for an answer.

mod server;

use std::time::Duration;

use vmferry_block::Buf;

use super::{drain, named, open, owner};
use crate::vsphere::VSphere;
use crate::vsphere::soap::Moref;
use crate::{Firmware, FrozenId, Hypervisor, Kind, NicAttachment, SourceHost, Vm};
use server::Server;

/// How the VM is called there.
const NAME: &str = "web %25 <1>";

/// A server, the VM that it has, and the VM's frozen state.
async fn scene(kind: &str, thumbprint: &str) -> (Server, VSphere, Vm, FrozenId) {
    let server = Server::start(kind, thumbprint);
    let vsphere = VSphere::connect(server.config()).await.unwrap();
    let vm = vsphere.find_vm(&named(NAME)).await.unwrap();
    let frozen = vsphere.freeze(&vm, &owner(), false).await.unwrap().id;
    (server, vsphere, vm, frozen)
}

#[tokio::test]
async fn every_kind_of_server_is_understood() {
    for (kind, described, id, network, second) in [
        ("vcenter-6.7", "vCenter", "vm-42", "prod/web", 2_u64 << 30),
        ("vcenter-7.0", "vCenter", "vm-1042", "segment-a", 2 << 30),
        ("vcenter-8.0", "vCenter", "vm-2042", "prod/web", 2 << 40),
        ("esxi", "ESXi host", "42", "VM Network", 2 << 30),
    ] {
        let (server, vsphere, vm, frozen) = scene(kind, "").await;
        assert!(vsphere.describe().starts_with(described), "{kind}");
        // It is on the second page, behind names with what XML and vSphere escape.
        assert_eq!((vm.id.0.as_str(), vm.name.as_str()), (id, "web % <1>"), "{kind}");
        let hardware = &vm.hardware;
        assert_eq!(hardware.firmware, Firmware::Uefi { secure_boot: true });
        assert_eq!((hardware.vcpus, hardware.memory_bytes), (4, 6 << 30));
        let disks = hardware
            .disks
            .iter()
            .map(|disk| (disk.name.as_str(), disk.capacity, disk.boot_order));
        let disks: Vec<_> = disks.collect();
        assert_eq!(
            disks,
            [("scsi0:0", 1 << 30, Some(1)), ("scsi0:1", second, None)],
            "{kind}"
        );
        assert_eq!(hardware.nics[0].mac, "00:50:56:9a:01:02");
        assert_eq!(
            hardware.nics[0].attachment,
            NicAttachment::Network(network.to_owned()),
            "{kind}"
        );
        assert!(hardware.guest_agent && frozen.0.starts_with("offline-"), "{kind}");

        let mut stream = open(&vsphere, &vm, &frozen, "scsi0:1").await;
        let bytes = drain(&mut *stream).await.unwrap();
        stream.finish().await.unwrap();
        assert_eq!(bytes, server::bytes(), "{kind}");
        // By its key, not by its place in the list.
        assert_eq!(server.fetched(), ["/nfc/52a7-ticket/disk-0.vmdk"], "{kind}");
        // The cookie is for the server alone.
        assert_eq!(server.fetched_with_cookie(), kind == "esxi", "{kind}");
        assert_eq!(server.count("HttpNfcLeaseComplete"), 1, "{kind}");
    }
}

#[tokio::test]
async fn a_large_disk_is_bounded_by_what_its_files_take() {
    let (_server, vsphere, vm, frozen) = scene("vcenter-8.0", "").await;
    // 400 GiB and a descriptor, of 2 TiB.
    let thin = open(&vsphere, &vm, &frozen, "scsi0:1").await;
    assert_eq!(thin.most(), (400 << 30) + 530 + ((400 << 30) + 530) / 8);
    let small = open(&vsphere, &vm, &frozen, "scsi0:0").await;
    assert!(small.most() > 1 << 30 && small.most() < 2 << 30);
}

#[tokio::test]
async fn what_cannot_be_consolidated_without_a_snapshot_of_ours_is_no_obstacle() {
    const NEEDED: &str = "<name>runtime.consolidationNeeded</name><val xsi:type=\"xsd:boolean\">true";
    const NOT: &str = "<name>runtime.consolidationNeeded</name><val xsi:type=\"xsd:boolean\">false";
    let (server, vsphere, _, _) = scene("vcenter-7.0", "").await;
    vsphere.release(&named(NAME), &owner(), false).await.unwrap();
    assert_eq!(server.count("ConsolidateVMDisks_Task"), 0);
    // The snapshot itself is gone, and the disks are held by somebody.
    server.say(NOT, NEEDED);
    for count in [1, 2] {
        vsphere.release(&named(NAME), &owner(), false).await.unwrap();
        assert_eq!(server.count("ConsolidateVMDisks_Task"), count);
    }
}

#[tokio::test]
async fn a_session_that_expires_in_mid_copy_is_made_anew() {
    let (server, vsphere, vm, frozen) = scene("vcenter-8.0", "").await;
    // One expired while the VM was read a second time.
    assert_eq!(server.count("Login"), 2);
    let mut stream = open(&vsphere, &vm, &frozen, "scsi0:0").await;
    let head = stream.read(Buf::alone(1000)).await.unwrap();
    // The second sign of life finds it expired again, and the third goes on.
    tokio::time::sleep(Duration::from_millis(1300)).await;
    let rest = drain(&mut *stream).await.unwrap();
    stream.finish().await.unwrap();
    assert_eq!([&head[..], &rest[..]].concat(), server::bytes());
    assert_eq!(server.count("Login"), 3);
    assert!(server.count("HttpNfcLeaseProgress") >= 4);
}

/// A SOAP fault of this type, about this object.
fn fault(kind: &str, object: &str) -> String {
    format!(
        "<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>said {kind}</faultstring><detail>\
         <{kind}Fault xsi:type='{kind}'>{object}</{kind}Fault></detail></soapenv:Fault>"
    )
}

#[tokio::test]
async fn pages_that_went_with_their_session_are_read_anew() {
    let (server, vsphere, vm, _) = scene("vcenter-6.7", "").await;
    let (logins, lists) = (server.count("Login"), server.count("RetrievePropertiesEx-view"));
    // The second page is asked for when the session has ended, and then nobody knows it any more.
    server.answer_next("ContinueRetrievePropertiesEx", &fault("NotAuthenticated", ""));
    server.answer_next(
        "ContinueRetrievePropertiesEx",
        &fault("InvalidProperty", "<name>token</name>"),
    );
    assert_eq!(vsphere.find_vm(&named(NAME)).await.unwrap().id, vm.id);
    assert_eq!(server.count("Login"), logins + 1);
    assert_eq!(server.count("RetrievePropertiesEx-view"), lists + 2);
    // That alone is no reason.
    server.answer_next(
        "ContinueRetrievePropertiesEx",
        &fault("InvalidProperty", "<name>token</name>"),
    );
    let error = vsphere.find_vm(&named(NAME)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
}

#[tokio::test]
async fn of_several_objects_one_that_is_gone_is_left_out() {
    let (server, vsphere, _, _) = scene("vcenter-6.7", "").await;
    let vms = ["vm-7", "vm-42"].map(Moref::vm);
    let gone = fault("ManagedObjectNotFound", "<obj type='VirtualMachine'>vm-7</obj>");
    server.answer_next("RetrievePropertiesEx-VirtualMachine", &gone);
    let found = vsphere.client.properties_of(&vms, &["name"]).await.unwrap();
    assert_eq!(found.iter().map(|found| &found.moref).collect::<Vec<_>>(), [&vms[1]]);
    server.answer_next("RetrievePropertiesEx-VirtualMachine", &gone);
    let trouble = vsphere.client.properties(&vms[0], &["name"]).await.unwrap_err();
    assert_eq!(trouble.kind, Kind::NotFound);
}

#[tokio::test]
async fn an_update_that_comes_in_parts_is_looked_at_when_it_is_whole() {
    let (server, vsphere, _, _) = scene("vcenter-8.0", "").await;
    let task = Moref::new("Task", "task-7");
    for (version, truncated, change) in [
        (
            "1",
            true,
            "<changeSet><name>info.state</name><op>assign</op><val xsi:type='TaskInfoState'>error</val></changeSet>",
        ),
        (
            "2",
            false,
            "<changeSet><name>info.error</name><op>assign</op><val xsi:type='LocalizedMethodFault'><fault \
         xsi:type='NoDiskSpace'/><localizedMessage>no room</localizedMessage></val></changeSet>",
        ),
    ] {
        let update = format!(
            "<WaitForUpdatesExResponse><returnval><version>{version}</version><filterSet><objectSet><kind>enter</kind>\
             <obj type='Task'>task-7</obj>{change}</objectSet></filterSet><truncated>{truncated}</truncated></returnval>\
             </WaitForUpdatesExResponse>"
        );
        server.answer_next("WaitForUpdatesEx", &update);
    }
    let trouble = vsphere
        .client
        .finished(&task, Duration::from_secs(9))
        .await
        .unwrap_err();
    assert_eq!(trouble.kind, Kind::NoSpace, "{trouble:?}");
    assert!(trouble.detail.contains("no room"), "{trouble:?}");
}

#[tokio::test]
async fn a_server_that_does_not_know_the_version_is_too_old() {
    let server = Server::start("vcenter-6.7", "");
    let refusal = "<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>Unsupported version URI \
                   \"urn:vim25/6.7\"</faultstring><detail><InvalidRequestFault xsi:type='InvalidRequest'/></detail></soapenv:Fault>";
    server.answer_next("RetrieveServiceContent", refusal);
    let error = VSphere::connect(server.config()).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    assert!(error.to_string().contains("6.7 or later"), "{error}");
}

#[tokio::test]
async fn what_is_changed_before_the_first_read_is_another_state_and_notes_taken_under_the_lease_are_not() {
    const VERSION: &str = "2026-01-01T00:00:00.000001Z";
    let (server, vsphere, vm, frozen) = scene("vcenter-7.0", "").await;
    let mut stream = open(&vsphere, &vm, &frozen, "scsi0:0").await;
    server.say(VERSION, "2026-01-01T00:00:00.000002Z");
    let error = stream.read(Buf::alone(1000)).await.err().unwrap();
    assert_eq!(error.kind(), Kind::FrozenStateGone, "{error}");

    let (server, vsphere, vm, frozen) = scene("vcenter-7.0", "").await;
    let mut stream = open(&vsphere, &vm, &frozen, "scsi0:0").await;
    drain(&mut *stream).await.unwrap();
    server.say(VERSION, "2026-01-01T00:00:00.000002Z");
    stream.finish().await.unwrap();

    let (server, vsphere, vm, frozen) = scene("vcenter-7.0", "").await;
    let mut stream = open(&vsphere, &vm, &frozen, "scsi0:0").await;
    drain(&mut *stream).await.unwrap();
    server.say("web_1.vmdk", "web_2.vmdk");
    let error = stream.finish().await.unwrap_err();
    assert_eq!(error.kind(), Kind::FrozenStateGone, "{error}");
    assert_eq!(server.count("HttpNfcLeaseComplete"), 0);
}

#[tokio::test]
async fn a_host_with_another_certificate_than_the_lease_names_is_not_trusted() {
    let (server, vsphere, vm, frozen) = scene("vcenter-7.0", &"00:".repeat(20)).await;
    let mut stream = open(&vsphere, &vm, &frozen, "scsi0:0").await;
    let error = stream.read(Buf::alone(1000)).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Untrusted, "{error}");
    assert!(server.fetched().is_empty());
}

#[tokio::test]
async fn faults_have_their_meaning_on_every_kind_of_server() {
    for kind in ["vcenter-6.7", "vcenter-7.0", "vcenter-8.0"] {
        let (_server, vsphere, vm, _) = scene(kind, "").await;
        let error = vsphere.delete_source(&named(NAME)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{kind}");
        let text = error.to_string();
        let wanted = format!("VirtualMachine.Inventory.Delete on VirtualMachine:{}", vm.id.0);
        assert!(text.contains(&wanted), "{kind}: {text}");
    }
    let (_server, vsphere, vm, _) = scene("vcenter-6.7", "").await;
    let trouble = vsphere.client.power_on(&Moref::vm(&vm.id.0)).await.unwrap_err();
    assert!(
        trouble.is("InvalidPowerState") && trouble.kind == Kind::Busy,
        "{trouble:?}"
    );
    let (_server, vsphere, _, _) = scene("esxi", "").await;
    let error = vsphere.delete_source(&named(NAME)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.to_string().contains("free ESXi licence"), "{error}");
}

#[tokio::test]
async fn addresses_are_read_out_of_what_the_tools_say() {
    const SILENT: &str =
        "<name>guest.toolsRunningStatus</name><val xsi:type=\"xsd:string\">guestToolsNotRunning</val></propSet>";
    const RUNNING: &str = "<name>guest.toolsRunningStatus</name><val xsi:type=\"xsd:string\">guestToolsRunning</val></propSet>\
        <propSet><name>guest.ipAddress</name><val xsi:type=\"xsd:string\">192.0.2.17</val></propSet>\
        <propSet><name>guest.net</name><val xsi:type=\"ArrayOfGuestNicInfo\">\
        <GuestNicInfo xsi:type=\"GuestNicInfo\"><network>prod/web</network><ipAddress>192.0.2.17</ipAddress>\
        <ipAddress>fe80::250:56ff:fe9a:102</ipAddress><macAddress>00:50:56:9a:01:02</macAddress><connected>true</connected>\
        <deviceConfigId>4000</deviceConfigId><ipConfig><ipAddress><ipAddress>192.0.2.17</ipAddress><prefixLength>24</prefixLength>\
        <state>preferred</state></ipAddress></ipConfig></GuestNicInfo>\
        <GuestNicInfo xsi:type=\"GuestNicInfo\"><macAddress>00:50:56:9a:01:03</macAddress><connected>false</connected>\
        <deviceConfigId>4001</deviceConfigId></GuestNicInfo>\
        <GuestNicInfo xsi:type=\"GuestNicInfo\"><network></network><ipAddress>2001:db8::17</ipAddress>\
        <macAddress>02:42:ac:11:00:02</macAddress><connected>true</connected><deviceConfigId>-1</deviceConfigId></GuestNicInfo>\
        </val></propSet>";
    for kind in ["vcenter-6.7", "vcenter-7.0", "esxi"] {
        let (server, vsphere, vm, _) = scene(kind, "").await;
        assert!(vsphere.addresses(&vm.id).await.unwrap().is_empty(), "{kind}");
        server.say(SILENT, RUNNING);
        let found = vsphere.addresses(&vm.id).await.unwrap();
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.17", "2001:db8::17"], "{kind}");
        // What the tools said last may still be there when they do not run any more.
        server.say("guestToolsRunning", "guestToolsNotRunning");
        assert!(vsphere.addresses(&vm.id).await.unwrap().is_empty(), "{kind}");
    }
}
