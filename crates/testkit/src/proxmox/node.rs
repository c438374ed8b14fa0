//! A node's ssh: `node/node.sh` holds its processes, and ends with the pipe to it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Proxmox;
use crate::command::{Must, run};
use crate::wait::poll;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/proxmox/node/node.sh");

/// The port of every node's sshd, on the node's own address.
const PORT: u16 = 2222;
/// The commands that the double does.
const STUBS: [&str; 2] = ["pvesm", "qm"];

#[derive(Debug)]
pub(super) struct Node {
    name: &'static str,
    dir: PathBuf,
    address: Ipv4Addr,
    socket: PathBuf,
    shared: PathBuf,
    /// Its standard input is the lifeline: closed, the node ends.
    script: Option<Child>,
    init: u32,
}

/// Makes the keys that all nodes share: one that is let in, and one that is not.
pub(super) fn make_keys(folder: &Path) {
    fs::create_dir(folder.join("ssh")).must("make a folder for keys");
    for key in ["id", "stranger"] {
        make_key(&folder.join("ssh").join(key));
    }
}

fn make_key(path: &Path) {
    run(Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(path));
}

impl Node {
    pub(super) fn start(name: &'static str, folder: &Path, socket: &Path, shared: &Path) -> Self {
        let dir = folder.join("nodes").join(name);
        fs::create_dir_all(dir.join("run")).must("make a node's folder");
        fs::create_dir_all(dir.join("ssh")).must("make a node's folder");
        for key in ["host_key", "other_host_key"] {
            make_key(&dir.join("ssh").join(key));
        }
        fs::copy(folder.join("ssh/id.pub"), dir.join("ssh/authorized_keys")).must("let a key in");
        write_shadow(&dir.join("ssh/shadow"));
        let mut node = Self {
            name,
            dir,
            address: unused_address(),
            socket: socket.to_owned(),
            shared: shared.to_owned(),
            script: None,
            init: 0,
        };
        node.run();
        node
    }

    fn run(&mut self) {
        let _ = fs::remove_file(self.dir.join("ready"));
        let _ = fs::remove_file(self.dir.join("init"));
        let log = self.dir.join("script.log");
        let errors = File::create(&log).must("make a node's log");
        let script = Command::new(SCRIPT)
            .arg(self.name)
            .arg(&self.dir)
            .arg(self.address.to_string())
            .arg(&self.socket)
            .arg(&self.shared)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(errors)
            .process_group(0)
            .spawn()
            .must(format!("run {SCRIPT}"));
        self.script = Some(script);
        let (ready, init) = (self.dir.join("ready"), self.dir.join("init"));
        let up = poll(Duration::from_secs(30), || {
            (ready.exists() && init.exists()).then_some(())
        });
        let said = fs::read_to_string(&log).unwrap_or_default();
        assert!(up.is_some(), "node {} did not come up: {said}", self.name);
        let text = fs::read_to_string(&init).must("read a node's init");
        self.init = text.trim().parse().must("read a node's init");
    }

    /// Ends its processes at once, as a power cut would.
    pub(super) fn stop(&mut self) {
        let Some(mut script) = self.script.take() else { return };
        drop(script.stdin.take());
        if poll(Duration::from_secs(20), || script.try_wait().transpose()).is_none() {
            let _ = script.kill();
        }
        let _ = script.wait();
    }

    /// Has a script in place of one of its commands, or the command again.
    pub(super) fn replace(&self, command: &str, script: Option<&str>) {
        let path = self.dir.join("bin").join(command);
        // Proxmox VE's own are links to one stub.
        let is_stub = STUBS.contains(&command);
        if is_stub || script.is_none() {
            fs::remove_file(&path).must("remove a command");
        }
        match script {
            Some(script) => {
                fs::write(&path, format!("#!/bin/sh\n{script}\n")).must("write a command");
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).must("write a command");
            }
            None if is_stub => symlink("stub", &path).must("link a command"),
            None => {}
        }
    }

    /// What is in its /var/tmp, folders too, but for where the cluster itself is.
    pub(super) fn temporary(&self) -> Vec<String> {
        let cluster = self.dir.ancestors().nth(2).and_then(Path::file_name);
        let shared = self
            .shared
            .strip_prefix("/var/tmp")
            .ok()
            .and_then(|path| path.iter().next());
        let entries = fs::read_dir(self.dir.join("tmp")).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name());
        names
            .filter(|name| Some(name.as_os_str()) != cluster && Some(name.as_os_str()) != shared)
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }

    /// Starts them again.
    pub(super) fn restart(&mut self) {
        self.stop();
        self.run();
    }

    /// Shows another host key from now on.
    pub(super) fn change_host_key(&mut self) {
        for suffix in ["", ".pub"] {
            let ssh = self.dir.join("ssh");
            fs::copy(
                ssh.join(format!("other_host_key{suffix}")),
                ssh.join(format!("host_key{suffix}")),
            )
            .must("change a host key");
        }
        self.restart();
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The process id of its init, as this process sees it.
    pub(super) fn init(&self) -> u32 {
        self.init
    }

    /// Its line of a known_hosts file.
    pub(super) fn known_host(&self) -> String {
        let key = fs::read_to_string(self.dir.join("ssh/host_key.pub")).must("read a host key");
        let mut words = key.split_whitespace();
        let (kind, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        format!("[{}]:{PORT} {kind} {key}\n", self.address)
    }

    /// The command lines of its processes, but for its init and its sshd.
    pub(super) fn processes(&self) -> Vec<String> {
        let Ok(namespace) = fs::read_to_string(self.dir.join("pid-namespace")) else {
            return Vec::new();
        };
        let entries = fs::read_dir("/proc").must("list /proc");
        let pids = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|link| link.as_os_str() == namespace.trim())
        })
        .filter_map(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned())
        .filter(|line| !line.is_empty() && !line.contains("node-init.sh") && !line.contains("sshd") && line != "cat")
        .collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// root has a password on the nodes: [`Proxmox::ROOT`]'s.
fn write_shadow(path: &Path) {
    let hash = run(Command::new("openssl").args(["passwd", "-6", Proxmox::ROOT.1]));
    let others = fs::read_to_string("/etc/shadow").unwrap_or_default();
    let others = others.lines().filter(|line| !line.starts_with("root:"));
    let mut lines = vec![format!("root:{}:19000:0:99999:7:::", hash.trim())];
    lines.extend(others.map(str::to_owned));
    fs::write(path, lines.join("\n") + "\n").must("write a shadow file");
}

/// An address in 127/8 on whose ssh port nobody listens.
fn unused_address() -> Ipv4Addr {
    let candidates = (0..100).map(|_| {
        let [_, b, c, d] = rand::random::<[u8; 4]>();
        Ipv4Addr::new(127, b, c, d.clamp(2, 250))
    });
    candidates
        .into_iter()
        .find(|ip| TcpListener::bind((*ip, PORT)).is_ok())
        .must("find a free loopback address")
}
