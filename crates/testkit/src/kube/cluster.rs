//! A control plane.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use http::Request;
use kube::Client;
use serde_json::Value;

use super::background::block_on;
use super::programs::program;
use super::{Access, crd};
use crate::authority::{Authority, Signed, new_key};
use crate::command::{Must, run};
use crate::front::Front;
use crate::stores::Server;

/// Where the parts listen, each at the cluster's own address: ports that the system gives nobody by itself.
const API_PORT: u16 = 6443;
const ETCD_PORT: u16 = 2379;
const ETCD_PEER_PORT: u16 = 2380;

/// How long one question may take that is asked to learn whether a server is up.
const QUESTION: Duration = Duration::from_secs(2);

/// The controllers that Jobs, owner references, namespaces and service accounts need.
const CONTROLLERS: &str = "job,garbagecollector,namespace,serviceaccount,ttl-after-finished";

/// What a cluster has.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    /// CustomResourceDefinitions, installed before the controllers start: the garbage collector looks for new kinds only every
    /// half a minute.
    pub crds: Vec<Value>,
    /// Whether controllers run: without them a Job has no Pods, and what is owned stays when its owner goes.
    pub controllers: bool,
    /// More arguments for the API server.
    pub api_server_args: Vec<String>,
    /// What the API server may take of memory, in MiB. It gets slow where it needs more.
    pub memory_mib: u32,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            crds: Vec::new(),
            controllers: true,
            api_server_args: Vec::new(),
            memory_mib: 280,
        }
    }
}

/// etcd, an API server and controllers. Dropped, they are gone with all they held; so are they when this process is killed.
///
/// They also end when the thread ends that started them.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order.
    controllers: Option<Server>,
    api_server: Server,
    etcd: Server,
    address: Ipv4Addr,
    arguments: Vec<String>,
    memory_mib: u32,
    signed: Signed,
    admin: Access,
}

impl Cluster {
    /// One with its controllers.
    pub fn start() -> Self {
        Self::with(&ClusterSpec::default())
    }

    /// One as it is specified.
    pub fn with(spec: &ClusterSpec) -> Self {
        let address = unused_address();
        let (etcd, api_server) = (start_etcd(address), Server::new("kube"));
        let (signed, admin) = write_keys(api_server.folder(), address);
        let mut arguments = api_server_arguments(api_server.folder(), address);
        arguments.extend_from_slice(&spec.api_server_args);
        let mut cluster = Self {
            controllers: None,
            api_server,
            etcd,
            address,
            arguments,
            memory_mib: spec.memory_mib,
            signed,
            admin,
        };
        cluster.start_api_server();
        block_on(|| async { crd::install(&cluster.client().await, &spec.crds).await });
        if spec.controllers {
            cluster.start_controllers();
        }
        cluster
    }

    /// `https://address:port` of the API server.
    pub fn url(&self) -> String {
        format!("https://{}:{API_PORT}", self.address)
    }

    /// The address and the port of the API server.
    pub fn address(&self) -> (Ipv4Addr, u16) {
        (self.address, API_PORT)
    }

    /// The way of one who may do everything.
    pub fn admin(&self) -> &Access {
        &self.admin
    }

    /// The path of the kubeconfig of one who may do everything.
    pub fn kubeconfig(&self) -> &Path {
        self.admin.kubeconfig()
    }

    /// A client that may do everything. It belongs to the runtime that asks for it.
    pub async fn client(&self) -> Client {
        self.admin.client().await
    }

    /// The way of somebody else: a user, or `system:serviceaccount:<namespace>:<name>`. What they may do is what RBAC says of
    /// this name and of these groups, nothing at first.
    pub fn user(&self, name: &str, groups: &[&str]) -> Access {
        let file = format!("{}.kubeconfig", name.replace([':', '/'], "-"));
        self.admin.act_as(self.folder().join(file), name, groups)
    }

    /// A front before the API server, by which whoever comes may do everything.
    pub fn front(&self) -> Front {
        let target = format!("{}:{API_PORT}", self.address);
        Front::builder(&target)
            .onwards(self.signed.as_client(&self.ca()))
            .start()
    }

    /// The certificate of the authority that signed the API server's, as PEM.
    pub fn ca(&self) -> String {
        fs::read_to_string(self.folder().join("ca.crt")).must("read the authority's certificate")
    }

    /// Kills the API server at once. What it keeps is kept in etcd.
    pub fn kill_api_server(&mut self) {
        self.api_server.kill();
    }

    /// Starts the API server, at the same address with the same data, and waits until it is ready.
    pub fn start_api_server(&mut self) {
        let program = program("kube-apiserver", "KUBE_APISERVER");
        // Collecting garbage only where memory would run out starts it in two thirds of the time, and serving no group that
        // nobody here asks for in three quarters of that. What guards Pods from eviction was still in one of them before 1.21.
        let mut served = "--runtime-config=api/alpha=false,api/beta=false".to_owned();
        if minor_version(&program) < 21 {
            served.push_str(",policy/v1beta1=true");
        }
        let mut command = Command::new(program);
        command
            .args([&*served, "--enable-priority-and-fairness=false"])
            .args(&self.arguments)
            .env("GOMEMLIMIT", format!("{}MiB", self.memory_mib))
            .env("GOGC", "off");
        let admin = self.admin.clone();
        self.api_server.start(&mut command, || block_on(|| is_ready(&admin)));
    }

