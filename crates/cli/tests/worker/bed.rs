//! A cluster with a node, a host with a VM that is shut off, and the job that exports its disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job as KubeJob;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use vmferry_api::{Provider, VMMigration};
use vmferry_engine::port::{DiskReport, Executor, Job, JobId, JobState};
use vmferry_operator::jobs::{KubeExecutor, Options};
use vmferry_provider::credentials::Credentials;
use vmferry_provider::libvirt::{Config, Libvirt};
use vmferry_provider::{Hypervisor, Owner, SourceHost, VmSelector};
use vmferry_testkit::kube::{Cluster, ClusterSpec, Kubelet, RunningPod};
use vmferry_testkit::{DiskSpec, Format, GuestSpec, Host, MIB, files_below, image};

/// What the disk holds.
pub const DATA: u64 = 24 * MIB;
/// The rate of a job that is to be under way for a while: ten seconds for all of it.
pub const SLOWLY: u64 = DATA / 10;
/// How long anything may take that goes on by itself.
pub const LIMIT: Duration = Duration::from_mins(1);

const NAMESPACE: &str = "default";

pub struct Bed {
    // Dropped in this order.
    pub kubelet: Kubelet,
    pub cluster: Cluster,
    pub client: Client,
    host: Host,
    disk: PathBuf,
    folder: TempDir,
    owner: Owner,
    frozen: String,
}

