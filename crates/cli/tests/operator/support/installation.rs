//! The operator's installation on a cluster of the test: who may do what is what the manifests say.

use serde_json::{Value, json};
use vmferry_testkit::kube::{Access, Cluster, ClusterSpec};

/// The manifests that are installed.
const MANIFESTS: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../deploy/manifests/install.yaml"
));

/// What of them is installed. The controller runs beside the test, not in a pod.
const KINDS: [&str; 6] = [
    "Namespace",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
];

/// The name of the workers' service account, in each namespace with migrations.
pub const WORKER: &str = "vmferry-worker";

const RBAC: &str = "rbac.authorization.k8s.io";

/// The namespace of the controller.
pub const NAMESPACE: &str = "vmferry-system";

/// A cluster that knows the kinds and the roles.
pub fn cluster() -> Cluster {
    let crds = vmferry_api::crd::all().iter().map(|crd| crd.json.clone()).collect();
    let cluster = Cluster::with(&ClusterSpec {
        crds,
        ..ClusterSpec::default()
    });
    let documents: Vec<Value> = serde_saphyr::from_multiple(MANIFESTS).unwrap();
    let wanted = |document: &&Value| KINDS.iter().any(|kind| document["kind"] == *kind);
    for document in documents.iter().filter(wanted).chain(&worker_account("default")) {
        cluster.apply(document).unwrap();
    }
    cluster
}

/// What the notes of the installation tell the owner of a namespace to add to it.
pub fn worker_account(namespace: &str) -> [Value; 2] {
    let metadata = json!({ "name": WORKER, "namespace": namespace });
    let role = json!({ "apiGroup": RBAC, "kind": "ClusterRole", "name": WORKER });
    [
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata }),
        binding(&metadata, &role, namespace),
    ]
}

/// What the installation adds where Providers of one namespace are shared with the workers of another.
#[allow(dead_code, reason = "for tests that go past the scenarios")]
pub fn shared(namespace: &str, with: &str) -> [Value; 2] {
    let metadata = json!({ "name": "vmferry-worker-shared", "namespace": namespace });
    let role = json!({ "apiGroup": RBAC, "kind": "Role", "name": "vmferry-worker-shared" });
    let rules = json!([
        { "apiGroups": ["infra.virtrigaud.io"], "resources": ["providers"], "verbs": ["get"] },
        { "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] },
    ]);
    [
        json!({ "apiVersion": format!("{RBAC}/v1"), "kind": "Role", "metadata": metadata, "rules": rules }),
        binding(&metadata, &role, with),
    ]
}

fn binding(metadata: &Value, role: &Value, workers_of: &str) -> Value {
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding", "metadata": metadata, "roleRef": role,
        "subjects": [{ "kind": "ServiceAccount", "name": WORKER, "namespace": workers_of }],
    })
}

/// The controller's way to the API server.
pub fn controller(cluster: &Cluster) -> Access {
    let name = format!("system:serviceaccount:{NAMESPACE}:vmferry-controller");
    let groups = ["system:serviceaccounts", "system:serviceaccounts:vmferry-system"];
    cluster.user(&name, &groups)
}
