//! The sign of life of a lease.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::ended;
use crate::Kind;
use crate::vsphere::client::{Client, Trouble};
use crate::vsphere::soap::{Arg, Moref};

/// How often it is given, where the lease does not want it more often.
const EVERY: Duration = Duration::from_secs(10);

/// A task that reports progress, unchanged or not, until it is stopped or the lease is lost.
pub(super) struct Heartbeat {
    progress: AtomicU32,
    lost: watch::Sender<Option<Trouble>>,
    task: Mutex<Option<AbortHandle>>,
}

impl Heartbeat {
    pub(super) fn start(client: &Client, lease: &Moref, timeout: Duration) -> Arc<Self> {
        let heartbeat = Arc::new(Self {
            progress: AtomicU32::new(0),
            lost: watch::Sender::new(None),
            task: Mutex::default(),
        });
        let beating = beat(client.clone(), lease.clone(), timeout, Arc::clone(&heartbeat));
        let task = tokio::spawn(beating).abort_handle();
        *heartbeat.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        heartbeat
    }

    pub(super) fn set_progress(&self, percent: u32) {
        self.progress.store(percent.min(100), Ordering::Relaxed);
    }

    pub(super) fn stop(&self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }

    pub(super) fn check(&self) -> Result<(), Trouble> {
        match &*self.lost.borrow() {
            Some(trouble) => Err(trouble.clone()),
            None => Ok(()),
        }
    }

    pub(super) async fn lost(&self) -> Trouble {
        let mut lost = self.lost.subscribe();
        let trouble = lost
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|trouble| trouble.clone());
        match trouble {
            Some(trouble) => trouble,
            // The sender lives in here.
            None => std::future::pending().await,
        }
    }
}

async fn beat(client: Client, lease: Moref, timeout: Duration, heartbeat: Arc<Heartbeat>) {
    let pause = EVERY.min(timeout / 4).max(Duration::from_millis(250));
    let mut answered = Instant::now();
    loop {
        tokio::time::sleep(pause).await;
        let percent = heartbeat.progress.load(Ordering::Relaxed);
        let args = [Arg::text("percent", percent)];
        match client.call(&lease, "HttpNfcLeaseProgress", &args).await {
            Ok(_) => answered = Instant::now(),
            // The server may come back before it counts the lease as dead.
            Err(trouble) if trouble.kind == Kind::Unreachable && answered.elapsed() < timeout => {
                tracing::debug!(detail = trouble.detail, "no sign of life could be given");
            }
            Err(trouble) => {
                let why = reason(&client, &lease, trouble).await;
                heartbeat.lost.send_replace(Some(why));
                return;
            }
        }
    }
}

/// What the lease itself says, which is more than that it takes no sign of life any more. It may pass, whatever it is: a lease that was
/// ready was lost to a timeout, a restart, or an administrator.
async fn reason(client: &Client, lease: &Moref, trouble: Trouble) -> Trouble {
    let props = client.properties(lease, &["state", "error"]).await.ok();
    let said = props
        .filter(|props| props.get("error").is_some())
        .map(|props| ended(&props, "error"));
    let mut why = said.unwrap_or(trouble);
    why.detail = format!("the lease is lost: {}", why.detail);
    why.meaning(Kind::Failed)
}