    /// Starts the controllers. They take a moment to get to work.
    pub fn start_controllers(&mut self) {
        let program = program("kube-controller-manager", "KUBE_CONTROLLER_MANAGER");
        let minor = minor_version(&program);
        let mut command = Command::new(program);
        command
            .arg(format!("--kubeconfig={}", self.kubeconfig().display()))
            .arg(format!(
                "--service-account-private-key-file={}",
                self.folder().join("sa.key").display()
            ))
            .arg(format!("--controllers={CONTROLLERS}"))
            .args(["--leader-elect=false", "--profiling=false", "--secure-port=0"])
            .env("GOGC", "50");
        if minor < 24 {
            command.args(["--port=0", "--feature-gates=TTLAfterFinished=true"]);
        }
        let mut server = Server::new("kube-controllers");
        server.start(&mut command, || true);
        self.controllers = Some(server);
    }

    /// Kills the controllers at once.
    pub fn kill_controllers(&mut self) {
        self.controllers = None;
    }

    /// What the API server printed.
    pub fn api_server_log(&self) -> String {
        self.api_server.log()
    }

    /// The process ids of etcd, the API server and the controllers, where they run.
    pub fn pids(&self) -> Vec<u32> {
        let servers = [Some(&self.etcd), Some(&self.api_server), self.controllers.as_ref()];
        let pids = servers.into_iter().flatten().map(Server::pid);
        pids.filter(|pid| *pid != 0).collect()
    }

    fn folder(&self) -> &Path {
        self.api_server.folder()
    }
}

fn start_etcd(address: Ipv4Addr) -> Server {
    let mut server = Server::new("etcd");
    let (clients, peers) = (
        format!("http://{address}:{ETCD_PORT}"),
        format!("http://{address}:{ETCD_PEER_PORT}"),
    );
    let mut command = Command::new(program("etcd", "ETCD"));
    command
        .arg("--data-dir")
        .arg(server.folder().join("data"))
        .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
        .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
        .args(["--initial-cluster", &format!("default={peers}")])
        // An election among one.
        .args(["--heartbeat-interval", "10", "--election-timeout", "50"])
        .args([
            "--quota-backend-bytes",
            "268435456",
            "--log-outputs",
            "stderr",
            "--logger",
            "zap",
        ])
        .args(["--log-level", "warn"]);
    server.start(&mut command, || TcpStream::connect((address, ETCD_PORT)).is_ok());
    server
}

/// Writes the certificates and keys of a cluster into a folder, and gives its first user.
fn write_keys(folder: &Path, address: Ipv4Addr) -> (Signed, Access) {
    let authority = Authority::new();
    let server = authority.server(&[&address.to_string(), "localhost", "kubernetes.default.svc"]);
    let accounts = new_key();
    for (name, text) in [
        ("ca.crt", authority.pem()),
        ("server.crt", &server.certificate),
        ("server.key", &server.key),
        ("sa.key", &accounts.serialize_pem()),
        ("sa.pub", &accounts.public_key_pem()),
    ] {
        fs::write(folder.join(name), text).must(format!("write {name}"));
    }
    let admin = authority.client("admin", "system:masters");
    let url = format!("https://{address}:{API_PORT}");
    let access = Access::write(folder.join("admin.kubeconfig"), &url, authority.pem(), &admin);
    (admin, access)
}

fn api_server_arguments(folder: &Path, address: Ipv4Addr) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    vec![
        format!("--etcd-servers=http://{address}:{ETCD_PORT}"),
        format!("--bind-address={address}"),
        format!("--advertise-address={address}"),
        format!("--secure-port={API_PORT}"),
        format!("--cert-dir={}", folder.display()),
        format!("--tls-cert-file={}", file("server.crt")),
        format!("--tls-private-key-file={}", file("server.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        "--authorization-mode=RBAC".to_owned(),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        // The kubelet here gives Pods their tokens by itself.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        "--profiling=false".to_owned(),
    ]
}

/// Whether an API server serves what it will serve, and has made the namespace that everybody uses.
async fn is_ready(admin: &Access) -> bool {
    let client = admin.client().await;
    let answers = async |path: &str| {
        let request = Request::get(path).body(Vec::new()).must("make a request");
        let answer = tokio::time::timeout(QUESTION, client.request_text(request)).await;
        answer.is_ok_and(|text| text.is_ok())
    };
    answers("/readyz").await && answers("/api/v1/namespaces/default").await
}

/// The second number of a version: `Kubernetes v1.20.2`.
fn minor_version(program: &Path) -> u32 {
    let said = run(Command::new(program).arg("--version"));
    let minor = said.split('.').nth(1).and_then(|minor| minor.parse().ok());
    minor.must(format!("find a version in `{said}`"))
}

/// An address in 127/8 of the cluster's own.
fn unused_address() -> Ipv4Addr {
    let is_free = |ip: &Ipv4Addr| {
        [API_PORT, ETCD_PORT, ETCD_PEER_PORT]
            .iter()
            .all(|port| TcpListener::bind((*ip, *port)).is_ok())
    };
    let candidate = || {
        let [b, c, d] = rand::random::<[u8; 3]>();
        Ipv4Addr::new(127, b, c, d.clamp(2, 250))
    };
    (0..100).map(|_| candidate()).find(is_free).must("find a free address")
}
