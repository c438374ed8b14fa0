//! The frozen state of a running VM: a pull-mode backup job over all its disks.

use std::time::Duration;

use virt::domain::Domain as VirtDomain;
use virt::error::Error as VirtError;
use virt_sys as sys_raw;

use super::agent;
use super::domain::Domain;
use super::job::{Job, JobDisk, Server, StateId};
use crate::libvirt::Libvirt;
use crate::libvirt::conn::{Mode, Transport};
use crate::{Error, Frozen, FrozenId, ImageFormat, Kind, VmSelector};

/// How long a job may take to end.
const END_LIMIT: Duration = Duration::from_secs(30);

/// Longest path of a unix socket (`sun_path` of unix(7), without the NUL).
const MAX_SOCKET_PATH: usize = 107;

/// How many ports are tried: which of the host's are free cannot be seen from here.
const PORT_TRIES: u32 = 16;

/// The ports for private use (RFC 6335, section 6).
const PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;

/// What libvirt says of a domain's backup job.
pub(super) enum Found {
    None,
    /// A job of the owner.
    Ours(Job),
    /// Another's, with its XML.
    Foreign(String),
}

/// The backup job of a VM, as seen by the owner with this tag.
pub(super) async fn find(libvirt: &Libvirt, vm: &VmSelector, tag: &str) -> Result<Found, Error> {
    let text = libvirt.with_domain("read the backup job of", vm, |_, domain| active_backup(domain));
    Ok(match text.await? {
        None => Found::None,
        Some(text) => match Job::parse(&text) {
            Some(job) if job.id.tag == tag => Found::Ours(job),
            _ => Found::Foreign(text),
        },
    })
}

/// The job that holds the state `frozen`.
pub(super) async fn find_state(libvirt: &Libvirt, vm: &VmSelector, frozen: &FrozenId) -> Result<Option<Job>, Error> {
    let text = libvirt
        .with_domain("read the backup job of", vm, |_, domain| active_backup(domain))
        .await?;
    let job = text.as_deref().and_then(Job::parse);
    Ok(job.filter(|job| job.id.to_string() == frozen.0))
}

/// A domain that does not run has no job, and libvirt calls the question invalid.
fn active_backup(domain: &VirtDomain) -> Result<Option<String>, VirtError> {
    if domain.is_active()? {
        vmferry_libvirt::backup_xml(domain)
    } else {
        Ok(None)
    }
}

/// The state that holds, with all of the VM's disks in it.
pub(super) async fn frozen(
    libvirt: &Libvirt,
    domain: &Domain,
    vm: &VmSelector,
    tag: &str,
) -> Result<Option<Frozen>, Error> {
    agent::recover(libvirt, vm, Some(tag)).await;
    Ok(match find(libvirt, vm, tag).await? {
        Found::Ours(job) if covers(&job, domain) => Some(Frozen {
            detail: format!("pull-mode backup job {} still holds", job.id),
            id: FrozenId(job.id.to_string()),
        }),
        _ => None,
    })
}

/// Freezes the disks, or finds the state that holds.
pub(super) async fn freeze(
    libvirt: &Libvirt,
    domain: &Domain,
    vm: &VmSelector,
    tag: &str,
    keep: bool,
) -> Result<Frozen, Error> {
    // Another's too: if it were still at it, its job would be refused below, or ours there.
    agent::recover(libvirt, vm, None).await;
    match find(libvirt, vm, tag).await? {
        Found::Ours(job) if covers(&job, domain) => {
            return Ok(Frozen {
                detail: format!("pull-mode backup job {} still holds", job.id),
                id: FrozenId(job.id.to_string()),
            });
        }
        Found::Ours(_) => end(libvirt, vm, tag).await?,
        Found::Foreign(text) => return Err(foreign(domain, &text)),
        Found::None => {}
    }
    let id = StateId::new(tag);
    // What cannot work is found out before the guest stands still for it.
    let disks = job_disks(domain, &id)?;
    server(libvirt, domain, &id).await?;
    let hold = if domain.agent {
        agent::freeze(libvirt, vm, &id).await
    } else {
        Err(agent::Quiesced::No("the guest agent is not connected".to_owned()))
    };
    let begun = begin(libvirt, domain, vm, &id, disks, keep).await;
    let quiesced = match hold {
        Ok(hold) => hold.end(libvirt, vm).await,
        Err(not) => not,
    };
    let kept = begun?;
    Ok(Frozen {
        detail: format!("pull-mode backup job {id}, {quiesced}{kept}"),
        id: FrozenId(id.to_string()),
    })
}

