//! A disk of a running VM, read from its backup job over NBD.

use std::time::Duration;

use async_trait::async_trait;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use vmferry_block::{AllocationMap, Buf};
use vmferry_nbd::{Client, Error as NbdError};

use super::domain::Domain;
use super::job::{Job, Server};
use super::running::{self, Found};
use crate::libvirt::Libvirt;
use crate::{DiskSource, Error, FrozenId, Kind, VmSelector};

/// How long it may take to reach the job's server.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// An export of a backup job.
pub(super) struct Export {
    client: Client,
    state: State,
    object: String,
}

/// What must not change while it is read.
struct State {
    libvirt: Libvirt,
    vm: VmSelector,
    job: Job,
    /// The number of the domain's run.
    run: Option<i32>,
    object: String,
}

/// Opens a disk of the job that holds `frozen`.
pub(super) async fn open(
    libvirt: &Libvirt,
    domain: &Domain,
    vm: &VmSelector,
    frozen: &FrozenId,
    disk: &str,
) -> Result<Export, Error> {
    let object = format!("disk {disk:?} of {}", domain.object);
    let Some(job) = running::find_state(libvirt, vm, frozen).await? else {
        return Err(gone(&domain.object, frozen, "its backup job has ended"));
    };
    let state = State {
        libvirt: libvirt.clone(),
        vm: vm.clone(),
        job,
        run: domain.id,
        object: domain.object.clone(),
    };
    let client = match connect(libvirt, &state.job.server, disk, &object).await {
        Ok(client) => client,
        Err(error) => return Err(state.explain(error).await),
    };
    Ok(Export { client, state, object })
}

async fn connect(libvirt: &Libvirt, server: &Server, disk: &str, object: &str) -> Result<Client, Error> {
    let late = || {
        let detail = format!("the job's server does not answer within {} s", CONNECT_LIMIT.as_secs());
        Error::new(Kind::Unreachable, "open", object).detail(detail)
    };
    let refused = |error: std::io::Error, place: &str| {
        let kind = match error.kind() {
            std::io::ErrorKind::PermissionDenied => Kind::Denied,
            _ => Kind::Unreachable,
        };
        Error::new(kind, "open", object).detail(format!("the job's server at {place}: {error}"))
    };
    let client = match (server, libvirt.handle.tunnel()) {
        (Server::Unix(path), Some(tunnel)) => Client::connect(tunnel.open_unix(path).await?, disk).await,
        (Server::Unix(path), None) => {
            let stream = timeout(CONNECT_LIMIT, UnixStream::connect(path))
                .await
                .map_err(|_| late())?;
            let stream = stream.map_err(|error| {
                refused(error, path)
                    .remedy("run vmferry as root or as the user that QEMU runs as, or use a qemu+ssh endpoint")
            })?;
            Client::connect(stream, disk).await
        }
        (Server::Tcp { host, port }, _) => {
            let place = format!("{host}:{port}");
            let stream = timeout(CONNECT_LIMIT, TcpStream::connect((host.as_str(), *port)))
                .await
                .map_err(|_| late())?;
            let stream = stream.map_err(|error| refused(error, &place))?;
            let _ = stream.set_nodelay(true);
            Client::connect(stream, disk).await
        }
    };
    client.map_err(|error| nbd_fault("open", object, error))
}

impl State {
    /// Whether the job is still the one that was opened.
    async fn holds(&self) -> Result<(), Error> {
        let frozen = FrozenId(self.job.id.to_string());
        let run = self
            .libvirt
            .with_domain("look at", &self.vm, |_, domain| Ok(domain.id()));
        let run = match run.await {
            Ok(run) => run.and_then(|id| i32::try_from(id).ok()),
            Err(error) if error.kind() == Kind::NotFound => return Err(gone(&self.object, &frozen, "the VM is gone")),
            Err(error) => return Err(error),
        };
        if run != self.run {
            return Err(gone(&self.object, &frozen, "the VM was shut off or restarted"));
        }
        match running::find(&self.libvirt, &self.vm, &self.job.id.tag).await? {
            Found::Ours(job) if job.id == self.job.id => Ok(()),
            _ => Err(gone(&self.object, &frozen, "its backup job has ended")),
        }
    }

    /// The reason behind a failure: a state that is gone explains it better than a connection that broke.
    async fn explain(&self, error: Error) -> Error {
        match self.holds().await {
            Err(reason) if reason.kind() == Kind::FrozenStateGone => reason,
            _ => error,
        }
    }
}

#[async_trait]
impl DiskSource for Export {
    fn capacity(&self) -> u64 {
        self.client.size()
    }

    async fn map(&self) -> Result<AllocationMap, Error> {
        match self.client.allocation().await {
            Ok(map) => Ok(map),
            Err(error) => Err(self.state.explain(nbd_fault("map", &self.object, error)).await),
        }
    }

    async fn read(&self, offset: u64, buf: Buf) -> Result<Buf, Error> {
        match self.client.read(offset, buf).await {
            Ok(buf) => Ok(buf),
            Err(error) => Err(self.state.explain(nbd_fault("read", &self.object, error)).await),
        }
    }

    async fn finish(&self) -> Result<(), Error> {
        self.state.holds().await
    }
}

/// The fault for a frozen state that does not hold any more.
pub(super) fn gone(object: &str, frozen: &FrozenId, why: &str) -> Error {
    Error::new(
        Kind::FrozenStateGone,
        "read",
        format!("the frozen state {} of {object}", frozen.0),
    )
    .detail(why)
}

fn nbd_fault(action: &'static str, object: &str, error: NbdError) -> Error {
    let kind = match &error {
        NbdError::Io(_) | NbdError::Closed | NbdError::Timeout(_) => Kind::Unreachable,
        NbdError::OutOfRange { .. } => Kind::Bug,
        _ => Kind::Failed,
    };
    Error::new(kind, action, object).source(error)
}
