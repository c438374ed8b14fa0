//! Who somebody is for an API server: a kubeconfig, and clients by it.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::authority::Signed;
use crate::command::Must;

/// Somebody's way to an API server.
#[derive(Debug, Clone)]
pub struct Access {
    kubeconfig: PathBuf,
}

impl Access {
    /// Writes the kubeconfig of the one whom `signed` names.
    pub(super) fn write(kubeconfig: PathBuf, server: &str, authority: &str, signed: &Signed) -> Self {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "clusters": [{ "name": "test", "cluster": { "server": server, "certificate-authority-data": STANDARD.encode(authority) } }],
            "users": [{ "name": "test", "user": {
                "client-certificate-data": STANDARD.encode(&signed.certificate),
                "client-key-data": STANDARD.encode(&signed.key),
            } }],
        });
        Self::save(kubeconfig, &config)
    }

    /// Writes the kubeconfig of somebody else, as whom this one acts.
    pub(super) fn act_as(&self, kubeconfig: PathBuf, name: &str, groups: &[&str]) -> Self {
        let text = fs::read(&self.kubeconfig).must("read a kubeconfig");
        let mut config: Value = serde_json::from_slice(&text).must("read a kubeconfig");
        let user = &mut config["users"][0]["user"];
        user["as"] = json!(name);
        if !groups.is_empty() {
            user["as-groups"] = json!(groups);
        }
        Self::save(kubeconfig, &config)
    }

    /// JSON is YAML.
    fn save(kubeconfig: PathBuf, config: &Value) -> Self {
        fs::write(&kubeconfig, config.to_string()).must(format!("write {}", kubeconfig.display()));
        Self { kubeconfig }
    }

    /// The path of the kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client. It belongs to the runtime that asks for it.
    pub async fn client(&self) -> Client {
        let file = Kubeconfig::read_from(&self.kubeconfig).must("read a kubeconfig");
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        Client::try_from(config.must("use a kubeconfig")).must("make a client")
    }
}
