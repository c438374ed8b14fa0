//! Winning, keeping and giving up the lease.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

use super::{CALL, DURATION, EVERY, Leadership, PAUSE};
use crate::call::{CallError, call, find};

/// Which lease, and who asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseSettings {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who this process is; no other may be called the same.
    pub identity: String,
}

/// Takes part in the election of the leader.
pub struct Elector {
    api: Api<Lease>,
    settings: LeaseSettings,
    leadership: Leadership,
}

/// A lease as somebody else left it, and since when it has been like that.
struct Seen {
    version: Option<String>,
    since: Instant,
}

impl Elector {
    /// One that keeps `leadership` up to date.
    pub fn new(client: Client, settings: LeaseSettings, leadership: Leadership) -> Self {
        Self {
            api: Api::namespaced(client, &settings.namespace),
            settings,
            leadership,
        }
    }

    /// Waits until this process leads.
    pub async fn acquire(&self) -> Lease {
        let mut seen = None;
        loop {
            self.leadership.looks();
            match self.attempt(&mut seen).await {
                Ok(Some(lease)) => {
                    tracing::info!(lease = %self.object(), identity = self.settings.identity, "this process leads");
                    return lease;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "the lease could not be looked at; trying again"),
            }
            sleep(EVERY).await;
        }
    }

    /// Renews the lease until it is lost, and says why it is.
    pub async fn keep(&self, mut lease: Lease) -> String {
        let mut wait = EVERY;
        loop {
            sleep(wait).await;
            wait = EVERY;
            self.leadership.looks();
            match self.renew(&lease).await {
                Ok(Kept::Renewed(new)) => lease = *new,
                Ok(Kept::Taken(holder)) => {
                    self.leadership.lost();
                    return format!("{} took the Lease {}", holder, self.object());
                }
                Err(error) => {
                    wait = PAUSE;
                    tracing::warn!(%error, "the lease could not be renewed; trying again");
                }
            }
            if !self.leadership.holds() {
                return format!("the Lease {} could not be renewed in time", self.object());
            }
        }
    }

    /// Gives the lease up, so that the next one need not wait.
    pub async fn release(&self) {
        self.leadership.lost();
        let given_up = async {
            let Some(mut lease) = self.get().await? else {
                return Ok(());
            };
            if holder(&lease) != Some(self.settings.identity.as_str()) {
                return Ok(());
            }
            if let Some(spec) = &mut lease.spec {
                spec.holder_identity = None;
                spec.renew_time = Some(MicroTime(Timestamp::now()));
            }
            self.put(&lease).await.map(drop)
        };
        match timeout(CALL, given_up).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the lease could not be given up; it runs out by itself"),
            Err(_) => tracing::warn!("the lease could not be given up in time; it runs out by itself"),
        }
    }

    /// Takes the lease if it is free: never taken, given up, our own, or not renewed for as long as it lasts.
    async fn attempt(&self, seen: &mut Option<Seen>) -> Result<Option<Lease>, CallError> {
        let began = Instant::now();
        let taken = match self.get().await? {
            None => self.create().await,
            Some(lease) if self.is_free(&lease, seen) => self.put(&self.taken(lease)).await,
            Some(_) => return Ok(None),
        };
        match taken {
            Ok(lease) => {
                self.leadership.renewed(began);
                Ok(Some(lease))
            }
            // Another was quicker.
            Err(error) if error.is_conflict() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn renew(&self, lease: &Lease) -> Result<Kept, CallError> {
        let began = Instant::now();
        let error = match self.put(&self.renewed(lease.clone())).await {
            Ok(lease) => {
                self.leadership.renewed(began);
                return Ok(Kept::Renewed(Box::new(lease)));
            }
            Err(error) => error,
        };
        if !error.is_conflict() && !error.is_not_found() {
            return Err(error);
        }
        // It changed or was deleted. If it still is ours, the next renewal is of what it is now.
        match self.get().await? {
            Some(now) if holder(&now) == Some(self.settings.identity.as_str()) => Ok(Kept::Renewed(Box::new(now))),
            Some(now) => Ok(Kept::Taken(holder(&now).unwrap_or("nobody").to_owned())),
            None => Ok(Kept::Renewed(Box::new(self.create().await?))),
        }
    }

    fn is_free(&self, lease: &Lease, seen: &mut Option<Seen>) -> bool {
        match holder(lease) {
            None => return true,
            Some(holder) if holder == self.settings.identity => return true,
            Some(_) => {}
        }
        let version = lease.metadata.resource_version.clone();
        match seen {
            Some(seen) if seen.version == version => seen.since.elapsed() >= DURATION,
            _ => {
                let since = Instant::now();
                *seen = Some(Seen { version, since });
                false
            }
        }
    }

    async fn get(&self) -> Result<Option<Lease>, CallError> {
        find("read", self.object(), limited(self.api.get(&self.settings.name))).await
    }

    async fn create(&self) -> Result<Lease, CallError> {
        let new = self.taken(Lease {
            metadata: ObjectMeta {
                name: Some(self.settings.name.clone()),
                namespace: Some(self.settings.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        let params = PostParams::default();
        call("create", self.object(), limited(self.api.create(&params, &new))).await
    }

    async fn put(&self, lease: &Lease) -> Result<Lease, CallError> {
        let params = PostParams::default();
        let put = self.api.replace(&self.settings.name, &params, lease);
        call("write", self.object(), limited(put)).await
    }

    /// As taken by this process at this moment.
    fn taken(&self, mut lease: Lease) -> Lease {
        let now = MicroTime(Timestamp::now());
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = Some(self.settings.identity.clone());
        spec.acquire_time = Some(now.clone());
        spec.renew_time = Some(now);
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        lease
    }

    fn renewed(&self, mut lease: Lease) -> Lease {
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = Some(self.settings.identity.clone());
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        lease
    }

    fn object(&self) -> String {
        format!("{}/{}", self.settings.namespace, self.settings.name)
    }
}

/// What came of a renewal.
enum Kept {
    Renewed(Box<Lease>),
    Taken(String),
}

/// Who holds a lease. Nobody where it was given up.
fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    Some(holder).filter(|holder| !holder.is_empty())
}

/// One call, with a limit that leaves time for another before the lease runs out.
async fn limited<T>(asked: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    timeout(CALL, asked).await.unwrap_or_else(|_| {
        let text = format!("the API server did not answer within {} s", CALL.as_secs());
        Err(kube::Error::Service(text.into()))
    })
}
