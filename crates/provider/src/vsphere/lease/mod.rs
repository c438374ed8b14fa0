//! Leases: the permission to move a VM's disks over HTTP, for as long as its holder shows that it is alive.
//!
//! A [`Lease`] shows that every ten seconds from a task of its own. It ends with [`complete`](Lease::complete); whoever drops it
//! before calls it off, and what an import made is removed by the server.

mod heartbeat;
mod info;
mod link;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use info::{Checksum, DeviceUrl, LeaseInfo, ManifestEntry};
pub(crate) use link::no_answer;

use super::client::{Client, Props, Trouble};
use super::soap::{Arg, Moref, VimFault};
use crate::Kind;
use heartbeat::Heartbeat;

/// How long the server may take to prepare a lease: an import makes the VM and its empty disks in that time.
const READY: Duration = Duration::from_mins(15);
/// How often completing is tried while the server is away.
const TRIES: u32 = 4;

/// How often, and with which pause, a lease is asked why a transfer failed.
const LOOKS: u32 = 4;
const LOOK: Duration = Duration::from_millis(250);

/// A lease that is ready.
pub(crate) struct Lease {
    client: Client,
    moref: Moref,
    info: LeaseInfo,
    heartbeat: Arc<Heartbeat>,
    /// Taken when the lease ended properly.
    is_over: bool,
}

impl Lease {
    /// Waits until a lease that was asked for is ready, and keeps it alive from then on.
    pub(crate) async fn ready(client: &Client, moref: Moref) -> Result<Self, Trouble> {
        let mut waiting = Waiting {
            client: client.clone(),
            moref,
            is_over: false,
        };
        let state = client
            .wait(&waiting.moref, &["state", "info", "error"], READY, is_ready)
            .await
            .map_err(gone)?;
        let late = || {
            Trouble::new(
                Kind::Busy,
                format!("the lease is not ready after {} s", READY.as_secs()),
            )
        };
        let info = state.ok_or_else(late)??;
        waiting.is_over = true;
        let (client, moref) = (client.clone(), waiting.moref.clone());
        let heartbeat = Heartbeat::start(&client, &moref, info.timeout);
        Ok(Self {
            client,
            moref,
            info,
            heartbeat,
            is_over: false,
        })
    }

    /// What it is on.
    pub(crate) fn info(&self) -> &LeaseInfo {
        &self.info
    }

    /// Says how far the transfer is, 0 to 100: shown to users of vSphere with the next heartbeat.
    pub(crate) fn set_progress(&self, percent: u32) {
        self.heartbeat.set_progress(percent);
    }

    /// Waits until the lease is lost, and says why. It never returns while it holds.
    pub(crate) async fn lost(&self) -> Trouble {
        self.heartbeat.lost().await
    }

    /// Why the lease is lost, where it is.
    pub(crate) fn check(&self) -> Result<(), Trouble> {
        self.heartbeat.check()
    }

    /// Why the server ended the lease, where it did: what a transfer that failed does not say. The server may take a moment to
    /// know.
    pub(crate) async fn reason(&self) -> Option<Trouble> {
        for _ in 0..LOOKS {
            let props = match self.client.properties(&self.moref, &["state", "error"]).await {
                Ok(props) => props,
                Err(trouble) if trouble.kind == Kind::NotFound => return Some(gone(trouble)),
                Err(_) => return None,
            };
            if props.text("state") == Some("error") {
                return Some(ended(&props, "error"));
            }
            tokio::time::sleep(LOOK).await;
        }
        None
    }

    /// Asks for SHA-256 in the manifest instead of SHA-1: `false` where the server has no such thing. Only before any transfer.
    pub(crate) async fn use_sha256(&self) -> Result<bool, Trouble> {
        let disks = self.info.devices.iter().filter(|device| device.is_disk);
        let types = disks.map(|device| {
            let pair = [Arg::text("key", &device.key), Arg::text("value", "sha256")];
            Arg::object("deviceUrlsToChecksumTypes", pair)
        });
        let types: Vec<Arg> = types.collect();
        match self
            .client
            .call(&self.moref, "HttpNfcLeaseSetManifestChecksumType", &types)
            .await
        {
            Ok(_) => Ok(true),
            Err(trouble) if matches!(trouble.kind, Kind::Unreachable | Kind::Denied) => Err(trouble),
            // Servers before 6.7 do not know it, and say so in several ways.
            Err(trouble) => {
                tracing::debug!(detail = trouble.detail, "the manifest stays with SHA-1");
                Ok(false)
            }
        }
    }

