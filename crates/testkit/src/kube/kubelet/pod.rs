//! The life of a Pod on a node.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::api::{Node, Told, namespace, phase};
use super::container::{self, Process};
use super::{RunningPod, Wish, status};

/// How often a process is looked at.
const STEP: Duration = Duration::from_millis(20);

/// How long what failed waits before it is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// The exit code of a process that nobody saw end.
const LOST: i32 = 137;

/// Runs a Pod from its binding to its end.
pub(super) async fn live(node: Arc<Node>, pod: Pod, mut wish: watch::Receiver<Wish>) {
    let bound = until_told(&mut wish, async || node.bind(&pod).await).await;
    if !bound {
        return;
    }
    if phase(&pod) == "Running" {
        // Its process went with the node that this one follows.
        end(&node, &pod, Timestamp::now(), LOST, &mut wish).await;
    } else if let Some(process) = start(&node, &pod, &mut wish).await {
        let started = Timestamp::now();
        let code = run(&node, &pod, process, started, &mut wish).await;
        end(&node, &pod, started, code, &mut wish).await;
    } else if *wish.borrow() != Wish::Gone {
        let _ = until_told(&mut wish, async || node.remove(&pod).await).await;
    }
}

/// Starts the container as soon as it can be; none where the Pod is to end before.
async fn start(node: &Node, pod: &Pod, wish: &mut watch::Receiver<Wish>) -> Option<Process> {
    while *wish.borrow() == Wish::Run {
        match container::start(node, pod).await {
            Ok(process) => return Some(process),
            Err(problem) => {
                node.report(pod, status::waiting(pod, &problem)).await;
            }
        }
        sleep(AGAIN).await;
    }
    None
}

/// Waits until the process has ended, and sees to it that it does where it is to.
async fn run(
    node: &Node,
    pod: &Pod,
    mut process: Process,
    started: Timestamp,
    wish: &mut watch::Receiver<Wish>,
) -> i32 {
    let uid = pod.uid().unwrap_or_default();
    let running = RunningPod {
        namespace: namespace(pod),
        name: pod.name_any(),
        pid: process.pid(),
    };
    node.books
        .started()
        .push((running.namespace.clone(), running.name.clone()));
    node.books.running().insert(uid.clone(), running);
    let code = tokio::select! {
        code = ended(&mut process, wish.clone()) => code,
        // Whether it is told or not, the process is waited for.
        code = async {
            until_told(wish, async || node.report(pod, status::running(pod, started)).await).await;
            std::future::pending::<i32>().await
        } => code,
    };
    node.books.running().remove(&uid);
    code
}

/// The exit code of a process, which is asked to end once that is wanted, and killed after its grace.
async fn ended(process: &mut Process, wish: watch::Receiver<Wish>) -> i32 {
    let mut deadline = None;
    loop {
        if let Some(code) = process.exit_code() {
            return code;
        }
        let wanted = *wish.borrow();
        match wanted {
            Wish::Run => {}
            Wish::End(grace) => {
                let until = *deadline.get_or_insert_with(|| {
                    process.signal(Signal::TERM);
                    Instant::now() + grace
                });
                if Instant::now() >= until {
                    process.signal(Signal::KILL);
                }
            }
            Wish::Gone => process.signal(Signal::KILL),
        }
        sleep(STEP).await;
    }
}

/// Says how a Pod has ended, and takes it away once it is to go.
async fn end(node: &Node, pod: &Pod, started: Timestamp, code: i32, wish: &mut watch::Receiver<Wish>) {
    let ended = status::ended(pod, started, code);
    let known = until_told(wish, async || node.report(pod, ended.clone()).await).await;
    let asked = known && wish.wait_for(|wish| *wish != Wish::Run).await.is_ok();
    if asked {
        let _ = until_told(wish, async || node.remove(pod).await).await;
    }
}

/// Tells the API server something until it knows. False where the Pod is not there any more, or another's.
async fn until_told(wish: &mut watch::Receiver<Wish>, tell: impl AsyncFn() -> Told) -> bool {
    while *wish.borrow() != Wish::Gone {
        match tell().await {
            Told::Yes => return true,
            Told::NotOurs => return false,
            Told::NotYet => sleep(AGAIN).await,
        }
    }
    false
}
