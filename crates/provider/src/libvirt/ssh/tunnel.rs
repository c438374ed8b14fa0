//! The ssh session of one host, made anew when it broke, and what goes through it.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::listener::Listener;
use crate::credentials::Credentials;
use crate::libvirt::Config;
use crate::libvirt::conn::Address;
use crate::ssh::{Session, Target, UnixChannel};
use crate::{Error, Kind};

/// Where libvirt's daemons listen, the monolithic one first.
const LIBVIRT_SOCKETS: [&str; 2] = ["/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"];

/// The way to a host through ssh. Clones share one session.
#[derive(Clone)]
pub(in crate::libvirt) struct Tunnel(Arc<Shared>);

struct Shared {
    target: Target,
    credentials: Credentials,
    runtime_dir: PathBuf,
    /// libvirt's socket at the other side, where the endpoint names it.
    socket: Option<String>,
    session: Mutex<Option<Arc<Session>>>,
}

impl Tunnel {
    /// The way to `address`. Nothing is connected yet.
    pub fn new(user: Option<&str>, address: &Address, socket: Option<&str>, config: &Config) -> Result<Self, Error> {
        let user = user
            .map(str::to_owned)
            .or_else(|| config.credentials.username.clone())
            .or_else(|| std::env::var("USER").ok())
            .ok_or_else(|| {
                Error::new(Kind::Invalid, "use", format!("spec.endpoint {:?}", config.endpoint))
                    .detail("it names no user, and neither does the Secret")
                    .remedy("write qemu+ssh://USER@HOST/system, or set username in the Secret")
            })?;
        let target = Target {
            user,
            host: address.host.clone(),
            port: address.port.unwrap_or(22),
            said_by: "spec.endpoint",
        };
        Ok(Self(Arc::new(Shared {
            target,
            credentials: config.credentials.clone(),
            runtime_dir: config.runtime_dir.clone(),
            socket: socket.map(str::to_owned),
            session: Mutex::new(None),
        })))
    }

    /// A local socket whose one connection goes to libvirt at the other side.
    pub async fn listen(&self) -> Result<Listener, Error> {
        // Connected first: a wrong key is said as such, and not as a closed socket.
        self.session().await?;
        Listener::start(&self.0.runtime_dir, self.clone())
    }

    /// A byte stream to a unix socket at the other side.
    pub async fn open_unix(&self, path: &str) -> Result<UnixChannel, Error> {
        let opened = self.session().await?.open_unix(path).await;
        opened.map_err(|error| match error.kind() {
            Kind::Unreachable => error
                .remedy("check that libvirtd or virtqemud runs, and that the user may manage libvirt (group libvirt)"),
            _ => error,
        })
    }

    /// A byte stream to libvirt at the other side, wherever it listens.
    pub(super) async fn open_libvirt(&self) -> Result<UnixChannel, Error> {
        if let Some(path) = &self.0.socket {
            return self.open_unix(path).await;
        }
        let [first, second] = LIBVIRT_SOCKETS;
        match self.open_unix(first).await {
            Err(error) if error.kind() == Kind::Unreachable => self.open_unix(second).await.map_err(|_| error),
            answer => answer,
        }
    }

    async fn session(&self) -> Result<Arc<Session>, Error> {
        let mut place = self.0.session.lock().await;
        if let Some(session) = place.as_ref()
            && session.is_alive()
        {
            return Ok(Arc::clone(session));
        }
        let session = Arc::new(Session::connect(&self.0.target, &self.0.credentials).await?);
        *place = Some(Arc::clone(&session));
        Ok(session)
    }
}