    /// What the server says it sent or took in, for the transfers that ended. `None` where it keeps no manifest.
    pub(crate) async fn manifest(&self) -> Result<Option<Vec<ManifestEntry>>, Trouble> {
        match self.client.call(&self.moref, "HttpNfcLeaseGetManifest", &[]).await {
            Ok(answer) => Ok(Some(answer.all("returnval").filter_map(ManifestEntry::of).collect())),
            Err(trouble) if trouble.kind == Kind::Unsupported => Ok(None),
            Err(trouble) => Err(gone(trouble)),
        }
    }

    /// Ends it: all was transferred. What an import made stays from here on.
    pub(crate) async fn complete(mut self) -> Result<(), Trouble> {
        self.check()?;
        let mut pause = Duration::from_millis(500);
        for attempt in 1.. {
            match self.client.call(&self.moref, "HttpNfcLeaseComplete", &[]).await {
                Ok(_) => break,
                Err(trouble) if trouble.kind == Kind::Unreachable && attempt < TRIES => {
                    tokio::time::sleep(pause).await;
                    pause *= 3;
                }
                // It was completed by the call whose answer was lost.
                Err(trouble) if attempt > 1 && self.is_done().await => {
                    tracing::debug!(detail = trouble.detail, "the lease was completed already");
                    break;
                }
                Err(trouble) => return Err(gone(trouble)),
            }
        }
        self.is_over = true;
        Ok(())
    }

    async fn is_done(&self) -> bool {
        let props = self.client.properties(&self.moref, &["state"]).await;
        props.is_ok_and(|props| props.text("state") == Some("done"))
    }

    /// Ends it: all that an import made is removed. Gone is success.
    pub(crate) async fn abort(mut self) -> Result<(), Trouble> {
        self.is_over = true;
        abort(&self.client, &self.moref).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.heartbeat.stop();
        if !self.is_over {
            abort_later(self.client.clone(), self.moref.clone());
        }
    }
}

/// A lease that is not ready yet, called off when whoever waits for it gives up.
struct Waiting {
    client: Client,
    moref: Moref,
    is_over: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.is_over {
            abort_later(self.client.clone(), self.moref.clone());
        }
    }
}

fn is_ready(props: &Props) -> Option<Result<LeaseInfo, Trouble>> {
    match props.text("state")? {
        "ready" => {
            // The state may be told before the rest.
            Some(Ok(LeaseInfo::of(props.get("info")?)))
        }
        "initializing" => None,
        state => Some(Err(ended(props, state))),
    }
}

/// Why a lease is in a state in which it is good for nothing.
fn ended(props: &Props, state: &str) -> Trouble {
    match props.get("error") {
        Some(error) => VimFault::of_localized(error).into(),
        None => Trouble::new(Kind::Failed, format!("the lease is in the state {state:?}")),
    }
}

/// A lease that is not there any more went with its session. Another one can be had.
fn gone(trouble: Trouble) -> Trouble {
    if trouble.kind != Kind::NotFound {
        return trouble;
    }
    let detail = format!("the lease is gone: {}", trouble.detail);
    Trouble { detail, ..trouble }.meaning(Kind::Failed)
}

async fn abort(client: &Client, moref: &Moref) -> Result<(), Trouble> {
    match client.call(moref, "HttpNfcLeaseAbort", &[]).await {
        Ok(_) => Ok(()),
        Err(trouble) if trouble.is("InvalidState") || trouble.kind == Kind::NotFound => Ok(()),
        Err(trouble) => Err(trouble),
    }
}

/// Calls a lease off in the background, where there still is one. Otherwise it times out.
fn abort_later(client: Client, moref: Moref) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    runtime.spawn(async move {
        if let Err(trouble) = abort(&client, &moref).await {
            tracing::warn!(
                detail = trouble.detail,
                "could not call off a lease; it ends by itself within minutes"
            );
        }
    });
}