impl Bed {
    pub async fn new() -> Self {
        let crds = vmferry_api::crd::all().iter().map(|crd| crd.json.clone()).collect();
        let cluster = Cluster::with(&ClusterSpec {
            crds,
            ..ClusterSpec::default()
        });
        let kubelet = Kubelet::start(&cluster, env!("CARGO_BIN_EXE_vmferry"));
        let client = cluster.client().await;
        let host = Host::session("a");
        let guest = host.define(&GuestSpec::micro("g").disk(DiskSpec::qcow2(2 * DATA).noise(DATA)));
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("staging")).unwrap();
        let disk = guest.disks[0].0.clone();
        let mut bed = Self {
            kubelet,
            cluster,
            client,
            host,
            disk,
            folder,
            owner: Owner::new(""),
            frozen: String::new(),
        };
        bed.declare().await;
        bed.freeze().await;
        bed
    }

    /// What is there before a job is: an account that may do what a worker has to, a provider, a migration.
    async fn declare(&mut self) {
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "mover" } });
        self.create::<ServiceAccount>(account).await;
        let rule = |group: &str, resource: &str, verbs: &[&str]| json!({ "apiGroups": [group], "resources": [resource], "verbs": verbs });
        let rules = [
            rule("coordination.k8s.io", "leases", &["get", "update"]),
            rule("infra.virtrigaud.io", "providers", &["get"]),
            rule("", "secrets", &["get"]),
        ];
        let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "mover" }, "rules": rules });
        self.create::<Role>(role).await;
        self.allow().await;
        let provider = json!({
            "apiVersion": "infra.virtrigaud.io/v1beta1", "kind": "Provider", "metadata": { "name": "a" },
            "spec": { "type": "libvirt", "endpoint": self.host.uri(), "credentialSecretRef": { "name": "key" } },
        });
        self.create::<Provider>(provider).await;
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "key" }, "stringData": { "username": "root" } });
        self.create::<Secret>(secret).await;
        let migration = json!({
            "apiVersion": "infra.virtrigaud.io/v1beta1", "kind": "VMMigration", "metadata": { "name": "m" },
            "spec": {
                "sourceName": "g", "sourceNamespace": NAMESPACE, "targetProviderRef": { "name": "a" },
                "targetName": "arrived", "storage": { "type": "nfs", "path": self.staging() },
            },
        });
        let made = self.create::<VMMigration>(migration).await;
        self.owner = Owner::new(made.uid().unwrap());
    }

    /// Lets the workers' account do its work.
    pub async fn allow(&self) {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "mover" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "mover" },
            "subjects": [{ "kind": "ServiceAccount", "name": "mover", "namespace": NAMESPACE }],
        });
        self.create::<RoleBinding>(binding).await;
    }

    /// Takes that away.
    pub async fn deny(&self) {
        self.delete::<RoleBinding>("mover").await;
    }

    async fn freeze(&mut self) {
        let config = Config {
            endpoint: self.host.uri(),
            credentials: Credentials::default(),
            runtime_dir: self.folder.path().join("run"),
            default_storage: None,
        };
        let libvirt = Libvirt::connect(config).await.unwrap();
        let vm = libvirt.find_vm(&selector()).await.unwrap();
        self.frozen = libvirt.freeze(&vm, &self.owner, false).await.unwrap().id.0;
    }

    pub async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }

    pub async fn delete<K>(&self, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        self.api::<K>().delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// The controller's side. Each has a client and watches of its own, as each replica has.
    pub async fn executor(&self) -> Arc<KubeExecutor> {
        let options = Options {
            service_account: Some("mover".to_owned()),
            args: vec!["-v".to_owned(), "--log-format=text".to_owned()],
            ..Options::new("vmferry:test")
        };
        Arc::new(KubeExecutor::new(self.cluster.client().await, options))
    }

    /// The job that exports the disk, at so many bytes a second.
    pub fn job(&self, attempt: u32, rate: Option<u64>) -> Job {
        let tag = self.owner.tag();
        let job = json!({
            "id": format!("export-{tag}-{attempt}"), "migration": { "namespace": NAMESPACE, "name": "m" },
            "owner": self.owner, "storage": { "type": "nfs", "path": self.staging() }, "bandwidth_limit": rate,
            "direction": { "export": {
                "provider": { "namespace": NAMESPACE, "name": "a" }, "vm": selector(), "frozen": self.frozen,
            } },
            "disks": [{ "name": "vda", "capacity": 2 * DATA, "object": format!("default/m-{tag}/vda.qcow2"), "staged_format": "qcow2" }],
        });
        serde_json::from_value(job).unwrap()
    }

    fn staging(&self) -> String {
        self.folder.path().join("staging").display().to_string()
    }

    /// All files in staging with what they hold on the disk, in bytes.
    pub fn staged(&self) -> Vec<(PathBuf, u64)> {
        use std::os::unix::fs::MetadataExt;
        let files = files_below(Path::new(&self.staging())).into_iter();
        let held = |path: PathBuf| {
            let bytes = path.metadata().map_or(0, |metadata| metadata.blocks() * 512);
            (path, bytes)
        };
        files.map(held).collect()
    }

    /// Asserts that the object is the disk, and that it is all there is.
    #[track_caller]
    pub fn assert_staged(&self) {
        let staged = self.staged();
        let objects: Vec<_> = staged.iter().filter(|(path, _)| path.ends_with("vda.qcow2")).collect();
        assert_eq!(objects.len(), 1, "{staged:?}");
        image::assert_sound(&objects[0].0);
        image::assert_same(&objects[0].0, Format::Qcow2, &self.disk, Format::Qcow2);
    }

    /// Asserts that the cluster holds nothing more of a job.
    pub async fn assert_nothing_left(&self) {
        assert_eq!(self.names::<KubeJob>().await, Vec::<String>::new());
        assert_eq!(self.names::<Lease>().await, Vec::<String>::new());
        assert_eq!(self.names::<Pod>().await, Vec::<String>::new());
    }

    /// The names of what there is for jobs, of a kind.
    pub async fn names<K>(&self) -> Vec<String>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let ours = ListParams::default().labels("app.kubernetes.io/name=vmferry-worker");
        let found = self.api::<K>().list(&ours).await.unwrap();
        found.iter().map(ResourceExt::name_any).collect()
    }

    /// Starts a job and waits until its worker has moved some bytes.
    pub async fn under_way(&self, executor: &KubeExecutor, job: &Job) -> RunningPod {
        executor.start(job).await.unwrap();
        self.until("bytes move", async || match executor.observe(&job.id).await.unwrap() {
            JobState::Running(disks) => (disks[0].done > DATA / 10).then_some(()),
            other => panic!("{other:?}\n{}", self.kubelet.logs()),
        })
        .await;
        self.kubelet.running().pop().unwrap()
    }

    /// Drives a job as the engine does, starting it anew when it is not there, until it succeeded.
    pub async fn to_the_end(&self, executor: &KubeExecutor, job: &Job) -> DiskReport {
        self.until("the job succeeded", async || match executor.observe(&job.id).await {
            Ok(JobState::Absent) => {
                executor.start(job).await.unwrap();
                None
            }
            Ok(JobState::Succeeded(mut reports)) => reports.pop(),
            Ok(JobState::Failed(failure)) => panic!("{failure:?}\n{}", self.kubelet.logs()),
            Ok(JobState::Running(_)) | Err(_) => None,
        })
        .await
    }

    /// Waits until a job is not there any more, and says how long that took.
    pub async fn until_absent(&self, executor: &KubeExecutor, id: &JobId) -> Duration {
        let began = Instant::now();
        self.until("the job is gone", async || {
            let state = executor.observe(id).await;
            matches!(state, Ok(JobState::Absent)).then_some(())
        })
        .await;
        began.elapsed()
    }

    /// Waits for something.
    pub async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(
                began.elapsed() < LIMIT,
                "not in {LIMIT:?}: {what}\n{}",
                self.kubelet.logs()
            );
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}

fn selector() -> VmSelector {
    VmSelector {
        id: None,
        name: "g".to_owned(),
    }
}

/// Sends a signal to a process.
pub fn signal(pid: u32, name: &str) {
    vmferry_testkit::run(std::process::Command::new("kill").args([&format!("-{name}"), &pid.to_string()]));
}

/// Whether a process is there and has not ended.
pub fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| !"ZX".contains(state))
}
