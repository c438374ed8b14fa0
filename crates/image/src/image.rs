//! Reading an image: its content as the guest sees it, whatever files it is made of.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use vmferry_block::{AllocationMap, Buf, ReadAt};
use vmferry_fault::Fault;

use crate::layer::Layer;
use crate::place::{Packed, Place, Segment};
use crate::qcow2::Tables;
use crate::{BackingRef, Error, ImageFormat, Kind, Limits, Opener, Source};

/// An open image with its backing chain.
pub struct Image {
    /// From the top to the base; never empty.
    layers: Vec<Layer>,
    capacity: u64,
    /// The compressed cluster that was unpacked last and not read to its end.
    unpacked: Mutex<Option<Unpacked>>,
}

/// Which image of the chain, where in it, and the content.
type Unpacked = (usize, Packed, Arc<[u8]>);

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
        let mut layers = Vec::new();
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
            let layer = Layer::open(source, depth, &tables).await?;
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
        Ok(Self::new(layers))
    }

    /// A raw image whose hole map is known: the disk is as large as the map says.
    pub fn raw(name: impl Into<String>, file: Arc<dyn ReadAt>, map: AllocationMap) -> Self {
        let mut source = Source::new(name, ImageFormat::Raw, file);
        source.holes = Some(map);
        Self::new(vec![Layer::Raw(source)])
    }

    fn new(layers: Vec<Layer>) -> Self {
        Self {
            capacity: layers.first().map_or(0, Layer::size),
            layers,
            unpacked: Mutex::default(),
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
            let Place::Data(file_offset) = found.place else {
                return Err(self.not_plain("it has compressed clusters"));
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
            let (layer, found) = self.locate(offset + done, len - done).await?;
            let whole = buf.narrow(done as usize..(done + found.len) as usize);
            buf = self.fill(layer, offset + done, found.place, buf).await?;
            buf.restore(whole);
            done += found.len;
        }
        Ok(buf)
    }

    /// Fills `buf` from a place in an image of the chain.
    async fn fill(&self, layer: usize, at: u64, place: Place, mut buf: Buf) -> Result<Buf, Error> {
        match (place, self.layers.get(layer)) {
            (Place::Data(offset), Some(layer)) => layer.read(offset, buf).await,
            (Place::Packed(packed), Some(_)) => {
                let cluster = self.unpack(layer, packed).await?;
                let start = (at - packed.guest) as usize;
                let bytes = cluster.get(start..start + buf.len());
                buf.copy_from_slice(
                    bytes.ok_or_else(|| self.bug("a cluster that is shorter than its entry says".into()))?,
                );
                if start + buf.len() < cluster.len() {
                    self.unpacked().replace((layer, packed, cluster));
                }
                Ok(buf)
            }
            _ => {
                buf.fill(0);
                Ok(buf)
            }
        }
    }

    async fn unpack(&self, layer: usize, packed: Packed) -> Result<Arc<[u8]>, Error> {
        let kept = self.unpacked().take_if(|(of, what, _)| *of == layer && *what == packed);
        match (kept, self.layers.get(layer)) {
            (Some((_, _, cluster)), _) => Ok(cluster),
            (None, Some(Layer::Qcow2(image))) => image.unpack(packed).await.map(Arc::from),
            _ => Err(self.bug("a compressed cluster in an image that has none".into())),
        }
    }

    fn unpacked(&self) -> std::sync::MutexGuard<'_, Option<Unpacked>> {
        self.unpacked.lock().unwrap_or_else(PoisonError::into_inner)
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
        Ok(Walk { image: self, at: 0 })
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
}

impl Walk<'_> {
    /// The next data and where it is on the disk.
    async fn next(&mut self) -> Result<Option<(u64, Segment)>, Error> {
        while self.at < self.image.capacity {
            let at = self.at;
            let (_, found) = self.image.locate(at, self.image.capacity - at).await?;
            self.at += found.len;
            tokio::task::consume_budget().await;
            if found.place != Place::Zero {
                return Ok(Some((at, found)));
            }
        }
        Ok(None)
    }
}
