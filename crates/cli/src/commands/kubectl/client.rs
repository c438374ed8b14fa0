//! The cluster that is spoken to, and failures as a user can act on them.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use vmferry_api::VMMigration;

use super::args;
use crate::exit::Failure;

/// How long one call may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

/// A cluster, and the namespace that names are looked for in.
pub struct Cluster {
    client: Client,
    namespace: String,
}

impl Cluster {
    /// The cluster that the flags, the kubeconfig or the pod's own account mean.
    pub async fn connect(flags: &args::Cluster) -> Result<Self, Failure> {
        let mut config = config(flags).await?;
        config.connect_timeout = Some(CONNECT);
        let namespace = flags
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config)
            .map_err(|error| Failure::bad_input(format!("cannot use this kubeconfig: {}", chain(&error))))?;
        Ok(Self { client, namespace })
    }

    /// The migrations of the namespace.
    pub fn migrations(&self) -> Api<VMMigration> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The migrations of all namespaces.
    pub fn all_migrations(&self) -> Api<VMMigration> {
        Api::all(self.client.clone())
    }

    /// The namespace's pods.
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The namespace's events.
    pub fn events(&self) -> Api<Event> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// How a migration is called in messages.
    pub fn object(&self, name: &str) -> String {
        format!("VMMigration {}/{name}", self.namespace)
    }

    /// A migration.
    pub async fn migration(&self, name: &str) -> Result<VMMigration, Failure> {
        let found = call("read", &self.object(name), self.migrations().get_opt(checked(name)?)).await?;
        found.ok_or_else(|| {
            Failure::failed(format!(
                "there is no {}: `kubectl vmferry status -A` lists those that there are, and -n names another namespace",
                self.object(name)
            ))
        })
    }
}

async fn config(flags: &args::Cluster) -> Result<Config, Failure> {
    let bad = |error: &dyn Error| {
        let hint = "name a kubeconfig with --kubeconfig and a context of it with --context";
        Failure::bad_input(format!("there is no cluster to speak to: {}; {hint}", chain(error)))
    };
    if flags.kubeconfig.is_none() && flags.context.is_none() {
        return Config::infer().await.map_err(|error| bad(&error));
    }
    let file = match &flags.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let options = KubeConfigOptions {
        context: flags.context.clone(),
        ..KubeConfigOptions::default()
    };
    let file = file.map_err(|error| bad(&error))?;
    let config = Config::from_custom_kubeconfig(file, &options).await;
    config.map_err(|error| bad(&error))
}

/// A name that is one: others would make another path of it.
pub fn checked(name: &str) -> Result<&str, Failure> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if name.is_empty() || name.len() > 253 || name.starts_with('.') || !name.chars().all(allowed) {
        return Err(Failure::bad_input(format!(
            "{name:?} is no name of a migration: give it without its namespace, which is named by -n"
        )));
    }
    Ok(name)
}

/// Does one call, within its limit.
pub async fn call<T>(action: &str, object: &str, call: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    let detail = match tokio::time::timeout(LIMIT, call).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => explain(&error),
        Err(_) => format!("the API server did not answer within {} s", LIMIT.as_secs()),
    };
    Err(Failure::failed(format!("cannot {action} {object}: {detail}")))
}

/// What the server answered, and what to do about it.
pub fn explain(error: &kube::Error) -> String {
    let kube::Error::Api(status) = error else {
        return chain(error);
    };
    let remedy = match status.code {
        401 => "; log in again, or use another context",
        403 => "; an administrator can grant it: the chart has roles for those who migrate and for those who look",
        404 => "; the cluster may not have the CustomResourceDefinitions: `vmferry crds` prints them",
        _ => "",
    };
    format!("{}{remedy}", status.message)
}

/// An error with its causes, those left out that repeat what was said.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_is_taken_for_one() {
        assert_eq!(checked("web-1.a").ok(), Some("web-1.a"));
        for name in ["", "lab/web", "../secrets/x", ".", "..", "web?x", "Web", "ä"] {
            assert!(checked(name).is_err(), "{name}");
        }
    }
}
