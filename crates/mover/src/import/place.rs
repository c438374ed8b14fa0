//! Where an import begins, and where it is.

use vmferry_block::{Buf, ContentDigest, ObjectHash};

use super::Import;
use super::content::Content;
use super::journal::Journal;
use super::staged;
use crate::chunk::cut;
use crate::error::staging;
use crate::hasher::{Hashes, States, Vmdk};
use crate::unpack::Decoder;
use crate::{Error, Kind};

/// How far an import is: both hashes and the volume are at the same place.
pub(super) struct Place {
    pub(super) hashes: Hashes,
    /// Where a VMDK is decoded.
    pub(super) decoder: Option<Decoder>,
    /// Everything before this byte of the volume's file was written, or reads as zeros.
    pub(super) written: u64,
}

impl Place {
    /// Up to which byte the object was read.
    pub(super) fn read(&self) -> u64 {
        self.hashes.read()
    }

    /// The place written down.
    pub(super) fn states(&self) -> Option<States> {
        let states = self.hashes.states()?;
        let vmdk = self
            .decoder
            .as_ref()
            .map(|decoder| decoder.save(self.hashes.content.position()));
        Some(States { vmdk, ..states })
    }
}

impl Import {
    /// Where to begin.
    pub(super) async fn place(&self) -> Result<Place, Error> {
        match self.journal.as_ref().and_then(|journal| self.restore(journal)) {
            Some((mut place, until)) => {
                self.catch_up(&mut place.hashes, until).await?;
                Ok(place)
            }
            None => Ok(Place {
                hashes: Hashes {
                    object: Some(ObjectHash::default()),
                    content: ContentDigest::new(self.spec.capacity),
                },
                decoder: matches!(self.content, Content::Packed(_))
                    .then(|| Decoder::new(self.name(), self.spec.capacity)),
                written: 0,
            }),
        }
    }

    /// The place of a journal, and up to which byte of the disk its content came, where that was packed.
    pub(super) fn restore(&self, journal: &Journal) -> Option<(Place, u64)> {
        let (hashes, written) = (journal.hashes()?, journal.written);
        let (decoder, until) = match (&self.content, &journal.states.vmdk) {
            (Content::Packed(_), Some(Vmdk::Reader { state, guest })) => (
                Some(Decoder::restore(self.name(), self.spec.capacity, state, *guest)?),
                *guest,
            ),
            (Content::Packed(_), _) => return None,
            (Content::Runs(_), _) => (None, 0),
        };
        // What lies between the two would be in neither.
        if decoder.as_ref().is_some_and(|decoder| decoder.at > hashes.read()) {
            return None;
        }
        let place = Place {
            hashes,
            decoder,
            written,
        };
        Some((place, until))
    }

    /// The content is saved up to a leaf. What follows it before the place is read once more, at most a leaf.
    async fn catch_up(&self, hashes: &mut Hashes, until: u64) -> Result<(), Error> {
        let (read, settled) = (hashes.read(), hashes.content.position());
        match &self.content {
            Content::Packed(image) => {
                for (guest, len) in cut(&self.map, settled, until) {
                    let read = image.read(guest, Buf::alone(len as usize)).await;
                    let buf = read.map_err(|error| {
                        let kind = staged::store_kind(&error).map_or(Kind::StagedCorrupt, Kind::Staging);
                        Error::new(kind, "read", &*self.object).source(error)
                    })?;
                    hashes.content.data(guest, &buf);
                }
            }
            Content::Runs(runs) => {
                let first = runs.partition_point(|run| run.guest + run.len <= settled);
                for run in runs[first..].iter().take_while(|run| run.file_offset < read) {
                    let skip = settled.saturating_sub(run.guest);
                    let (from, end) = (run.file_offset + skip, (run.file_offset + run.len).min(read));
                    if from < end {
                        let buf = Buf::alone((end - from) as usize);
                        let read = self
                            .store
                            .read_one(&self.spec.object, &self.meta.version, from, buf)
                            .await;
                        let buf = read.map_err(staging("read", &self.object))?;
                        hashes.content.data(run.guest + skip, &buf);
                    }
                }
            }
        }
        Ok(())
    }
}
