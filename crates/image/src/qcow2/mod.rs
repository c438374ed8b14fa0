//! The qcow2 format, versions 2 and 3: QEMU's `docs/interop/qcow2.txt`.
//!
//! A [`Qcow2`] knows its header and nothing else: the tables are read when they are needed, in slices, and only a few
//! are kept. So nothing is ever allocated because a number in the file says so. Whatever an entry points to must lie
//! within the file and outside the header, the L1 table and the refcount table.
//!
//! Internal snapshots are ignored: what is read is the active state. Reference counts are not looked at.

mod entry;
mod header;
mod inflate;
pub(crate) mod spec;
mod tables;

use std::ops::Range;
use std::sync::Arc;

use vmferry_block::Buf;
use vmferry_fault::Fault;

use self::entry::Format;
pub(crate) use self::header::Backing;
use self::header::{Compression, Header, Refusal};
use self::tables::SLICE;
pub(crate) use self::tables::Tables;
use crate::place::{Packed, Place, Segment};
use crate::{Error, Kind, Source};

/// An open qcow2 file, without its backing file.
pub(crate) struct Qcow2 {
    source: Source,
    header: Header,
    format: Format,
    /// Number of this image in its chain.
    layer: u32,
    tables: Arc<Tables>,
}

impl Qcow2 {
    /// Reads and checks the header.
    pub(crate) async fn open(source: Source, layer: u32, tables: Arc<Tables>) -> Result<Self, Error> {
        let file_size = source.file.size();
        let start = read(&source, 0, file_size.min(512)).await?;
        let refuse = |refusal: Refusal| {
            Fault::new(refusal.kind, "open", format!("qcow2 image {}", source.name))
                .detail(refusal.detail)
                .remedy(refusal.remedy)
        };
        let cluster_size = header::cluster_size(&start).map_err(refuse)?;
        let cluster = read(&source, 0, file_size.min(cluster_size)).await?;
        let header = Header::parse(&cluster, file_size).map_err(refuse)?;
        let format = Format {
            version: header.version,
            cluster_bits: header.cluster_bits,
            extended: header.extended_l2,
        };
        Ok(Self {
            source,
            header,
            format,
            layer,
            tables,
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
        &self.source
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
        let file_size = self.source.file.size();
        let Range { start, end } = self.header.l1;
        let mut tables: u64 = 0;
        for slice in (start..end).step_by(SLICE as usize) {
            let entries = self.slice(slice, SLICE.min(end - slice)).await?;
            tables += entries.iter().filter(|entry| **entry & spec::OFFSET != 0).count() as u64;
            if tables * self.format.cluster_size() > file_size {
                return Err(self.corrupt("its L1 table points to more L2 tables than the file has room for"));
            }
        }
        Ok(())
    }

    /// The content of a compressed cluster.
    pub(crate) async fn unpack(&self, packed: Packed) -> Result<Vec<u8>, Error> {
        let left = self.source.file.size().saturating_sub(packed.offset);
        let bytes = read(&self.source, packed.offset, packed.len.min(left)).await?;
        let mut cluster = vec![0; self.format.cluster_size() as usize];
        let compression = self.header.compression;
        let work = tokio::task::spawn_blocking(move || {
            inflate::inflate(compression, &bytes, &mut cluster)?;
            Ok::<_, std::io::Error>(cluster)
        });
        match work.await {
            Ok(Ok(cluster)) => Ok(cluster),
            Ok(Err(error)) => {
                let what = describe(compression);
                Err(self.corrupt(format!(
                    "the {what} cluster at {} does not unpack: {error}",
                    packed.offset
                )))
            }
            Err(error) => Err(Fault::new(Kind::Bug, "unpack a cluster of", self.source.name.clone()).source(error)),
        }
    }

    /// As [`locate`](Self::locate), within one slice of a table.
    async fn locate_in_slice(&self, at: u64, len: u64) -> Result<Segment, Error> {
        let (index, within) = (at / self.table_span(), at % self.table_span());
        let Some(table) = self.table(index).await? else {
            let len = len.min(self.table_span() - within);
            let place = Place::Below;
            return Ok(Segment { place, len });
        };
        let slice = within / self.slice_span();
        let entries = self.slice(table + slice * self.slice_len(), self.slice_len()).await?;
        let end = at + len.min(self.slice_span() - at % self.slice_span());
        let unit = self.format.unit();
        let mut found = Segment {
            place: self.place(&entries, at)?,
            len: (unit - at % unit).min(end - at),
        };
        if let Place::Packed(packed) = found.place {
            found.len = (packed.guest + self.format.cluster_size()).min(end) - at;
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
        let at = index * 8;
        let l1 = &self.header.l1;
        let start = l1.start + at / SLICE * SLICE;
        let entries = self.slice(start, SLICE.min(l1.end.saturating_sub(start))).await?;
        let Some(entry) = entries.get((at % SLICE / 8) as usize) else {
            return Err(self.corrupt("its L1 table is too short"));
        };
        let offset = entry & spec::OFFSET;
        if offset == 0 {
            return Ok(None);
        }
        let cluster_size = self.format.cluster_size();
        let whole = offset + cluster_size <= self.source.file.size();
        if !whole || !offset.is_multiple_of(cluster_size) || self.is_metadata(offset, cluster_size) {
            return Err(self.corrupt(format!("L1 entry {index} points to {offset}, where no L2 table can be")));
        }
        Ok(Some(offset))
    }

    /// Where the unit at `guest` is, by the slice of the L2 table that maps it.
    fn place(&self, slice: &[u64], guest: u64) -> Result<Place, Error> {
        let words = self.format.words();
        let first = (guest % self.slice_span() / self.format.cluster_size() * words) as usize;
        let entry = slice.get(first..first + words as usize);
        let (entry, bitmap) = match entry {
            Some([entry]) => (*entry, 0),
            Some([entry, bitmap]) => (*entry, *bitmap),
            _ => return Err(self.corrupt("an L2 table is too short")),
        };
        let unit = self.format.unit();
        let place = self
            .format
            .decode(guest, entry, bitmap)
            .map_err(|detail| self.corrupt(detail))?;
        let (offset, len) = match place {
            Place::Data(offset) => (offset, unit),
            Place::Packed(packed) => (packed.offset, packed.len),
            Place::Zero | Place::Below => return Ok(place),
        };
        if offset >= self.source.file.size() || self.is_metadata(offset, len) {
            return Err(self.corrupt(format!(
                "the data at {guest} of the disk is said to be at {offset} of the file"
            )));
        }
        Ok(match place {
            Place::Data(offset) => Place::Data(offset + guest % unit),
            other => other,
        })
    }

    /// Whether a part of the file touches the header, the L1 table or the refcount table.
    fn is_metadata(&self, offset: u64, len: u64) -> bool {
        let touches = |range: &Range<u64>| offset < range.end && range.start < offset + len;
        offset < self.format.cluster_size() || touches(&self.header.l1) || touches(&self.header.refcount_table)
    }

    async fn slice(&self, offset: u64, len: u64) -> Result<Arc<[u64]>, Error> {
        let slice = self.tables.get(self.layer, &*self.source.file, offset, len).await;
        slice.map_err(|error| io_fault(&self.source, offset, error))
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
        Fault::new(Kind::Corrupt, "read", format!("qcow2 image {}", self.source.name))
            .detail(detail)
            .remedy("check it with qemu-img check")
    }
}

fn describe(compression: Compression) -> &'static str {
    match compression {
        Compression::Deflate => "deflate",
        Compression::Zstd => "zstd",
    }
}

async fn read(source: &Source, offset: u64, len: u64) -> Result<Buf, Error> {
    let buf = Buf::alone(len as usize);
    let read = source.file.read_at(offset, buf).await;
    read.map_err(|error| io_fault(source, offset, error))
}

pub(crate) fn io_fault(source: &Source, offset: u64, error: std::io::Error) -> Error {
    Fault::new(Kind::Io, "read", format!("image {} at {offset}", source.name)).source(error)
}
