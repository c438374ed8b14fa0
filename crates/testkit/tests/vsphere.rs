//! The simulator of vSphere before curl and qemu-img, which know nothing of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use vmferry_testkit::vsphere::{DiskSeed, Fault, Options, State, VmSeed, Vsphere};
use vmferry_testkit::{Format, MIB, Must, image, run, wait_for};

/// How long a lease may take.
const SOON: Duration = Duration::from_secs(20);

/// Somebody who is logged in.
struct Client<'s> {
    server: &'s Vsphere,
    esx: bool,
    folder: TempDir,
}

impl<'s> Client<'s> {
    fn log_in(server: &'s Vsphere, esx: bool) -> Self {
        let client = Self {
            server,
            esx,
            folder: tempfile::tempdir().must("make a folder"),
        };
        fs::write(client.file("ca"), server.ca()).must("write the authority");
        let password = server.password().replace('&', "&amp;").replace('<', "&lt;");
        let user = server.user();
        let login = format!("<userName>{user}</userName><password>{password}</password>");
        let manager = if esx { "ha-sessionmgr" } else { "SessionManager" };
        let answer = client.call("Login", ("SessionManager", manager), &login);
        assert!(answer.contains("<LoginResponse"), "{answer}");
        client
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn curl(&self) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "60", "--cacert"]).arg(self.file("ca"));
        curl.arg("-b").arg(self.file("jar")).arg("-c").arg(self.file("jar"));
        curl
    }

    /// The answer of a method, a fault too.
    fn call(&self, method: &str, (kind, id): (&str, &str), arguments: &str) -> String {
        let request = format!(
            "<Envelope xmlns=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\
             <Body><{method} xmlns=\"urn:vim25\"><_this type=\"{kind}\">{id}</_this>{arguments}</{method}></Body></Envelope>"
        );
        fs::write(self.file("request"), request).must("write a request");
        let mut curl = self.curl();
        curl.args(["-H", "Content-Type: text/xml", "--data-binary"]);
        curl.arg(format!("@{}", self.file("request").display()));
        run(curl.arg(self.server.endpoint()))
    }

    /// Calls a method whose value is an object, and gives its id.
    fn made(&self, method: &str, this: (&str, &str), arguments: &str) -> String {
        value(&self.call(method, this, arguments), "returnval")
    }

    /// Waits for the end of a task, and gives its description.
    fn task(&self, method: &str, this: (&str, &str), arguments: &str) -> String {
        let task = self.made(method, this, arguments);
        self.properties("Task", &task, "info")
    }

    fn properties(&self, kind: &str, id: &str, path: &str) -> String {
        let collector = if self.esx {
            "ha-property-collector"
        } else {
            "propertyCollector"
        };
        let spec = format!(
            "<specSet><propSet><type>{kind}</type><pathSet>{path}</pathSet></propSet>\
             <objectSet><obj type=\"{kind}\">{id}</obj></objectSet></specSet>"
        );
        self.call("RetrieveProperties", ("PropertyCollector", collector), &spec)
    }

    /// Waits until a lease is ready, and gives what it says and its first URL.
    fn lease(&self, id: &str) -> (String, String) {
        wait_for("a lease", SOON, || {
            let state = self.properties("HttpNfcLease", id, "state");
            state.contains(">ready<").then_some(())
        });
        let info = self.properties("HttpNfcLease", id, "info");
        let url = value(&info, "url").replace('*', "127.0.0.1");
        (info, url)
    }

    fn upload(&self, url: &str, stream: &Path) -> String {
        let mut curl = self.curl();
        curl.args(["-w", "%{http_code}", "-o", "/dev/null", "-H", "Expect:", "-X", "POST"]);
        curl.args([
            "-H",
            "Content-Type: application/x-vnd.vmware-streamVmdk",
            "--data-binary",
        ]);
        let answer = curl
            .arg(format!("@{}", stream.display()))
            .arg(url)
            .output()
            .must("run curl");
        String::from_utf8_lossy(&answer.stdout).into_owned()
    }
}

/// The text of the first element of that name.
#[track_caller]
fn value(xml: &str, name: &str) -> String {
    let found = xml
        .split_once(&format!("<{name}"))
        .must(format!("find {name} in {xml}"));
    let text = found.1.split_once('>').must("find the end of a tag").1;
    text.split('<').next().unwrap_or_default().to_owned()
}

