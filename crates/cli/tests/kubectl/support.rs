//! A cluster with our kinds, and the plugin as kubectl calls it.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use vmferry_api::VMMigration;
use vmferry_testkit::kube::{Access, Cluster, ClusterSpec};

/// The namespace of the tests.
pub const NS: &str = "default";

pub struct Bed {
    pub cluster: Cluster,
    pub client: Client,
}

/// What a command did.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Bed {
    pub async fn new() -> Self {
        let crds = vmferry_api::crd::all().iter().map(|crd| crd.json.clone()).collect();
        let cluster = Cluster::with(&ClusterSpec {
            crds,
            controllers: false,
            ..ClusterSpec::default()
        });
        Self {
            client: cluster.client().await,
            cluster,
        }
    }

    /// The plugin, as kubectl calls it: by its name, with its kubeconfig in the environment.
    pub fn command(access: &Access, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmferry"));
        command
            .arg0("/usr/local/bin/kubectl-vmferry")
            .env("KUBECONFIG", access.kubeconfig())
            .env_remove("VMFERRY_LOG")
            .args(args);
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Self::run_as(self.cluster.admin(), args)
    }

    pub fn run_as(access: &Access, args: &[&str]) -> Ran {
        Ran::from(Self::command(access, args).output().unwrap())
    }

    pub fn start(&self, args: &[&str]) -> Child {
        Self::command(self.cluster.admin(), args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub fn api(&self) -> Api<VMMigration> {
        Api::namespaced(self.client.clone(), NS)
    }

    /// Creates a migration with this status.
    pub async fn migration(&self, name: &str, status: Value) -> VMMigration {
        let object = json!({
            "apiVersion": "infra.virtrigaud.io/v1beta1", "kind": "VMMigration", "metadata": { "name": name },
            "spec": {
                "sourceName": "web", "sourceNamespace": NS, "targetProviderRef": { "name": "b" }, "targetName": "web-2",
                "storage": { "type": "nfs", "path": "/mnt" }
            },
        });
        let object = serde_json::from_value(object).unwrap();
        self.api().create(&PostParams::default(), &object).await.unwrap();
        self.report(name, status).await
    }

    /// Writes a status, as the controller does.
    pub async fn report(&self, name: &str, status: Value) -> VMMigration {
        let patch = Patch::Merge(json!({ "status": status }));
        self.api()
            .patch_status(name, &PatchParams::default(), &patch)
            .await
            .unwrap()
    }

    /// Creates an object of the group of roles.
    pub async fn create(&self, kind: &str, object: Value) {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), NS, &resource);
        let object = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    /// An annotation of a migration.
    pub async fn annotation(&self, name: &str, annotation: &str) -> Option<String> {
        self.api()
            .get(name)
            .await
            .unwrap()
            .annotations()
            .get(annotation)
            .cloned()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// Holds it to an exit code and to words on standard error.
    #[track_caller]
    pub fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in: {}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }

    /// Holds it to success and to words on standard output.
    #[track_caller]
    pub fn said(&self, words: &[&str]) {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        for word in words {
            assert!(self.out.contains(word), "{word:?} is not in: {}", self.out);
        }
    }
}

/// A migration whose disks are on their way.
pub fn moving() -> Value {
    json!({
        "phase": "Transferring", "progress": 27, "message": "Uploading disk vda (45% complete, 450B/1kB)",
        "startTime": "2025-10-16T10:00:00Z",
        "disks": [
            { "name": "vda", "stagedBytes": 1000, "bytesTransferred": 450, "bytesPerSecond": 2048, "etaSeconds": 90 },
            { "name": "vdb", "stagedBytes": 4096, "bytesTransferred": 0 },
        ],
        "conditions": [{
            "type": "Transferring", "status": "True", "reason": "UploadInProgress",
            "message": "Uploading disk vda (45% complete, 450B/1kB)", "lastTransitionTime": "2025-10-16T10:05:05Z",
        }],
    })
}

/// One that has come to its end.
pub fn ended(phase: &str) -> Value {
    json!({
        "phase": phase, "progress": 100, "completionTime": "2025-10-16T10:30:00Z", "message": format!("it is {phase}"),
    })
}
