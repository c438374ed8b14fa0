//! A vCenter or an ESXi host: a simulator that keeps the bytes of disks, each test's own.
//!
//! - [`Vsphere`] is one server, up in a second, with a certificate of its own, gone with the test, however the test ends.
//! - [`VmSeed`] is a VM to be found there, its disks filled from images.
//! - [`State`] is what is there: VMs with their disks as raw files, snapshots, leases and every file of every datastore, for
//!   checks that nothing is left.
//! - [`Fault`] is how the next calls go wrong; other methods of [`Vsphere`] disturb transfers, leases, datastores and hosts.
//!
//! The program is Go (`crates/testkit/vcsim`), on Debian's package of VMware's own simulator; `scripts/deps.sh vsphere` builds it.

mod control;
mod fault;
mod program;
mod seed;
mod state;

use std::fs;
use std::process::Command;
use std::time::Duration;

pub use fault::Fault;
pub use seed::{DiskSeed, Firmware, NicSeed, VmSeed};
use serde_json::{Value, json};
pub use state::{Call, Disk, Lease, Nic, State, Vm};

use crate::authority::Authority;
use crate::command::Must;
use crate::stores::Server;

/// Who may log in.
const USER: &str = "administrator@vsphere.local";
/// Their password, with what XML has to escape.
const PASSWORD: &str = "s3cret <&> \"pass\"";

/// What a server is.
#[derive(Debug, Clone)]
pub struct Options {
    /// A standalone ESXi host, not a vCenter.
    pub esx: bool,
    /// URLs of leases have the host `*`, as those of ESXi do.
    pub star: bool,
    /// Version of the API that it claims; none leaves the simulator's own, which is older than any that is served.
    pub api_version: Option<String>,
    /// Clusters: `DC0_C0`, `DC0_C1`, …
    pub clusters: u32,
    /// Hosts in each of them.
    pub cluster_hosts: u32,
    /// Hosts in no cluster.
    pub hosts: u32,
    /// Datastores: `LocalDS_0`, `LocalDS_1`, …
    pub datastores: u32,
    /// Datastore clusters: `DC0_POD0`, …; all datastores are in the first.
    pub pods: u32,
    /// Distributed portgroups: `DC0_DVPG0`, …; the standard network `VM Network` is always there.
    pub portgroups: u32,
    /// How long a lease lives without a sign of life.
    pub lease_timeout: Duration,
    /// How long a lease is being initialized.
    pub lease_delay: Duration,
}

impl Default for Options {
    /// A vCenter 8.0 with one of each.
    fn default() -> Self {
        Self {
            esx: false,
            star: false,
            api_version: Some("8.0.2.0".to_owned()),
            clusters: 1,
            cluster_hosts: 1,
            hosts: 0,
            datastores: 1,
            pods: 0,
            portgroups: 1,
            lease_timeout: Duration::from_mins(5),
            lease_delay: Duration::from_millis(20),
        }
    }
}

impl Options {
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("-clusters={}", self.clusters),
            format!("-cluster-hosts={}", self.cluster_hosts),
            format!("-hosts={}", self.hosts),
            format!("-datastores={}", self.datastores),
            format!("-pods={}", self.pods),
            format!("-portgroups={}", self.portgroups),
            format!("-lease-timeout={}ms", self.lease_timeout.as_millis()),
            format!("-lease-delay={}ms", self.lease_delay.as_millis()),
        ];
        arguments.extend(self.esx.then(|| "-esx".to_owned()));
        arguments.extend(self.star.then(|| "-star".to_owned()));
        arguments.extend(self.api_version.iter().map(|version| format!("-api-version={version}")));
        arguments
    }
}

/// A running server.
#[derive(Debug)]
pub struct Vsphere {
    server: Server,
    ca: String,
    address: String,
    control: u16,
}

impl Vsphere {
    /// A vCenter with one of each: datacenter `DC0`, cluster `DC0_C0`, host, datastore `LocalDS_0`, and no VM.
    pub fn start() -> Self {
        Self::with(&Options::default())
    }

    /// A server as it is described.
    pub fn with(options: &Options) -> Self {
        let mut server = Server::new("vsphere");
        let authority = Authority::new();
        let signed = authority.server(&["127.0.0.1", "localhost"]);
        for (name, text) in [("cert.pem", &signed.certificate), ("key.pem", &signed.key)] {
            fs::write(server.folder().join(name), text).must(format!("write {name}"));
        }
        let mut command = Command::new(program::find());
        command
            .args(["-cert=cert.pem", "-key=key.pem", "-work=work"])
            .arg(format!("-user={USER}"))
            .arg(format!("-password={PASSWORD}"))
            .args(options.arguments())
            // Where datastores are.
            .env("TMPDIR", server.folder());
        let log = server.folder().join("log");
        let mut found = None;
        server.start(&mut command, || {
            found = ready(&fs::read_to_string(&log).unwrap_or_default());
            found.is_some()
        });
        let (address, control) = found.must("learn where the server is");
        Self {
            server,
            ca: authority.pem().to_owned(),
            address,
            control,
        }
    }

    /// `https://HOST:PORT/sdk`.
    pub fn endpoint(&self) -> String {
        format!("https://{}/sdk", self.address)
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Who may log in.
    pub fn user(&self) -> &'static str {
        USER
    }