/// A disk with something in it.
fn disk(folder: &Path, value: u8) -> PathBuf {
    let path = folder.join(format!("disk-{value}.qcow2"));
    image::create(&path, Format::Qcow2, 96 * MIB);
    image::write_pattern(&path, Format::Qcow2, 5 * MIB, 3 * MIB, value);
    image::write_pattern(&path, Format::Qcow2, 96 * MIB - 4096, 4096, value);
    path
}

const IMPORT: &str = "<spec xsi:type=\"VirtualMachineImportSpec\"><configSpec><name>new</name><files><vmPathName>[LocalDS_0]\
    </vmPathName></files><numCPUs>1</numCPUs><memoryMB>64</memoryMB><deviceChange><operation>add</operation>\
    <device xsi:type=\"ParaVirtualSCSIController\"><key>1000</key><busNumber>0</busNumber><sharedBus>noSharing</sharedBus>\
    </device></deviceChange><deviceChange><operation>add</operation><fileOperation>create</fileOperation>\
    <device xsi:type=\"VirtualDisk\"><key>2000</key><backing xsi:type=\"VirtualDiskFlatVer2BackingInfo\"><fileName></fileName>\
    <diskMode>persistent</diskMode><thinProvisioned>true</thinProvisioned></backing><controllerKey>1000</controllerKey>\
    <unitNumber>0</unitNumber><capacityInKB>98304</capacityInKB></device></deviceChange></configSpec></spec>";

/// Asks for an import; gives the answer.
fn import(client: &Client<'_>) -> String {
    let (search, pool, folder) = if client.esx {
        (
            "ha-searchindex",
            "/ha-datacenter/host/localhost.localdomain/Resources",
            "/ha-datacenter/vm",
        )
    } else {
        ("SearchIndex", "/DC0/host/DC0_C0/Resources", "/DC0/vm")
    };
    let [pool, folder] = [pool, folder].map(|path| {
        let path = format!("<inventoryPath>{path}</inventoryPath>");
        client.made("FindByInventoryPath", ("SearchIndex", search), &path)
    });
    let spec = format!("{IMPORT}<folder type=\"Folder\">{folder}</folder>");
    client.call("ImportVApp", ("ResourcePool", &pool), &spec)
}

fn nothing_is_left(state: &State) {
    assert_eq!(
        (&state.vms[..], &state.leases[..], &state.files[..]),
        (&[][..], &[][..], &[][..])
    );
}

#[test]
fn a_snapshot_is_exported_as_it_was_and_comes_back_as_it_went() {
    for (esx, star) in [(false, false), (true, true)] {
        let server = Vsphere::with(&Options {
            esx,
            star,
            ..Options::default()
        });
        let client = Client::log_in(&server, esx);
        let image = disk(client.folder.path(), 7);
        let vm = server.seed(&VmSeed::new("web").disk(DiskSeed::of(&image, Format::Qcow2)).running());
        let refused = client.call("ExportVm", ("VirtualMachine", &vm), "");
        assert!(refused.contains("InvalidPowerState"), "{refused}");

        let quiesced = "<name>s</name><memory>false</memory><quiesce>true</quiesce>";
        let info = client.task("CreateSnapshot_Task", ("VirtualMachine", &vm), quiesced);
        let snapshot = value(&info, "result");
        let seen = server.state().vm("web").unwrap().clone();
        assert_eq!((seen.snapshots.len(), seen.on), (1, true));
        // The guest goes on writing.
        image::write_pattern(&seen.disks[0].content, Format::Raw, 0, MIB, 9);
        let lease = client.made("ExportSnapshot", ("VirtualMachineSnapshot", &snapshot), "");
        let (info, url) = client.lease(&lease);
        assert_eq!(info.contains("https://*:"), star, "{info}");
        let stream = client.file("stream.vmdk");
        run(client.curl().arg("-o").arg(&stream).arg(&url));
        run(Command::new("qemu-img")
            .args(["compare", "-f", "vmdk", "-F", "qcow2"])
            .args([&stream, &image]));
        let manifest = client.call("HttpNfcLeaseGetManifest", ("HttpNfcLease", &lease), "");
        let sha1 = run(Command::new("sha1sum").arg(&stream));
        assert_eq!(value(&manifest, "sha1"), sha1[..40], "{manifest}");
        let held = client.task("Destroy_Task", ("VirtualMachine", &vm), "");
        assert!(held.contains("TaskInProgress"), "{held}");
        client.call("HttpNfcLeaseComplete", ("HttpNfcLease", &lease), "");
        let all = "<removeChildren>false</removeChildren>";
        client.task("RemoveSnapshot_Task", ("VirtualMachineSnapshot", &snapshot), all);
        assert!(server.state().vm("web").unwrap().snapshots.is_empty());

        let lease = value(&import(&client), "returnval");
        let (_, url) = client.lease(&lease);
        assert_eq!(client.upload(&url, &stream), "200");
        client.call("HttpNfcLeaseComplete", ("HttpNfcLease", &lease), "");
        let state = server.state();
        let new = state.vm("new").unwrap();
        assert_eq!((new.disks.len(), new.disks[0].bytes), (1, 96 * MIB));
        new.disks[0].assert_same(&image, Format::Qcow2);
        let taken = import(&client);
        assert!(taken.contains("DuplicateName"), "{taken}");
        let (new, web) = (new.id.clone(), vm);
        client.task("PowerOffVM_Task", ("VirtualMachine", &web), "");
        for vm in [new, web] {
            client.task("Destroy_Task", ("VirtualMachine", &vm), "");
        }
        nothing_is_left(&server.state());
    }
}

