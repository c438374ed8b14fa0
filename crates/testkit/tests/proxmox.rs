//! The double of a Proxmox VE cluster: that it moves real bytes, refuses what Proxmox VE refuses, and leaves nothing.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use vmferry_testkit::proxmox::{Options, Proxmox, Rule, SeedDisk, SeedVm, Version};
use vmferry_testkit::{Format, MIB, Must, image, micro, run, wait_for};

/// What curl gets: status and body.
fn curl(cluster: &Proxmox, token: &str, args: &[&str], path: &str) -> (String, String) {
    let ca = cluster.dir().join("test-ca.pem");
    std::fs::write(&ca, cluster.ca()).must("do a step of the test");
    let said = run(Command::new("curl")
        .args(["-sS", "-w", "\n%{http_code}", "--cacert"])
        .arg(&ca)
        .arg("-H")
        .arg(format!("Authorization: PVEAPIToken={token}={}", Proxmox::TOKEN.1))
        .args(args)
        .arg(format!("{}/api2/json{path}", cluster.url())));
    let (body, status) = said.rsplit_once('\n').must("do a step of the test");
    (status.to_owned(), body.to_owned())
}

fn ask(cluster: &Proxmox, args: &[&str], path: &str) -> (String, String) {
    curl(cluster, Proxmox::TOKEN.0, args, path)
}

/// A bootable raw image.
fn boot_image(folder: &Path, marker: &str) -> std::path::PathBuf {
    let path = folder.join(format!("{marker}.raw"));
    let file = std::fs::File::create(&path).must("do a step of the test");
    file.set_len(16 * MIB).must("do a step of the test");
    micro::install(&file, marker);
    path
}

fn sha256(path: &Path) -> String {
    let said = run(Command::new("sha256sum").arg(path));
    said.split(' ').next().must("do a step of the test").to_owned()
}

fn upload(cluster: &Proxmox, file: &Path, name: &str) -> (String, String) {
    let part = format!("filename=@{};filename={name}", file.display());
    let sum = format!("checksum={}", sha256(file));
    ask(
        cluster,
        &[
            "-F",
            "content=import",
            "-F",
            "checksum-algorithm=sha256",
            "-F",
            &sum,
            "-F",
            &part,
        ],
        "/nodes/pve1/storage/local/upload",
    )
}

#[test]
fn uploads_imports_and_boots() {
    let folder = tempfile::tempdir().must("do a step of the test");
    let cluster = Proxmox::start(&Options {
        real_machines: true,
        ..Options::new(Version::V9)
    });
    let before = cluster.inventory();
    let raw = boot_image(folder.path(), "double");
    let qcow2 = folder.path().join("x.qcow2");
    image::convert(&raw, Format::Raw, &qcow2, Format::Qcow2);
    let (status, body) = upload(&cluster, &qcow2, "x.qcow2");
    assert_eq!(status, "200", "{body}");
    cluster.settle();
    assert_eq!(cluster.volumes(), ["local:import/x.qcow2"], "{:?}", cluster.tasks());
    assert!(cluster.received() >= std::fs::metadata(&qcow2).must("do a step of the test").len());

    let args = [
        "-d",
        "vmid=100",
        "-d",
        "name=made",
        "-d",
        "memory=32",
        "-d",
        "boot=order%3Dvirtio0",
    ];
    let drive = "virtio0=local-lvm:0%2Cimport-from%3Dlocal:import/x.qcow2";
    let (status, body) = ask(&cluster, &[&args[..], &["-d", drive]].concat(), "/nodes/pve1/qemu");
    assert_eq!(status, "200", "{body}");
    assert_eq!(cluster.vms()[0].lock.as_deref(), Some("create"));
    cluster.settle();
    let vm = cluster.vm("made").must("find the VM");
    assert_eq!(
        vm.config["virtio0"],
        "local-lvm:vm-100-disk-0,size=16M",
        "{:?}",
        cluster.tasks()
    );
    let disk = &cluster.disks(100)[0];
    image::assert_same(&disk.path, disk.format, &raw, Format::Raw);

    let (status, body) = ask(
        &cluster,
        &["-X", "PUT", "-d", "disk=virtio0", "-d", "size=32M"],
        "/nodes/pve1/qemu/100/resize",
    );
    assert_eq!(status, "200", "{body}");
    let (status, body) = ask(&cluster, &["-X", "POST"], "/nodes/pve1/qemu/100/status/start");
    assert_eq!(status, "200", "{body}");
    cluster.console_line(100, "double", Duration::from_mins(1));
    ask(&cluster, &["-X", "POST"], "/nodes/pve1/qemu/100/status/stop");
    wait_for("the VM to stop", Duration::from_secs(20), || {
        (cluster.vms()[0].status == "stopped").then_some(())
    });
    assert_eq!(
        std::fs::metadata(&cluster.disks(100)[0].path)
            .must("do a step of the test")
            .len(),
        32 * MIB
    );
    ask(&cluster, &["-X", "DELETE"], "/nodes/pve1/qemu/100?purge=1");
    ask(
        &cluster,
        &["-X", "DELETE"],
        "/nodes/pve1/storage/local/content/local:import/x.qcow2",
    );
    cluster.settle();
    assert_eq!(cluster.inventory(), before);
    assert_eq!(cluster.violations(), [""; 0]);
}

