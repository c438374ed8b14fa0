//! One connection, made anew when it broke, and the one way to call libvirt over it.

use std::fmt;
use std::sync::{Arc, Once};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use virt::connect::Connect;
use virt::error::Error as VirtError;

use super::{Endpoint, Transport, fault};
use crate::libvirt::Config;
use crate::libvirt::ssh::Tunnel;
use crate::{Error, Kind};

/// How long a call may take, unless its caller knows better.
const CALL_LIMIT: Duration = Duration::from_mins(1);

/// How long it may take to connect, once the way there is open.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// libvirt asks a silent peer for a sign of life this often, in seconds…
const KEEPALIVE_INTERVAL: i32 = 5;

/// …and gives it up after so many unanswered.
const KEEPALIVE_COUNT: u32 = 4;

/// A connection to a host. Clones share it.
#[derive(Clone)]
pub(in crate::libvirt) struct Handle(Arc<Shared>);

struct Shared {
    endpoint: Endpoint,
    login: vmferry_libvirt::Login,
    /// The ssh session, for an endpoint that is reached by ssh.
    tunnel: Option<Tunnel>,
    connection: Mutex<Option<Connect>>,
}

impl Handle {
    /// Connects.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let endpoint = Endpoint::parse(&config.endpoint)?;
        start_event_loop();
        let tunnel = match &endpoint.transport {
            Transport::Ssh { user, address, socket } => {
                Some(Tunnel::new(user.as_deref(), address, socket.as_deref(), config)?)
            }
            _ => None,
        };
        let login = vmferry_libvirt::Login {
            username: config.credentials.username.clone(),
            password: config.credentials.password.clone(),
        };
        let handle = Self(Arc::new(Shared {
            endpoint,
            login,
            tunnel,
            connection: Mutex::new(None),
        }));
        handle.connection().await?;
        Ok(handle)
    }

    /// Where it goes.
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// The ssh session, for an endpoint that is reached by ssh.
    pub fn tunnel(&self) -> Option<&Tunnel> {
        self.0.tunnel.as_ref()
    }

    /// Calls libvirt on a thread that may block. `action` and `object` say what is tried, for the fault.
    ///
    /// A broken connection is made anew before the call, never during it: what was under way when it broke may have
    /// happened or not, and only the caller knows how to look.
    pub async fn call<T, F>(&self, action: &'static str, object: impl Into<String>, f: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connect) -> Result<T, VirtError> + Send + 'static,
    {
        self.call_within(CALL_LIMIT, action, object, f).await
    }

    /// [`call`](Self::call) with a limit of its own.
    pub async fn call_within<T, F>(
        &self,
        limit: Duration,
        action: &'static str,
        object: impl Into<String>,
        f: F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connect) -> Result<T, VirtError> + Send + 'static,
    {
        let object = object.into();
        let connection = self.connection().await?;
        let work = spawn_blocking(move || f(&connection));
        match tokio::time::timeout(limit, work).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(error))) => Err(fault(action, object, error)),
            Ok(Err(panic)) => Err(Error::new(Kind::Bug, action, object).source(panic)),
            Err(_) => {
                self.forget().await;
                let seconds = limit.as_secs();
                let detail = format!("{} did not answer within {seconds} s", self.0.endpoint);
                Err(Error::new(Kind::Unreachable, action, object).detail(detail))
            }
        }
    }

    /// The live connection, made anew where it broke.
    pub async fn connection(&self) -> Result<Connect, Error> {
        let mut place = self.0.connection.lock().await;
        // Both are local to this process: the library knows from its own socket and from the keepalive.
        if let Some(connection) = place.as_ref()
            && connection.is_alive().unwrap_or(false)
        {
            return Ok(connection.clone());
        }
        close(place.take());
        let connection = self.0.open().await?;
        *place = Some(connection.clone());
        Ok(connection)
    }

    /// Gives up a connection that does not answer.
    async fn forget(&self) {
        close(self.0.connection.lock().await.take());
    }
}

impl Shared {
    async fn open(&self) -> Result<Connect, Error> {
        let Some(tunnel) = &self.tunnel else {
            return self.open_uri(self.endpoint.uri()).await;
        };
        let listener = tunnel.listen().await?;
        let uri = Endpoint::unix_uri(self.endpoint.mode, &listener.path());
        // The listener's file is gone when this returns, whether libvirt got through or not. What ssh said is nearer to the
        // cause than what libvirt makes of the closed socket.
        self.open_uri(uri)
            .await
            .map_err(|error| listener.take_fault().unwrap_or(error))
    }

    async fn open_uri(&self, uri: String) -> Result<Connect, Error> {
        let login = self.login.clone();
        let object = format!("libvirt host {}", self.endpoint);
        let work = spawn_blocking(move || {
            let connection = vmferry_libvirt::open(&uri, &login)?;
            // A connection without a network has no keepalive; it needs none.
            let _ = connection.set_keep_alive(KEEPALIVE_INTERVAL, KEEPALIVE_COUNT);
            Ok(connection)
        });
        match tokio::time::timeout(CONNECT_LIMIT, work).await {
            Ok(Ok(Ok(connection))) => Ok(connection),
            Ok(Ok(Err(error))) => Err(connect_fault(object, &error)),
            Ok(Err(panic)) => Err(Error::new(Kind::Bug, "connect to", object).source(panic)),
            Err(_) => {
                let detail = format!("no answer within {} s", CONNECT_LIMIT.as_secs());
                Err(Error::new(Kind::Unreachable, "connect to", object).detail(detail))
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        close(self.connection.get_mut().take());
    }
}

/// Closing waits for the other side's goodbye: never on an async thread.
fn close(connection: Option<Connect>) {
    if let Some(connection) = connection {
        std::thread::spawn(move || drop(connection));
    }
}

/// While connecting, whatever is not known to be something else means that the host is not there.
fn connect_fault(object: String, error: &VirtError) -> Error {
    let fault = fault("connect to", object.clone(), error.clone());
    match fault.kind() {
        Kind::Denied => {
            fault.remedy("check the Secret of spec.credentialSecretRef, and that its user may manage libvirt")
        }
        Kind::Untrusted => fault.remedy("check the certificates of both sides"),
        Kind::Unreachable | Kind::Failed | Kind::NotFound => Error::new(Kind::Unreachable, "connect to", object)
            .detail(error.message())
            .remedy("check spec.endpoint, and that libvirtd or virtqemud runs there and listens"),
        _ => fault,
    }
}

/// Silences libvirt's printing of errors and runs its event loop, once a process: keepalive needs it.
fn start_event_loop() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        virt::error::clear_error_callback();
        if let Err(error) = virt::event::event_register_default_impl() {
            tracing::warn!(%error, "libvirt's event loop cannot be registered: a dead host is noticed late");
            return;
        }
        std::thread::spawn(|| {
            loop {
                if let Err(error) = virt::event::event_run_default_impl() {
                    tracing::warn!(%error, "libvirt's event loop failed");
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        });
    });
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.0.endpoint)
    }
}
