//! The reference's "Complete Example", driven to its end by Jobs on a cluster: a libvirt host, a vCenter with the example's datastore
//! and networks, and a bucket of its name. Of the migration itself only the bucket's endpoint is another.

use serde_json::{Value, json};
use vmferry_testkit::stores::SeaweedFs;
use vmferry_testkit::vsphere::{Options, Vsphere};
use vmferry_testkit::{Counters, DiskSpec, Format, Guest, GuestSpec, Host, MIB, NicSpec, World, poll};

use crate::side::Side as _;
use crate::support::{Ferry, Outcome, shared, worker_account};

const EXAMPLE: &str = include_str!("../conformance/complete-example.yaml");
const API: &str = "infra.virtrigaud.io/v1beta1";
const NAMESPACE: &str = "databases";
const BUCKET: &str = "vm-migrations-prod";
const GIB: u64 = 1 << 30;
const SETTLE: std::time::Duration = std::time::Duration::from_secs(20);

/// What the example takes for granted.
struct Scene {
    host: Host,
    vsphere: Vsphere,
    s3: SeaweedFs,
    ferry: Ferry,
}

impl Scene {
    fn new() -> Self {
        let vsphere = Vsphere::with(&Options {
            portgroups: 1,
            ..Options::default()
        });
        for (from, to) in [
            ("LocalDS_0", "ssd-datastore"),
            ("VM Network", "Production Network"),
            ("DC0_DVPG0", "Storage Network"),
        ] {
            vsphere.rename(from, to);
        }
        let s3 = SeaweedFs::start();
        s3.make_bucket(BUCKET);
        Self {
            host: Host::session("a"),
            vsphere,
            s3,
            ferry: Ferry::new(),
        }
    }

    /// The database: a disk to boot from, one that is written with it, one with data; two interfaces.
    fn database(&self) -> Guest<'_> {
        let spec = GuestSpec::micro("mysql-primary")
            .disk(DiskSpec::qcow2(64 * MIB).noise(24 * MIB))
            .disk(DiskSpec::qcow2(32 * MIB))
            .disk(DiskSpec::raw(48 * MIB).noise(16 * MIB))
            .nic(NicSpec::user("52:54:00:12:34:57"));
        self.host.boot(&spec)
    }

    /// The example, at this machine's bucket.
    fn migration(&self) -> Value {
        let mut example: Value = serde_saphyr::from_str(EXAMPLE).unwrap();
        example["spec"]["storage"]["endpoint"] = json!(self.s3.url());
        example
    }

    /// What somebody has declared before: the namespace with its workers, Providers that are shared with it, Secrets, the VM.
    fn declared(&self) -> Vec<Value> {
        let meta = |namespace: &str, name: &str| json!({ "name": name, "namespace": namespace });
        let secret = |namespace: &str, name: &str, data: &Value| json!({ "apiVersion": "v1", "kind": "Secret", "metadata": meta(namespace, name), "stringData": data });
        let provider = |name: &str, spec: &Value| json!({ "apiVersion": API, "kind": "Provider", "metadata": meta("default", name), "spec": spec });
        let mut vsphere = self.vsphere.provider();
        vsphere["credentialSecretRef"] = json!({ "name": "vsphere-prod-creds" });
        let keys = json!({ "accessKey": SeaweedFs::KEY.0, "secretKey": SeaweedFs::KEY.1 });
        let mut all = vec![json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } })];
        all.extend(worker_account(NAMESPACE));
        all.extend(shared("default", NAMESPACE));
        all.extend([
            secret(NAMESPACE, "aws-s3-prod-creds", &keys),
            secret("default", "vsphere-prod-creds", &self.vsphere.secret().unwrap()),
            provider("vsphere-prod", &vsphere),
            provider("kvm", &json!({ "type": "libvirt", "endpoint": self.host.uri() })),
            json!({
                "apiVersion": API, "kind": "VirtualMachine", "metadata": meta(NAMESPACE, "mysql-primary"),
                "spec": { "providerRef": { "name": "kvm", "namespace": "default" } },
            }),
        ]);
        all
    }

    /// Applies everything, and has the controller drive it to its end.
    fn run(&self) -> Outcome {
        let mut documents = self.declared();
        documents.push(self.migration());
        let text = documents
            .iter()
            .fold(String::new(), |text, document| format!("{text}---\n{document}\n"));
        let file = self.ferry.write("example.yaml", &text);
        self.ferry.start_files(&[&file]).end()
    }

    fn get(&self, kind: &str, name: &str) -> Value {
        let found = self.ferry.cluster().get((API, kind), NAMESPACE, name);
        found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
    }
}