#[test]
fn refuses_what_a_version_does_not_know() {
    let folder = tempfile::tempdir().must("do a step of the test");
    let raw = boot_image(folder.path(), "old");
    for (version, said) in [
        (Version::V7_4, "does not have a value in the enumeration"),
        (Version::V8_2, "does not have a value in the enumeration"),
        (Version::V8_3, "wrong extension"),
    ] {
        let cluster = Proxmox::start(&Options::new(version));
        let (status, body) = upload(&cluster, &raw, "x.raw");
        assert_eq!(status, "400", "{body}");
        assert!(body.contains(said), "{version:?}: {body}");
        assert_eq!(cluster.violations(), [""; 0]);
        assert_eq!(cluster.inventory(), [""; 0]);
    }
}

#[test]
fn takes_no_stream_without_length_and_no_wrong_order() {
    let folder = tempfile::tempdir().must("do a step of the test");
    let raw = boot_image(folder.path(), "order");
    let cluster = Proxmox::start(&Options::new(Version::V8_4));
    let part = format!("filename=@{};filename=x.raw", raw.display());
    let path = "/nodes/pve1/storage/local/upload";
    let chunked = ["-H", "Transfer-Encoding: chunked", "-F", "content=import", "-F", &part];
    assert_eq!(ask(&cluster, &chunked, path).0, "501");
    let (status, body) = ask(&cluster, &["-F", &part, "-F", "content=import"], path);
    assert_ne!(status, "200", "{body}");
    let (status, body) = ask(
        &cluster,
        &["-F", "content=import", "-F", &part],
        path.replace("local", "plain").as_str(),
    );
    assert_eq!(status, "500", "{body}");
    assert!(body.contains("does not support 'import' content"), "{body}");
    assert_eq!(cluster.inventory(), [""; 0]);
}

