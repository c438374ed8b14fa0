//! What QEMU's monitor says of a VM's drives, and of what vmferry has made there.

use serde::Deserialize;
use serde_json::{Value, json};

use super::state::{Part, StateId};
use crate::proxmox::ssh::Qmp;
use crate::{Error, Kind};

/// The first QEMU with a filter that gives up its copy rather than the guest's write (`on-cbw-error`). Proxmox VE 7.4
/// has 7.2.
const OLDEST: (u64, u64) = (7, 1);

/// An export of the NBD server.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Export {
    pub id: String,
}

/// A block node.
#[derive(Debug, Clone, Deserialize)]
struct Node {
    #[serde(rename = "node-name", default)]
    name: String,
}

/// A drive, as the VM has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LiveDrive {
    /// The device that it is plugged into, as a path of QEMU's objects.
    pub device: String,
    /// The block node at its top.
    pub node: String,
    /// Virtual size in bytes.
    pub size: u64,
}

/// What there is.
#[derive(Debug)]
pub(super) struct Found {
    pub exports: Vec<Export>,
    pub nodes: Vec<String>,
    /// `query-block`.
    drives: Vec<Value>,
}

impl Found {
    /// Asks a VM's monitor.
    pub async fn read(monitor: &mut Qmp) -> Result<Self, Error> {
        let exports = parse(monitor.call("query-block-exports", json!({})).await?)?;
        let nodes: Vec<Node> = parse(monitor.call("query-named-block-nodes", json!({"flat": true})).await?)?;
        let drives = parse(monitor.call("query-block", json!({})).await?)?;
        Ok(Self {
            exports,
            nodes: nodes.into_iter().map(|node| node.name).collect(),
            drives,
        })
    }

    /// A drive of the VM by the name of its option.
    pub fn drive(&self, option: &str, object: &str) -> Result<LiveDrive, Error> {
        let name = format!("drive-{option}");
        let found = self.drives.iter().find_map(|entry| {
            // Up to 8 the drive has a name, from 9 on only the device that it is plugged into; a filter may stand on
            // top of its node.
            let device = entry["qdev"].as_str().unwrap_or_default();
            let part = format!("/machine/peripheral/{option}/");
            let is_it = entry["device"] == name.as_str() || device == option || device.starts_with(&part);
            is_it.then(|| live(entry)).flatten()
        });
        found.filter(|drive| drive.size > 0).ok_or_else(|| {
            Error::new(Kind::Unsupported, "read", format!("disk {option:?} of {object}"))
                .detail("the running VM does not have it: it was added or changed after the start")
                .remedy("start the VM anew (stop and start, not reboot), or stop it for the migration")
        })
    }

    /// The drives that have this block node at their top.
    pub fn drives_on(&self, node: &str) -> Vec<LiveDrive> {
        let mut drives: Vec<_> = self.drives.iter().filter_map(live).collect();
        drives.retain(|drive| drive.node == node);
        drives
    }

    /// The block nodes of an owner.
    pub fn nodes_of(&self, part: Part, tag: &str) -> Vec<String> {
        let prefix = StateId::node_prefix(part, tag);
        let own = self.nodes.iter().filter(|node| node.starts_with(&prefix));
        own.cloned().collect()
    }

    /// The state of the owner that holds all of these disks.
    pub fn state(&self, tag: &str, disks: &[&str]) -> Option<StateId> {
        let mut states = self.exports.iter().filter_map(|export| StateId::parse(&export.id));
        states
            .find(|(id, _)| id.tag == tag && self.holds(id, disks))
            .map(|(id, _)| id)
    }

    /// Whether a state has all of these disks: their filters are there, and they are exported. One whose room for
    /// changes was not enough does not show here.
    pub fn holds(&self, id: &StateId, disks: &[&str]) -> bool {
        disks.iter().all(|disk| {
            let (export, filter) = (id.of_disk(disk), id.node(Part::Filter, disk));
            self.exports.iter().any(|found| found.id == export) && self.nodes.contains(&filter)
        })
    }
}

/// Reads an entry of `query-block`.
fn live(entry: &Value) -> Option<LiveDrive> {
    let inserted = entry.get("inserted")?;
    let device = entry["qdev"].as_str().filter(|device| !device.is_empty())?;
    Some(LiveDrive {
        device: if device.starts_with('/') {
            device.to_owned()
        } else {
            format!("/machine/peripheral/{device}")
        },
        node: inserted["node-name"].as_str()?.to_owned(),
        size: inserted["image"]["virtual-size"].as_u64().unwrap_or(0),
    })
}

/// QEMU's graph of block nodes.
#[derive(Debug, Deserialize)]
pub(super) struct Graph {
    nodes: Vec<GraphNode>,
    edges: Vec<GraphEdge>,
}

