//! Admission on a real API server, with the configuration and the roles of the chart.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use k8s_openapi::api::rbac::v1::{ClusterRole, RoleBinding};
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use vmferry_operator::webhook::{Options, Webhook};
use vmferry_testkit::kube::Cluster;

use crate::support::{self, api, apply, cluster, of, rendered, until};

/// A cluster that asks our webhook.
struct Bed {
    cluster: Cluster,
    admin: Client,
    folder: TempDir,
    authority: String,
    address: std::net::SocketAddr,
    stop: CancellationToken,
    _webhook: AbortOnDropHandle<()>,
}

impl Bed {
    async fn new() -> Self {
        let cluster = cluster();
        let admin = cluster.client().await;
        let folder = TempDir::new().unwrap();
        let authority = certificate(folder.path());
        let options = Options {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            certificates: folder.path().to_owned(),
        };
        let webhook = Webhook::bind(&options).await.unwrap();
        let (address, stop) = (webhook.address(), CancellationToken::new());
        let task = tokio::spawn(webhook.run(operator(&cluster, &admin).await, stop.clone()));
        let bed = Self {
            cluster,
            admin,
            folder,
            authority,
            address,
            stop,
            _webhook: AbortOnDropHandle::new(task),
        };
        for namespace in ["team", "infra"] {
            support::namespace(&bed.admin, namespace).await;
        }
        bed.allow("team", "alice", "edit").await;
        bed.configure().await;
        bed
    }

    /// Installs the chart's configuration, with our address in the place of the Service's.
    async fn configure(&self) {
        let mut config = rendered(
            "install-webhook.yaml",
            "ValidatingWebhookConfiguration",
            "vmferry-webhook",
        );
        config["webhooks"][0]["clientConfig"] = json!({
            "url": format!("https://{}/validate", self.address),
            "caBundle": base64(&self.authority),
        });
        apply(&self.admin, &config).await;
        // The API server takes a moment to notice.
        let denied = async || self.create("alice", &vm("probe", "infra")).await.is_err();
        until("the webhook is asked", denied).await;
    }

    async fn client(&self, user: &str) -> Client {
        self.cluster.user(user, &["system:authenticated"]).client().await
    }

    /// Gives a user what the chart adds to one of the cluster's roles.
    async fn allow(&self, namespace: &str, user: &str, role: &str) {
        let role = rendered("install-webhook.yaml", "ClusterRole", &format!("vmferry-{role}"));
        apply(&self.admin, &role).await;
        let name = role["metadata"]["name"].as_str().unwrap();
        let binding: RoleBinding = of(json!({
            "metadata": { "name": format!("{name}-{user}"), "namespace": namespace },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }],
        }));
        let api = Api::namespaced(self.admin.clone(), namespace);
        api.create(&PostParams::default(), &binding).await.unwrap();
    }

    async fn create(&self, user: &str, object: &Value) -> Result<DynamicObject, String> {
        let api = api(&self.client(user).await, object);
        api.create(&PostParams::default(), &of(object.clone()))
            .await
            .map_err(|error| error.to_string())
    }

    async fn patch(&self, user: &str, object: &Value, patch: Value) -> Result<DynamicObject, String> {
        let api = api(&self.client(user).await, object);
        let name = object["metadata"]["name"].as_str().unwrap();
        let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map_err(|error| error.to_string())
    }
}

/// A client with the rights of the webhook's ClusterRole and no others.
async fn operator(cluster: &Cluster, admin: &Client) -> Client {
    for kind in ["ClusterRole", "ClusterRoleBinding"] {
        apply(admin, &rendered("install-webhook.yaml", kind, "vmferry-webhook")).await;
    }
    cluster
        .user(
            "system:serviceaccount:vmferry-system:vmferry-controller",
            &["system:authenticated"],
        )
        .client()
        .await
}

/// Writes a new certificate into a folder, and gives the authority for it.
fn certificate(folder: &Path) -> String {
    let mut params = rcgen::CertificateParams::new([]).unwrap();
    params.subject_alt_names = vec![rcgen::SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::write(folder.join("tls.crt"), &certificate).unwrap();
    certificate
}

fn base64(text: &str) -> Value {
    serde_json::to_value(k8s_openapi::ByteString(text.as_bytes().to_vec())).unwrap()
}

fn resource(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "infra.virtrigaud.io/v1beta1", "kind": kind,
        "metadata": { "name": name, "namespace": "team" }, "spec": spec,
    })
}

fn vm(name: &str, provider_namespace: &str) -> Value {
    resource(
        "VirtualMachine",
        name,
        &json!({ "providerRef": { "name": "kvm", "namespace": provider_namespace } }),
    )
}

