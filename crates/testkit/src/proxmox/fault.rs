//! What a test does to a cluster.

use std::fs;
use std::time::Duration;

use serde_json::json;

use super::Proxmox;
use crate::command::Must;

/// What becomes of requests.
#[derive(Debug, Clone)]
pub enum Rule {
    /// They are answered with this status and message.
    Answer(u16, String),
    /// The connection is cut; an upload's after so many bytes of its body.
    CutAfter(u64),
    /// They are served after this time.
    Delay(Duration),
}

impl Proxmox {
    /// The next `times` requests of a method (any where empty) whose path has a text in it meet a rule.
    #[track_caller]
    pub fn on(&self, method: &str, path: &str, times: u32, rule: &Rule) {
        let mut arguments = json!({"method": method, "path": path, "times": times});
        match rule {
            Rule::Answer(status, message) => {
                arguments["status"] = json!(status);
                arguments["message"] = json!(message);
            }
            Rule::CutAfter(bytes) => arguments["cut_after"] = json!(bytes),
            Rule::Delay(time) => arguments["delay"] = json!(time.as_secs_f64()),
        }
        self.control.ask("rule", &arguments);
    }

    /// The next task of a kind (`qmcreate`, `download`, `imgcopy`, `qmclone`, `qmsnapshot`, `imgdel`, …; `importdisk` is
    /// the command on a node) fails after a while.
    #[track_caller]
    pub fn fail_task(&self, kind: &str, after: Duration, reason: &str) {
        let arguments = json!({"kind": kind, "after": after.as_secs_f64(), "reason": reason});
        self.control.ask("fail-task", &arguments);
    }

    /// Tasks of a kind take so long at least.
    #[track_caller]
    pub fn slow_tasks(&self, kind: &str, least: Duration) {
        let arguments = json!({"kind": kind, "seconds": least.as_secs_f64()});
        self.control.ask("task-seconds", &arguments);
    }

    /// Forgets rules and faults that did not come to pass.
    #[track_caller]
    pub fn clear_faults(&self) {
        self.control.ask("clear-rules", &json!({}));
    }

    /// Locks a VM, as `backup`, `migrate` or `snapshot` do; `None` unlocks it.
    #[track_caller]
    pub fn lock_vm(&self, id: u32, lock: Option<&str>) {
        self.control.ask("lock-vm", &json!({"vmid": id, "lock": lock}));
    }

    /// A VM is on another node from now on; one that runs is a new process there.
    #[track_caller]
    pub fn move_vm(&self, id: u32, node: &str) {
        self.control.ask("move-vm", &json!({"vmid": id, "node": node}));
    }

    /// A node goes down at once, with its VMs and its ssh, and the API answers 595 for it.
    #[track_caller]
    pub fn node_down(&mut self, node: &str) {
        self.control.ask("node-online", &json!({"node": node, "online": false}));
        for known in self.nodes.iter_mut().filter(|known| known.name() == node) {
            known.stop();
        }
    }

    /// A node that was down is up again. Its VMs are stopped.
    #[track_caller]
    pub fn node_up(&mut self, node: &str) {
        for known in self.nodes.iter_mut().filter(|known| known.name() == node) {
            known.restart();
        }
        self.tell_inits();
        self.control.ask("node-online", &json!({"node": node, "online": true}));
    }

    /// The ssh connections to a node break; it can be reached again at once. VMs go on.
    #[track_caller]
    pub fn break_ssh(&mut self, node: &str) {
        for known in self.nodes.iter_mut().filter(|known| known.name() == node) {
            known.restart();
        }
        self.tell_inits();
    }

    /// A node runs a script of `sh` in place of a command, or with `None` the command again. Needs a cluster with ssh.
    #[track_caller]
    pub fn replace_command(&self, node: &str, command: &str, script: Option<&str>) {
        for known in self.nodes.iter().filter(|known| known.name() == node) {
            known.replace(command, script);
        }
    }

    /// All nodes show other host keys from now on. Needs a cluster with ssh.
    #[track_caller]
    pub fn change_host_keys(&mut self) {
        self.nodes.iter_mut().for_each(super::node::Node::change_host_key);
        self.tell_inits();
    }

    fn tell_inits(&self) {
        for node in &self.nodes {
            self.control
                .ask("node-init", &json!({"node": node.name(), "pid": node.init()}));
        }
    }

    /// A storage has so many bytes left.
    #[track_caller]
    pub fn fill_storage(&self, storage: &str, left: u64) {
        self.control
            .ask("fill-storage", &json!({"storage": storage, "left": left}));
    }

    /// A storage goes offline or comes back.
    #[track_caller]
    pub fn storage_active(&self, storage: &str, active: bool) {
        self.control
            .ask("storage-active", &json!({"storage": storage, "active": active}));
    }

    /// Only these nodes have a storage from now on.
    #[track_caller]
    pub fn storage_nodes(&self, storage: &str, nodes: &[&str]) {
        self.control
            .ask("storage-nodes", &json!({"storage": storage, "nodes": nodes}));
    }

    /// The next VM to be created finds its id taken by another one, `stranger`, that came between.
    #[track_caller]
    pub fn take_next_id(&self) {
        self.control.ask("take-next-id", &json!({}));
    }

    /// Takes a privilege from [`Proxmox::USER`] and its token.
    #[track_caller]
    pub fn revoke(&self, privilege: &str) {
        self.control
            .ask("revoke", &json!({"user": Self::USER.0, "privilege": privilege}));
    }

    /// Every ticket that was given out is void.
    #[track_caller]
    pub fn expire_tickets(&self) {
        self.control.ask("expire-tickets", &json!({}));
    }

    /// Whether a VM's guest agent answers.
    #[track_caller]
    pub fn agent_answers(&self, id: u32, answers: bool) {
        self.control.ask("agent", &json!({"vmid": id, "answers": answers}));
    }

    fn ssh_file(&self, name: &str) -> String {
        fs::read_to_string(self.dir().join("ssh").join(name)).must("read a key")
    }

    /// The private key that root on the nodes accepts, in OpenSSH form. [`Proxmox::ROOT`]'s password is good, too.
    pub fn ssh_key(&self) -> String {
        self.ssh_file("id")
    }

    /// A private key that the nodes do not know.
    pub fn stranger_key(&self) -> String {
        self.ssh_file("stranger")
    }

    /// The nodes' keys, in the form of a known_hosts file.
    pub fn known_hosts(&self) -> String {
        self.nodes.iter().map(super::node::Node::known_host).collect()
    }

    /// The address of a node's ssh. Needs a cluster with ssh.
    #[track_caller]
    pub fn ssh_host(&self, node: &str) -> String {
        let found = self.nodes.iter().find(|known| known.name() == node);
        found.must("find a node").address().to_string()
    }

    /// The port of every node's ssh.
    pub fn ssh_port(&self) -> u16 {
        2222
    }
}
