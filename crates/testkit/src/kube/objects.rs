//! Objects as a user has them: as JSON, by kind and name.

use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::{Client, Error};
use serde_json::Value;

use super::Cluster;
use super::background::block_on;
use crate::command::Must;

/// A kind of objects, `apiVersion` and `kind`.
pub type Kind<'k> = (&'k str, &'k str);

/// The namespace of what names none, and of nothing where the kind has no namespaces.
const NAMESPACE: &str = "default";

/// How often an object is written while others write to it.
const TRIES: u32 = 10;

/// The kinds that tests use and that are in no namespace.
const WIDE: [&str; 5] = [
    "Namespace",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Node",
];

impl Cluster {
    /// Creates an object, or makes the one that is there what this one says, but for its status and what others have put into its
    /// metadata; gives why the API server does not take it.
    pub fn apply(&self, object: &Value) -> Result<Value, String> {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(NAMESPACE);
        let kind = (text("apiVersion"), text("kind"));
        let applied = self.with_objects(kind, namespace, async |api| {
            match api.create(&PostParams::default(), &parsed(object)).await {
                Err(Error::Api(status)) if status.code == 409 => replace(&api, object).await,
                other => other,
            }
        });
        applied.map(as_json)
    }

    /// An object; none where there is none.
    pub fn get(&self, kind: Kind<'_>, namespace: &str, name: &str) -> Option<Value> {
        let found = self.with_objects(kind, namespace, async |api| api.get_opt(name).await);
        found.must(format!("get {} {namespace}/{name}", kind.1)).map(as_json)
    }

    /// All objects of a kind in a namespace.
    pub fn list(&self, kind: Kind<'_>, namespace: &str) -> Vec<Value> {
        let all = ListParams::default();
        let found = self.with_objects(kind, namespace, async |api| api.list(&all).await);
        found
            .must(format!("list {} in {namespace}", kind.1))
            .items
            .into_iter()
            .map(as_json)
            .collect()
    }

    /// Asks for an object to be deleted. Its finalizers may keep it for a while.
    pub fn delete(&self, kind: Kind<'_>, namespace: &str, name: &str) {
        let as_is = DeleteParams::default();
        let deleted = self.with_objects(kind, namespace, async |api| api.delete(name, &as_is).await.map(drop));
        deleted.must(format!("delete {} {namespace}/{name}", kind.1));
    }

    fn with_objects<T: Send>(
        &self,
        kind: Kind<'_>,
        namespace: &str,
        ask: impl AsyncFnOnce(Api<DynamicObject>) -> Result<T, Error> + Send,
    ) -> Result<T, String> {
        let answer = block_on(|| async { ask(objects(self.client().await, kind, namespace)).await });
        answer.map_err(|error| error.to_string())
    }
}

fn objects(client: Client, (api_version, kind): Kind<'_>, namespace: &str) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    if WIDE.contains(&kind) {
        Api::all_with(client, &resource)
    } else {
        Api::namespaced_with(client, namespace, &resource)
    }
}

/// Puts an object in the place of the one of its name, with what is in that one's metadata. Somebody may write meanwhile.
async fn replace(api: &Api<DynamicObject>, object: &Value) -> Result<DynamicObject, Error> {
    let name = object["metadata"]["name"].as_str().must("find a name");
    let mut tries = 0;
    loop {
        tries += 1;
        let (mut wanted, mut there) = (object.clone(), as_json(api.get(name).await?));
        wanted["metadata"] = there["metadata"].take();
        // It is not written here. Before 1.22, whose it is would be forgotten where it is left out.
        wanted["status"] = there["status"].take();
        for map in ["labels", "annotations"] {
            for (key, value) in object["metadata"][map].as_object().into_iter().flatten() {
                wanted["metadata"][map][key] = value.clone();
            }
        }
        match api.replace(name, &PostParams::default(), &parsed(&wanted)).await {
            Err(Error::Api(status)) if status.code == 409 && tries < TRIES => {}
            other => return other,
        }
    }
}

fn parsed(object: &Value) -> DynamicObject {
    serde_json::from_value(object.clone()).must("read an object")
}

fn as_json(object: DynamicObject) -> Value {
    serde_json::to_value(object).must("write an object")
}
