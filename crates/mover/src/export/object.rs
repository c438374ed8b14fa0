//! The object that is made: finding what earlier attempts left of it, beginning it, and giving it its name.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vmferry_staging::{Part, StagingStore, UploadId, Uploaded};

use super::journal::{Journal, Seal, taken};
use super::plan::Plan;
use super::{ExportSpec, STALL};
use crate::error::{cancelled, staging};
use crate::progress::Progress;
use crate::{Error, Kind, Report};

/// How long the calls at the beginning and at the end may take: a server that flushes a whole object has much to do.
const CLOSING: Duration = Duration::from_mins(15);

/// Where an export stands when it starts.
pub(super) enum Start {
    /// The object is there.
    Done(Report),
    /// An upload is to be gone on with, or was just begun.
    Upload(Box<Found>),
}

/// An upload that is under way.
pub(super) struct Found {
    pub(super) journal: Journal,
    pub(super) id: UploadId,
    pub(super) arrived: BTreeMap<u32, Part>,
    /// Whether the store lists what arrived.
    pub(super) listed: bool,
}

/// The object of an export.
pub(super) struct Object<'a> {
    pub(super) store: &'a dyn StagingStore,
    pub(super) spec: &'a ExportSpec,
    pub(super) plan: Plan,
    /// How messages name it.
    pub(super) name: String,
    /// What makes it the object that it is, beside the frozen state.
    pub(super) fingerprint: String,
    /// Whether the same bytes can be made a second time, so that an upload can be gone on with.
    pub(super) resumable: bool,
}

