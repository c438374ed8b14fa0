//! A staged file of the node becomes a disk: `qm importdisk`, and the volume that it made is attached.

use std::time::Duration;

use tokio::time::Instant;

use super::super::place::Place;
use super::super::vm::configure;
use super::script::Disk;
use crate::proxmox::Proxmox;
use crate::proxmox::client::api::Options;
use crate::proxmox::client::kind_of_text;
use crate::proxmox::client::types::Storage;
use crate::proxmox::client::vm::Located;
use crate::proxmox::config::{Drive, Slot};
use crate::proxmox::ssh::Shell;
use crate::{Error, ImageFormat, Kind};

/// A small disk is there at once: so long it is waited for before it is said that it is under way.
const AT_ONCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(300);

/// What is to become of a staged file.
pub(in super::super) struct NewDrive<'a> {
    /// Where it is plugged in.
    pub slot: Slot,
    /// Its format, on a storage of files.
    pub format: ImageFormat,
    /// Its options, each with a comma before it.
    pub options: String,
    /// How messages call it.
    pub what: &'a str,
}

/// How far an import is.
enum State {
    Missing,
    Idle,
    Running,
    Ended(bool),
}

/// One step: `None` when it is done and the drive is to be looked for, or what is being done.
pub(in super::super) async fn import(
    proxmox: &Proxmox,
    at: &mut Located,
    place: &Place,
    drive: &NewDrive<'_>,
) -> Result<Option<String>, Error> {
    if at.node != place.node {
        return Err(Error::new(Kind::Failed, "import", drive.what)
            .detail(format!(
                "the VM is on node {} now, and the staged file on {}",
                at.node, place.node
            ))
            .remedy("migrate the VM back to that node"));
    }
    let (disk, shell) = (Disk::of(place)?, proxmox.shell(&place.node).await?);
    let limit = Instant::now() + AT_ONCE;
    loop {
        let (state, log) = look(&shell, &disk, at.vmid, drive).await?;
        match state {
            State::Missing => {
                return Err(Error::new(Kind::NotFound, "import", place.object())
                    .detail("the staged file is not there any more"));
            }
            State::Idle => begin(proxmox, at, place, &disk, &shell, drive).await?,
            State::Running if Instant::now() >= limit => {
                let last = log.lines().rev().find(|line| line.starts_with("transferred"));
                return Ok(Some(match last {
                    Some(line) => format!("Importing {}: {line}", drive.what),
                    None => format!("Importing {}", drive.what),
                }));
            }
            State::Running => {}
            State::Ended(true) => {
                let have = proxmox.client.vm_config(at, false).await?;
                let volume = match imported(&have, &log, drive.what) {
                    Ok(volume) => volume,
                    Err(error) => {
                        shell.run(&disk.forget(at.vmid), "import", drive.what).await?;
                        return Err(error);
                    }
                };
                let value = format!("{volume}{}", drive.options);
                configure(proxmox, at, &[(&drive.slot.to_string(), &value)]).await?;
                return Ok(None);
            }
            State::Ended(false) => {
                // Told once, and tried again by whoever calls next.
                shell.run(&disk.forget(at.vmid), "import", drive.what).await?;
                let log = log.split_whitespace().collect::<Vec<_>>().join(" ");
                let start = log.char_indices().rev().nth(500).map_or(0, |(start, _)| start);
                return Err(Error::new(kind_of_text(&log), "import", drive.what).detail(format!(
                    "qm importdisk on node {}: {}",
                    place.node,
                    &log[start..]
                )));
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(shell: &Shell, disk: &Disk, vmid: u64, drive: &NewDrive<'_>) -> Result<(State, String), Error> {
    let said = shell.run(&disk.look(vmid), "import", drive.what).await?;
    let (first, log) = said.split_once('\n').unwrap_or((said.as_str(), ""));
    let state = match first.trim() {
        "missing" => State::Missing,
        "idle" => State::Idle,
        "running" => State::Running,
        "ended 0" => State::Ended(true),
        other if other.starts_with("ended ") => State::Ended(false),
        other => {
            let detail = format!("node {}: {other:?} is no state of an import", shell.node());
            return Err(Error::new(Kind::Failed, "import", drive.what).detail(detail));
        }
    };
    Ok((state, log.to_owned()))
}

async fn begin(
    proxmox: &Proxmox,
    at: &mut Located,
    place: &Place,
    disk: &Disk,
    shell: &Shell,
    drive: &NewDrive<'_>,
) -> Result<(), Error> {
    // The VM is ours: what is unused in it, an import left that ended where nobody saw it.
    let stale = unused(&proxmox.client.vm_config(at, false).await?).join(",");
    if !stale.is_empty() {
        configure(proxmox, at, &[("delete", &stale)]).await?;
    }
    let have = proxmox.client.vm_config(at, false).await?;
    let drives = have.iter().filter_map(|(option, text)| Drive::parse(option, text));
    let known: Vec<_> = drives.map(|drive| drive.volume).collect();
    let known: Vec<_> = known.iter().map(String::as_str).collect();
    let storages = proxmox.client.storages(&place.node).await?;
    let target = storages.iter().find(|storage| storage.name == place.target);
    let format = target.is_some_and(Storage::has_files).then(|| drive.format.to_string());
    let script = disk.begin(at.vmid, &place.target, format.as_deref(), &known);
    shell.run(&script, "import", drive.what).await.map(drop)
}

/// The options of volumes that are not attached, in order.
fn unused(have: &Options) -> Vec<&str> {
    let is_unused = |option: &&str| {
        let number = option.strip_prefix("unused");
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    have.keys().map(String::as_str).filter(is_unused).collect()
}

/// The volume that an import made: what is unused now, and where somebody else took a disk off meanwhile, that of the log.
fn imported(have: &Options, log: &str, what: &str) -> Result<String, Error> {
    let volumes: Vec<_> = unused(have).into_iter().filter_map(|option| have.get(option)).collect();
    let told = |volume: &&&String| log.contains(&format!("'{volume}'")) || log.contains(&format!(":{volume}'"));
    let found = match volumes.as_slice() {
        [one] => Some(*one),
        several => several.iter().find(told).copied(),
    };
    found.cloned().ok_or_else(|| {
        Error::new(Kind::Failed, "import", what)
            .detail("qm importdisk succeeded, and the VM has no unused disk that it made")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_volume_is_the_one_that_is_unused() {
        let options = |pairs: &[(&str, &str)]| -> Options {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let one = options(&[
            ("scsi0", "a:vm-1-disk-0"),
            ("unused0", "a:vm-1-disk-1"),
            ("unusedx", "a:b"),
        ]);
        assert_eq!(imported(&one, "", "x").unwrap(), "a:vm-1-disk-1");
        let two = options(&[("unused0", "a:vm-1-disk-1"), ("unused1", "a:vm-1-disk-2")]);
        for log in [
            "unused1: successfully imported disk 'a:vm-1-disk-2'",
            "Successfully imported disk as 'unused1:a:vm-1-disk-2'",
        ] {
            assert_eq!(imported(&two, log, "x").unwrap(), "a:vm-1-disk-2");
        }
        assert_eq!(imported(&two, "", "x").unwrap_err().kind(), Kind::Failed);
        assert_eq!(imported(&options(&[]), "", "x").unwrap_err().kind(), Kind::Failed);
    }
}
