//! The journal of an import: a note of its own beside the staged object, from which any process can go on.
//!
//! It is written only after what it tells of is durable in the volume.

use serde::{Deserialize, Serialize};
use vmferry_block::{ContentDigest, Digest, ObjectHash};
use vmferry_staging::{ObjectKey, StagingStore};

use crate::error::staging;
use crate::hasher::{Hashes, States};
use crate::{Error, Kind};

/// The version of the form below.
const VERSION: u32 = 1;

/// What is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Journal {
    version: u32,
    #[serde(flatten)]
    pub(super) what: What,
    /// How far it came.
    pub(super) states: States,
    /// Everything before this byte of the volume's file was written, or reads as zeros.
    pub(super) written: u64,
}

/// Which import it is: one that differs in anything begins anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct What {
    /// Version of the staged object.
    pub(super) object_version: String,
    /// Its SHA-256, as recorded by the export.
    pub(super) checksum: Digest,
    /// Fingerprint of the volume's layout.
    pub(super) layout: String,
    /// The volume.
    pub(super) volume: String,
}

impl Journal {
    /// An import that came so far.
    pub(super) fn new(what: What, states: States, written: u64) -> Self {
        Self {
            version: VERSION,
            what,
            states,
            written,
        }
    }

    /// The hashes to go on from: the content may be a part of a leaf behind the object. `None` where it is damaged.
    pub(super) fn hashes(&self) -> Option<Hashes> {
        Some(Hashes {
            object: Some(ObjectHash::restore(&self.states.object)?),
            content: ContentDigest::restore(&self.states.content)?,
        })
    }

    /// Reads the journal beside an object; one that cannot be read is none.
    pub(super) async fn load(store: &dyn StagingStore, key: &ObjectKey) -> Result<Option<Self>, Error> {
        let note = store.note(&key.import()).await;
        let note = note.map_err(staging("read the journal of the import of", &store.url(key)))?;
        let journal = note.and_then(|text| serde_json::from_str::<Self>(&text).ok());
        Ok(journal.filter(|journal| journal.version == VERSION))
    }

    /// Writes it down.
    pub(super) async fn save(&self, store: &dyn StagingStore, key: &ObjectKey) -> Result<(), Error> {
        let text = serde_json::to_string(self)
            .map_err(|error| Error::new(Kind::Bug, "write the journal of the import of", key.as_str()).source(error))?;
        let saved = store.put_note(&key.import(), &text).await;
        saved.map_err(staging("write the journal of the import of", &store.url(key)))
    }

    /// Removes the journal beside an object, if any.
    pub(super) async fn remove(store: &dyn StagingStore, key: &ObjectKey) -> Result<(), Error> {
        let deleted = store.delete_note(&key.import()).await;
        deleted.map_err(staging("delete the journal of the import of", &store.url(key)))
    }
}
