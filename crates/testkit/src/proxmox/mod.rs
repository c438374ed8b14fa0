//! A Proxmox VE cluster for tests: two nodes, an API that checks every request against the official schema, real bytes.
//!
//! The control plane is PyPI's `fakepve`, with the parts that move bytes done by the scripts in `double/`: storages are folders,
//! volumes are files, and uploads, downloads, imports, clones, snapshots and resizes are done with `qemu-img`. A node's ssh is a
//! real sshd in namespaces of its own, whose `pvesm` and `qm` ask the double; a VM that runs is a real QEMU with its monitor
//! where Proxmox VE has it.
//!
//! What is not played: LVM, ZFS and Ceph as such (a storage of kind `lvmthin` is a folder that takes raw volumes without an
//! extension), the guest agent's effect on a guest (its commands are recorded), high availability.

mod control;
mod fault;
mod node;
mod options;
mod seed;
mod view;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::authority::Authority;
use crate::command::{Must, run};
use crate::stores::{Server, program};
use control::Control;
use node::Node;

pub use fault::Rule;
pub use options::{Options, Version};
pub use seed::{SeedDisk, SeedVm};
pub use view::{Call, Task, VmDisk, VmView};

/// The double's scripts, within the checkout.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/proxmox/double");

/// A cluster. It is gone with its VMs, nodes and files when this is dropped, and when this process is killed.
#[derive(Debug)]
pub struct Proxmox {
    // Before the server: a node's init must not outlive the folder.
    nodes: Vec<Node>,
    server: Server,
    control: Control,
    port: u16,
    ca: String,
    fingerprint: String,
    shared: PathBuf,
}

impl Proxmox {
    /// Its nodes.
    pub const NODES: [&'static str; 2] = ["pve1", "pve2"];
    /// The bridges that its nodes have.
    pub const BRIDGES: [&'static str; 2] = ["vmbr0", "vmbr1"];
    /// A storage of folders that takes images, and imports from 8.3 on.
    pub const LOCAL: &'static str = "local";
    /// A storage of folders that takes images and nothing else.
    pub const PLAIN: &'static str = "plain";
    /// A storage that takes raw volumes only, as thin LVM does.
    pub const THIN: &'static str = "local-lvm";
    /// A storage that all nodes see, and the test too: [`shared_dir`](Self::shared_dir). It takes images, and imports from 8.3 on.
    pub const SHARED: &'static str = "stg";
    /// A user with [`Options::privileges`] everywhere, and the password.
    pub const USER: (&'static str, &'static str) = ("vmferry@pve", "test-password");
    /// The id of that user's API token, with the same privileges, and its secret.
    pub const TOKEN: (&'static str, &'static str) = ("vmferry@pve!ferry", "5f0d4ac2-7a0e-4d9c-9f62-1d3fd2c7a001");
    /// The id of a token of root's; it has the same secret.
    pub const ROOT_TOKEN: &'static str = "root@pam!root";
    /// root and the password.
    pub const ROOT: (&'static str, &'static str) = ("root@pam", "root-password");

    /// Starts one. Needs what `scripts/deps.sh proxmox` installs; with [`Options::ssh`] it needs root.
    #[track_caller]
    pub fn start(options: &Options) -> Self {
        let mut server = Server::new("proxmox");
        let folder = server.folder().to_owned();
        let shared = options.shared.clone().unwrap_or_else(|| folder.join("storage/stg"));
        let (ca, fingerprint) = certificate(&folder);
        let socket = folder.join("control.sock");
        // Nodes keep it where it is.
        fs::create_dir_all(&shared).must("make the folder of the shared storage");
        let nodes: Vec<Node> = if options.ssh {
            node::make_keys(&folder);
            Self::NODES
                .map(|name| Node::start(name, &folder, &socket, &shared))
                .into()
        } else {
            Vec::new()
        };
        let config = folder.join("config.json");
        let text = configuration(options, &folder, &shared, &nodes).to_string();
        fs::write(&config, text).must("write the double's configuration");
        let mut command = Command::new(program("fakepve-python"));
        command.arg(SCRIPTS).arg(&config).env("PYTHONDONTWRITEBYTECODE", "1");
        let ready = folder.join("ready");
        server.start(&mut command, || ready.exists());
        let port = fs::read_to_string(&ready)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        Self {
            nodes,
            control: Control::new(socket),
            port: port.must("read the double's port"),
            ca,
            fingerprint,
            shared,
            server,
        }
    }

    /// Its endpoint: `https://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The port of its API on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The authority that signed its certificate, as PEM.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// SHA-256 of its certificate: hex digits with colons.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The folder of everything that is the cluster's.
    pub fn dir(&self) -> &Path {
        self.server.folder()
    }

    /// The folder of the storage [`SHARED`](Self::SHARED).
    pub fn shared_dir(&self) -> &Path {
        &self.shared
    }

    /// What the double printed: for a test that wonders.
    pub fn log(&self) -> String {
        self.server.log()
    }
}

/// Makes a certificate; its authority and its fingerprint.
fn certificate(folder: &Path) -> (String, String) {
    let authority = Authority::new();
    let signed = authority.server(&["localhost", "127.0.0.1"]);
    let path = folder.join("certificate.pem");
    fs::write(&path, &signed.certificate).must("write a certificate");
    fs::write(folder.join("key.pem"), &signed.key).must("write a key");
    let said = run(Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(&path));
    let fingerprint = said.trim().rsplit('=').next().unwrap_or_default().to_owned();
    (authority.pem().to_owned(), fingerprint)
}

fn configuration(options: &Options, folder: &Path, shared: &Path, nodes: &[Node]) -> Value {
    let storage = |name: &str, kind: &str, content: &str, folder: &Path, is_shared: bool| {
        json!({"name": name, "type": kind, "content": content, "folder": folder, "shared": is_shared,
               "total": options.storage_bytes})
    };
    let own = |name: &str| folder.join("storage").join(name);
    let described = Proxmox::NODES.iter().enumerate().map(|(index, name)| {
        let node = nodes.get(index);
        let ip = node.map_or(Ipv4Addr::LOCALHOST, Node::address);
        json!({"name": name, "ip": ip.to_string(), "init": node.map(Node::init)})
    });
    json!({
        "folder": folder,
        "control": folder.join("control.sock"),
        "certificate": folder.join("certificate.pem"),
        "key": folder.join("key.pem"),
        "version": options.version.name(),
        "real_machines": options.real_machines,
        "trusted_ca": options.trusted_ca,
        "root_password": Proxmox::ROOT.1,
        "user": Proxmox::USER.0,
        "password": Proxmox::USER.1,
        "token_id": Proxmox::TOKEN.0,
        "token_secret": Proxmox::TOKEN.1,
        "privileges": options.privileges,
        "nodes": described.collect::<Vec<_>>(),
        "storages": [
            storage(Proxmox::LOCAL, "dir", "images,iso,import", &own("local"), false),
            storage(Proxmox::PLAIN, "dir", "images,rootdir", &own("plain"), false),
            storage(Proxmox::THIN, "lvmthin", "images,rootdir", &own("thin"), false),
            // Its folder is mounted there as far as Proxmox VE is concerned.
            storage(Proxmox::SHARED, "dir", "images,import", shared, true),
        ],
    })
}
