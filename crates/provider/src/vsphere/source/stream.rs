//! A disk of a frozen state, as the file that its host makes of it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{Method, Response};
use vmferry_block::Buf;

use super::share::Held;
use super::sum::Sum;
use super::{State, gone, most, place};
use crate::port::most_of;
use crate::vsphere::VSphere;
use crate::vsphere::client::Trouble;
use crate::vsphere::inventory::{VirtualDisk, devices};
use crate::vsphere::lease::{DeviceUrl, no_answer};
use crate::{DiskStream, Error, Kind, PowerState};

/// How long a host may take to begin with an answer.
const ANSWER: Duration = Duration::from_mins(2);
/// How long nothing may arrive: a host sends nothing while it reads zeros.
const SILENCE: Duration = Duration::from_mins(10);
/// Pauses before the manifest is asked for again, where it does not have what was just sent.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
];

/// A disk that was found, and not asked for yet.
struct Found {
    vsphere: VSphere,
    state: State,
    device: VirtualDisk,
    /// Disks in all.
    disks: usize,
    object: String,
}

/// A disk as a stream.
pub(super) struct ExportStream {
    disk: Found,
    most: u64,
    at: At,
}

/// How far it is.
enum At {
    /// Nothing was read.
    Start,
    /// It is being read.
    Reading(Box<Reading>),
    /// It failed.
    Broken,
}

/// What is held while it is read.
struct Reading {
    held: Arc<Held>,
    key: String,
    body: Response,
    rest: Bytes,
    /// Taken while a buffer is hashed.
    sum: Option<Sum>,
    is_at_end: bool,
    is_finished: bool,
}

impl Drop for Reading {
    fn drop(&mut self) {
        if !self.is_finished {
            self.held.give_up();
        }
    }
}

/// Finds a disk in a frozen state.
pub(super) async fn open(vsphere: &VSphere, state: State, name: &str) -> Result<ExportStream, Error> {
    let object = format!("disk {name:?} of {}", state.info.object);
    let disks = if state.subject == state.info.moref {
        state.info.disks.clone()
    } else {
        let props = vsphere.client.properties(&state.subject, &["config.hardware"]).await;
        let props = props.map_err(|trouble| lost(trouble, &object, &state))?;
        props.get("config.hardware").map(devices).unwrap_or_default().0
    };
    let count = disks.len();
    let disk = disks.into_iter().find(|disk| disk.name() == name);
    let disk = disk.ok_or_else(|| gone(&object).detail("the frozen state has no such disk"))?;
    let default = most_of(disk.capacity);
    let most = most::most(&vsphere.client, &state.info.moref, disk.key, default).await;
    Ok(ExportStream {
        most,
        disk: Found {
            vsphere: vsphere.clone(),
            state,
            device: disk,
            disks: count,
            object,
        },
        at: At::Start,
    })
}

/// The error of a call that needs the frozen state.
fn lost(trouble: Trouble, object: &str, state: &State) -> Error {
    let is_gone =
        trouble.kind == Kind::NotFound || trouble.is("InvalidPowerState") && state.info.power == PowerState::Off;
    if is_gone {
        return trouble.meaning(Kind::FrozenStateGone).of("read", object);
    }
    trouble.of("read", object)
}

impl Found {
    /// Joins the lease, and asks for the file.
    async fn begin(&self) -> Result<Reading, Error> {
        let fail = |trouble| lost(trouble, &self.object, &self.state);
        let joined = self
            .vsphere
            .leases
            .join(&self.vsphere.client, &self.state.subject)
            .await;
        let held = joined.map_err(fail)?;
        // From here on the lease keeps the state; until here it may have been lost since the disk was opened.
        if let Err(error) = State::find(&self.vsphere, &self.state.vm, &self.state.frozen).await {
            held.give_up();
            return Err(error);
        }
        let Some(device) = place::device(held.lease.info(), &self.device, self.disks) else {
            held.give_up();
            let keys: Vec<&str> = held
                .lease
                .info()
                .devices
                .iter()
                .map(|device| device.key.as_str())
                .collect();
            return Err(Error::new(Kind::Unsupported, "read", &self.object)
                .detail(format!("the lease names no such device, but {}", keys.join(", "))));
        };
        let key = device.key.clone();
        let body = match self.get(&held, device).await {
            Ok(body) => body,
            Err(trouble) => {
                held.give_up();
                return Err(fail(trouble));
            }
        };
        Ok(Reading {
            sum: Some(Sum::new(held.is_sha256)),
            held,
            key,
            body,
            rest: Bytes::new(),
            is_at_end: false,
            is_finished: false,
        })
    }

