//! A cluster on which the manifests are installed, and two hosts.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use vmferry_testkit::kube::{Cluster, ClusterSpec, Kubelet};
use vmferry_testkit::{DiskSpec, GuestSpec, Host, MIB, poll};

use crate::audit::Audit;
use crate::process::{Process, limit};

const API: &str = "infra.virtrigaud.io/v1beta1";
/// What examples and manifests call the namespace of migrations.
const NAMESPACE: &str = "vms";
/// What a server of 1.20 does not know.
const UNKNOWN: &str = "PodDisruptionBudget";

pub struct Bed {
    // Dropped in this order.
    controller: Process,
    kubelet: Kubelet,
    cluster: Cluster,
    audit: Audit,
    a: Host,
    b: Host,
    folder: TempDir,
}

impl Bed {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::new(folder.path());
        let crds = vmferry_api::crd::all().iter().map(|crd| crd.json.clone()).collect();
        let cluster = Cluster::with(&ClusterSpec {
            crds,
            api_server_args: audit.arguments(),
            ..ClusterSpec::default()
        });
        let installed = documents("deploy/manifests/install.yaml");
        for object in installed
            .iter()
            .filter(|it| it["kind"] != UNKNOWN)
            .chain(&documents("examples/kubernetes/10-namespace.yaml"))
        {
            cluster.apply(object).unwrap();
        }
        std::fs::create_dir(folder.path().join("staging")).unwrap();
        let bed = Self {
            controller: start(&installed, &cluster, folder.path()),
            kubelet: Kubelet::start(&cluster, env!("CARGO_BIN_EXE_vmferry")),
            cluster,
            audit,
            a: Host::session("a"),
            b: Host::session("b"),
            folder,
        };
        for (name, host) in [("a", &bed.a), ("b", &bed.b)] {
            let spec = json!({ "type": "libvirt", "endpoint": host.uri(), "credentialSecretRef": { "name": "key" } });
            bed.create("Provider", name, &spec, &json!({}));
        }
        let secret =
            json!({ "metadata": { "name": "key", "namespace": NAMESPACE }, "stringData": { "username": "root" } });
        bed.apply("v1", "Secret", secret);
        bed
    }

    fn apply(&self, version: &str, kind: &str, mut object: Value) {
        object["apiVersion"] = version.into();
        object["kind"] = kind.into();
        self.cluster.apply(&object).unwrap();
    }

    fn create(&self, kind: &str, name: &str, spec: &Value, annotations: &Value) {
        let metadata = json!({ "name": name, "namespace": NAMESPACE, "annotations": annotations });
        self.apply(API, kind, json!({ "metadata": metadata, "spec": spec }));
    }

    /// Makes a VM at `a`, shut off, and declares it.
    pub fn vm(&self, name: &str) {
        self.a
            .define(&GuestSpec::micro(name).disk(DiskSpec::qcow2(32 * MIB).noise(16 * MIB)));
        self.create(
            "VirtualMachine",
            name,
            &json!({ "providerRef": { "name": "a" } }),
            &json!({}),
        );
    }

    /// Declares the migration of a VM to `b`.
    pub fn declare(&self, name: &str, vm: &str, annotations: &Value) {
        let storage = json!({ "type": "nfs", "path": self.folder.path().join("staging") });
        let spec = json!({
            "sourceName": vm, "sourceNamespace": NAMESPACE, "targetProviderRef": { "name": "b" },
            "targetName": format!("{vm}-{name}"), "storage": storage,
        });
        self.create("VMMigration", name, &spec, annotations);
    }

    /// Deletes a migration, and waits until it is gone.
    pub fn delete(&mut self, name: &str) {
        let kind = (API, "VMMigration");
        self.cluster.delete(kind, NAMESPACE, name);
        let gone = poll(limit(), || {
            self.cluster.get(kind, NAMESPACE, name).is_none().then_some(())
        });
        assert!(
            gone.is_some(),
            "{name} stays: {}\n{}",
            self.controller.text(),
            self.kubelet.logs()
        );
    }

    /// Waits until a worker has moved something.
    pub fn await_bytes(&mut self, name: &str) {
        let moved = || {
            let found = self.cluster.get((API, "VMMigration"), NAMESPACE, name).unwrap();
            found["status"]["disks"][0]["bytesTransferred"].as_u64() > Some(0)
        };
        let found = poll(limit(), || moved().then_some(()));
        assert!(
            found.is_some(),
            "nothing moves: {}\n{}",
            self.controller.text(),
            self.kubelet.logs()
        );
    }

    pub fn await_phase(&mut self, name: &str, phase: &str) {
        let found = || self.cluster.get((API, "VMMigration"), NAMESPACE, name).unwrap();
        let reached = poll(limit(), || (found()["status"]["phase"] == phase).then_some(()));
        let said = self.controller.text();
        assert!(
            reached.is_some(),
            "{name} is not {phase}: {:#}\n{said}\n{}",
            found()["status"],
            self.kubelet.logs()
        );
    }

    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// What `/metrics` answers.
    pub fn metrics(&self) -> String {
        let mut stream = TcpStream::connect((self.cluster.address().0, 8080)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        answer
    }

    /// Ends the controller, as a cluster does.
    pub fn stop(&mut self) {
        self.controller.signal("TERM");
        let status = self.controller.end();
        assert!(status.success(), "{status}: {}", self.controller.text());
    }
}

/// Starts the controller as the Deployment does, with folders of ours in the place of its volumes.
fn start(installed: &[Value], cluster: &Cluster, folder: &Path) -> Process {
    let find = |kind: &str, name: &str| {
        let wanted = |it: &&Value| it["kind"] == kind && it["metadata"]["name"] == name;
        installed
            .iter()
            .find(wanted)
            .unwrap_or_else(|| panic!("there is no {kind} {name}"))
    };
    let template = find("ConfigMap", "vmferry-worker")["data"]["pod-template.yaml"]
        .as_str()
        .unwrap();
    std::fs::write(folder.join("pod-template.yaml"), template).unwrap();
    let pod = &find("Deployment", "vmferry-controller")["spec"]["template"]["spec"];
    let address = cluster.address().0;
    let args: Vec<String> = serde_json::from_value(pod["containers"][0]["args"].clone()).unwrap();
    let args: Vec<_> = args.iter().map(|argument| here(argument, address, folder)).collect();
    let account = pod["serviceAccountName"].as_str().unwrap();
    let groups = ["system:serviceaccounts", "system:serviceaccounts:vmferry-system"];
    let access = cluster.user(&format!("system:serviceaccount:vmferry-system:{account}"), &groups);
    let kubeconfig = access.kubeconfig().display().to_string();
    let environment = [
        ("KUBECONFIG", kubeconfig.as_str()),
        ("POD_NAMESPACE", "vmferry-system"),
        ("POD_NAME", "vmferry-0"),
    ];
    Process::start(&args, &environment, folder)
}

/// An argument, for a process that has no network and no file system of its own.
fn here(argument: &str, address: Ipv4Addr, folder: &Path) -> String {
    let folder = folder.display().to_string();
    argument
        .replace("0.0.0.0", &address.to_string())
        .replace("/run/vmferry", &format!("{folder}/run"))
        .replace("/etc/vmferry/worker", &folder)
}

/// The documents of a YAML file of the project.
pub fn documents(path: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap()
}
