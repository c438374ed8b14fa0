//! The environment of a container.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use kube::ResourceExt as _;

use super::api::{Node, namespace};
use super::expansion::expand;

/// The variables of a container, or why it cannot have them.
pub(super) async fn variables(
    node: &Node,
    pod: &Pod,
    container: &Container,
) -> Result<BTreeMap<String, String>, String> {
    if container.env_from.as_ref().is_some_and(|from| !from.is_empty()) {
        return Err("envFrom is nothing that this kubelet knows".to_owned());
    }
    let mut variables = given(node, pod);
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(node, pod, variable, &variables).await? {
            variables.insert(variable.name.clone(), value);
        }
    }
    Ok(variables)
}

/// What every container gets: from its image, and from Kubernetes.
fn given(node: &Node, pod: &Pod) -> BTreeMap<String, String> {
    let (host, port) = node.address;
    let text = |name: &str, value: String| (name.to_owned(), value);
    let mut variables = BTreeMap::from([
        text("PATH", std::env::var("PATH").unwrap_or_default()),
        text("HOME", node.folder(pod).join("home").display().to_string()),
        text("HOSTNAME", pod.name_any()),
        text("KUBERNETES_SERVICE_HOST", host.to_string()),
        text("KUBERNETES_SERVICE_PORT", port.to_string()),
        text("KUBERNETES_SERVICE_PORT_HTTPS", port.to_string()),
    ]);
    variables.extend(node.spec.environment.iter().cloned());
    variables
}

async fn value_of(
    node: &Node,
    pod: &Pod,
    variable: &EnvVar,
    known: &BTreeMap<String, String>,
) -> Result<Option<String>, String> {
    if let Some(source) = &variable.value_from {
        return from_source(node, pod, source).await;
    }
    let text = variable.value.as_deref().unwrap_or_default();
    Ok(Some(expand(text, |name| known.get(name).cloned())))
}

async fn from_source(node: &Node, pod: &Pod, source: &EnvVarSource) -> Result<Option<String>, String> {
    if let Some(field) = &source.field_ref {
        return field_of(pod, field).map(Some);
    }
    let (found, what, name, key, optional) = if let Some(wanted) = &source.secret_key_ref {
        let data = node.secret(pod, &wanted.name).await?.and_then(|secret| secret.data);
        let value = data.and_then(|mut data| data.remove(&wanted.key));
        let value = value.map(|value| String::from_utf8_lossy(&value.0).into_owned());
        (value, "Secret", &wanted.name, &wanted.key, wanted.optional)
    } else if let Some(wanted) = &source.config_map_key_ref {
        let data = node.config_map(pod, &wanted.name).await?.and_then(|map| map.data);
        let value = data.and_then(|mut data| data.remove(&wanted.key));
        (value, "ConfigMap", &wanted.name, &wanted.key, wanted.optional)
    } else {
        return Err("this source of a variable is nothing that this kubelet knows".to_owned());
    };
    if found.is_none() && !optional.unwrap_or_default() {
        return Err(format!("there is no key {key} in the {what} {name}"));
    }
    Ok(found)
}

/// A field of the Pod, as the downward API gives it.
fn field_of(pod: &Pod, field: &ObjectFieldSelector) -> Result<String, String> {
    let path = field.field_path.as_str();
    let of_map = |map: &BTreeMap<String, String>, prefix: &str| {
        let key = path.strip_prefix(prefix)?.strip_suffix("']")?;
        Some(map.get(key).cloned().unwrap_or_default())
    };
    let spec = pod.spec.as_ref();
    let found = match path {
        "metadata.name" => Some(pod.name_any()),
        "metadata.namespace" => Some(namespace(pod)),
        "metadata.uid" => pod.uid(),
        "spec.nodeName" => Some("node".to_owned()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.podIP" | "status.hostIP" => Some("127.0.0.1".to_owned()),
        _ => of_map(pod.labels(), "metadata.labels['").or_else(|| of_map(pod.annotations(), "metadata.annotations['")),
    };
    found.ok_or_else(|| format!("the field {path} is nothing that this kubelet knows"))
}