fn migration(name: &str, changes: Value) -> Value {
    let mut object = resource(
        "VMMigration",
        name,
        &json!({
            "sourceName": "web", "sourceNamespace": "team", "targetProviderRef": { "name": "kvm" }, "targetName": "web-new",
            "storage": { "type": "s3", "bucket": "b", "region": "r", "credentialsSecretRef": { "name": "s3" } },
        }),
    );
    merge(&mut object["spec"], changes);
    object
}

fn merge(into: &mut Value, changes: Value) {
    match changes {
        Value::Object(fields) if into.is_object() => {
            for (name, value) in fields {
                merge(&mut into[name], value);
            }
        }
        value => *into = value,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn references_into_other_namespaces_take_rights_there() {
    let bed = Bed::new().await;
    bed.create("alice", &migration("within", json!({}))).await.unwrap();

    let cases = [
        (
            "source",
            json!({ "sourceNamespace": "infra", "targetNamespace": "team" }),
            "update virtualmachines",
        ),
        (
            "delete",
            json!({ "sourceNamespace": "infra", "targetNamespace": "team", "cleanupPolicy": { "deleteSource": true } }),
            "delete virtualmachines",
        ),
        (
            "target",
            json!({ "targetNamespace": "infra" }),
            "create virtualmachines",
        ),
        (
            "provider",
            json!({ "targetProviderRef": { "namespace": "infra" } }),
            "use providers",
        ),
        (
            "secret",
            json!({ "storage": { "credentialsSecretRef": { "namespace": "infra" } } }),
            "get secrets",
        ),
    ];
    for (name, changes, needed) in &cases {
        let told = bed
            .create("alice", &migration(name, changes.clone()))
            .await
            .unwrap_err();
        assert!(told.contains(&format!("alice may not {needed}")), "{name}: {told}");
        assert!(told.contains("have a Role in infra allow it"), "{name}: {told}");
    }
    let provider = resource(
        "Provider",
        "borrowed",
        &json!({
            "type": "libvirt", "endpoint": "qemu+ssh://evil.example.com/system",
            "credentialSecretRef": { "name": "root", "namespace": "infra" },
        }),
    );
    bed.allow("team", "alice", "admin").await;
    let told = bed.create("alice", &provider).await.unwrap_err();
    assert!(told.contains("alice may not get secrets"), "{told}");

    // One who may edit there may all of it but read Secrets, which the chart's roles leave to the cluster's own.
    bed.allow("infra", "alice", "edit").await;
    for (name, changes, needed) in &cases {
        let answer = bed.create("alice", &migration(name, changes.clone())).await;
        if *name == "secret" {
            assert!(answer.unwrap_err().contains(needed));
        } else {
            assert_eq!(answer.unwrap().name_any(), *name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_is_asked_only_for_what_it_brings() {
    let bed = Bed::new().await;
    bed.allow("infra", "alice", "edit").await;
    bed.allow("team", "bob", "edit").await;
    let object = migration("web", json!({ "targetProviderRef": { "namespace": "infra" } }));
    bed.create("alice", &object).await.unwrap();

    // Bob may not use the Provider, and need not.
    bed.patch("bob", &object, json!({ "metadata": { "labels": { "a": "b" } } }))
        .await
        .unwrap();
    let told = bed
        .patch(
            "bob",
            &object,
            json!({ "spec": { "targetProviderRef": { "name": "other" } } }),
        )
        .await
        .unwrap_err();
    assert!(told.contains("bob may not use providers"), "{told}");
    bed.patch(
        "bob",
        &object,
        json!({ "spec": { "targetProviderRef": { "namespace": "team" } } }),
    )
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_taken_while_it_runs() {
    let mut bed = Bed::new().await;
    bed.authority = certificate(bed.folder.path());
    bed.configure().await;
    let object = migration("web", json!({}));
    let told = bed.create("alice", &object).await.unwrap_err();
    assert!(told.contains("x509"), "the old one was taken for the new: {told}");
    until("the new certificate is shown", async || {
        bed.create("alice", &object).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_asked_lets_nothing_pass() {
    let bed = Bed::new().await;
    let role: Api<ClusterRole> = Api::all(bed.admin.clone());
    role.delete("vmferry-webhook", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    until("the right to ask is gone", async || {
        let answer = bed.create("alice", &vm("asked", "infra")).await;
        answer.is_err_and(|told| told.contains("cannot find out who may use Provider infra/kvm"))
    })
    .await;
    bed.create("alice", &migration("within", json!({}))).await.unwrap();

    bed.stop.cancel();
    until("the webhook is gone", async || {
        let answer = bed.create("alice", &migration("gone", json!({}))).await;
        answer.is_err_and(|told| told.contains("failed calling webhook"))
    })
    .await;
}