    async fn get(&self, held: &Held, device: &DeviceUrl) -> Result<Response, Trouble> {
        let host = held.lease.host(device);
        let request = held.lease.request(Method::GET, device)?.send();
        let answer = tokio::select! {
            answer = tokio::time::timeout(ANSWER, request) => answer,
            lost = held.lease.lost() => return Err(lost),
        };
        let response = match answer {
            Err(_) => Err(Trouble::new(Kind::Unreachable, format!("host {host} does not answer"))),
            Ok(answer) => answer.map_err(|error| no_answer(&host, error)),
        }?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        // Whatever it is: the URL is the permission, and that goes with its lease. Another lease can be had.
        Err(Trouble::new(Kind::Failed, format!("host {host} answered {status}")))
    }
}

impl Reading {
    /// Fills `buf` from its front; says how far.
    async fn fill(&mut self, buf: &mut [u8]) -> Result<usize, Trouble> {
        let mut at = 0;
        while at < buf.len() && !self.is_at_end {
            if self.rest.is_empty() {
                match self.next().await? {
                    Some(chunk) => self.rest = chunk,
                    None => self.is_at_end = true,
                }
                continue;
            }
            let n = self.rest.len().min(buf.len() - at);
            buf[at..at + n].copy_from_slice(&self.rest.split_to(n));
            at += n;
        }
        self.held.count(at as u64);
        Ok(at)
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        tokio::select! {
            chunk = tokio::time::timeout(SILENCE, self.body.chunk()) => match chunk {
                Ok(chunk) => Ok(chunk?),
                Err(_) => Err(Trouble::new(Kind::Unreachable, format!("no byte came for {} s", SILENCE.as_secs()))),
            },
            lost = self.held.lease.lost() => Err(lost),
        }
    }

    /// Compares with what the server says that it sent.
    async fn compare(&mut self) -> Result<(), Trouble> {
        let Some(sum) = self.sum.take().filter(|_| self.is_at_end) else {
            return Err(Trouble::new(Kind::Bug, "the disk was not read to its end"));
        };
        let mut pauses = PAUSES.iter();
        let entry = loop {
            let Some(entries) = self.held.lease.manifest().await? else {
                break None;
            };
            let found = entries.into_iter().find(|entry| entry.key == self.key);
            match (found, pauses.next()) {
                (None, Some(pause)) => tokio::time::sleep(*pause).await,
                (found, _) => break found,
            }
        };
        let Some(entry) = entry else {
            // Each grain has its own checksum, and the file its end.
            tracing::warn!(
                key = self.key,
                bytes = sum.bytes(),
                "the server's manifest says nothing of this disk"
            );
            return Ok(());
        };
        match sum.mismatch(&entry) {
            Some(why) => Err(Trouble::new(Kind::Failed, why)),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl DiskStream for ExportStream {
    fn capacity(&self) -> u64 {
        self.disk.device.capacity
    }

    fn most(&self) -> u64 {
        self.most
    }

    async fn read(&mut self, mut buf: Buf) -> Result<Buf, Error> {
        let object = &self.disk.object;
        let mut reading = match std::mem::replace(&mut self.at, At::Broken) {
            At::Start => Box::new(self.disk.begin().await?),
            At::Reading(reading) => reading,
            At::Broken => return Err(Error::new(Kind::Bug, "read", object).detail("it failed before")),
        };
        let filled = reading.fill(&mut buf).await;
        let filled = filled.map_err(|trouble| lost(trouble, object, &self.disk.state))?;
        let _ = buf.narrow(0..filled);
        let ended = || Error::new(Kind::Bug, "read", object).detail("the thread that hashes it ended");
        let sum = reading.sum.take().ok_or_else(ended)?;
        let (sum, buf) = sum.take(buf).await.ok_or_else(ended)?;
        reading.sum = Some(sum);
        self.at = At::Reading(reading);
        Ok(buf)
    }

    async fn finish(self: Box<Self>) -> Result<(), Error> {
        let Self { disk, at, .. } = *self;
        let At::Reading(mut reading) = at else {
            return Err(Error::new(Kind::Bug, "finish reading", disk.object).detail("it was not read to its end"));
        };
        let compared = reading.compare().await;
        compared.map_err(|trouble| lost(trouble, &disk.object, &disk.state))?;
        // As long as the lease is there, nothing can change behind this look.
        disk.state.still_leased(&disk.vsphere).await?;
        reading.is_finished = true;
        let held = Arc::clone(&reading.held);
        drop(reading);
        let left = held.leave().await;
        left.map_err(|trouble| trouble.of("finish reading", disk.object))
    }
}
