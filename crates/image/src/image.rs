//! Reading an image: its content as the guest sees it, whatever files it is made of.

use std::fmt;
use std::sync::Arc;

use vmferry_block::{AllocationMap, Buf, ReadAt};
use vmferry_fault::Fault;

use crate::info::Info;
use crate::layer::Layer;
use crate::packed::{Batch, Kept};
use crate::place::{Packed, Place, Segment};
use crate::tables::Tables;
use crate::{BackingRef, Error, ImageFormat, Kind, Limits, Opener, Source};

/// An open image with its backing chain.
pub struct Image {
    /// From the top to the base; never empty.
    layers: Vec<Layer>,
    capacity: u64,
    tables: Arc<Tables>,
    kept: Kept,
}

/// A run of guest bytes that lie in a row in the image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DataRun {
    /// Where it starts in the file.
    pub file_offset: u64,
    /// Where it starts on the disk.
    pub guest: u64,
    /// Length in bytes, never zero.
    pub len: u64,
}

impl Image {
    /// Opens an image and, through `opener`, its backing chain.
    ///
    /// Refuses what it cannot read to the last byte: [`Corrupt`](Kind::Corrupt), [`Unsupported`](Kind::Unsupported),
    /// [`Encrypted`](Kind::Encrypted), and a chain longer than `limits` allow as [`Hostile`](Kind::Hostile), because it
    /// may be a loop.
    pub async fn open(source: Source, opener: &dyn Opener, limits: Limits) -> Result<Self, Error> {
        let tables = Arc::new(Tables::new(limits.cache));
        let top = source.name.clone();
        let mut layers: Vec<Layer> = Vec::new();
        let mut next = Some(source);
        while let Some(source) = next {
            let depth = layers.len() as u32;
            if depth >= limits.chain.max(1) {
                return Err(Fault::new(Kind::Hostile, "open", format!("image {top}"))
                    .detail(format!(
                        "its backing chain has more than {} files, or is a loop",
                        limits.chain
                    ))
                    .remedy("flatten it first: qemu-img convert -O qcow2"));
            }
            let layer = Layer::open(source, opener, &tables).await?;
            if let Some(above) = layers.last() {
                Layer::check_backing(above, &layer)?;
            }
            next = match layer.backing() {
                Some(backing) => {
                    let backing = BackingRef {
                        from: layer.name().to_owned(),
                        path: backing.path.clone(),
                        format: backing.format.clone(),
                        depth: depth + 1,
                    };
                    Some(opener.open_backing(&backing).await?)
                }
                None => None,
            };
            layers.push(layer);
        }
        Ok(Self::new(layers, tables))
    }

    /// A raw image whose hole map is known: the disk is as large as the map says.
    pub fn raw(name: impl Into<String>, file: Arc<dyn ReadAt>, map: AllocationMap) -> Self {
        let mut source = Source::new(name, ImageFormat::Raw, file);
        source.holes = Some(map);
        Self::new(vec![Layer::Raw(source)], Arc::new(Tables::new(0)))
    }

    fn new(layers: Vec<Layer>, tables: Arc<Tables>) -> Self {
        Self {
            capacity: layers.first().map_or(0, Layer::size),
            layers,
            tables,
            kept: Kept::default(),
        }
    }

    /// Format of the top image.
    pub fn format(&self) -> ImageFormat {
        self.layers.first().map_or(ImageFormat::Raw, Layer::format)
    }

    /// Virtual size in bytes: whole sectors of 512. The last sector of a raw file of an odd size is filled up with zeros.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Names of the images of the chain, from the top to the base.
    pub fn chain(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().map(Layer::name)
    }

    /// What each image of the chain says of itself, from the top to the base.
    pub fn info(&self) -> Vec<Info> {
        self.layers.iter().map(Layer::info).collect()
    }

    /// Which parts of the disk hold data, the backing chain merged in.
    pub async fn map(&self) -> Result<AllocationMap, Error> {
        let mut map = AllocationMap::builder(self.capacity);
        let mut walk = self.walk().await?;
        while let Some((at, found)) = walk.next().await? {
            map.data(at, found.len).map_err(|error| self.bug(error.to_string()))?;
        }
        Ok(map.build())
    }

    /// The data runs in the order of the file, for decoding it front to back: only for an image without backing file,
    /// without compressed clusters, and with its data in guest order. [`Unsupported`](Kind::Unsupported) otherwise.
    pub async fn data_runs(&self) -> Result<Vec<DataRun>, Error> {
        if self.layers.len() != 1 {
            return Err(self.not_plain("it has a backing file"));
        }
        let file_size = self.layers.first().map_or(0, |layer| layer.source().file.size());
        let mut runs: Vec<DataRun> = Vec::new();
        let mut walk = self.walk().await?;
        while let Some((guest, found)) = walk.next().await? {
            let file_offset = match found.place {
                Place::Data(spot) if spot.file == 0 => spot.offset,
                Place::Data(_) => return Err(self.not_plain("its data lies in other files")),
                _ => return Err(self.not_plain("it has compressed clusters")),
            };
            // What lies past the end of the file is zeros, and has no run.
            let len = found.len.min(file_size.saturating_sub(file_offset));
            if len == 0 {
                continue;
            }
            match runs.last_mut() {
                Some(last) if file_offset < last.file_offset + last.len => {
                    return Err(self.not_plain("its data is not in the order of the disk"));
                }
                Some(last) if last.file_offset + last.len == file_offset && last.guest + last.len == guest => {
                    last.len += len;
                }
                _ => runs.push(DataRun {
                    file_offset,
                    guest,
                    len,
                }),
            }
            if runs.len() > AllocationMap::MAX_EXTENTS {
                return Err(self.not_plain("it is too fragmented"));
            }
        }
        Ok(runs)
    }