/// Ends the owner's job, and no other, and waits until it is gone.
pub(super) async fn end(libvirt: &Libvirt, vm: &VmSelector, tag: &str) -> Result<(), Error> {
    let Found::Ours(job) = find(libvirt, vm, tag).await? else {
        return Ok(());
    };
    let id = job.id.clone();
    let abort = libvirt.with_domain("end the backup job of", vm, move |_, domain| abort_if(domain, &id));
    abort.await?;
    let wait = async {
        loop {
            match find(libvirt, vm, tag).await? {
                Found::Ours(found) if found.id == job.id => tokio::time::sleep(Duration::from_millis(50)).await,
                _ => return Ok(()),
            }
        }
    };
    if let Ok(gone) = tokio::time::timeout(END_LIMIT, wait).await {
        gone
    } else {
        let object = format!("backup job {} of {}", job.id, libvirt.vm_object(vm));
        Err(Error::new(Kind::Busy, "end", object).detail(format!("it is still there after {} s", END_LIMIT.as_secs())))
    }
}

/// Looks once more, as near to the act as it can be.
fn abort_if(domain: &VirtDomain, id: &StateId) -> Result<(), VirtError> {
    let text = active_backup(domain)?;
    match text.as_deref().and_then(Job::parse) {
        Some(job) if job.id == *id => vmferry_libvirt::abort_job(domain),
        _ => Ok(()),
    }
}

/// Whether a job has all of the VM's disks.
fn covers(job: &Job, domain: &Domain) -> bool {
    domain
        .disks
        .iter()
        .all(|disk| job.disks.iter().any(|covered| covered.target == disk.model.name))
}

/// Starts the job. What became of the checkpoint, in words.
async fn begin(
    libvirt: &Libvirt,
    domain: &Domain,
    vm: &VmSelector,
    id: &StateId,
    disks: Vec<JobDisk>,
    keep: bool,
) -> Result<String, Error> {
    let raw = domain.disks.iter().find(|disk| disk.model.format != ImageFormat::Qcow2);
    let mut kept = match (keep, raw) {
        (false, _) => String::new(),
        (true, None) => format!(", checkpoint {id}"),
        (true, Some(disk)) => format!(", no checkpoint because disk {:?} is not qcow2", disk.model.name),
    };
    let mut checkpoint = keep && raw.is_none();
    let mut tries = 0;
    loop {
        let server = server(libvirt, domain, id).await?;
        let job = Job {
            id: id.clone(),
            server,
            disks: disks.clone(),
        };
        let Err(error) = start(libvirt, vm, &job, checkpoint).await else {
            return Ok(kept);
        };
        let port_taken = matches!(job.server, Server::Tcp { .. }) && error.to_string().contains("in use");
        if port_taken && tries < PORT_TRIES {
            tries += 1;
        } else if checkpoint && matches!(error.kind(), Kind::Failed | Kind::Unsupported | Kind::Invalid) {
            checkpoint = false;
            kept = format!(", no checkpoint ({error})");
        } else {
            return Err(error);
        }
    }
}

/// Each disk with a scratch file beside its image, where QEMU may write as the image is there.
fn job_disks(domain: &Domain, id: &StateId) -> Result<Vec<JobDisk>, Error> {
    let disks = domain.disks.iter().map(|disk| {
        let target = disk.model.name.clone();
        if disk.is_block {
            let object = format!("disk {target:?} of {}", domain.object);
            return Err(Error::new(Kind::Unsupported, "freeze", object)
                .detail(format!(
                    "its image {} is a block device, beside which there is no room for a scratch file",
                    disk.path
                ))
                .remedy("shut the VM off for the migration"));
        }
        let scratch = id.scratch(&disk.path, &target);
        Ok(JobDisk { target, scratch })
    });
    disks.collect()
}

async fn start(libvirt: &Libvirt, vm: &VmSelector, job: &Job, checkpoint: bool) -> Result<(), Error> {
    let bug = |error| Error::new(Kind::Bug, "describe the backup job of", libvirt.vm_object(vm)).source(error);
    let backup = job.render().map_err(bug)?;
    let checkpoint = checkpoint.then(|| job.render_checkpoint().map_err(bug)).transpose()?;
    let begin = libvirt.with_domain("start a backup job of", vm, move |_, domain| {
        vmferry_libvirt::backup_begin(domain, &backup, checkpoint.as_deref())
    });
    begin.await.map_err(|error| match error.kind() {
        Kind::Busy => error.remedy("wait until the other operation on the VM has ended"),
        Kind::Denied => error.remedy("let the user that QEMU runs as write in the folders of the VM's images"),
        _ => error,
    })
}

