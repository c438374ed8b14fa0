//! The filters of a running VM come between the guest and its disks.
//!
//! A device takes its filter at one instant. Where the VM has several disks it is paused for that, so that they are of
//! the same one; should whoever does this die meanwhile, the node lets it go on.

use serde_json::json;

use super::running::NewDisk;
use super::state::{Part, RUN, StateId};
use super::{Guest, agent, watchdog};
use crate::proxmox::ssh::{Qmp, Shell};
use crate::{Error, Kind};

/// After how many seconds the node lets the guest go on.
const WATCHDOG: u32 = 10;

/// Puts the filters of a state in their places, and gives the monitor back. What has begun is done to its end, whoever
/// waits for it.
pub(super) async fn insert(
    monitor: Qmp,
    shell: &Shell,
    guest: &Guest,
    id: &StateId,
    disks: &[NewDisk],
) -> Result<Qmp, Error> {
    let places: Vec<_> = disks
        .iter()
        .map(|disk| (disk.live.device.clone(), id.node(Part::Filter, &disk.name)))
        .collect();
    let (shell, object, mark) = (
        shell.clone(),
        guest.object.clone(),
        format!("{RUN}/{id}.{}", agent::PAUSED),
    );
    // Whoever paused it may still have the monitor in its hands.
    let resume = format!("{}; {}", watchdog::HANG_UP, agent::resume(guest.at.vmid));
    let placed = tokio::spawn(async move {
        let mut monitor = monitor;
        let runs = monitor.call("query-status", json!({})).await?["running"] == true;
        if places.len() == 1 || !runs {
            put(&mut monitor, &places).await?;
        } else {
            watchdog::set(&shell, &mark, WATCHDOG, &resume, &object).await?;
            let put = match monitor.call("stop", json!({})).await {
                Ok(_) => put(&mut monitor, &places).await,
                Err(error) => Err(error),
            };
            let resumed = monitor.call("cont", json!({})).await;
            put?;
            resumed?;
            watchdog::call_off(&shell, &mark, &object).await?;
        }
        Ok(monitor)
    });
    placed
        .await
        .unwrap_or_else(|error| Err(Error::new(Kind::Bug, "freeze", &guest.object).source(error)))
}

async fn put(monitor: &mut Qmp, places: &[(String, String)]) -> Result<(), Error> {
    for (device, filter) in places {
        replace(monitor, device, filter).await?;
    }
    Ok(())
}

/// Gives a device another block node.
pub(super) async fn replace(monitor: &mut Qmp, device: &str, node: &str) -> Result<(), Error> {
    let arguments = json!({"path": device, "property": "drive", "value": node});
    monitor.call("qom-set", arguments).await.map(drop)
}
