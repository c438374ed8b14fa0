//! A file with grain tables: a part of a disk, or all of it.

use std::ops::Range;
use std::sync::Arc;

use vmferry_fault::Fault;

use super::CHECK;
use super::header::{Grains, Header};
use crate::codec::Codec;
use crate::place::{Packed, Place, Segment, Spot};
use crate::tables::{FileTables, SLICE, Tables, le32};
use crate::vmdk::spec::{self, ENTRY_LEN, SECTOR};
use crate::{Error, Kind, Source};

/// An open file with grain tables.
pub(crate) struct Sparse {
    file: FileTables,
    pub(crate) header: Header,
    /// Where it starts on the disk, and how much of the disk it has.
    pub(crate) first: u64,
    pub(crate) len: u64,
    /// The file's number in its image.
    number: u32,
}

impl Sparse {
    /// Takes a file for the part of the disk that starts at `first` and has `sectors` by the descriptor.
    pub(crate) fn new(
        source: Source,
        header: Header,
        (first, sectors): (u64, u64),
        number: u32,
        tables: &Arc<Tables>,
    ) -> Result<Self, Error> {
        let len = sectors * SECTOR;
        // Some round the capacity up to whole grains; what the descriptor says is the disk.
        if len > header.capacity || header.capacity - len >= header.grain {
            let detail = format!(
                "its header says that it has {} bytes of the disk, and its descriptor {len}",
                header.capacity
            );
            return Err(super::corrupt(detail).of("vmdk", &source.name));
        }
        Ok(Self {
            file: FileTables::new(source, Arc::clone(tables)),
            header,
            first,
            len,
            number,
        })
    }

    pub(crate) fn source(&self) -> &Source {
        self.file.source()
    }

    pub(crate) fn codec(&self) -> Option<Codec> {
        match self.header.grains {
            Grains::Plain => None,
            Grains::Compressed { marked } => Some(Codec::Grain {
                marked,
                first: self.first,
                grain: self.header.grain,
            }),
        }
    }

    /// Where the bytes from `at` of the disk on are: the longest stretch within `len` bytes that can be read as one. Both lie within this part.
    pub(crate) async fn locate(&self, at: u64, len: u64) -> Result<Segment, Error> {
        let mut found = self.locate_in_table(at, len).await?;
        while found.len < len && (at - self.first + found.len).is_multiple_of(self.header.table_span()) {
            let next = self.locate_in_table(at + found.len, len - found.len).await?;
            if !found.place.goes_on(found.len, next.place) {
                break;
            }
            found.len += next.len;
            tokio::task::consume_budget().await;
        }
        Ok(found)
    }

    /// Refuses a file in which grain tables share their place: in a sound one, the time that a walk over all of them takes
    /// is in proportion to the file.
    pub(crate) async fn check_tables(&self) -> Result<(), Error> {
        let directory = &self.header.directory;
        let mut tables: u64 = 0;
        for slice in 0..(directory.end - directory.start).div_ceil(SLICE) {
            let entries = self.file.get_in(directory, slice).await?;
            let entries = entries.as_chunks::<4>().0.iter();
            tables += entries.filter(|entry| **entry != [0; 4]).count() as u64;
            if tables * self.header.table_len() > self.source().file.size() {
                return Err(self.corrupt("its grain directory points to more grain tables than the file has room for"));
            }
        }
        Ok(())
    }

    /// Loads the grain tables that map the disk from `at` on, about `window` bytes of them, and says up to where they do.
    pub(crate) async fn load_tables(&self, at: u64, window: u64) -> Result<u64, Error> {
        let span = self.header.table_span();
        let (mut index, mut tables) = ((at - self.first) / span, Vec::new());
        let stop = (index + SLICE / ENTRY_LEN).min(self.len.div_ceil(span));
        while index < stop && (tables.len() as u64) < (window / self.header.table_len()).max(1) {
            if let Some(table) = self.table(index).await? {
                tables.push(table..table + self.header.table_len());
            }
            index += 1;
        }
        self.file.load(tables).await?;
        Ok(self.first + (index * span).min(self.len))
    }

