//! What a test can see of a cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::Proxmox;
use crate::command::Must;
use crate::guest::Format;
use crate::wait::wait_for;

/// A request to the API, or a command on a node by ssh.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its method; `SSH` for a command.
    pub method: String,
    /// Its path without the query; the words of a command.
    pub path: String,
    /// Its parameters, from query and body.
    pub params: BTreeMap<String, String>,
    /// Bytes of its body that came.
    pub received: u64,
    /// The status of the answer; 0 for a command and while there is none.
    pub status: u16,
}

/// A task.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its kind: `qmcreate`, `download`, …
    pub kind: String,
    /// The node that ran it.
    pub node: String,
    /// `running`, `OK`, or why it failed.
    pub status: String,
    /// Its log.
    pub log: Vec<String>,
}

/// A VM.
#[derive(Debug, Clone)]
pub struct VmView {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// `running` or `stopped`.
    pub status: String,
    /// Why it is locked, if it is.
    pub lock: Option<String>,
    /// Its config.
    pub config: BTreeMap<String, String>,
    /// Names of its snapshots.
    pub snapshots: Vec<String>,
    /// The commands that its guest agent was given, in order.
    pub agent: Vec<String>,
    /// Whether its file systems stand still.
    pub frozen: bool,
}

/// A disk of a VM.
#[derive(Debug, Clone)]
pub struct VmDisk {
    /// Its key in the config.
    pub key: String,
    /// Its volume.
    pub volume: String,
    /// The volume's file.
    pub path: PathBuf,
    /// The file's format.
    pub format: Format,
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn map(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    entries.map(|(key, value)| (key.clone(), text(value))).collect()
}

impl Proxmox {
    /// Requests that are not of the official API, with what is wrong. A test asserts at its end that there is none.
    #[track_caller]
    pub fn violations(&self) -> Vec<String> {
        texts(&self.control.ask("violations", &json!({})))
    }

    /// Everything that was asked so far, by API and by ssh.
    #[track_caller]
    pub fn calls(&self) -> Vec<Call> {
        let calls = self.control.ask("calls", &json!({}));
        let calls = calls.as_array().into_iter().flatten();
        calls
            .map(|call| Call {
                method: text(&call["method"]),
                path: text(&call["path"]),
                params: map(&call["params"]),
                received: call["received"].as_u64().unwrap_or_default(),
                status: call["status"]
                    .as_u64()
                    .and_then(|status| status.try_into().ok())
                    .unwrap_or_default(),
            })
            .collect()
    }

    /// The calls of a method whose path has a text in it.
    #[track_caller]
    pub fn calls_of(&self, method: &str, path: &str) -> Vec<Call> {
        let mut calls = self.calls();
        calls.retain(|call| call.method == method && call.path.contains(path));
        calls
    }

    /// Forgets the calls so far; violations stay.
    #[track_caller]
    pub fn forget_calls(&self) {
        self.control.ask("forget", &json!({}));
    }

    /// Bytes of all requests' bodies so far.
    #[track_caller]
    pub fn received(&self) -> u64 {
        self.calls().iter().map(|call| call.received).sum()
    }

    #[track_caller]
    fn state(&self) -> Value {
        self.control.ask("state", &json!({}))
    }

    /// All VMs.
    #[track_caller]
    pub fn vms(&self) -> Vec<VmView> {
        let state = self.state();
        let vms = state["vms"].as_array().into_iter().flatten();
        vms.map(|vm| VmView {
            id: vm["id"]
                .as_u64()
                .and_then(|id| id.try_into().ok())
                .must("read a VM's id"),
            name: text(&vm["name"]),
            node: text(&vm["node"]),
            status: text(&vm["status"]),
            lock: vm["lock"].as_str().map(str::to_owned),
            config: map(&vm["config"]),
            snapshots: texts(&vm["snapshots"]),
            agent: texts(&vm["agent"]),
            frozen: vm["frozen"].as_bool().unwrap_or_default(),
        })
        .collect()
    }

    /// The VM of this name, if there is one.
    #[track_caller]
    pub fn vm(&self, name: &str) -> Option<VmView> {
        self.vms().into_iter().find(|vm| vm.name == name)
    }

    /// The ids of all volumes on all storages, import files too, sorted.
    #[track_caller]
    pub fn volumes(&self) -> Vec<String> {
        texts(&self.state()["volumes"])
    }

