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

/// The service account of the workers, in the namespace of the migrations.
pub const WORKER: &str = "vmferry-worker";

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
    for document in documents.iter().filter(wanted).chain(&worker_account()) {
        cluster.apply(document).unwrap();
    }
    cluster
}

/// What the notes of the installation tell the owner of a namespace to add to it.
fn worker_account() -> [Value; 2] {
    let metadata = json!({ "name": WORKER, "namespace": "default" });
    [
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": WORKER },
            "subjects": [{ "kind": "ServiceAccount", "name": WORKER, "namespace": "default" }],
        }),
    ]
}

/// The controller's way to the API server.
pub fn controller(cluster: &Cluster) -> Access {
    let name = format!("system:serviceaccount:{NAMESPACE}:vmferry-controller");
    let groups = ["system:serviceaccounts", "system:serviceaccounts:vmferry-system"];
    cluster.user(&name, &groups)
}