/// Where the job's server is to listen.
async fn server(libvirt: &Libvirt, domain: &Domain, id: &StateId) -> Result<Server, Error> {
    let endpoint = libvirt.handle.endpoint();
    match &endpoint.transport {
        Transport::Tcp(address) => Ok(Server::Tcp {
            host: resolve(&address.host, domain).await?,
            port: rand::random_range(PORTS),
        }),
        Transport::Tls { .. } => Err(Error::new(Kind::Unsupported, "freeze", &domain.object)
            .detail("its disks would be read over the network without encryption")
            .remedy("use a qemu+ssh endpoint, or shut the VM off for the migration")),
        Transport::Local | Transport::Unix { .. } | Transport::Ssh { .. } => {
            let path = socket_path(endpoint.mode, domain, id)?;
            if path.len() <= MAX_SOCKET_PATH {
                return Ok(Server::Unix(path));
            }
            Err(Error::new(Kind::Unsupported, "freeze", &domain.object)
                .detail(format!(
                    "the socket {path} would be longer than {MAX_SOCKET_PATH} bytes"
                ))
                .remedy("use a qemu+tcp endpoint, shut the VM off, or move its image to a folder with a shorter path"))
        }
    }
}

/// A place where QEMU may make a socket. A system host gives each running domain a folder of its own
/// (`qemuDomainSetPrivatePaths`, named after the id and the first 20 characters of the name); a session host's guests run as
/// their user, and may write where their images are.
fn socket_path(mode: Mode, domain: &Domain, id: &StateId) -> Result<String, Error> {
    let gone = || Error::new(Kind::FrozenStateGone, "freeze", &domain.object).detail("it was shut off meanwhile");
    Ok(match mode {
        Mode::System => {
            let number = domain.id.ok_or_else(gone)?;
            let name: String = domain.name.chars().take(20).collect();
            format!("/var/lib/libvirt/qemu/domain-{number}-{name}/{id}.sock")
        }
        Mode::Session => {
            let image = domain.disks.first().map(|disk| disk.path.as_str()).unwrap_or_default();
            let folder = image.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{folder}/{id}.sock")
        }
    })
}

/// The host's address as we reach it: its own name may mean another address to itself.
async fn resolve(host: &str, domain: &Domain) -> Result<String, Error> {
    let found = tokio::net::lookup_host((host, 0)).await.map(|mut found| found.next());
    match found {
        Ok(Some(address)) => Ok(address.ip().to_string()),
        Ok(None) | Err(_) => {
            Err(Error::new(Kind::Unreachable, "freeze", &domain.object).detail(format!("{host} has no address")))
        }
    }
}

fn foreign(domain: &Domain, text: &str) -> Error {
    let mut names: Vec<&str> = text
        .split("file='")
        .skip(1)
        .filter_map(|rest| rest.split('\'').next())
        .collect();
    names.truncate(4);
    Error::new(Kind::Busy, "freeze", &domain.object)
        .detail(format!(
            "it has a backup job of another already, with the files {}",
            names.join(", ")
        ))
        .remedy("wait until it ends, or end it (virsh domjobabort)")
}

/// Deletes the owner's checkpoints.
pub(super) async fn delete_checkpoints(libvirt: &Libvirt, vm: &VmSelector, tag: &str) -> Result<(), Error> {
    let prefix = StateId::prefix(tag);
    let delete = libvirt.with_domain("delete the checkpoints of", vm, move |_, domain| {
        let names = match vmferry_libvirt::checkpoint_names(domain) {
            Ok(names) => names,
            Err(error) if error.code().to_raw() == sys_raw::VIR_ERR_NO_SUPPORT => return Ok(()),
            Err(error) => return Err(error),
        };
        for name in names.iter().filter(|name| name.starts_with(&prefix)) {
            vmferry_libvirt::checkpoint_delete(domain, name)?;
        }
        Ok(())
    });
    delete.await.map_err(|error| match error.kind() {
        // libvirt: "cannot delete checkpoint for inactive domain".
        Kind::Unsupported => Error::new(Kind::Busy, "delete the checkpoints of", libvirt.vm_object(vm))
            .source(error)
            .remedy("start the VM, so that its host can remove them from the images"),
        _ => error,
    })
}
