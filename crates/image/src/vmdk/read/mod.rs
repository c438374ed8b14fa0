//! Reading a VMDK at any offset.
//!
//! A [`Vmdk`] knows its descriptor and the headers of its files; grain tables are read when they are needed, and only a
//! few are kept. Whatever an entry points to must lie within its file and outside the header, the descriptor and the grain
//! directories. The redundant grain directory is not read.
//!
//! A file with grain tables and a descriptor in it is the whole disk. Files that a descriptor names are opened by the
//! [`Opener`] alone, as is the parent of a delta disk, which must have the content identifier that the delta names.

mod check;
mod descriptor;
mod extent;
mod header;
mod sparse;

use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use vmferry_block::Buf;

use self::descriptor::{Descriptor, ExtentKind, ExtentLine};
use self::extent::Extent;
use self::header::Header;
use self::sparse::Sparse;
use super::spec;
use crate::codec::Codec;
use crate::error::Refusal;
use crate::info::{Info, VmdkInfo};
use crate::place::{Place, Segment};
use crate::source::Backing;
use crate::tables::Tables;
use crate::{Error, ExtentRef, ImageFormat, Kind, Opener, Source};

const CHECK: &str = "check it: vmferry image check";
const CONVERT: &str = "rewrite it first: qemu-img convert -O qcow2";
/// How many of a disk's files are opened or looked at at the same time.
const FILES: usize = 16;

fn corrupt(detail: impl Into<String>) -> Refusal {
    Refusal::new(Kind::Corrupt, detail, CHECK)
}

/// An open VMDK, without its parent.
pub(crate) struct Vmdk {
    source: Source,
    descriptor: Descriptor,
    backing: Option<Backing>,
    /// In the order of the disk, without gaps; never empty.
    extents: Vec<Extent>,
    size: u64,
}

impl Vmdk {
    /// Reads and checks the descriptor and the headers.
    pub(crate) async fn open(source: Source, opener: &dyn Opener, tables: &Arc<Tables>) -> Result<Self, Error> {
        let file_size = source.file.size();
        let refuse = |refusal: Refusal| refusal.of("vmdk", &source.name);
        let start = source.read(0, file_size.min(spec::HEADER_LEN)).await?;
        check_magic(&start).map_err(refuse)?;
        if header::magic(&start) != Some(spec::MAGIC) {
            let descriptor = Descriptor::parse(&source.read(0, file_size.min(spec::MAX_DESCRIPTOR)).await?);
            return Self::of_files(source.clone(), descriptor.map_err(refuse)?, opener, tables).await;
        }
        if let Some(place) = header::descriptor_only(&start, file_size).map_err(refuse)? {
            let descriptor = Descriptor::parse(&source.read(place.start, place.end - place.start).await?);
            return Self::of_files(source.clone(), descriptor.map_err(refuse)?, opener, tables).await;
        }
        let header = Header::read(&source).await?;
        let text = match header.descriptor.clone() {
            Some(place) => source.read(place.start, place.end - place.start).await?,
            None => Buf::alone(0),
        };
        if text.first().is_none_or(|byte| *byte == 0) {
            let detail = "it has no descriptor: it is a part of a disk";
            return Err(refuse(Refusal::new(
                Kind::Unsupported,
                detail,
                "name the disk's descriptor file",
            )));
        }
        let descriptor = Descriptor::parse(&text).map_err(refuse)?;
        let [
            ExtentLine {
                sectors,
                kind: ExtentKind::Sparse { .. },
            },
        ] = descriptor.extents[..]
        else {
            return Err(refuse(corrupt(
                "it is one part of a disk, and its descriptor names others",
            )));
        };
        let extent = Sparse::new(source.clone(), header, (0, sectors), 0, tables)?;
        Self::new(source, descriptor, vec![Extent::sparse(extent)])
    }

    /// A disk whose descriptor lists its files.
    async fn of_files(
        source: Source,
        descriptor: Descriptor,
        opener: &dyn Opener,
        tables: &Arc<Tables>,
    ) -> Result<Self, Error> {
        descriptor
            .sectors()
            .map_err(|refusal| refusal.of("vmdk", &source.name))?;
        for (path, _) in descriptor.extents.iter().filter_map(|line| line.kind.file()) {
            descriptor::readable(path).map_err(|refusal| refusal.of("vmdk", &source.name))?;
        }
        let mut first = 0;
        let parts = descriptor.extents.iter().enumerate().map(|(index, line)| {
            let start = first;
            first += line.sectors * spec::SECTOR;
            (index as u32 + 1, line, start)
        });
        let parts: Vec<_> = parts.collect();
        let open = |(number, line, first): (u32, &ExtentLine, u64)| {
            let (line, from) = (line.clone(), source.name.clone());
            async move {
                let Some((path, format)) = line.kind.file() else {
                    return Ok(Extent::zero(first, line.sectors));
                };
                let path = path.to_owned();
                let file = opener.open_extent(&ExtentRef { from, path, format }).await?;
                Extent::open(file, &line, first, number, tables).await
            }
            .boxed()
        };
        let opened: Vec<_> = parts.into_iter().map(open).collect();
        let opened: Result<Vec<_>, Error> = futures::stream::iter(opened).buffered(FILES).try_collect().await;
        Self::new(source, descriptor, opened?)
    }

    fn new(source: Source, descriptor: Descriptor, extents: Vec<Extent>) -> Result<Self, Error> {
        let sectors = descriptor
            .sectors()
            .map_err(|refusal| refusal.of("vmdk", &source.name))?;
        let backing = descriptor.parent.as_ref().map(|parent| Backing {
            path: parent.path.clone(),
            format: Some(ImageFormat::Vmdk.to_string()),
        });
        Ok(Self {
            source,
            descriptor,
            backing,
            extents,
            size: sectors * spec::SECTOR,
        })
    }

