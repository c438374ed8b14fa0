//! The manifests of one crossing.

use serde_json::{Value, json};
use vmferry_testkit::{Host, Kind};

use super::Place;

const API: &str = "infra.virtrigaud.io/v1beta1";

/// A VM of provider `a` moves to provider `b`. Everything can be changed before it is written.
#[derive(Debug, Clone)]
pub struct Crossing {
    /// Name of the `VMMigration`.
    pub name: String,
    /// `spec` of the `VMMigration`.
    pub spec: Value,
    /// `spec` of the source's `VirtualMachine`, or none of them.
    pub vm: Option<Value>,
    /// `spec` and `status` of both Providers, and their Secrets' `stringData`, by name.
    pub providers: Vec<(String, Value)>,
    /// Secrets, by name.
    pub secrets: Vec<(String, Value)>,
    /// Annotations of the `VMMigration`.
    pub annotations: Value,
}

impl Crossing {
    /// Moves `vm` from one host to the other as `target`, by the hosts' unix sockets; retries at once, three times.
    pub fn new(name: &str, vm: &str, target: &str, from: &Host, to: &Host, staging: &str) -> Self {
        Self {
            name: name.to_owned(),
            spec: json!({
                "sourceName": vm,
                "sourceNamespace": "default",
                "targetProviderRef": { "name": "b" },
                "targetName": target,
                "storage": { "type": "nfs", "path": staging },
                "retryPolicy": { "maxAttempts": 3, "backoffDuration": "1s", "maxBackoffDuration": "2s" },
            }),
            vm: Some(json!({ "providerRef": { "name": "a" } })),
            providers: vec![
                ("a".to_owned(), provider(&from.uri())),
                ("b".to_owned(), provider(&to.uri())),
            ],
            secrets: Vec::new(),
            annotations: json!({}),
        }
    }

    /// Sets a field of the `VMMigration`'s spec.
    #[must_use]
    pub fn set(mut self, field: &str, value: Value) -> Self {
        self.spec[field] = value;
        self
    }

    /// Goes by this staging storage.
    #[must_use]
    pub fn by(mut self, place: &Place) -> Self {
        self.secrets.push(("staging".to_owned(), place.secret()));
        self.set("storage", place.storage())
    }

    /// Moves at most so many bytes a second.
    #[must_use]
    pub fn limit(mut self, rate: &str) -> Self {
        self.annotations["migration.virtrigaud.io/bandwidth-limit"] = json!(rate);
        self
    }

    /// Reaches provider `name` by this endpoint.
    #[must_use]
    pub fn endpoint(mut self, name: &str, endpoint: &str) -> Self {
        self.provider_mut(name)["endpoint"] = json!(endpoint);
        self
    }

    /// Reaches provider `name` with these credentials.
    #[must_use]
    pub fn secret(mut self, name: &str, data: Value) -> Self {
        let secret = format!("{name}-access");
        self.provider_mut(name)["credentialSecretRef"] = json!({ "name": secret });
        self.secrets.push((secret, data));
        self
    }

    /// Reaches provider `name` by ssh, with the host's own key.
    #[must_use]
    pub fn ssh(self, name: &str, host: &Host) -> Self {
        assert_eq!(host.kind(), Kind::System, "only a system-mode host has ssh");
        let access = host.ssh();
        let data = json!({ "ssh-privatekey": access.private_key(), "known_hosts": access.known_hosts() });
        self.endpoint(name, &host.ssh_uri()).secret(name, data)
    }

    fn provider_mut(&mut self, name: &str) -> &mut Value {
        let found = self.providers.iter_mut().find(|(other, _)| other == name);
        &mut found.unwrap_or_else(|| panic!("there is no provider {name}")).1
    }

    /// Name of the source's `VirtualMachine`.
    fn vm_name(&self) -> &str {
        self.spec["sourceName"].as_str().unwrap()
    }

    /// As documents of one YAML stream. (JSON is YAML.)
    pub fn to_yaml(&self) -> String {
        let meta = |name: &str| json!({ "name": name, "namespace": "default" });
        let mut documents = Vec::new();
        for (name, data) in &self.secrets {
            documents.push(json!({ "apiVersion": "v1", "kind": "Secret", "metadata": meta(name), "stringData": data }));
        }
        for (name, spec) in &self.providers {
            documents.push(json!({ "apiVersion": API, "kind": "Provider", "metadata": meta(name), "spec": spec }));
        }
        if let Some(spec) = &self.vm {
            documents.push(
                json!({ "apiVersion": API, "kind": "VirtualMachine", "metadata": meta(self.vm_name()), "spec": spec }),
            );
        }
        let mut metadata = meta(&self.name);
        metadata["annotations"] = self.annotations.clone();
        documents.push(json!({ "apiVersion": API, "kind": "VMMigration", "metadata": metadata, "spec": self.spec }));
        documents
            .iter()
            .fold(String::new(), |text, document| format!("{text}---\n{document}\n"))
    }
}

fn provider(endpoint: &str) -> Value {
    json!({ "type": "libvirt", "endpoint": endpoint })
}
