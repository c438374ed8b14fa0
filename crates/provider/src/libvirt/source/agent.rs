//! Quiescing the guest's file systems through its agent.
//!
//! A guest that stays frozen is worse than a state that is only crash-consistent. So the thread that freezes also thaws
//! ([`Hold`]): when it is let go, when its caller is cancelled, when the guest stood still for long enough, and when the agent
//! answers after nobody waits any more.
//!
//! A process that is killed cannot thaw. Before the guest is frozen, the domain is therefore marked ([`mark`]), and
//! [`recover`], with which everything on the source begins, thaws a guest with a mark.
//!
//! Architecture Invariant: only what vmferry froze is thawed. A frozen guest without a mark was frozen by another tool, which
//! relies on it.

use std::fmt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use virt::domain::Domain as VirtDomain;
use virt::error::Error as VirtError;
use virt_sys as sys_raw;

use super::job::StateId;
use super::mark;
use crate::libvirt::Libvirt;
use crate::libvirt::conn::kind;
use crate::libvirt::hypervisor::look_up;
use crate::{Error, Kind, VmSelector};

/// How long the agent may take to answer a harmless question.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How long the guest may take to freeze its file systems.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);

/// How long it is kept frozen. What runs in it waits for its disks meanwhile.
const HOLD_LIMIT: Duration = Duration::from_secs(10);

/// How long a thaw is waited for. Whoever thaws may go on with it.
const THAW_LIMIT: Duration = Duration::from_secs(10);

/// How long an agent that does not answer is asked to thaw.
const INSISTENCE: Duration = Duration::from_mins(5);

/// The longest pause between two such requests.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What became of the attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Quiesced {
    /// So many file systems stood still.
    Yes(i32),
    /// They did not, and why.
    No(String),
}

impl fmt::Display for Quiesced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes(0) => f.write_str("crash-consistent: the guest agent knows no file system that can be frozen"),
            Self::Yes(1) => f.write_str("1 file system frozen by the guest agent"),
            Self::Yes(count) => write!(f, "{count} file systems frozen by the guest agent"),
            Self::No(why) => write!(f, "crash-consistent: {why}"),
        }
    }
}

/// A guest that stands still. It is thawed when this is dropped.
pub(super) struct Hold {
    quiesced: Quiesced,
    /// What the thread waits for once the guest stands still.
    let_go: mpsc::Sender<()>,
    /// What became of the thaw.
    thread: JoinHandle<Thaw>,
}

/// How many file systems stood still until they were thawed, or why that is not known.
type Thaw = Result<i32, String>;

/// Freezes the guest's file systems for the state `id`, or says why they do not stand still.
pub(super) async fn freeze(libvirt: &Libvirt, vm: &VmSelector, id: &StateId) -> Result<Hold, Quiesced> {
    // An agent that hangs is found out before it is asked to freeze: a request without an answer may be granted later.
    if !answers(libvirt, vm).await {
        return Err(silent(ANSWER_LIMIT));
    }
    let connection = libvirt.handle.connection().await;
    let connection = connection.map_err(|error| Quiesced::No(error.to_string()))?;
    let (sender, answer) = oneshot::channel();
    let (let_go, wait) = mpsc::channel();
    let (selector, id) = (vm.clone(), id.clone());
    let thread = spawn_blocking(move || match look_up(&connection, &selector) {
        Ok(domain) => hold(&domain, &id, sender, wait),
        Err(error) => {
            drop(sender.send(Err(error)));
            Ok(0)
        }
    });
    let why = match tokio::time::timeout(FREEZE_LIMIT, answer).await {
        Ok(Ok(Ok(count))) => {
            return Ok(Hold {
                quiesced: Quiesced::Yes(count),
                let_go,
                thread,
            });
        }
        Ok(Ok(Err(error))) => {
            if kind(&error) == Kind::Unreachable {
                // The thread cannot thaw what it may have frozen; we can, over a new connection.
                recover_soon(libvirt, vm).await;
            }
            format!("the guest agent does not freeze its file systems: {}", error.message())
        }
        Ok(Err(_)) => "the thread that was to freeze it has failed".to_owned(),
        Err(_) => return Err(silent(FREEZE_LIMIT)),
    };
    Err(Quiesced::No(why))
}

/// Whether the agent answers, be it with a refusal.
async fn answers(libvirt: &Libvirt, vm: &VmSelector) -> bool {
    let ask = libvirt.with_domain("ask the guest agent of", vm, |_, domain| match domain.time(0) {
        Err(error) if is_silent(&error) => Err(error),
        _ => Ok(()),
    });
    matches!(tokio::time::timeout(ANSWER_LIMIT, ask).await, Ok(Ok(())))
}

fn silent(limit: Duration) -> Quiesced {
    Quiesced::No(format!("the guest agent did not answer within {} s", limit.as_secs()))
}

