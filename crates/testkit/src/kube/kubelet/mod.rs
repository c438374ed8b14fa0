//! A node: Pods run as processes of this machine.
//!
//! A Pod's one container is a program that stands for its image. It gets the Pod's arguments, its environment and nothing of the
//! test's own, and below `/run` and `/mnt` a file system of its own with the Pod's volumes and its service account's token, so that
//! it finds everything where it would in a container. The rest of the machine it sees as it is: hosts and stores of a test are
//! where they are for the test.
//!
//! What differs from a real one: containers share the machine's network, users and processes; an `emptyDir` at `/tmp` is the
//! machine's `/tmp`; a container is never started again, whatever the Pod's restart policy; resources and node selectors are not looked at.

mod api;
mod container;
mod environment;
mod expansion;
mod pod;
mod status;
mod volumes;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;

use super::Cluster;
use super::background::runtime;
use crate::command::Must;
use api::Node;

/// What a node runs, and with what.
#[derive(Debug, Clone, Default)]
pub struct KubeletSpec {
    /// The program that stands for every image: its entry point.
    pub entrypoint: PathBuf,
    /// Environment variables that the image sets.
    pub environment: Vec<(String, String)>,
    /// Folders that are mounted in place of NFS exports, by `server:path`.
    pub exports: BTreeMap<String, PathBuf>,
}

/// A Pod whose process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its process, the leader of a process group of its own.
    pub pid: u32,
}

/// The one node of a cluster. Dropped, its Pods' processes are killed, and nobody is told: so it is when a machine dies.
#[derive(Debug)]
pub struct Kubelet {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
    books: Arc<Books>,
}

/// What a kubelet knows of its processes, for the test.
#[derive(Debug)]
struct Books {
    folder: TempDir,
    running: Mutex<BTreeMap<String, RunningPod>>,
    started: Mutex<Vec<(String, String)>>,
}

/// What is wanted of a Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// It is to run.
    Run,
    /// It is to end, by itself within this time.
    End(Duration),
    /// It does not exist any more.
    Gone,
}

impl Kubelet {
    /// A node on which this program is every image.
    pub fn start(cluster: &Cluster, entrypoint: impl Into<PathBuf>) -> Self {
        let spec = KubeletSpec {
            entrypoint: entrypoint.into(),
            ..KubeletSpec::default()
        };
        Self::with(cluster, spec)
    }

    /// A node as it is specified.
    pub fn with(cluster: &Cluster, spec: KubeletSpec) -> Self {
        let folder = tempfile::Builder::new().prefix("vmf-kubelet-").tempdir_in("/var/tmp");
        let books = Arc::new(Books {
            folder: folder.must("make a kubelet's folder"),
            running: Mutex::default(),
            started: Mutex::default(),
        });
        let (stop, admin) = (CancellationToken::new(), cluster.admin().clone());
        let (address, ca) = (cluster.address(), cluster.ca());
        let (stopped, shared) = (stop.clone(), Arc::clone(&books));
        // Its processes die with this thread, and this thread with the test.
        let thread = thread::spawn(move || {
            runtime().block_on(async {
                let client = admin.client().await;
                let node = Arc::new(Node::new(client, spec, address, ca, shared));
                let pods = LocalSet::new();
                stopped.run_until_cancelled(pods.run_until(watch_pods(node))).await;
            });
        });
        Self {
            stop,
            thread: Some(thread),
            books,
        }
    }

    /// The Pods whose processes run now.
    pub fn running(&self) -> Vec<RunningPod> {
        self.books.running().values().cloned().collect()
    }

    /// The namespaces and names of all Pods so far whose processes were started.
    pub fn pods(&self) -> Vec<(String, String)> {
        self.books.started().clone()
    }

    /// What all Pods so far have printed, by their name. A Pod that is gone is still in it.
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for folder in fs::read_dir(self.books.folder.path()).into_iter().flatten().flatten() {
            let text = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
            let _ = writeln!(all, "--- {}\n{}", text("name"), text("log"));
        }
        all
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Books {
    fn started(&self) -> MutexGuard<'_, Vec<(String, String)>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, RunningPod>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives each Pod a task of its own and tells it what is wanted.
async fn watch_pods(node: Arc<Node>) {
    let pods: Api<Pod> = Api::all(node.client.clone());
    let mut events = pin!(watcher(pods, watcher::Config::default()).default_backoff());
    let mut wishes: HashMap<String, watch::Sender<Wish>> = HashMap::new();
    let (mut tasks, mut listed) = (JoinSet::new(), HashSet::new());
    while let Some(event) = events.next().await {
        // The watcher itself goes on after an error.
        let Ok(event) = event else { continue };
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(pod) | Event::Apply(pod) => {
                let uid = pod.uid().unwrap_or_default();
                listed.insert(uid.clone());
                match wishes.get(&uid) {
                    Some(wish) => drop(wish.send_replace(wanted(&pod))),
                    None if api::may_take(&pod) => {
                        let (wish, told) = watch::channel(wanted(&pod));
                        wishes.insert(uid, wish);
                        tasks.spawn_local(pod::live(Arc::clone(&node), pod, told));
                    }
                    None => {}
                }
            }
            // What was deleted while nobody watched is only missed.
            Event::InitDone => wishes.retain(|uid, wish| {
                let is_there = listed.contains(uid);
                if !is_there {
                    wish.send_replace(Wish::Gone);
                }
                is_there
            }),
            Event::Delete(pod) => {
                if let Some(wish) = wishes.remove(&pod.uid().unwrap_or_default()) {
                    wish.send_replace(Wish::Gone);
                }
            }
        }
    }
}

fn wanted(pod: &Pod) -> Wish {
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
    match pod.metadata.deletion_timestamp {
        Some(_) => Wish::End(Duration::from_secs(grace.unsigned_abs())),
        None => Wish::Run,
    }
}
