//! What QEMU's monitor says of a VM's drives, and of what vmferry has made there.

use serde::Deserialize;
use serde_json::{Value, json};

use super::state::StateId;
use crate::proxmox::ssh::Qmp;
use crate::{Error, Kind};

/// A job.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Job {
    pub id: String,
    pub status: String,
    pub error: Option<String>,
}

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
    /// The block node at its top.
    pub node: String,
    /// Virtual size in bytes.
    pub size: u64,
}

/// What there is.
#[derive(Debug)]
pub(super) struct Found {
    pub jobs: Vec<Job>,
    pub exports: Vec<Export>,
    pub nodes: Vec<String>,
    /// `query-block`.
    drives: Vec<Value>,
}

impl Found {
    /// Asks a VM's monitor.
    pub async fn read(monitor: &mut Qmp) -> Result<Self, Error> {
        let jobs = parse(monitor.call("query-jobs", json!({})).await?)?;
        let exports = parse(monitor.call("query-block-exports", json!({})).await?)?;
        let nodes: Vec<Node> = parse(monitor.call("query-named-block-nodes", json!({"flat": true})).await?)?;
        let drives = parse(monitor.call("query-block", json!({})).await?)?;
        Ok(Self {
            jobs,
            exports,
            nodes: nodes.into_iter().map(|node| node.name).collect(),
            drives,
        })
    }

    /// A drive of the VM by the name of its option.
    pub fn drive(&self, option: &str, object: &str) -> Result<LiveDrive, Error> {
        let name = format!("drive-{option}");
        let found = self.drives.iter().find_map(|entry| {
            let inserted = entry.get("inserted")?;
            let node = inserted["node-name"].as_str()?;
            // Up to 8 the drive has a name, from 9 on only the device that it is plugged into; a job may stand on top of its node.
            let device = entry["qdev"].as_str().unwrap_or_default();
            let part = format!("/machine/peripheral/{option}/");
            let is_it = entry["device"] == name.as_str() || device == option || device.starts_with(&part);
            is_it.then(|| LiveDrive {
                node: node.to_owned(),
                size: inserted["image"]["virtual-size"].as_u64().unwrap_or(0),
            })
        });
        found.filter(|drive| drive.size > 0).ok_or_else(|| {
            Error::new(Kind::Unsupported, "read", format!("disk {option:?} of {object}"))
                .detail("the running VM does not have it: it was added or changed after the start")
                .remedy("start the VM anew (stop and start, not reboot), or stop it for the migration")
        })
    }

    /// The state of the owner that holds all of these disks.
    pub fn state(&self, tag: &str, disks: &[&str]) -> Option<StateId> {
        let mut states = self.exports.iter().filter_map(|export| StateId::parse(&export.id));
        states
            .find(|(id, _)| id.tag == tag && self.holds(id, disks))
            .map(|(id, _)| id)
    }

    /// Whether a state holds all of these disks: their jobs run, and they are exported.
    pub fn holds(&self, id: &StateId, disks: &[&str]) -> bool {
        disks.iter().all(|disk| {
            let name = id.of_disk(disk);
            let job = self.jobs.iter().find(|job| job.id == name);
            job.is_some_and(|job| job.status == "running" && job.error.is_none())
                && self.exports.iter().any(|export| export.id == name)
        })
    }
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|error| {
        Error::new(Kind::Failed, "talk to", "the monitor of a VM").detail(format!("an answer is not QEMU's: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(status: &str) -> Found {
        let id = "vmferry-0123456789ab-123456-scsi0";
        Found {
            jobs: parse(json!([{"id": id, "status": status, "type": "backup"}, {"id": "x", "status": "running"}]))
                .unwrap(),
            exports: parse(json!([{"id": id, "type": "nbd"}])).unwrap(),
            nodes: Vec::new(),
            drives: vec![
                json!({"device": "drive-scsi0", "inserted": {"node-name": "#block1", "image": {"virtual-size": 7}}}),
                json!({"device": "", "qdev": "/machine/peripheral/scsi1/virtio-backend", "inserted": {"node-name": "drive-scsi1", "image": {"virtual-size": 9}}}),
                json!({"device": "drive-ide2"}),
            ],
        }
    }

    #[test]
    fn drives_are_found_by_either_name() {
        let found = found("running");
        assert_eq!(found.drive("scsi0", "x").unwrap().node, "#block1");
        assert_eq!(found.drive("scsi1", "x").unwrap().size, 9);
        assert_eq!(found.drive("ide2", "x").unwrap_err().kind(), Kind::Unsupported);
    }

    #[test]
    fn a_state_holds_while_its_jobs_run() {
        let running = found("running");
        assert_eq!(running.state("0123456789ab", &["scsi0"]).unwrap().nonce, "123456");
        assert!(running.state("0123456789ab", &["scsi0", "scsi1"]).is_none());
        assert!(running.state("fff", &["scsi0"]).is_none());
        assert!(found("aborting").state("0123456789ab", &["scsi0"]).is_none());
    }
}