impl Hold {
    /// Thaws the guest, and says whether it stood still until now.
    pub async fn end(self, libvirt: &Libvirt, vm: &VmSelector) -> Quiesced {
        let held = self.let_go.send(()).is_ok();
        drop(self.let_go);
        let thawed = tokio::time::timeout(THAW_LIMIT, self.thread).await;
        if thawed.is_ok() {
            // Nothing to do, unless the thread lost its connection.
            recover_soon(libvirt, vm).await;
        } else {
            tracing::warn!(vm = vm.name, "the guest agent does not thaw; it is asked on");
        }
        if !held {
            return Quiesced::No(format!(
                "the job did not start within {} s, and the guest was thawed before",
                HOLD_LIMIT.as_secs()
            ));
        }
        match (self.quiesced, thawed) {
            // Windows does not wait for long: its agent says so only now.
            (_, Ok(Ok(Err(why)))) => {
                Quiesced::No(format!("the guest may not have stood still until the job began: {why}"))
            }
            (Quiesced::Yes(1..), Ok(Ok(Ok(0)))) => {
                Quiesced::No("somebody else thawed the guest before the job began".to_owned())
            }
            (quiesced, _) => quiesced,
        }
    }
}

/// Freezes, says so, and thaws when it is let go, or nobody is there who could. Blocks.
fn hold(
    domain: &VirtDomain,
    id: &StateId,
    sender: oneshot::Sender<Result<i32, VirtError>>,
    wait: mpsc::Receiver<()>,
) -> Thaw {
    if sender.is_closed() {
        return Ok(0);
    }
    if let Err(error) = mark::set(domain, id) {
        drop(sender.send(Err(error)));
        return Ok(0);
    }
    match vmferry_libvirt::fs_freeze(domain) {
        Ok(count) => {
            if sender.send(Ok(count)).is_ok() {
                let _ = wait.recv_timeout(HOLD_LIMIT);
            }
        }
        Err(error) => {
            // Only then may it have been asked, and freeze nevertheless. Otherwise it was busy for another all the time, or it
            // said no, and has thawed whatever it froze before it failed.
            let asked = has_no_answer(&error) || kind(&error) == Kind::Unreachable;
            if !asked {
                let _ = mark::clear(domain);
            }
            drop(sender.send(Err(error)));
            if !asked {
                return Ok(0);
            }
        }
    }
    // Whoever lets go from now on is told that it was too late.
    drop(wait);
    insist(domain)
}

/// Asks the agent to thaw until it does. Blocks.
fn insist(domain: &VirtDomain) -> Thaw {
    let start = Instant::now();
    let mut pause = Duration::from_millis(500);
    loop {
        let error = match thaw(domain) {
            Ok(count) => return Ok(count),
            Err(error) => error,
        };
        if !is_silent(&error) || start.elapsed() > INSISTENCE {
            let name = domain.name().unwrap_or_default();
            tracing::warn!(domain = name, %error, "the guest's file systems may still be frozen");
            return Err(error.message().to_owned());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Thaws, and takes the mark away. A guest that is not frozen does not mind. How many file systems were frozen.
fn thaw(domain: &VirtDomain) -> Result<i32, VirtError> {
    let count = vmferry_libvirt::fs_thaw(domain)?;
    mark::clear(domain)?;
    Ok(count)
}

/// Whether the agent was asked and did not answer.
fn has_no_answer(error: &VirtError) -> bool {
    [sys_raw::VIR_ERR_AGENT_UNRESPONSIVE, sys_raw::VIR_ERR_AGENT_UNSYNCED].contains(&error.code().to_raw())
}

/// Whether the agent did not answer, or is busy with another's question.
fn is_silent(error: &VirtError) -> bool {
    has_no_answer(error) || error.code().to_raw() == sys_raw::VIR_ERR_OPERATION_TIMEOUT
}

/// Thaws a guest that one of ours froze and did not thaw: with `tag`, only that owner's. What cannot be thawed now keeps its
/// mark, for the next time.
pub(super) async fn recover(libvirt: &Libvirt, vm: &VmSelector, tag: Option<&str>) {
    if let Err(error) = try_recover(libvirt, vm, tag).await {
        tracing::warn!(%error, "the guest's file systems may still be frozen");
    }
}

/// [`recover`], a few times: for a guest that stands still at this moment, on a host that may just be coming back.
async fn recover_soon(libvirt: &Libvirt, vm: &VmSelector) {
    for seconds in [1, 2, 4] {
        if try_recover(libvirt, vm, None).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
    recover(libvirt, vm, None).await;
}

async fn try_recover(libvirt: &Libvirt, vm: &VmSelector, tag: Option<&str>) -> Result<(), Error> {
    const ACTION: &str = "thaw the file systems of";
    let prefix = tag.map(StateId::prefix).unwrap_or_default();
    let recover = libvirt.with_domain(ACTION, vm, move |_, domain| match mark::read(domain)? {
        Some(by) if by.starts_with(&prefix) => thaw(domain).map(|_| true),
        _ => Ok(false),
    });
    let Ok(answer) = tokio::time::timeout(THAW_LIMIT, recover).await else {
        let detail = format!("the guest agent did not answer within {} s", THAW_LIMIT.as_secs());
        return Err(Error::new(Kind::Busy, ACTION, libvirt.vm_object(vm)).detail(detail));
    };
    if answer? {
        tracing::info!(vm = vm.name, "thawed the guest, which was left frozen");
    }
    Ok(())
}