    /// Virtual size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The parent of a delta disk.
    pub(crate) fn backing(&self) -> Option<&Backing> {
        self.backing.as_ref()
    }

    /// The file with the descriptor.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// Adds what only the descriptor and the headers know.
    pub(crate) fn describe(&self, info: &mut Info) {
        let Descriptor { parent, .. } = &self.descriptor;
        let sparse = self.extents.iter().find_map(Extent::as_sparse);
        info.version = Some(sparse.map_or(self.descriptor.version, |sparse| sparse.header.version));
        info.cluster_size = sparse.map(|sparse| sparse.header.grain);
        info.compression = sparse.and_then(Sparse::codec).map(Codec::name);
        let own = self
            .extents
            .iter()
            .any(|extent| extent.source().is_some_and(|of| of.name == self.source.name));
        let parts = self
            .extents
            .iter()
            .filter_map(Extent::source)
            .map(|source| source.file.size());
        info.file_size = parts.fold(if own { 0 } else { info.file_size }, u64::saturating_add);
        info.vmdk = Some(VmdkInfo {
            create_type: self.descriptor.create_type.clone(),
            cid: self.descriptor.cid.map(|cid| format!("{cid:08x}")),
            parent_cid: parent.as_ref().map(|parent| format!("{:08x}", parent.cid)),
            dirty: self
                .extents
                .iter()
                .filter_map(Extent::as_sparse)
                .any(|sparse| sparse.header.unclean),
            extents: self.descriptor.extents.iter().map(ExtentLine::describe).collect(),
        });
    }

    /// A file by its number: 0 is the one with the descriptor, the others follow in the order of the disk.
    pub(crate) fn file(&self, number: u32) -> Option<&Source> {
        match (number as usize).checked_sub(1) {
            None => Some(&self.source),
            Some(index) => self.extents.get(index)?.source(),
        }
    }

    /// How the grains of a file are compressed.
    pub(crate) fn codec(&self, file: u32) -> Option<Codec> {
        self.extents
            .get((file as usize).saturating_sub(1))?
            .as_sparse()?
            .codec()
    }

    /// Refuses a parent that is not the one from which this disk differs.
    pub(crate) fn check_parent(&self, parent: Option<&Self>, name: &str) -> Result<(), Error> {
        let Some(wanted) = &self.descriptor.parent else {
            return Ok(());
        };
        let refuse = |detail: String| Err(corrupt(detail).of("vmdk", &self.source.name));
        match parent.map(|parent| (parent.descriptor.cid, parent.size)) {
            Some((Some(cid), _)) if cid != wanted.cid => refuse(format!(
                "it is a delta of a disk with the CID {:08x}, and {name} has {cid:08x}: that was written to since",
                wanted.cid
            )),
            Some((Some(_), size)) if size != self.size => refuse(format!(
                "it is a delta of a disk of {} bytes, and {name} has {size}",
                self.size
            )),
            Some((Some(_), _)) => Ok(()),
            _ => refuse(format!("it is a delta of the disk {name}, which has no CID")),
        }
    }

    /// See [`Sparse::check_tables`].
    pub(crate) async fn check_tables(&self) -> Result<(), Error> {
        let checks = self
            .extents
            .iter()
            .filter_map(Extent::as_sparse)
            .map(Sparse::check_tables);
        futures::stream::iter(checks)
            .buffer_unordered(FILES)
            .try_collect()
            .await
    }

    /// Loads the grain tables that map the disk from `at` on, about `window` bytes of them, and says up to where they do.
    pub(crate) async fn load_tables(&self, at: u64, window: u64) -> Result<u64, Error> {
        let share = window / FILES as u64;
        let first = self.extent_at(at);
        let ahead = self.extents.get(first..).unwrap_or_default().iter().take(FILES);
        let mut loads = Vec::with_capacity(FILES);
        for extent in ahead {
            let load = async move {
                let start = extent.first.max(at);
                let loaded = match extent.as_sparse() {
                    Some(sparse) if self.extents.len() == 1 => sparse.load_tables(start, window).await?,
                    Some(sparse) => sparse.load_tables(start, share).await?,
                    None => extent.end(),
                };
                Ok::<_, Error>((loaded, extent.end()))
            };
            loads.push(load.boxed());
        }
        let mut loads = futures::stream::iter(loads).buffered(FILES);
        let (mut until, mut whole) = (at, true);
        while let Some((loaded, end)) = loads.try_next().await? {
            if whole {
                until = loaded;
                whole = loaded == end;
            }
        }
        Ok(until)
    }

    /// Where the bytes from `at` on are: the longest stretch within `len` bytes that can be read as one.
    ///
    /// `at` and `len` lie within the disk.
    pub(crate) async fn locate(&self, at: u64, len: u64) -> Result<Segment, Error> {
        match self.extents.get(self.extent_at(at)) {
            Some(extent) => extent.locate(at, len.min(extent.end() - at)).await,
            None => Ok(Segment {
                place: Place::Zero,
                len,
            }),
        }
    }

    fn extent_at(&self, at: u64) -> usize {
        self.extents.partition_point(|extent| extent.end() <= at)
    }
}

/// Refuses the kinds of sparse files that have another format.
fn check_magic(start: &[u8]) -> Result<(), Refusal> {
    let what = match header::magic(start) {
        Some(spec::COWD_MAGIC) => "an ESX Server sparse extent (COWD)",
        Some(spec::SE_SPARSE_MAGIC) => "a space-efficient sparse extent (seSparse)",
        _ => return Ok(()),
    };
    Err(Refusal::new(Kind::Unsupported, what, CONVERT))
}
