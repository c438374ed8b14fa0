//! Staging stores: real servers, objects that are plain files.

use vmferry_testkit::stores::{Apache, ApacheSpec, Export, Ganesha, SeaweedFs};

use super::{MIB, qemu_img, raw_disk, same};
use crate::support::Bench;

/// Converts a disk into the store and out of it again; the object is read by its URL with these arguments.
#[track_caller]
fn there_and_back(bench: &Bench, folder: &str, access: &[&str]) {
    for format in ["qcow2", "raw"] {
        let object = format!("{folder}/copy.{format}");
        let put = [&["image", "convert", "--verify"], access, &["disk.raw", &object]].concat();
        let ran = bench.run(&put);
        assert!(ran.succeeded().contains("read back"), "{}", ran.out);
        let again = [&["image", "convert"], access, &["disk.raw", &object]].concat();
        bench.run(&again).refused(1, &["it exists", "never replaced"]);
        let back = format!("back-{format}.raw");
        let _ = std::fs::remove_file(bench.path(&back));
        bench
            .run(&[&["image", "convert"], access, &[&object, &back]].concat())
            .succeeded();
        same(bench, ("disk.raw", "raw"), (&back, "raw"));
    }
    let missing = format!("{folder}/nothing.qcow2");
    bench
        .run(&[&["image", "info"], access, &[&missing]].concat())
        .refused(1, &["nothing.qcow2", "no such object"]);
}

#[test]
fn a_web_server_holds_images() {
    let bench = Bench::new();
    raw_disk(&bench, "disk.raw", 24 * MIB);
    let apache = Apache::with(&ApacheSpec {
        user: Some(("me".to_owned(), "hunter2".to_owned())),
        ..ApacheSpec::default()
    });
    let manifest =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: web}\nstringData: {username: me, password: hunter2}\n";
    bench.write("secret.yaml", manifest);
    let folder = format!("http://{}/images", apache.address());
    let access = ["--secret", "secret.yaml"];
    there_and_back(&bench, &folder, &access);

    // A file that somebody else put there.
    qemu_img(
        &bench,
        &["convert", "-f", "raw", "-O", "qcow2", "-c", "disk.raw", "theirs.qcow2"],
    );
    std::fs::copy(bench.path("theirs.qcow2"), apache.root().join("theirs.qcow2")).unwrap();
    let theirs = format!("http://{}/theirs.qcow2", apache.address());
    bench
        .run(&["image", "info", "--secret", "secret.yaml", &theirs])
        .succeeded();
    bench
        .run(&["image", "convert", "--secret", "secret.yaml", &theirs, "theirs.raw"])
        .succeeded();
    same(&bench, ("disk.raw", "raw"), ("theirs.raw", "raw"));
    bench.run(&["image", "info", &theirs]).refused(1, &["theirs.qcow2"]);
    bench
        .run(&["image", "info", "--allowed-storage-hosts", "other.example", &theirs])
        .refused(2, &["127.0.0.1"]);
}

#[test]
fn a_bucket_holds_images() {
    let bench = Bench::new();
    raw_disk(&bench, "disk.raw", 24 * MIB);
    let server = SeaweedFs::start();
    let (key, secret) = SeaweedFs::KEY;
    let manifest = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: s3}}\nstringData: {{accessKey: {key}, secretKey: \"{secret}\"}}\n"
    );
    bench.write("secret.yaml", &manifest);
    let (endpoint, folder) = (server.url(), format!("s3://{}/images", SeaweedFs::BUCKET));
    let access = [
        "--secret",
        "secret.yaml",
        "--region",
        "us-east-1",
        "--endpoint",
        &endpoint,
    ];
    there_and_back(&bench, &folder, &access);
}

/// Another process is at the same object: its upload and its journal are its own.
#[test]
fn an_upload_of_another_is_left_alone() {
    let bench = Bench::new();
    raw_disk(&bench, "disk.raw", 24 * MIB);
    let server = Ganesha::start(Export::default());
    let options = format!("vers=4.1,port={},mountport={}", server.port(), server.mount_port());
    let manifest =
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: nfs}}\nstringData: {{mountOptions: \"{options}\"}}\n");
    bench.write("secret.yaml", &manifest);
    let theirs = [
        (".copy.qcow2.note", r#"{"version":1,"owner":"another"}"#),
        (".copy.qcow2.1234.part", "what arrived"),
    ];
    for (name, text) in theirs {
        std::fs::write(server.folder().join(name), text).unwrap();
    }
    let object = format!("nfs://127.0.0.1{}/copy.qcow2", Ganesha::PSEUDO);
    let convert = ["image", "convert", "--secret", "secret.yaml", "disk.raw", &object];
    bench.run(&convert).refused(1, &["copy.qcow2", "another"]);
    for (name, text) in theirs {
        assert_eq!(std::fs::read_to_string(server.folder().join(name)).unwrap(), text);
    }
}

#[test]
fn an_nfs_server_holds_images() {
    let bench = Bench::new();
    raw_disk(&bench, "disk.raw", 24 * MIB);
    let server = Ganesha::start(Export::default());
    for (version, path) in [
        ("4.1", Ganesha::PSEUDO.to_owned()),
        ("3", server.path().display().to_string()),
    ] {
        let bench_folder = format!("nfs://127.0.0.1{path}");
        let options = format!(
            "vers={version},port={},mountport={}",
            server.port(),
            server.mount_port()
        );
        let manifest = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: nfs}}\nstringData: {{mountOptions: \"{options}\"}}\n"
        );
        bench.write("secret.yaml", &manifest);
        there_and_back(&bench, &bench_folder, &["--secret", "secret.yaml"]);
        for format in ["raw", "qcow2"] {
            std::fs::remove_file(server.folder().join(format!("copy.{format}"))).unwrap();
        }
        assert_eq!(
            super::names(&server.folder()),
            Vec::<String>::new(),
            "something is left beside the objects"
        );
    }
}
