//! The qcow2 format, versions 2 and 3: QEMU's `docs/interop/qcow2.txt`.
//!
//! A [`Qcow2`] knows its header and nothing else: the tables are read when they are needed, in slices, and only a few
//! are kept. So nothing is ever allocated because a number in the file says so. Whatever an entry points to must lie
//! within the file and outside the header, the L1 table and the refcount table.
//!
//! Internal snapshots are ignored: what is read is the active state. Reference counts are not looked at, except by a check.

mod check;
mod entry;
mod extension;
mod fields;
mod header;
pub(crate) mod spec;

use std::ops::Range;
use std::sync::Arc;

use vmferry_fault::Fault;

use self::entry::Format;
use self::header::Header;
use crate::codec::Codec;
use crate::error::Refusal;
use crate::info::{Info, Qcow2Info};
use crate::place::{Place, Segment, Spot};
use crate::source::Backing;
use crate::tables::{FileTables, SLICE, Tables, be64};
use crate::{Error, Kind, Source};

/// An open qcow2 file, without its backing file.
pub(crate) struct Qcow2 {
    file: FileTables,
    header: Header,
    format: Format,
}

impl Qcow2 {
    /// Reads and checks the header.
    pub(crate) async fn open(source: Source, tables: &Arc<Tables>) -> Result<Self, Error> {
        let file_size = source.file.size();
        let start = source.read(0, file_size.min(512)).await?;
        let refuse = |refusal: Refusal| refusal.of("qcow2", &source.name);
        let cluster_size = header::cluster_size(&start).map_err(refuse)?;
        let cluster = source.read(0, file_size.min(cluster_size)).await?;
        let header = Header::parse(&cluster, file_size).map_err(refuse)?;
        let format = Format {
            version: header.version,
            cluster_bits: header.cluster_bits,
            extended: header.extended_l2,
        };
        Ok(Self {
            file: FileTables::new(source, Arc::clone(tables)),
            header,
            format,
        })
    }