#[test]
fn fetches_by_itself_and_fails_as_asked() {
    let folder = tempfile::tempdir().must("do a step of the test");
    let cluster = Proxmox::start(&Options::new(Version::V8_4));
    let raw = boot_image(folder.path(), "pulled");
    let server = std::net::TcpListener::bind("127.0.0.1:0").must("do a step of the test");
    let url = format!(
        "http://{}/pulled.raw?secret=1",
        server.local_addr().must("do a step of the test")
    );
    let bytes = std::fs::read(&raw).must("do a step of the test");
    let sum = sha256(&raw);
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for stream in server.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 4096]);
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&bytes));
        }
    });
    let pull = |sum: &str| {
        let (status, body) = ask(
            &cluster,
            &[
                "--data-urlencode",
                &format!("url={url}"),
                "-d",
                "content=import",
                "-d",
                "filename=p.raw",
                "-d",
                "checksum-algorithm=sha256",
                "-d",
                &format!("checksum={sum}"),
            ],
            "/nodes/pve2/storage/local/download-url",
        );
        assert_eq!(status, "200", "{body}");
        cluster.settle();
        cluster.tasks().pop().must("do a step of the test").status
    };
    assert!(pull(&"0".repeat(64)).contains("checksum mismatch"));
    assert_eq!(cluster.inventory(), [""; 0]);
    cluster.fail_task("download", Duration::from_millis(100), "interrupted by signal");
    assert_eq!(pull(&sum), "interrupted by signal");
    assert_eq!(pull(&sum), "OK");
    assert_eq!(pull(&sum), "OK");
    assert_eq!(cluster.volumes(), ["local:import/p.raw"]);
    cluster.on("GET", "/version", 1, &Rule::Answer(500, "no".to_owned()));
    assert_eq!(ask(&cluster, &[], "/version").0, "500");
    assert_eq!(ask(&cluster, &[], "/version").0, "200");
    cluster.revoke("Datastore.AllocateTemplate");
    let (status, body) = upload(&cluster, &raw, "q.raw");
    assert_eq!(status, "403");
    assert!(
        body.contains("Permission check failed (/storage/local, Datastore.AllocateTemplate)"),
        "{body}"
    );
    assert_eq!(cluster.violations(), [""; 0]);
}

#[test]
fn clones_snapshots_and_has_nodes_with_ssh() {
    let folder = tempfile::tempdir().must("do a step of the test");
    let mut cluster = Proxmox::start(&Options::new(Version::V8_2).with_ssh());
    let raw = boot_image(folder.path(), "source");
    let disk = SeedDisk::new("scsi0", &raw, Format::Raw).stored_as(Format::Qcow2);
    cluster.seed(&SeedVm::new(100, "source").disk(disk));
    cluster.start_vm(100);
    cluster.console_line(100, "source", Duration::from_mins(1));
    let (status, body) = ask(&cluster, &["-d", "snapname=one"], "/nodes/pve1/qemu/100/snapshot");
    assert_eq!(status, "200", "{body}");
    cluster.settle();
    assert_eq!(
        cluster.vm("source").must("do a step of the test").snapshots,
        ["one"],
        "{:?}",
        cluster.tasks()
    );
    let clone = [
        "-d",
        "newid=101",
        "-d",
        "full=1",
        "-d",
        "storage=stg",
        "-d",
        "format=qcow2",
        "-d",
        "snapname=one",
    ];
    let (status, body) = ask(&cluster, &clone, "/nodes/pve1/qemu/100/clone");
    assert_eq!(status, "200", "{body}");
    cluster.settle();
    let cloned = &cluster.disks(101)[0];
    assert!(cloned.path.starts_with(cluster.shared_dir()), "{:?}", cluster.tasks());
    assert!(micro::Counters::read(&cloned.path, cloned.format).boots >= 1);

    let known = cluster.dir().join("known");
    std::fs::write(&known, cluster.known_hosts()).must("do a step of the test");
    let (status, body) = ask(&cluster, &[], "/cluster/status");
    assert_eq!(status, "200");
    let address = body
        .split("\"ip\": \"")
        .nth(1)
        .must("do a step of the test")
        .split('"')
        .next()
        .must("do a step of the test")
        .to_owned();
    let ssh = |command: &str| {
        run(Command::new("ssh")
            .args(["-o", "BatchMode=yes", "-p", "2222", "-i"])
            .arg(cluster.dir().join("ssh/id"))
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", known.display()))
            .arg(format!("root@{address}"))
            .arg(command))
    };
    let path = ssh("pvesm path local:100/vm-100-disk-0.qcow2");
    assert_eq!(Path::new(path.trim()), cluster.disks(100)[0].path);
    assert!(ssh("ls /var/run/qemu-server").contains("100.qmp"));
    cluster.move_vm(100, "pve2");
    assert_eq!(cluster.vm("source").must("do a step of the test").node, "pve2");
    cluster.node_down("pve2");
    assert_eq!(ask(&cluster, &[], "/nodes/pve2/qemu/100/config").0, "595");
    assert_eq!(cluster.violations(), [""; 0]);
}