    /// Files of uploads that nobody has taken yet.
    #[track_caller]
    pub fn spool(&self) -> Vec<String> {
        texts(&self.state()["spool"])
    }

    /// All tasks, in the order in which they were started.
    #[track_caller]
    pub fn tasks(&self) -> Vec<Task> {
        let state = self.state();
        let tasks = state["tasks"].as_array().into_iter().flatten();
        tasks
            .map(|task| Task {
                kind: text(&task["type"]),
                node: text(&task["node"]),
                status: text(&task["status"]),
                log: texts(&task["log"]),
            })
            .collect()
    }

    /// Waits until no task runs.
    #[track_caller]
    pub fn settle(&self) {
        wait_for("the tasks to end", Duration::from_mins(1), || {
            self.tasks().iter().all(|task| task.status != "running").then_some(())
        });
    }

    /// A VM's disks, in the order of their keys.
    #[track_caller]
    pub fn disks(&self, id: u32) -> Vec<VmDisk> {
        let disks = self.control.ask("disks", &json!({"vmid": id}));
        let disks = disks.as_array().into_iter().flatten();
        disks
            .map(|disk| VmDisk {
                key: text(&disk["key"]),
                volume: text(&disk["volume"]),
                path: PathBuf::from(text(&disk["path"])),
                format: if disk["format"] == "qcow2" {
                    Format::Qcow2
                } else {
                    Format::Raw
                },
            })
            .collect()
    }

    /// What is there: VMs with their snapshots, volumes, files waiting after an upload, and processes and sockets on the nodes. What a
    /// test compares before and after.
    #[track_caller]
    pub fn inventory(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .vms()
            .iter()
            .map(|vm| {
                format!(
                    "vm {} {} snapshots {:?} lock {:?}",
                    vm.id, vm.name, vm.snapshots, vm.lock
                )
            })
            .collect();
        lines.extend(self.volumes().iter().map(|volume| format!("volume {volume}")));
        lines.extend(self.spool().iter().map(|file| format!("spooled {file}")));
        for node in &self.nodes {
            lines.extend(
                node.processes()
                    .iter()
                    .map(|process| format!("process on {}: {process}", node.name())),
            );
        }
        for node in &self.nodes {
            let there = node.temporary();
            lines.extend(there.iter().map(|file| format!("/var/tmp on {}: {file}", node.name())));
        }
        for (name, folder) in self.storages() {
            let own = std::fs::read_dir(folder.join("images")).into_iter().flatten().flatten();
            let own = own.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let own = own.filter(|file| file.starts_with("vmferry-"));
            lines.extend(own.map(|file| format!("folder {file} of storage {name}")));
        }
        for node in Self::NODES {
            let run = crate::files_below(&self.dir().join("nodes").join(node).join("run"));
            lines.extend(run.iter().map(|path| format!("socket {}", path.display())));
        }
        lines.sort();
        lines
    }

    /// The storages of folders, and their folders.
    fn storages(&self) -> [(&'static str, PathBuf); 3] {
        let own = |name| (name, self.dir().join("storage").join(name));
        [own(Self::LOCAL), own(Self::PLAIN), (Self::SHARED, self.shared.clone())]
    }

    /// What the monitor of a VM that runs says to a command: its value, or why it refuses.
    ///
    /// # Errors
    /// QEMU's own words.
    #[track_caller]
    pub fn monitor(&self, id: u32, command: &str, arguments: &Value) -> Result<Value, String> {
        let arguments = json!({"vmid": id, "command": command, "arguments": arguments});
        let mut answer = self.control.ask("monitor", &arguments);
        match answer.get("error") {
            Some(error) => Err(text(error)),
            None => Ok(answer["return"].take()),
        }
    }

    /// What a VM printed on its serial port so far.
    pub fn console(&self, id: u32) -> String {
        let path = self.dir().join("serial").join(format!("{id}.log"));
        std::fs::read(path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Waits until a VM that runs says `text` on its serial port, and gives the line.
    #[track_caller]
    pub fn console_line(&self, id: u32, text: &str, limit: Duration) -> String {
        wait_for(format!("VM {id} to say {text:?}"), limit, || {
            let said = self.console(id);
            said.lines()
                .find(|line| line.contains(text))
                .map(|line| line.trim().to_owned())
        })
    }
}