    /// Virtual size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.header.size
    }

    /// The backing file that the header names.
    pub(crate) fn backing(&self) -> Option<&Backing> {
        self.header.backing.as_ref()
    }

    /// The file and what it is called.
    pub(crate) fn source(&self) -> &Source {
        self.file.source()
    }

    /// Adds what only its header knows.
    pub(crate) fn describe(&self, info: &mut Info) {
        let header = &self.header;
        info.version = Some(header.version);
        info.cluster_size = Some(self.format.cluster_size());
        info.compression = Some(header.codec.name());
        info.qcow2 = Some(Qcow2Info {
            snapshots: header.snapshots.0,
            bitmaps: header.bitmaps.map_or(0, |bitmaps| bitmaps.count),
            extended_l2: header.extended_l2,
            refcount_bits: 1 << header.refcount_order,
            dirty: header.dirty,
        });
    }

    /// How its compressed clusters are compressed.
    pub(crate) fn codec(&self) -> Codec {
        self.header.codec
    }

    /// Where the bytes from `at` on are: the longest stretch within `len` bytes that can be read as one.
    ///
    /// `at` and `len` lie within the disk.
    pub(crate) async fn locate(&self, at: u64, len: u64) -> Result<Segment, Error> {
        let mut found = self.locate_in_slice(at, len).await?;
        while found.len < len && (at + found.len).is_multiple_of(self.slice_span()) {
            let next = self.locate_in_slice(at + found.len, len - found.len).await?;
            if !found.place.goes_on(found.len, next.place) {
                break;
            }
            found.len += next.len;
            tokio::task::consume_budget().await;
        }
        Ok(found)
    }

    /// Refuses an image in which L2 tables share their place: in a sound one, the time that a walk over all of them takes
    /// is in proportion to the file.
    pub(crate) async fn check_tables(&self) -> Result<(), Error> {
        let file_size = self.source().file.size();
        let slices = (self.header.l1.end - self.header.l1.start).div_ceil(SLICE);
        let mut tables: u64 = 0;
        for slice in 0..slices {
            let entries = self.file.get_in(&self.header.l1, slice).await?;
            let entries = entries.as_chunks::<8>().0.iter().copied().map(u64::from_be_bytes);
            tables += entries.filter(|entry| entry & spec::OFFSET != 0).count() as u64;
            if tables * self.format.cluster_size() > file_size {
                return Err(self.corrupt("its L1 table points to more L2 tables than the file has room for"));
            }
        }
        Ok(())
    }

    /// Loads the tables that map the disk from `at` on, about `window` bytes of them, and says up to where they do.
    pub(crate) async fn load_tables(&self, at: u64, window: u64) -> Result<u64, Error> {
        let (mut until, mut slices) = (at - at % self.slice_span(), Vec::new());
        // An L1 slice that was loaded is looked at to its end at most, so that what it says does not have to be kept for long.
        let stop = until.saturating_add(SLICE / 8 * self.table_span()).min(self.size());
        while until < stop && (slices.len() as u64) < (window / self.slice_len()).max(1) {
            match self.table(until / self.table_span()).await? {
                Some(table) => {
                    let start = table + until % self.table_span() / self.slice_span() * self.slice_len();
                    slices.push(start..start + self.slice_len());
                    until += self.slice_span();
                }
                None => until = (until / self.table_span() + 1) * self.table_span(),
            }
        }
        self.file.load(slices).await?;
        Ok(until)
    }

    /// As [`locate`](Self::locate), within one slice of a table.
    async fn locate_in_slice(&self, at: u64, len: u64) -> Result<Segment, Error> {
        let (index, within) = (at / self.table_span(), at % self.table_span());
        let Some(table) = self.table(index).await? else {
            let len = len.min(self.table_span() - within);
            let place = Place::Below;
            return Ok(Segment { place, len });
        };
        let slice = table + within / self.slice_span() * self.slice_len();
        let entries = self.file.get(slice, self.slice_len()).await?;
        let end = at + len.min(self.slice_span() - at % self.slice_span());
        let unit = self.format.unit();
        let mut found = Segment {
            place: self.place(&entries, at)?,
            len: (unit - at % unit).min(end - at),
        };
        if let Place::Packed(packed) = found.place {
            found.len = packed.guest_end().min(end) - at;
        }
        while at + found.len < end {
            let next = at + found.len;
            if !found.place.goes_on(found.len, self.place(&entries, next)?) {
                break;
            }
            found.len += unit.min(end - next);
        }
        Ok(found)
    }

    /// Where the L2 table of this L1 entry is, if there is one.
    async fn table(&self, index: u64) -> Result<Option<u64>, Error> {
        let entries = self.file.get_in(&self.header.l1, index * 8 / SLICE).await?;
        let Some(entry) = be64(&entries, index % (SLICE / 8)) else {
            return Err(self.corrupt("its L1 table is too short"));
        };
        let offset = entry & spec::OFFSET;
        if offset == 0 {
            return Ok(None);
        }
        let cluster_size = self.format.cluster_size();
        let whole = offset + cluster_size <= self.source().file.size();
        if !whole || !offset.is_multiple_of(cluster_size) || self.is_metadata(offset, cluster_size) {
            return Err(self.corrupt(format!("L1 entry {index} points to {offset}, where no L2 table can be")));
        }
        Ok(Some(offset))
    }

    /// Where the unit at `guest` is, by the slice of the L2 table that maps it.
    fn place(&self, slice: &[u8], guest: u64) -> Result<Place, Error> {
        let words = self.format.words();
        let first = guest % self.slice_span() / self.format.cluster_size() * words;
        let bitmap = if words == 1 { Some(0) } else { be64(slice, first + 1) };
        let (Some(entry), Some(bitmap)) = (be64(slice, first), bitmap) else {
            return Err(self.corrupt("an L2 table is too short"));
        };
        let unit = self.format.unit();
        let place = self
            .format
            .decode(guest, entry, bitmap)
            .map_err(|detail| self.corrupt(detail))?;
        let (offset, len) = match place {
            Place::Data(spot) => (spot.offset, unit),
            Place::Packed(packed) => (packed.spot.offset, packed.len),
            Place::Zero | Place::Below => return Ok(place),
        };
        if offset >= self.source().file.size() || self.is_metadata(offset, len) {
            return Err(self.corrupt(format!(
                "the data at {guest} of the disk is said to be at {offset} of the file"
            )));
        }
        Ok(match place {
            Place::Data(Spot { file, offset }) => Place::Data(Spot {
                file,
                offset: offset + guest % unit,
            }),
            other => other,
        })
    }

    /// Whether a part of the file touches the header, the L1 table or the refcount table.
    fn is_metadata(&self, offset: u64, len: u64) -> bool {
        let touches = |range: &Range<u64>| offset < range.end && range.start < offset + len;
        offset < self.format.cluster_size() || touches(&self.header.l1) || touches(&self.header.refcount_table)
    }

    /// Bytes of a slice of an L2 table.
    fn slice_len(&self) -> u64 {
        self.format.cluster_size().min(SLICE)
    }

    /// Bytes of the disk that a slice of an L2 table maps.
    fn slice_span(&self) -> u64 {
        self.slice_len() / (8 * self.format.words()) * self.format.cluster_size()
    }

    /// Bytes of the disk that an L2 table maps.
    fn table_span(&self) -> u64 {
        self.format.cluster_size() / (8 * self.format.words()) * self.format.cluster_size()
    }

    fn corrupt(&self, detail: impl Into<String>) -> Error {
        Fault::new(Kind::Corrupt, "read", format!("qcow2 image {}", self.source().name))
            .detail(detail)
            .remedy("check it with qemu-img check")
    }
}