#[derive(Debug, Deserialize)]
struct GraphNode {
    id: u64,
    name: String,
}

#[derive(Debug, Deserialize)]
struct GraphEdge {
    parent: u64,
    child: u64,
    name: String,
}

impl Graph {
    /// Asks a VM's monitor.
    pub async fn read(monitor: &mut Qmp) -> Result<Self, Error> {
        parse(monitor.call("x-debug-query-block-graph", json!({})).await?)
    }

    /// The node below a filter. It need not be the one that it was put upon: another filter may have come between.
    pub fn below(&self, filter: &str) -> Option<&str> {
        let filter = self.nodes.iter().find(|node| node.name == filter)?.id;
        let edge = self
            .edges
            .iter()
            .find(|edge| edge.parent == filter && edge.name == "file")?;
        let below = self.nodes.iter().find(|node| node.id == edge.child)?;
        Some(&below.name)
    }
}

/// Refuses a running QEMU that knows no filter which lets the guest go on, whatever becomes of its changes.
pub(super) async fn check_age(monitor: &mut Qmp, object: &str) -> Result<(), Error> {
    let said = monitor.call("query-version", json!({})).await?;
    let number = |part: &str| said["qemu"][part].as_u64().unwrap_or(0);
    let version = (number("major"), number("minor"));
    if version >= OLDEST {
        return Ok(());
    }
    Err(Error::new(Kind::Unsupported, "read", object)
        .detail(format!(
            "it runs on QEMU {}.{}, and vmferry reads running VMs from {}.{} on",
            version.0, version.1, OLDEST.0, OLDEST.1
        ))
        .remedy(
            "start the VM anew (stop and start, not reboot) so that it runs on the QEMU that the node has now, or stop it \
             for the migration",
        ))
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|error| {
        Error::new(Kind::Failed, "talk to", "the monitor of a VM").detail(format!("an answer is not QEMU's: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(nodes: &[&str]) -> Found {
        let id = "vmferry-0123456789ab-123456-scsi0";
        Found {
            exports: parse(json!([{"id": id, "type": "nbd"}, {"id": format!("{id}-guard"), "type": "nbd"}])).unwrap(),
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            drives: vec![
                json!({"device": "drive-scsi0", "qdev": "scsi0",
                       "inserted": {"node-name": "#block1", "image": {"virtual-size": 7}}}),
                json!({"device": "", "qdev": "/machine/peripheral/virtio1/virtio-backend",
                       "inserted": {"node-name": "drive-virtio1", "image": {"virtual-size": 9}}}),
                json!({"device": "drive-ide2", "qdev": "ide2"}),
            ],
        }
    }

    #[test]
    fn drives_are_found_by_either_name() {
        let found = found(&[]);
        let drive = found.drive("scsi0", "x").unwrap();
        assert_eq!(
            (drive.node.as_str(), drive.device.as_str()),
            ("#block1", "/machine/peripheral/scsi0")
        );
        let drive = found.drive("virtio1", "x").unwrap();
        assert_eq!(
            (drive.size, drive.device.as_str()),
            (9, "/machine/peripheral/virtio1/virtio-backend")
        );
        assert_eq!(found.drive("ide2", "x").unwrap_err().kind(), Kind::Unsupported);
        assert_eq!(found.drives_on("drive-virtio1"), [drive]);
        assert_eq!(found.drives_on("x"), []);
    }

    #[test]
    fn a_state_holds_while_its_filters_are_there() {
        let whole = found(&["x", "vf-0123456789ab-123456-scsi0"]);
        assert_eq!(whole.state("0123456789ab", &["scsi0"]).unwrap().nonce, "123456");
        assert!(whole.state("0123456789ab", &["scsi0", "scsi1"]).is_none());
        assert!(whole.state("fff", &["scsi0"]).is_none());
        assert!(found(&["x"]).state("0123456789ab", &["scsi0"]).is_none());
        assert_eq!(
            whole.nodes_of(Part::Filter, "0123456789ab"),
            ["vf-0123456789ab-123456-scsi0"]
        );
        assert!(whole.nodes_of(Part::Access, "0123456789ab").is_empty());
    }

    #[test]
    fn the_node_below_a_filter_is_found() {
        let node = |id: u64, name: &str| json!({"id": id, "type": "block-driver", "name": name});
        let edge = |parent: u64, child: u64, name: &str| json!({"parent": parent, "child": child, "name": name});
        let graph = json!({"nodes": [node(1, "f"), node(2, "disk"), node(3, "changes"), node(4, "")],
                           "edges": [edge(4, 1, "root"), edge(1, 3, "target"), edge(1, 2, "file")]});
        let graph: Graph = parse(graph).unwrap();
        assert_eq!(graph.below("f"), Some("disk"));
        assert_eq!(graph.below("disk"), None);
        assert_eq!(graph.below("x"), None);
    }
}