impl Object<'_> {
    /// Finds what earlier attempts left, and begins an upload where that is of no use.
    pub(super) async fn start(&self) -> Result<Start, Error> {
        let key = &self.spec.object;
        let found = Journal::load(self.store, key, &self.spec.owner).await?;
        let head = self.store.head(key).await.map_err(staging("look up", &self.name))?;
        let fresh = Journal::new(self.spec, self.fingerprint.clone(), self.plan.len, self.plan.part_size);
        let Some(mut journal) = found else {
            return match head {
                Some(_) => Err(taken(&self.name, "there is no journal beside it")),
                None => self.begin(fresh).await,
            };
        };
        if let Some(head) = head {
            // The object is ours if it has the version that was recorded. A crash between the naming and the record leaves
            // a seal without version.
            let seal = journal.sealed.clone().filter(|seal| head.len == seal.len);
            let version = match &seal {
                Some(seal) if seal.version.is_some() => seal.version.clone().filter(|version| *version == head.version),
                Some(seal) => self.named(&journal, seal, head.version).await?,
                None => None,
            };
            return match seal {
                Some(mut seal) if version.is_some() && journal.is_of(&fresh) => {
                    seal.version = version;
                    journal.sealed = Some(seal.clone());
                    journal.save(self.store, key).await?;
                    Ok(Start::Done(Journal::report(&seal)))
                }
                Some(_) if version.is_some() => {
                    // Ours, and of another point in time.
                    self.store.delete(key).await.map_err(staging("delete", &self.name))?;
                    self.begin(fresh).await
                }
                _ => {
                    self.disown(&mut journal).await?;
                    Err(taken(
                        &self.name,
                        "it is not the one that the journal beside it tells of",
                    ))
                }
            };
        }
        if !self.resumable || !journal.is_of(&fresh) {
            return self.begin(fresh).await;
        }
        self.go_on(journal, fresh).await
    }

    /// The version of the object, which is there, if it is what a sealed upload became: one that is gone became it. One that
    /// is still there may have given it its name and not got to its own end. The store knows what came from an upload, so
    /// completing it once more tells.
    async fn named(&self, journal: &Journal, seal: &Seal, there: String) -> Result<Option<String>, Error> {
        let Some(id) = &journal.upload else { return Ok(None) };
        let key = &self.spec.object;
        let listed = self.store.parts(key, id).await;
        let parts: Vec<Part> = match listed.map_err(staging("look up", &self.name))? {
            Uploaded::Gone => return Ok(Some(there)),
            Uploaded::Unlisted => journal.arrived().into_values().collect(),
            Uploaded::Parts(listed) => listed,
        };
        if parts.len() as u64 != seal.len.div_ceil(journal.part_size) {
            return Ok(None);
        }
        match self.store.complete(key, id, seal.len, &parts).await {
            Ok(meta) => Ok(Some(meta.version)),
            Err(error) if error.kind() == vmferry_staging::Kind::NameTaken => Ok(None),
            Err(error) => Err(staging("complete", &self.name)(error)),
        }
    }

    /// The object that is there is another's: the journal does not vouch for it any more, so that whoever tidies up leaves it.
    async fn disown(&self, journal: &mut Journal) -> Result<(), Error> {
        match journal.sealed.take() {
            Some(_) => journal.save(self.store, &self.spec.object).await,
            None => Ok(()),
        }
    }

    /// Goes on with the upload of the journal, if it is still there and its parts are those of our plan.
    async fn go_on(&self, mut journal: Journal, fresh: Journal) -> Result<Start, Error> {
        let Some(id) = journal
            .upload
            .clone()
            .filter(|_| journal.part_size == self.plan.part_size)
        else {
            return self.begin(fresh).await;
        };
        let parts = self.store.parts(&self.spec.object, &id).await;
        let (arrived, listed) = match parts.map_err(staging("look up", &self.name))? {
            Uploaded::Gone => return self.begin(fresh).await,
            Uploaded::Unlisted => (journal.arrived(), false),
            Uploaded::Parts(listed) => (listed.into_iter().map(|part| (part.number, part)).collect(), true),
        };
        let prefix = journal.hashed.as_ref().map_or(0, |prefix| prefix.parts);
        if !(0..prefix).all(|number| arrived.contains_key(&number)) {
            // A part that we know of is not there: the hashes start over, the parts that are there stay.
            journal.hashed = None;
        }
        let parts = |seal: &Seal| seal.len.div_ceil(self.plan.part_size) as usize;
        journal.sealed = journal.sealed.filter(|seal| parts(seal) == arrived.len());
        Ok(Start::Upload(Box::new(Found {
            journal,
            id,
            arrived,
            listed,
        })))
    }

    /// Ends the uploads of earlier attempts of this migration and begins one. The journal comes first, so that whatever is
    /// begun is known to be ours.
    async fn begin(&self, mut journal: Journal) -> Result<Start, Error> {
        let key = &self.spec.object;
        self.abort().await?;
        journal.save(self.store, key).await?;
        let id = self
            .store
            .begin(key, self.plan.len, self.plan.part_size)
            .await
            .map_err(staging("begin", &self.name))?;
        journal.upload = Some(id.clone());
        journal.save(self.store, key).await?;
        let parts = self.store.parts(key, &id).await;
        let listed = matches!(parts.map_err(staging("look up", &self.name))?, Uploaded::Parts(_));
        Ok(Start::Upload(Box::new(Found {
            journal,
            id,
            arrived: BTreeMap::new(),
            listed,
        })))
    }

    /// Gives the object its name and records that.
    pub(super) async fn complete(
        &self,
        progress: &Progress,
        mut journal: Journal,
        id: &UploadId,
        parts: &[Part],
        cancel: &CancellationToken,
    ) -> Result<Report, Error> {
        let Some(seal) = &mut journal.sealed else {
            return Err(Error::new(Kind::Bug, "complete", &*self.name).detail("it was not sealed"));
        };
        let len = seal.len;
        progress.expect(len);
        self.settle(progress, id, len, cancel).await?;
        let completed = self.within(async {
            let completed = self.store.complete(&self.spec.object, id, len, parts).await;
            completed.map_err(staging("complete", &self.name))
        });
        let meta = match completed.await {
            Err(error) if error.kind() == Kind::Staging(vmferry_staging::Kind::NameTaken) => {
                self.disown(&mut journal).await?;
                return Err(error);
            }
            completed => completed?,
        };
        seal.version = Some(meta.version);
        let seal = seal.clone();
        journal.save(self.store, &self.spec.object).await?;
        Ok(Journal::report(&seal))
    }

    /// Lets the store join what it joins by itself, for as long as it gets on.
    async fn settle(
        &self,
        progress: &Progress,
        id: &UploadId,
        len: u64,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let alive = || progress.alive();
        let settle = async {
            let settled = self.store.settle(&self.spec.object, id, Some(len), &alive).await;
            settled.map_err(staging("complete", &self.name))
        };
        tokio::select! {
            biased;
            () = cancel.cancelled(), if self.plan.joined => Err(cancelled(&self.name)),
            settled = progress.watch(&self.name, STALL, settle) => settled,
        }
    }

    /// Removes the upload and the journal.
    pub(super) async fn discard(&self) -> Result<(), Error> {
        self.abort().await?;
        let deleted = self.store.delete_note(&self.spec.object).await;
        deleted.map_err(staging("delete the journal of", &self.name))
    }

    async fn abort(&self) -> Result<(), Error> {
        let aborted = self.store.abort(&self.spec.object).await;
        aborted.map_err(staging("abort the upload of", &self.name))
    }

    /// Calls of the beginning and the end, which have a limit of their own.
    pub(super) async fn within<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::time::timeout(CLOSING, work).await.unwrap_or_else(|_| {
            Err(Error::new(Kind::Stalled, "open or close", &*self.name)
                .detail(format!("no answer within {} minutes", CLOSING.as_secs() / 60)))
        })
    }
}
