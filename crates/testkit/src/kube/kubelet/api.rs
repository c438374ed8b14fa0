//! What a node asks of the API server.

use std::fmt::Display;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use super::{Books, KubeletSpec};

/// The name of the node.
const NODE: &str = "node";

/// A node, as its Pods' tasks share it.
pub(super) struct Node {
    pub(super) client: Client,
    pub(super) spec: KubeletSpec,
    pub(super) address: (Ipv4Addr, u16),
    pub(super) ca: String,
    pub(super) books: Arc<Books>,
}

/// How an attempt ended that may be tried again.
pub(super) enum Told {
    /// The API server knows.
    Yes,
    /// The Pod is another's, or gone.
    NotOurs,
    /// It has to be told again.
    NotYet,
}

impl Node {
    pub(super) fn new(
        client: Client,
        spec: KubeletSpec,
        address: (Ipv4Addr, u16),
        ca: String,
        books: Arc<Books>,
    ) -> Self {
        Self {
            client,
            spec,
            address,
            ca,
            books,
        }
    }

    /// The folder of a Pod's files.
    pub(super) fn folder(&self, pod: &Pod) -> PathBuf {
        self.books.folder.path().join(pod.uid().unwrap_or_default())
    }

    /// Takes a Pod that is nobody's.
    pub(super) async fn bind(&self, pod: &Pod) -> Told {
        if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
            return Told::Yes;
        }
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": { "name": pod.name_any(), "uid": pod.uid() },
            "target": { "apiVersion": "v1", "kind": "Node", "name": NODE },
        });
        let (pods, as_is) = (self.pods(pod), PostParams::default());
        told(
            pods.create_subresource::<_, Value>("binding", &pod.name_any(), &as_is, &binding)
                .await,
        )
    }

    /// Says how a Pod is.
    pub(super) async fn report(&self, pod: &Pod, mut status: Value) -> Told {
        // A Pod that has this one's name by now is another.
        status["metadata"] = json!({ "uid": pod.uid() });
        let (pods, patch) = (self.pods(pod), Patch::Merge(&status));
        told(
            pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch)
                .await,
        )
    }

    /// Takes a Pod away that has ended.
    pub(super) async fn remove(&self, pod: &Pod) -> Told {
        let now = DeleteParams::default().grace_period(0).preconditions(Preconditions {
            uid: pod.uid(),
            resource_version: None,
        });
        told(self.pods(pod).delete(&pod.name_any(), &now).await)
    }

    /// A Secret of the Pod's namespace; none where there is none.
    pub(super) async fn secret(&self, pod: &Pod, name: &str) -> Result<Option<Secret>, String> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &namespace(pod));
        secrets.get_opt(name).await.map_err(said("get the Secret", name))
    }

    /// A ConfigMap of the Pod's namespace; none where there is none.
    pub(super) async fn config_map(&self, pod: &Pod, name: &str) -> Result<Option<ConfigMap>, String> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &namespace(pod));
        maps.get_opt(name).await.map_err(said("get the ConfigMap", name))
    }

    /// A token of the Pod's service account.
    pub(super) async fn token(&self, pod: &Pod) -> Result<String, String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &namespace(pod));
        let name = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
        let name = name.unwrap_or_else(|| "default".to_owned());
        let request = TokenRequest {
            spec: Some(TokenRequestSpec::default()),
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(&name, &PostParams::default(), &request)
            .await;
        let status = answer
            .map_err(said("get a token of the service account", &name))?
            .status;
        Ok(status.and_then(|status| status.token).unwrap_or_default())
    }

    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &namespace(pod))
    }
}

/// Whether a Pod is this node's, or nobody's yet.
pub(super) fn may_take(pod: &Pod) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let ended = ["Succeeded", "Failed"].contains(&phase(pod));
    node.is_none_or(|node| node == NODE) && !ended
}

/// The namespace of a Pod.
pub(super) fn namespace(pod: &Pod) -> String {
    pod.namespace().unwrap_or_else(|| "default".to_owned())
}

/// The phase of a Pod.
pub(super) fn phase(pod: &Pod) -> &str {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase.unwrap_or("Pending")
}

fn told<T>(answer: Result<T, kube::Error>) -> Told {
    match answer {
        Ok(_) => Told::Yes,
        Err(kube::Error::Api(status)) if [404, 409, 422].contains(&status.code) => Told::NotOurs,
        Err(_) => Told::NotYet,
    }
}

fn said<E: Display>(tried: &str, name: &str) -> impl Fn(E) -> String {
    move |error| format!("cannot {tried} {name}: {error}")
}
