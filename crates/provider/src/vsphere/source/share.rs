//! One lease for all disks of a state that are read in this process.
//!
//! The first reader asks for it, the last one that finishes completes it. A reader that is dropped unfinished lets the others go on;
//! the last of them then calls the lease off. Asking and completing of one VM's leases happen one after the other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::Kind;
use crate::vsphere::client::{Client, Trouble};
use crate::vsphere::lease::Lease;
use crate::vsphere::soap::Moref;

/// How long a lease is asked for while another operation holds the VM: the lease of a process that was killed lives for five minutes.
/// Whose it is shows nowhere, so it is nobody's to call off.
const PATIENCE: Duration = Duration::from_mins(6);
/// Pauses in between: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Asking and completing: whoever does either holds it. In it is the lease that is there, if any.
type Door = Arc<Mutex<Weak<Held>>>;

/// The leases of this process, by what they were asked of.
#[derive(Default)]
pub(crate) struct Leases(StdMutex<HashMap<Moref, Door>>);

/// A lease that several readers hold.
pub(super) struct Held {
    /// The lease.
    pub(super) lease: Lease,
    /// Whether its manifest has SHA-256.
    pub(super) is_sha256: bool,
    door: Door,
    moved: AtomicU64,
    is_broken: AtomicBool,
}

impl Leases {
    /// The lease on a snapshot or on a VM that is off: the one that is there, or a new one.
    pub(super) async fn join(&self, client: &Client, subject: &Moref) -> Result<Arc<Held>, Trouble> {
        let door = self.door(subject);
        let mut current = door.lock().await;
        if let Some(held) = current.upgrade().filter(|held| held.lease.check().is_ok()) {
            return Ok(held);
        }
        let lease = ask(client, subject).await?;
        let is_sha256 = lease.use_sha256().await?;
        let held = Arc::new(Held {
            lease,
            is_sha256,
            door: Arc::clone(&door),
            moved: AtomicU64::new(0),
            is_broken: AtomicBool::new(false),
        });
        *current = Arc::downgrade(&held);
        Ok(held)
    }

    fn door(&self, subject: &Moref) -> Door {
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever waits at a door, or holds a lease behind it, has it too.
        doors.retain(|_, door| Arc::strong_count(door) > 1);
        Arc::clone(doors.entry(subject.clone()).or_default())
    }
}

impl Held {
    /// Counts what arrived, for the progress that vSphere shows.
    pub(super) fn count(&self, bytes: u64) {
        let moved = self.moved.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let total = self.lease.info().capacity.max(1);
        // What is packed is smaller than the disks, nobody knows by how much.
        let percent = u32::try_from(u128::from(moved) * 100 / u128::from(total)).unwrap_or(99);
        self.lease.set_progress(percent.min(99));
    }

    /// Somebody leaves without having finished.
    pub(super) fn give_up(&self) {
        self.is_broken.store(true, Ordering::Relaxed);
    }

    /// Leaves; the last one completes the lease.
    pub(super) async fn leave(self: Arc<Self>) -> Result<(), Trouble> {
        let door = Arc::clone(&self.door);
        let _open = door.lock().await;
        match Arc::try_unwrap(self) {
            Ok(last) if !last.is_broken.load(Ordering::Relaxed) => last.lease.complete().await,
            Ok(last) => last.lease.abort().await,
            Err(_) => Ok(()),
        }
    }
}

/// Asks for a lease, and again while one that we or a process before us let go still ends.
async fn ask(client: &Client, subject: &Moref) -> Result<Lease, Trouble> {
    let (mut pause, longest) = PAUSE;
    let start = Instant::now();
    loop {
        let asked = match subject.kind.as_str() {
            "VirtualMachine" => client.export_vm(subject).await,
            _ => client.export_snapshot(subject).await,
        };
        let lease = match asked {
            Ok(moref) => Lease::ready(client, moref).await,
            Err(trouble) => Err(trouble),
        };
        match lease {
            Err(trouble) if may_pass(&trouble) && start.elapsed() < PATIENCE => {
                tracing::debug!(%subject, detail = trouble.detail, "no lease yet");
                tokio::time::sleep(pause).await;
                if pause < longest && pause * 2 >= longest {
                    tracing::warn!(%subject, detail = trouble.detail, "waiting for another operation that holds the VM");
                }
                pause = (pause * 2).min(longest);
            }
            answer => return answer,
        }
    }
}

fn may_pass(trouble: &Trouble) -> bool {
    trouble.kind == Kind::Busy && !trouble.is("InvalidPowerState")
}