    async fn locate_in_table(&self, at: u64, len: u64) -> Result<Segment, Error> {
        let span = self.header.table_span();
        let within = (at - self.first) % span;
        let len = len.min(span - within);
        let Some(table) = self.table((at - self.first) / span).await? else {
            let place = Place::Below;
            return Ok(Segment { place, len });
        };
        let entries = self.entries(table).await?;
        let grain = self.header.grain;
        let mut found = Segment {
            place: self.place(&entries, at)?,
            len: len.min(grain - within % grain),
        };
        while found.len < len {
            if !found.place.goes_on(found.len, self.place(&entries, at + found.len)?) {
                break;
            }
            found.len += grain.min(len - found.len);
        }
        Ok(found)
    }

    /// Loads grain tables that lie within the file.
    pub(crate) async fn load(&self, tables: Vec<Range<u64>>) -> Result<(), Error> {
        self.file.load(tables).await
    }

    /// The entries of the grain table at this offset of the file.
    pub(crate) async fn entries(&self, table: u64) -> Result<Arc<[u8]>, Error> {
        self.file.get(table, self.header.table_len()).await
    }

    /// Where a grain table is, if there is one.
    pub(crate) async fn table(&self, index: u64) -> Result<Option<u64>, Error> {
        let entries = self
            .file
            .get_in(&self.header.directory, index * ENTRY_LEN / SLICE)
            .await?;
        let Some(entry) = le32(&entries, index % (SLICE / ENTRY_LEN)) else {
            return Err(self.corrupt("its grain directory is too short"));
        };
        if entry == 0 {
            return Ok(None);
        }
        let (table, len) = (u64::from(entry) * SECTOR, self.header.table_len());
        if table + len > self.source().file.size() || self.is_metadata(table, len) {
            let detail =
                format!("entry {index} of its grain directory points to sector {entry}, where no grain table can be");
            return Err(self.corrupt(detail));
        }
        Ok(Some(table))
    }

    /// Where the bytes at `at` of the disk are, by the grain table that maps them.
    pub(crate) fn place(&self, table: &[u8], at: u64) -> Result<Place, Error> {
        let Header { grain, zeroed, .. } = self.header;
        let compressed = self.header.grains != Grains::Plain;
        let within = (at - self.first) % grain;
        let index = (at - self.first) / grain % self.header.table_entries;
        let sector = match le32(table, index) {
            Some(spec::GRAIN_ABSENT) => return Ok(Place::Below),
            Some(spec::GRAIN_ZEROED) if zeroed => return Ok(Place::Zero),
            Some(sector) => u64::from(sector),
            None => return Err(self.corrupt("a grain table is too short")),
        };
        let spot = Spot {
            file: self.number,
            offset: sector * SECTOR,
        };
        let len = if compressed { SECTOR } else { grain };
        if spot.offset >= self.source().file.size() || self.is_metadata(spot.offset, len) {
            let detail = format!("the data at {at} of the disk is said to be at sector {sector} of the file");
            return Err(self.corrupt(detail));
        }
        if !compressed {
            let offset = spot.offset + within;
            return Ok(Place::Data(Spot { offset, ..spot }));
        }
        let guest = at - within;
        Ok(Place::Packed(Packed {
            spot,
            // Deflate makes nothing longer by more than an eighth, and most writers by far less.
            len: grain + grain / 4 + 2 * SECTOR,
            guest,
            size: grain.min(self.first + self.len - guest),
        }))
    }

    /// Whether a part of the file touches the header, the descriptor or a grain directory.
    pub(crate) fn is_metadata(&self, offset: u64, len: u64) -> bool {
        let touches = |range: &Range<u64>| offset < range.end && range.start < offset + len;
        let Header {
            descriptor,
            directory,
            redundant,
            ..
        } = &self.header;
        offset < spec::HEADER_LEN
            || touches(directory)
            || descriptor.as_ref().is_some_and(touches)
            || redundant.as_ref().is_some_and(touches)
    }

    fn corrupt(&self, detail: impl Into<String>) -> Error {
        Fault::new(Kind::Corrupt, "read", format!("vmdk image {}", self.source().name))
            .detail(detail)
            .remedy(CHECK)
    }
}
