//! The disks of a VM that is stopped: its volumes, served by a read-only `qemu-nbd` on its node.
//!
//! Nothing is frozen, as nobody writes. The state's name is a digest over the configuration, the volumes as they look from outside, the
//! node, and the last time that the VM was started: what changes the disks changes one of these.

use aws_lc_rs::digest;
use tokio::sync::OnceCell;

use super::Guest;
use super::disk::{Disk, gone};
use super::state::{RUN, StateId};
use super::volume;
use crate::proxmox::Proxmox;
use crate::proxmox::ssh::{Shell, quote};
use crate::{Error, Frozen, FrozenId};

/// The tasks behind which a disk may have another content.
const WRITING: [&str; 6] = ["qmstart", "qmreboot", "qmresume", "qmrollback", "qmrestore", "qmigrate"];

/// Where a node keeps its lists of tasks.
const TASKS: &str = "/var/log/pve/tasks";

/// The state of all of the VM's disks. Its name ends in the owner's tag.
pub(super) async fn frozen(proxmox: &Proxmox, guest: &Guest, tag: &str) -> Result<Frozen, Error> {
    Ok(Frozen {
        id: FrozenId(format!("{}{}-{tag}", FrozenId::OFFLINE, state(proxmox, guest).await?)),
        detail: "the VM is stopped: its volumes are read as they are".to_owned(),
    })
}

/// The digest.
async fn state(proxmox: &Proxmox, guest: &Guest) -> Result<String, Error> {
    let mut at = guest.at.clone();
    let options = proxmox.client.vm_config(&mut at, false).await?;
    let last = last_start(&proxmox.shell(&at.node).await?, at.vmid, &guest.object).await?;
    let mut hash = digest::Context::new(&digest::SHA256);
    let config = options.get("digest").map_or("", String::as_str);
    hash.update(format!("config {config}\nnode {}\nstarted {last}\n", at.node).as_bytes());
    for (drive, place) in guest.config.disks.iter().zip(volume::look(proxmox, guest).await?) {
        hash.update(format!("disk {} {} {}\n", drive.option, drive.volume, place.stamp).as_bytes());
    }
    // 128 bits are plenty to tell states apart.
    let number = hash.finish();
    let number = number.as_ref().iter().take(16);
    let number = number.fold(0, |number: u128, &byte| number << 8 | u128::from(byte));
    Ok(format!("{number:032x}"))
}

/// The last task of a VM's node behind which its disks may have another content; empty where there was none.
///
/// It is read on the node itself: the API tells the tasks of others only to who has `Sys.Audit` on it, and says nothing of
/// those that it leaves out.
async fn last_start(shell: &Shell, vmid: u64, object: &str) -> Result<String, Error> {
    // A task that ends goes from `active` to `index`, so that it is in one of them in this order. An id is
    // `UPID:node:pid:pstart:starttime:type:vmid:user:`, its numbers hex digits: compared as text.
    let script = format!(
        "cd {TASKS} || exit 1\n\
         set --; for list in active index index.1; do if [ -e $list ]; then set -- \"$@\" $list; fi; done\n\
         [ $# -gt 0 ] || exit 0\n\
         exec awk -F: '$6 ~ /^({kinds})$/ && $7 == \"{vmid}\" {{ at = $5 \":\" $4 \":\" $3; if (at > last) {{ last = at; kind = $6 }} }}\n\
         END {{ if (last) print last \":\" kind }}' \"$@\"\n",
        kinds = WRITING.join("|"),
    );
    let said = shell.run(&script, "look for the last start of", object).await?;
    Ok(said.trim().to_owned())
}

/// Digest and tag of a state.
fn parts(frozen: &FrozenId) -> Option<(&str, &str)> {
    let (digest, tag) = frozen.0.strip_prefix(FrozenId::OFFLINE)?.split_once('-')?;
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hex(digest) && is_hex(tag)).then_some((digest, tag))
}

/// Whether the state is the one that is wanted.
pub(super) async fn compare(proxmox: &Proxmox, guest: &Guest, frozen: &FrozenId) -> Result<(), Error> {
    if guest.is_running() {
        return Err(gone(&guest.object, frozen, "the VM was started"));
    }
    let Some((wanted, _)) = parts(frozen) else {
        return Err(gone(&guest.object, frozen, "it is not the name of one"));
    };
    if state(proxmox, guest).await? != wanted {
        return Err(gone(
            &guest.object,
            frozen,
            "the VM was started or changed, or its volumes have changed",
        ));
    }
    Ok(())
}

/// Opens a disk in the state `frozen`.
pub(super) async fn open(proxmox: &Proxmox, guest: &Guest, frozen: &FrozenId, disk: &str) -> Result<Disk, Error> {
    compare(proxmox, guest, frozen).await?;
    let drive = guest.drive(disk)?;
    let object = format!("disk {disk:?} of {}", guest.object);
    let shell = proxmox.shell(&guest.at.node).await?;
    let said = shell
        .run(&format!("pvesm path {}", quote(&drive.volume)), "find", &object)
        .await?;
    let path = said.trim_end_matches('\n');
    let capacity = volume::capacity(&shell, drive, path, &object).await?;
    let tag = parts(frozen).map_or("", |(_, tag)| tag);
    let name = format!("{RUN}/{}{:08x}", StateId::prefix(tag), rand::random::<u32>());
    let socket = format!("{name}.sock");
    Ok(Disk {
        script: Some(serve(&name, disk, volume::format(drive), path)),
        proxmox: proxmox.clone(),
        vm: guest.vm.clone(),
        frozen: frozen.clone(),
        name: disk.to_owned(),
        capacity,
        object,
        shell,
        socket,
        connection: OnceCell::new(),
    })
}

/// Serves an image at `NAME.sock`, a path of letters, digits, dashes and slashes, until standard input ends: with the ssh channel, and so with whoever reads, however they end.
fn serve(name: &str, export: &str, format: &str, path: &str) -> String {
    let image = if path.starts_with('/') {
        let driver = if path.starts_with("/dev/") {
            "host_device"
        } else {
            "file"
        };
        // Shared by force: a VM that is started meanwhile must not find its disk taken. That it was is found out at the end.
        let options = format!(
            "driver={format},force-share=on,file.driver={driver},file.filename={}",
            path.replace(',', ",,")
        );
        format!("--image-opts {}", quote(&options))
    } else {
        format!("-f {format} {}", quote(path))
    };
    format!(
        "{activate}umask 077\n\
         exec 3<&0\n\
         echo $$ >{name}.pid\n\
         qemu-nbd -r --persistent -e 4 -k {name}.sock -x {export} {image} >&2 </dev/null 3<&- &\n\
         server=$!\n\
         trap 'kill $server $input 2>/dev/null; wait; rm -f {name}.sock {name}.pid' EXIT\n\
         trap 'exit 0' HUP INT TERM PIPE\n\
         until [ -S {name}.sock ]; do kill -0 $server 2>/dev/null || exit 1; sleep 0.05; done\n\
         echo ready\n\
         cat <&3 >/dev/null &\n\
         input=$!\n\
         wait $input\n",
        activate = volume::activation(path),
        export = quote(export),
    )
}
