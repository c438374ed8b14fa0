//! The connection to the server, made again when it breaks.
//!
//! A [`Link`] has at most one connection, shared by all calls. A [`Call`] is one call of the port: it tries again what may be
//! done again, for as long as the server is not silent for longer than the patience.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nfs_rs::Mount;
use rustix::io::Errno;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::config::Target;
use super::dial;
use super::options::Version;
use super::session::Session;
use super::trouble::Trouble;
use crate::{Error, ObjectKey};

/// The first wait before connecting again; it doubles each time, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How often a call is tried again without getting any further.
const TRIES: u32 = 32;
/// How often a handle may be stale. After the first time the path is walked again, after the second the connection made again.
const STALE: u32 = 3;
/// How often a server may forget what it was given, from one commit to the next.
const FORGOT: u32 = 8;
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// The way to one server.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) target: Target,
    line: AsyncMutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    connection: Option<Connection>,
    /// How many connections there have been.
    count: u64,
    /// The version of the first one. All later ones keep to it: the same path may be another folder in another version.
    version: Option<Version>,
}

/// A connection that stands.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) mount: Arc<dyn Mount>,
    /// What is worth telling about it.
    pub(super) clauses: Vec<String>,
    /// Held by whoever writes to a file over version 4.0.
    pub(super) writer: Arc<AsyncMutex<()>>,
    number: u64,
}

/// When the server was last heard of by one call.
#[derive(Debug)]
pub(super) struct Clock {
    heard: Mutex<Instant>,
    patience: Duration,
}

impl Clock {
    fn new(patience: Duration) -> Self {
        Self {
            heard: Mutex::new(Instant::now()),
            patience,
        }
    }

    pub(super) fn heard(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(super) fn deadline(&self) -> Instant {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) + self.patience
    }

    pub(super) fn silent(&self) -> Trouble {
        Trouble::Lost(format!("no answer for {} s", self.patience.as_secs_f32()))
    }
}

impl Link {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            line: AsyncMutex::default(),
        }
    }

    /// How messages name the server and the path on it.
    pub(super) fn describe(&self) -> String {
        format!("NFS server {}, path {}", self.target.host, self.target.path())
    }

    /// `nfs://host/path/key`.
    pub(super) fn url(&self, key: &ObjectKey) -> String {
        let path = self.target.path();
        format!(
            "nfs://{}{}/{key}",
            self.target.authority(),
            path.trim_end_matches('/'),
            key = key.as_str()
        )
    }

    /// How messages name an object.
    pub(super) fn object(&self, key: &ObjectKey) -> String {
        format!("staged object {}", self.url(key))
    }

    /// Does `work` until it succeeds or there is no hope. It must be such that it can be done again after it was half done.
    pub(super) async fn run<T, F: Future<Output = Result<T, Trouble>>>(
        &self,
        action: &'static str,
        object: impl Fn() -> String,
        work: impl Fn(Session) -> F,
    ) -> Result<T, Error> {
        let mut call = self.call();
        loop {
            let outcome = match call.session().await {
                Ok(session) => work(session).await,
                Err(trouble) => Err(trouble),
            };
            match outcome {
                Ok(done) => return Ok(done),
                Err(trouble) => call
                    .survive(trouble)
                    .await
                    .map_err(|trouble| trouble.fault(action, object()))?,
            }
        }
    }

    /// A call that decides by itself what to do again.
    pub(super) fn call(&self) -> Call<'_> {
        Call {
            link: self,
            clock: Arc::new(Clock::new(self.target.patience)),
            wait: FIRST_WAIT,
            tries: 0,
            stale: 0,
            forgot: 0,
            number: 0,
            last: None,
        }
    }

    async fn connection(&self) -> Result<Connection, Trouble> {
        let mut line = self.line.lock().await;
        if let Some(connection) = &line.connection {
            return Ok(connection.clone());
        }
        let found = dial::connect(&self.target, line.version).await?;
        line.count += 1;
        line.version = Some(found.version);
        let connection = Connection {
            clauses: found.clauses(),
            mount: found.mount,
            writer: Arc::default(),
            number: line.count,
        };
        line.connection = Some(connection.clone());
        Ok(connection)
    }

    /// Lets go of the connection of this number; others may have made a new one meanwhile.
    async fn hang_up(&self, number: u64) {
        let mut line = self.line.lock().await;
        if line
            .connection
            .as_ref()
            .is_some_and(|connection| connection.number == number)
        {
            line.connection = None;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let connection = self.line.get_mut().connection.take();
        if let (Some(connection), Ok(runtime)) = (connection, tokio::runtime::Handle::try_current()) {
            // Without it the server forgets us a little later.
            runtime.spawn(async move {
                let _ = timeout(FAREWELL, connection.mount.umount()).await;
            });
        }
    }
}

/// One call of the port.
#[derive(Debug)]
pub(super) struct Call<'link> {
    link: &'link Link,
    clock: Arc<Clock>,
    wait: Duration,
    tries: u32,
    stale: u32,
    forgot: u32,
    /// The connection that was used last.
    number: u64,
    /// What went wrong last.
    last: Option<String>,
}

impl Call<'_> {
    /// A session on the connection that stands, or on a new one.
    pub(super) async fn session(&mut self) -> Result<Session, Trouble> {
        let connected = timeout_at(self.clock.deadline(), self.link.connection()).await;
        let connection = connected.map_err(|_| self.clock.silent())??;
        self.number = connection.number;
        Ok(Session::new(
            connection,
            Arc::clone(&self.clock),
            &self.link.target.options,
        ))
    }

    /// Waits until it makes sense to try again after `trouble`, or gives it back.
    pub(super) async fn survive(&mut self, trouble: Trouble) -> Result<(), Trouble> {
        self.tries += 1;
        match &trouble {
            _ if self.tries > TRIES => return Err(trouble),
            Trouble::Lost(said) => {
                tracing::debug!("the connection to the NFS server is lost: {said}");
                self.link.hang_up(self.number).await;
            }
            Trouble::Busy(_) => {}
            Trouble::Forgot if self.forgot < FORGOT => {
                self.forgot += 1;
                return Ok(());
            }
            trouble if trouble.is(Errno::STALE) && self.stale < STALE => {
                self.stale += 1;
                if self.stale > 1 {
                    self.link.hang_up(self.number).await;
                }
                return Ok(());
            }
            _ => return Err(trouble),
        }
        let now = Instant::now();
        let deadline = self.clock.deadline();
        if now >= deadline {
            return Err(match self.last.take() {
                Some(last) if last != trouble.text() => {
                    Trouble::Lost(format!("{}, after this: {last}", trouble.text()))
                }
                _ => trouble,
            });
        }
        self.last = Some(trouble.text());
        sleep(self.wait.mul_f64(rand::random_range(0.5..1.0)).min(deadline - now)).await;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        Ok(())
    }

    /// Says that it got further: from here on, trying again starts anew.
    pub(super) fn progressed(&mut self) {
        self.wait = FIRST_WAIT;
        self.tries = 0;
    }

    /// The same, for good.
    pub(super) fn committed(&mut self) {
        self.progressed();
        self.stale = 0;
        self.forgot = 0;
    }
}
