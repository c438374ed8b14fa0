//! The endpoints that both sides of a migration need.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::number;
use super::task::Upid;
use super::types::{
    ClusterEntry, ConfiguredStorage, Content, Interface, Node, Storage, Version, VersionAnswer, VmStatus,
};
use super::vm::Located;
use super::{Call, Client};
use crate::{Error, Kind};

/// A VM's configuration as it is written down: option and value.
pub(crate) type Options = BTreeMap<String, String>;

impl Client {
    /// `GET /version`.
    pub(super) async fn ask_version(&self) -> Result<Version, Error> {
        let answer: VersionAnswer = self.send(&Call::get(&["version"], "ask", self.object())).await?;
        Version::parse(&answer.version).ok_or_else(|| {
            Error::new(Kind::Failed, "ask", self.object()).detail(format!("{:?} is no version", answer.version))
        })
    }

    /// The nodes of the cluster: `GET /nodes`.
    pub(crate) async fn nodes(&self) -> Result<Vec<Node>, Error> {
        self.send(&Call::get(&["nodes"], "list the nodes of", self.object()))
            .await
    }

    /// The cluster and its nodes with their addresses: `GET /cluster/status`. It takes `Sys.Audit` on `/`.
    pub(crate) async fn cluster_status(&self) -> Result<Vec<ClusterEntry>, Error> {
        self.send(&Call::get(&["cluster", "status"], "read the state of", self.object()))
            .await
    }

    /// The storages that a node has and that may be seen: `GET /nodes/N/storage`.
    pub(crate) async fn storages(&self, node: &str) -> Result<Vec<Storage>, Error> {
        self.send(&Call::get(
            &["nodes", node, "storage"],
            "list the storages of",
            format!("node {node}"),
        ))
        .await
    }

    /// The storages of the cluster as they are configured, those of nodes that are down among them: `GET /storage`.
    pub(crate) async fn configured_storages(&self) -> Result<Vec<ConfiguredStorage>, Error> {
        self.send(&Call::get(&["storage"], "list the storages of", self.object()))
            .await
    }

    /// What a storage holds: `GET /nodes/N/storage/S/content`.
    pub(crate) async fn content(&self, node: &str, storage: &str, content: &str) -> Result<Vec<Content>, Error> {
        let object = format!("storage {storage} on node {node}");
        let call = Call::get(&["nodes", node, "storage", storage, "content"], "list", object).with("content", content);
        self.send(&call).await
    }

    /// Deletes a volume: the task, where it became one.
    pub(crate) async fn delete_content(&self, node: &str, storage: &str, volid: &str) -> Result<Option<Upid>, Error> {
        let call = Call::delete(
            &["nodes", node, "storage", storage, "content", volid],
            "delete",
            format!("volume {volid} on node {node}"),
        );
        let answer: Option<String> = self.send(&call).await?;
        answer
            .filter(|text| !text.is_empty())
            .map(|text| Upid::parse(&text))
            .transpose()
    }

    /// The bridges of a node, SDN's vnets among them: `GET /nodes/N/network?type=any_bridge`.
    pub(crate) async fn bridges(&self, node: &str) -> Result<Vec<String>, Error> {
        let object = format!("node {node}");
        let call = Call::get(&["nodes", node, "network"], "list the bridges of", object).with("type", "any_bridge");
        let found: Vec<Interface> = self.send(&call).await?;
        Ok(found.into_iter().map(|interface| interface.iface).collect())
    }

    /// A VM's configuration as it will be after the next start, or as it runs (`current`).
    pub(crate) async fn vm_config(&self, at: &mut Located, current: bool) -> Result<Options, Error> {
        let config: BTreeMap<String, Value> = self
            .send_at(at, |at| {
                let id = at.vmid.to_string();
                let call = Call::get(
                    &["nodes", &at.node, "qemu", &id, "config"],
                    "read the configuration of",
                    vm(at),
                );
                if current { call.with("current", 1) } else { call }
            })
            .await?;
        Ok(config
            .into_iter()
            .map(|(option, value)| (option, text(value)))
            .collect())
    }

    /// How a VM is right now.
    pub(crate) async fn vm_status(&self, at: &mut Located) -> Result<VmStatus, Error> {
        self.send_at(at, |at| {
            let id = at.vmid.to_string();
            Call::get(
                &["nodes", &at.node, "qemu", &id, "status", "current"],
                "look at",
                vm(at),
            )
        })
        .await
    }

    /// Has a VM started, stopped, …: `POST /nodes/N/qemu/VMID/status/ACT`.
    pub(crate) async fn vm_act(&self, at: &mut Located, act: &'static str) -> Result<Upid, Error> {
        let answer: String = self
            .send_at(at, |at| {
                let id = at.vmid.to_string();
                Call::post(&["nodes", &at.node, "qemu", &id, "status", act], act, vm(at))
            })
            .await?;
        Upid::parse(&answer)
    }

    /// An id that no VM has right now: `GET /cluster/nextid`. Nothing is reserved.
    pub(crate) async fn next_id(&self) -> Result<u64, Error> {
        let answer: Value = self
            .send(&Call::get(&["cluster", "nextid"], "get an id from", self.object()))
            .await?;
        number::number(&answer).map_err(|error: serde_json::Error| {
            Error::new(Kind::Failed, "get an id from", self.object()).detail(error.to_string())
        })
    }

    /// The privileges that the token or user has on a path: `GET /access/permissions`. The value of each says whether it
    /// propagates to what is below.
    pub(crate) async fn privileges(&self, path: &str) -> Result<BTreeSet<String>, Error> {
        let call = Call::get(&["access", "permissions"], "ask for the privileges at", self.object()).with("path", path);
        let found: BTreeMap<String, BTreeMap<String, Value>> = self.send(&call).await?;
        Ok(held(path, found))
    }
}

/// What is held on `path`: what is on it, and what propagates from above.
fn held(path: &str, found: BTreeMap<String, BTreeMap<String, Value>>) -> BTreeSet<String> {
    let mut held = BTreeSet::new();
    for (at, privileges) in found {
        let is_above = path
            .strip_prefix(at.trim_end_matches('/'))
            .is_some_and(|rest| rest.starts_with('/'));
        for (privilege, propagates) in privileges {
            if at == path || (is_above && number::truth(&propagates)) {
                held.insert(privilege);
            }
        }
    }
    held
}

/// How messages call a VM by its id.
pub(crate) fn vm(at: &Located) -> String {
    format!("VM {} on node {}", at.vmid, at.node)
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Bool(value) => u8::from(value).to_string(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_come_from_the_path_and_from_above() {
        let found = r#"{"/": {"A": 1, "B": 0}, "/vms": {"C": 0}, "/vms/1": {"D": 1}, "/vm": {"E": 1}}"#;
        let held = |path| {
            held(path, serde_json::from_str(found).unwrap())
                .into_iter()
                .collect::<Vec<_>>()
                .concat()
        };
        assert_eq!(held("/vms"), "AC");
        assert_eq!(held("/"), "AB");
        assert_eq!(held("/vms/1/x"), "AD");
    }
}