#[test]
fn the_complete_example_becomes_ready() {
    let scene = Scene::new();
    let database = scene.database();
    let (before, run_id) = (World::of(&[&scene.host], &[]), database.run_id());
    let files = scene.vsphere.state().files;
    scene.run().ready();

    assert_kept(&scene.get("VMMigration", "production-db-migration"), &scene.migration());
    assert_arrived(&scene, &database);
    let target = scene.get("VirtualMachine", "mysql-primary-vsphere");
    assert_eq!(
        target["spec"]["importedDisk"]["migrationRef"],
        json!({ "name": "production-db-migration", "namespace": NAMESPACE })
    );
    assert_eq!(
        target["spec"]["providerRef"],
        json!({ "name": "vsphere-prod", "namespace": "default" })
    );

    // The source is kept, and runs; nothing else is left anywhere.
    assert_eq!(database.run_id(), run_id);
    before.assert_unchanged(&[&scene.host], &[]);
    let state = scene.vsphere.state();
    assert!(state.leases.is_empty(), "{:?}", state.leases);
    let is_new = |file: &&String| !files.contains(file) && !file.contains("] mysql-primary-vsphere");
    assert_eq!(state.files.iter().find(is_new), None);
    let staged = || scene.s3.everything(BUCKET);
    assert!(
        poll(SETTLE, || staged().is_empty().then_some(())).is_some(),
        "{:?}",
        staged()
    );
    assert_eq!(scene.vsphere.state().vms.len(), 1);
}

/// The migration is as it was declared, and says that it is over.
#[track_caller]
fn assert_kept(migration: &Value, declared: &Value) {
    assert_eq!(migration["spec"], declared["spec"]);
    let labels = &migration["metadata"]["labels"];
    for (name, value) in [
        ("app", "mysql"),
        ("env", "production"),
        ("migration.virtrigaud.io/source-provider", "libvirt"),
        ("migration.virtrigaud.io/target-provider", "vsphere"),
    ] {
        assert_eq!(labels[name], value);
    }
    let status = &migration["status"];
    assert_eq!((&status["phase"], &status["progress"]), (&json!("Ready"), &json!(100)));
    assert_eq!(status["retryAttempts"].as_u64().unwrap_or(0), 0);
    let url = status["intermediateStorageURL"].as_str().unwrap();
    assert!(
        url.starts_with("s3://vm-migrations-prod/databases/production-db-migration-"),
        "{url}"
    );
    let has_format = std::path::Path::new(url).extension().is_some_and(|end| end == "vmdk");
    assert!(has_format, "{url}");
}

/// The VM is there as the example asks for it, with what is on the source's disks.
#[track_caller]
fn assert_arrived(scene: &Scene, database: &Guest<'_>) {
    let state = scene.vsphere.state();
    let vm = state.vm("mysql-primary-vsphere").unwrap();
    assert_eq!((vm.cpus, vm.memory_mib, vm.on), (8, 16384, true));
    let networks: Vec<_> = vm.nics.iter().map(|nic| nic.network.as_str()).collect();
    assert_eq!(networks, ["Production Network", "Storage Network"]);
    let [boot, log, data] = &vm.disks[..] else {
        panic!("{:?}", vm.disks)
    };
    assert_eq!((boot.bytes, log.bytes, data.bytes), (500 * GIB, 32 * MIB, 48 * MIB));
    for disk in &vm.disks {
        assert!(disk.file.starts_with("[ssd-datastore] "), "{}", disk.file);
    }
    let counters = Counters::read(&boot.content, Format::Raw);
    counters.assert_consistent_with(Counters::read_second_disk(&log.content, Format::Raw));
    assert_eq!(counters.boots, database.boots());
    let (image, format) = &database.disks[2];
    data.assert_same(image, *format);
}