    /// Fills the whole of `buf` with the disk's content from `offset` and gives it back. Reading past the capacity is a
    /// [`Bug`](Kind::Bug).
    pub async fn read(&self, offset: u64, mut buf: Buf) -> Result<Buf, Error> {
        let len = buf.len() as u64;
        if offset.checked_add(len).is_none_or(|end| end > self.capacity) {
            let detail = format!("{len} bytes at {offset} of a disk of {} bytes", self.capacity);
            return Err(self.bug(detail));
        }
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let (layer, mut found) = self.locate(at, len - done).await?;
            let batch = match found.place {
                Place::Packed(packed) => Some(self.batch(layer, packed, at, &mut found.len, len - done).await?),
                _ => None,
            };
            let whole = buf.narrow(done as usize..(done + found.len) as usize);
            buf = match batch {
                Some(batch) => self.read_packed(layer, batch, at, buf).await?,
                None => self.fill(layer, found.place, buf).await?,
            };
            buf.restore(whole);
            done += found.len;
        }
        Ok(buf)
    }

    /// Fills `buf` from a place in an image of the chain that is not compressed.
    async fn fill(&self, layer: usize, place: Place, mut buf: Buf) -> Result<Buf, Error> {
        if let (Place::Data(spot), Some(layer)) = (place, self.layers.get(layer)) {
            return layer.read(spot, buf).await;
        }
        buf.fill(0);
        Ok(buf)
    }

    /// The clusters after `first` that can be read with it. The first `len` bytes from `at` on are in `first`; it becomes what all of them
    /// have, at most `limit`.
    async fn batch(&self, layer: usize, first: Packed, at: u64, len: &mut u64, limit: u64) -> Result<Batch, Error> {
        let mut batch = Batch::new(first);
        while *len < limit {
            let (of, next) = self.locate(at + *len, limit - *len).await?;
            match next.place {
                Place::Packed(packed) if of == layer && batch.add(packed) => *len += next.len,
                _ => break,
            }
        }
        Ok(batch)
    }

    async fn read_packed(&self, index: usize, batch: Batch, at: u64, mut buf: Buf) -> Result<Buf, Error> {
        let Some(layer) = self.layers.get(index) else {
            return Err(self.bug("a compressed cluster in no image".into()));
        };
        if let Some(packed) = batch.single() {
            let kept = self.kept.get(index, packed);
            let start = (at - packed.guest) as usize;
            let part = kept
                .as_deref()
                .and_then(|cluster| cluster.get(start..start + buf.len()));
            if let Some(part) = part {
                buf.copy_from_slice(part);
                return Ok(buf);
            }
        }
        let (buf, rest) = batch.read(layer, at, buf).await?;
        self.kept.put(index, rest);
        Ok(buf)
    }

    /// Which image of the chain has the bytes from `at` on, and where. It is never [`Place::Below`].
    async fn locate(&self, at: u64, mut len: u64) -> Result<(usize, Segment), Error> {
        for (index, layer) in self.layers.iter().enumerate() {
            // A backing file that ends early is continued by zeros.
            let Some(left) = layer.size().checked_sub(at).filter(|left| *left > 0) else {
                break;
            };
            len = len.min(left);
            let found = layer.locate(at, len).await?;
            if found.place != Place::Below {
                return Ok((index, found));
            }
            len = found.len;
        }
        let place = Place::Zero;
        Ok((0, Segment { place, len }))
    }

    /// A walk over everything that is data.
    async fn walk(&self) -> Result<Walk<'_>, Error> {
        for layer in &self.layers {
            layer.check_tables().await?;
        }
        Ok(Walk {
            image: self,
            at: 0,
            loaded: 0,
        })
    }

    /// Loads the tables of the chain from `at` on and says up to where.
    async fn load_tables(&self, at: u64) -> Result<u64, Error> {
        let window = self.tables.window(self.layers.len());
        let mut until = self.capacity;
        for layer in &self.layers {
            if at < layer.size() {
                until = until.min(layer.load_tables(at, window).await?);
            }
        }
        Ok(until)
    }

    fn name(&self) -> String {
        self.chain().next().unwrap_or_default().to_owned()
    }

    fn not_plain(&self, detail: &'static str) -> Error {
        Fault::new(
            Kind::Unsupported,
            "decode",
            format!("image {} front to back", self.name()),
        )
        .detail(detail)
        .remedy("rewrite it first: qemu-img convert -O qcow2")
    }

    fn bug(&self, detail: String) -> Error {
        Fault::new(Kind::Bug, "read", format!("image {}", self.name())).detail(detail)
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image")
            .field("chain", &self.chain().collect::<Vec<_>>())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

struct Walk<'a> {
    image: &'a Image,
    at: u64,
    /// Up to where the tables were loaded ahead.
    loaded: u64,
}

impl Walk<'_> {
    /// The next data and where it is on the disk.
    async fn next(&mut self) -> Result<Option<(u64, Segment)>, Error> {
        while self.at < self.image.capacity {
            let at = self.at;
            if at >= self.loaded {
                self.loaded = self.image.load_tables(at).await?.max(at + 1);
            }
            // What is loaded is looked at first: a run that goes on has its next part found in the next step.
            let (_, found) = self.image.locate(at, self.loaded - at).await?;
            self.at += found.len;
            tokio::task::consume_budget().await;
            if found.place != Place::Zero {
                return Ok(Some((at, found)));
            }
        }
        Ok(None)
    }
}
