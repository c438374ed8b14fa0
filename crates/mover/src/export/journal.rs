//! The journal of an export: the note beside the staged object, from which any process can go on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vmferry_block::Digest;
use vmferry_staging::{ObjectKey, Part, StagingStore, UploadId};

use crate::error::staging;
use crate::hasher::States;
use crate::{Error, ExportSpec, Kind, Report};

/// The version of the form below.
const VERSION: u32 = 2;

/// What is written down. By `owner` and `sealed`, [`vmferry_staging::discard`] knows whose the object beside it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Journal {
    version: u32,
    /// UID of the migration whose object this is.
    pub(super) owner: String,
    /// The frozen state that is read. Bytes of two of them never meet in one object.
    pub(super) frozen: String,
    /// Fingerprint of the object's layout.
    pub(super) fingerprint: String,
    /// The most bytes that the object can have; what it has, where that is known beforehand.
    pub(super) len: u64,
    /// Size of every part but the last.
    pub(super) part_size: u64,
    /// The upload, once it was begun.
    pub(super) upload: Option<UploadId>,
    /// Parts that arrived, in order: those past `hashed`, and those before it that have a tag. None of them where the store
    /// lists its parts.
    parts: Vec<Part>,
    /// The hashes as of the end of the first parts that arrived without a gap.
    pub(super) hashed: Option<HashedPrefix>,
    /// Set when everything was read, the frozen state held, and all parts arrived: all that is missing is the name.
    pub(super) sealed: Option<Seal>,
}

/// The hashes up to a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HashedPrefix {
    /// How many parts are in it.
    pub(super) parts: u32,
    /// The hashes as of its end, and where a VMDK stood before the run that crosses it.
    #[serde(flatten)]
    pub(super) states: States,
}

/// What the whole object is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Seal {
    /// Length of the object in bytes.
    pub(super) len: u64,
    /// SHA-256 of the object.
    pub(super) checksum: Digest,
    /// Content digest of the disk.
    pub(super) content_digest: Digest,
    /// The object's version, once it has its name.
    pub(super) version: Option<String>,
}

impl Journal {
    /// A journal of nothing yet.
    pub(super) fn new(spec: &ExportSpec, fingerprint: String, len: u64, part_size: u64) -> Self {
        Self {
            version: VERSION,
            owner: spec.owner.clone(),
            frozen: spec.frozen.clone(),
            fingerprint,
            len,
            part_size,
            upload: None,
            parts: Vec::new(),
            hashed: None,
            sealed: None,
        }
    }

    /// Reads the journal beside an object. One that is not `owner`'s means that the name is another's.
    pub(super) async fn load(store: &dyn StagingStore, key: &ObjectKey, owner: &str) -> Result<Option<Self>, Error> {
        let object = store.url(key);
        let Some(text) = store.note(key).await.map_err(staging("read the journal of", &object))? else {
            return Ok(None);
        };
        match serde_json::from_str::<Self>(&text) {
            Ok(journal) if journal.version == VERSION && journal.owner == owner => Ok(Some(journal)),
            Ok(journal) if journal.version == VERSION => Err(taken(
                &object,
                &format!("it belongs to the migration with UID {:?}", journal.owner),
            )),
            Ok(_) | Err(_) => Err(taken(&object, "the note beside it is not one that this vmferry wrote")),
        }
    }

    /// Writes it down.
    pub(super) async fn save(&self, store: &dyn StagingStore, key: &ObjectKey) -> Result<(), Error> {
        let text = serde_json::to_string(self)
            .map_err(|error| Error::new(Kind::Bug, "write the journal of", key.as_str()).source(error))?;
        let object = store.url(key);
        store
            .put_note(key, &text)
            .await
            .map_err(staging("write the journal of", &object))
    }

    /// The parts that arrived.
    pub(super) fn arrived(&self) -> BTreeMap<u32, Part> {
        let untagged = (0..self.hashed.as_ref().map_or(0, |hashed| hashed.parts)).map(|number| Part {
            number,
            tag: String::new(),
        });
        let listed = self.parts.iter().cloned();
        untagged.chain(listed).map(|part| (part.number, part)).collect()
    }

    /// Sets the parts that arrived.
    pub(super) fn set_arrived(&mut self, arrived: &BTreeMap<u32, Part>) {
        let implied = self.hashed.as_ref().map_or(0, |hashed| hashed.parts);
        // A store that wants tags wants them of all parts.
        let is_tagged = arrived.values().next().is_some_and(|part| !part.tag.is_empty());
        let from = if is_tagged { 0 } else { implied };
        self.parts = arrived.range(from..).map(|(_, part)| part.clone()).collect();
    }

    /// Whether `other` makes the same object of the same bytes.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        (&self.frozen, &self.fingerprint, self.len) == (&other.frozen, &other.fingerprint, other.len)
    }

    /// The report of a sealed object of which nothing was moved now.
    pub(super) fn report(seal: &Seal) -> Report {
        Report {
            len: seal.len,
            checksum: seal.checksum,
            content_digest: seal.content_digest,
            moved: 0,
        }
    }
}

/// The object's name is another's.
pub(super) fn taken(object: &str, detail: &str) -> Error {
    Error::new(
        Kind::Staging(vmferry_staging::Kind::NameTaken),
        "write",
        format!("staged object {object}"),
    )
    .detail(format!("it exists and is not ours: {detail}"))
    .remedy("remove it, or use another staging path")
}