#[test]
fn an_import_that_does_not_end_well_leaves_nothing() {
    let server = Vsphere::with(&Options {
        lease_timeout: Duration::from_secs(2),
        ..Options::default()
    });
    let client = Client::log_in(&server, false);
    let gone = |why: &str| {
        wait_for(why, SOON, || server.state().vms.is_empty().then_some(()));
        nothing_is_left(&server.state());
    };

    import(&client);
    assert_eq!(server.state().leases.len(), 1);
    gone("the end of a lease that nobody keeps");

    let lease = value(&import(&client), "returnval");
    client.call("HttpNfcLeaseAbort", ("HttpNfcLease", &lease), "");
    gone("the end of a lease that was aborted");

    // Its task can be cancelled by whoever is the same user.
    import(&client);
    let other = Client::log_in(&server, false);
    let vm = server.state().vms[0].id.clone();
    let task = value(
        &other.properties("VirtualMachine", &vm, "recentTask"),
        "ManagedObjectReference",
    );
    let running = other.properties("Task", &task, "info.descriptionId");
    assert!(running.contains("ResourcePool.ImportVAppLRO"), "{running}");
    other.call("CancelTask", ("Task", &task), "");
    gone("the end of a lease whose task was cancelled");

    let lease = value(&import(&client), "returnval");
    let (_, url) = client.lease(&lease);
    // qemu-img's own streams have no footer and no end marker, and ESXi takes none of those.
    let source = disk(client.folder.path(), 3);
    let stream = client.file("qemu.vmdk");
    run(Command::new("qemu-img")
        .args([
            "convert",
            "-f",
            "qcow2",
            "-O",
            "vmdk",
            "-o",
            "subformat=streamOptimized",
        ])
        .args([&source, &stream]));
    assert_eq!(client.upload(&url, &stream), "500");
    let error = client.properties("HttpNfcLease", &lease, "error");
    assert!(error.contains("InvalidFormat"), "{error}");
    gone("the end of a lease that was sent no disk");

    import(&client);
    server.kill_sessions();
    gone("the end of a session");
    let refused = client.call("CurrentTime", ("ServiceInstance", "ServiceInstance"), "");
    assert!(refused.contains("NotAuthenticated"), "{refused}");
}

#[test]
fn calls_go_wrong_as_they_are_told_and_are_counted() {
    let server = Vsphere::start();
    let client = Client::log_in(&server, false);
    let vm = server.seed(&VmSeed::new("web"));
    let denied = Fault::of("PowerOnVM_Task", "NoPermission")
        .with(serde_json::json!({ "privilegeId": "VirtualMachine.Interact.PowerOn" }));
    server.inject(&denied.after(1).times(2));
    server.inject(&Fault::of("PowerOffVM_Task", "InvalidState").in_task().saying("no way"));
    let this = ("VirtualMachine", vm.as_str());
    assert!(client.task("PowerOnVM_Task", this, "").contains(">success<"));
    for _ in 0..2 {
        let refused = client.call("PowerOnVM_Task", this, "");
        assert!(refused.contains("VirtualMachine.Interact.PowerOn"), "{refused}");
    }
    assert!(client.task("PowerOnVM_Task", this, "").contains("InvalidPowerState"));
    let failed = client.task("PowerOffVM_Task", this, "");
    assert!(failed.contains("InvalidState") && failed.contains("no way"), "{failed}");
    assert_eq!((server.count("PowerOnVM_Task"), server.count("Destroy_Task")), (4, 0));
}
