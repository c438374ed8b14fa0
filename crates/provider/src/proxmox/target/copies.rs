//! Uploads that a node still puts in their places: a task goes on when whoever sent the file is gone.

use std::time::Duration;

use tokio::time::Instant;

use super::files::is_of;
use crate::proxmox::Proxmox;
use crate::proxmox::client::task::Upid;
use crate::{Error, Kind};

/// How long is waited for a task to say which file it makes. It does after it took the checksum.
const SAYING: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);
/// What stands in a task's log before the file that it makes.
const TARGET: &str = "target file: ";

/// Ends those that make a file with this stem.
///
/// # Errors
/// [`Kind::Busy`] where a task does not say yet which file it makes: it may be ours.
pub(super) async fn end(proxmox: &Proxmox, node: &str, stem: &str) -> Result<(), Error> {
    let client = &proxmox.client;
    let limit = Instant::now() + SAYING;
    loop {
        let mut silent = None;
        for task in client.running_tasks(node).await? {
            if task.kind != "imgcopy" {
                continue;
            }
            let upid = Upid::parse(&task.upid)?;
            match target(&client.task_log(&upid).await?) {
                Some(file) if is_of(file, stem) => client.stop_task(&upid).await?,
                Some(_) => {}
                None => silent = Some(upid),
            }
        }
        let Some(task) = silent else { return Ok(()) };
        if Instant::now() >= limit {
            return Err(
                Error::new(Kind::Busy, "delete", format!("the staged file {stem} on node {node}"))
                    .detail(format!("an upload is being checked, and may become that file: {task}")),
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The name of the file that a task says it makes.
fn target(log: &[String]) -> Option<&str> {
    let path = log.iter().find_map(|line| line.strip_prefix(TARGET))?;
    path.rsplit('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_tells_the_file() {
        let log = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let checking = log(&[
            "starting file import from: /var/tmp/pveupload-1",
            "calculating checksum...",
        ]);
        assert_eq!(target(&checking), None);
        let copying = log(&[
            "target node: pve1",
            "target file: /mnt/pve/x/import/vmferry-1-disk0.qcow2",
        ]);
        assert_eq!(target(&copying), Some("vmferry-1-disk0.qcow2"));
    }
}