    /// Their password.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// The authority that signed its certificate, PEM.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// SHA-256 of its certificate, in hex digits with colons.
    pub fn thumbprint(&self) -> String {
        let certificate = self.server.folder().join("cert.pem");
        let said = crate::run(
            Command::new("openssl")
                .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
                .arg(certificate),
        );
        let print = said.trim().rsplit_once('=').must("read a fingerprint").1;
        print.to_owned()
    }

    /// Makes a VM. Gives its id, as in `vm-42`.
    pub fn seed(&self, vm: &VmSeed) -> String {
        let made = self.post("/vms", &vm.as_json());
        made.as_str().must("read the id of a VM").to_owned()
    }

    /// What is there now.
    pub fn state(&self) -> State {
        State::read(&self.get("/state"))
    }

    /// What was called up to now, in order.
    pub fn calls(&self) -> Vec<Call> {
        Call::read(&self.get("/calls"))
    }

    /// How often a method was called.
    pub fn count(&self, method: &str) -> usize {
        self.calls().iter().filter(|call| call.method == method).count()
    }

    /// Has the next calls of a method go wrong.
    pub fn inject(&self, fault: &Fault) {
        self.post("/rules", &fault.as_json());
    }

    /// Takes back what has not gone wrong yet: faults, cuts, spoiled checksums and the host in URLs of leases.
    pub fn clear(&self) {
        self.post("/clear", &json!({}));
    }

    /// Cuts the next transfer of a disk after so many bytes.
    pub fn cut_next_transfer(&self, after: u64) {
        self.post("/cut", &json!({ "after": after }));
    }

    /// Says wrong checksums of the next transfers.
    pub fn spoil_checksums(&self, times: u32) {
        self.post("/spoil", &json!({ "times": times }));
    }

    /// Leaves the next transfers out of manifests.
    pub fn omit_from_manifest(&self, times: u32) {
        self.post("/omit", &json!({ "times": times }));
    }

    /// Answers the next transfer with this status, before a byte of it.
    pub fn refuse_next_transfer(&self, status: u16) {
        self.post("/refuse", &json!({ "status": status }));
    }

    /// Names another host in the URLs of leases from now on: `127.0.0.1:1` answers nobody.
    pub fn name_lease_host(&self, host: &str) {
        self.post("/lease-host", &json!({ "host": host }));
    }

    /// Lets leases live so long without a sign of life, those that are held too.
    pub fn set_lease_timeout(&self, timeout: Duration) {
        let millis = u64::try_from(timeout.as_millis()).must("count milliseconds");
        self.post("/lease-timeout", &json!({ "ms": millis }));
    }

    /// Makes a datastore so large in all.
    pub fn set_capacity(&self, datastore: &str, bytes: u64) {
        self.post("/capacity", &json!({ "datastore": datastore, "bytes": bytes }));
    }

    /// Says whether a datastore can be reached, and whether it is in maintenance.
    pub fn set_datastore(&self, datastore: &str, accessible: bool, maintenance: bool) {
        let wanted = json!({ "datastore": datastore, "accessible": accessible, "maintenance": maintenance });
        self.post("/datastore", &wanted);
    }

    /// Pulls the plug of a VM.
    pub fn pull_plug(&self, vm: &str) {
        self.post("/pull", &json!({ "name": vm }));
    }

    /// Whether a VM shows no configuration, as while its host or its datastore is away, or while it is being made.
    pub fn hide_configuration(&self, vm: &str, hidden: bool) {
        self.post("/hide", &json!({ "name": vm, "hidden": hidden }));
    }

    /// Does what the tasks that are held are for, and ends them.
    pub fn go_on(&self) {
        self.post("/go-on", &json!({}));
    }

    /// Gives a datastore or a network another name.
    pub fn rename(&self, from: &str, to: &str) {
        self.post("/rename", &json!({ "from": from, "to": to }));
    }

    /// Says of all hosts that they are `connected`, `disconnected` or `notResponding`.
    pub fn set_hosts(&self, connection: &str) {
        self.post("/host", &json!({ "connection": connection }));
    }

    /// Ends all sessions, as an administrator may, and their leases with them.
    pub fn kill_sessions(&self) {
        self.post("/kill-sessions", &json!({}));
    }

    /// Restarts it: all sessions end, and their leases with them, and nobody is answered for so long. What is there stays.
    pub fn restart(&self, away: Duration) {
        let millis = u64::try_from(away.as_millis()).must("count milliseconds");
        self.post("/restart", &json!({ "ms": millis }));
    }

    /// What it printed.
    pub fn log(&self) -> String {
        self.server.log()
    }

    fn get(&self, path: &str) -> Value {
        control::ask(self.control, "GET", path, None)
    }

    fn post(&self, path: &str, order: &Value) -> Value {
        control::ask(self.control, "POST", path, Some(order))
    }
}

/// `HOST:PORT` and the port of the control, once the log says them.
fn ready(log: &str) -> Option<(String, u16)> {
    let line = log.lines().find_map(|line| line.strip_prefix("ready "))?;
    let (address, control) = line.split_once(' ')?;
    Some((address.to_owned(), control.parse().ok()?))
}
