//! Opening an image, wherever it lies.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;
use vmferry_block::{LocalFile, ReadAt};
use vmferry_image::{Image, ImageFormat, Limits, NoBacking, Opener, Source};

use super::args::{Access, Input};
use super::foreign::Server;
use super::format::{FRONT, Format};
use super::nbd::{self, Bytes};
use super::place::{Object, Place};
use super::pool::{Pool, name_of};
use super::store;
use crate::exit::Failure;

/// An image that was found, and is not opened as a disk yet.
pub struct Located {
    /// Its format.
    pub format: Format,
    /// How messages call it.
    pub name: String,
    /// Bytes that its file takes on the disk, where that is known.
    pub disk_usage: Option<u64>,
    /// Its bytes.
    pub content: Content,
}

/// What an image consists of.
pub enum Content {
    /// A file that vmferry reads, and who opens the others that it names.
    File(Source, Box<dyn Opener>),
    /// A disk that another process reads.
    Disk(Arc<Image>, Option<Server>),
}

/// An image that is open as a disk.
pub struct Opened {
    /// Its content.
    pub image: Arc<Image>,
    /// Its format.
    pub format: Format,
    /// How messages call it.
    pub name: String,
    /// The process that reads it, if one does: it lives as long.
    _server: Option<Server>,
}

impl Located {
    /// Opens it as a disk, with all that it is made of.
    pub async fn disk(self) -> Result<Opened, Failure> {
        let (image, server) = match self.content {
            Content::File(source, opener) => {
                let image = Image::open(source, &*opener, Limits::default()).await;
                (Arc::new(image.map_err(Failure::failed)?), None)
            }
            Content::Disk(image, server) => (image, server),
        };
        Ok(Opened {
            image,
            format: self.format,
            name: self.name,
            _server: server,
        })
    }
}

/// Opens the image at `place` as a disk.
pub async fn open(place: &Place, input: &Input) -> Result<Opened, Failure> {
    locate(place, input).await?.disk().await
}

/// Finds the image at `place`.
pub async fn locate(place: &Place, input: &Input) -> Result<Located, Failure> {
    let format = Format::of_place(place, input.format.as_deref(), "-f")?;
    let name = place.to_string();
    let content = match (place, format) {
        (Place::File(path), _) => return locate_file(path, format, input).await,
        (_, Format::Foreign(_)) => return Err(only_files(place, format)),
        (Place::Nbd(export), Format::Native(native)) => {
            let client = nbd::connect(export).await?;
            match native {
                ImageFormat::Raw => Content::Disk(Arc::new(nbd::image(client, &name).await?), None),
                native => alone(Arc::new(Bytes(client)), native, &name),
            }
        }
        (Place::Store(object), Format::Native(native)) => {
            alone(store::read(object, &input.access).await?, native, &name)
        }
    };
    Ok(Located {
        format,
        name,
        disk_usage: None,
        content,
    })
}

/// Opens the file of a copy that was just written.
pub async fn open_copy(path: &Path, format: ImageFormat) -> Result<Image, Failure> {
    let cannot = |error: std::io::Error| Failure::failed(format!("cannot read {} back: {error}", path.display()));
    let file = LocalFile::open(path).await.map_err(cannot)?;
    let mut source = Source::new(name_of(path), format, Arc::new(file));
    source.holes = None;
    let image = Image::open(source, &NoBacking, Limits::default()).await;
    image.map_err(Failure::failed)
}

/// Opens the object of a copy that was just written.
pub async fn open_object(object: &Object, format: ImageFormat, access: &Access) -> Result<Arc<Image>, Failure> {
    let source = Source::new(object.url.clone(), format, store::read(object, access).await?);
    let image = Image::open(source, &NoBacking, Limits::default()).await;
    image.map(Arc::new).map_err(Failure::failed)
}

/// An image that must be one file.
fn alone(file: Arc<dyn ReadAt>, format: ImageFormat, name: &str) -> Content {
    Content::File(Source::new(name, format, file), Box::new(NoBacking))
}

async fn locate_file(path: &Path, format: Format, input: &Input) -> Result<Located, Failure> {
    let name = name_of(path);
    let cannot = |error: std::io::Error| Failure::failed(format!("cannot open image {name}: {error}"));
    let (file, front) = tokio::task::block_in_place(|| look(path)).map_err(cannot)?;
    check_look(&name, format, input.format.is_some(), &front)?;
    let found = file.metadata().map_err(cannot)?;
    let content = match format {
        Format::Native(native) => plain_file(path, file, native, input).await?,
        Format::Foreign(driver) => {
            let (server, image) = Server::open(file, driver, &name).await?;
            Content::Disk(Arc::new(image), Some(server))
        }
    };
    Ok(Located {
        format,
        name,
        disk_usage: found.is_file().then_some(found.blocks() * 512),
        content,
    })
}

/// Opens a file and reads its front. Opening a pipe does not wait for its other end.
fn look(path: &Path) -> std::io::Result<(File, Vec<u8>)> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let mut file = options.open(path)?;
    let kind = file.metadata()?.file_type();
    if !kind.is_file() && !std::os::unix::fs::FileTypeExt::is_block_device(&kind) {
        return Err(std::io::Error::other("it is neither a file nor a block device"));
    }
    let mut front = Vec::with_capacity(FRONT);
    file.by_ref().take(FRONT as u64).read_to_end(&mut front)?;
    std::io::Seek::rewind(&mut file)?;
    Ok((file, front))
}

/// Refuses an image whose content contradicts its format. Where a user says that it is raw, it is: a disk may hold anything.
fn check_look(name: &str, format: Format, believed: bool, front: &[u8]) -> Result<(), Failure> {
    let raw = format == Format::Native(ImageFormat::Raw);
    let found = match Format::looks_like(front) {
        Some(found) if found != format.as_str() && !(raw && believed) => found,
        _ => return Ok(()),
    };
    let said = if believed { "-f says" } else { "its name says" };
    let remedy = if raw {
        format!("give -f {found} if it is that, or -f raw if these are the plain bytes of a disk")
    } else {
        format!("give -f {found} if it is that")
    };
    Err(Failure::failed(format!(
        "cannot open image {name}: {said} {format}, and its content looks like {found}; {remedy}"
    )))
}

async fn plain_file(path: &Path, file: File, format: ImageFormat, input: &Input) -> Result<Content, Failure> {
    let cannot = |error: std::io::Error| Failure::failed(format!("cannot open image {}: {error}", path.display()));
    let unrecorded = match &input.backing_format {
        None => None,
        Some(name) => Some(name.parse().map_err(Failure::bad_input)?),
    };
    let pool = tokio::task::block_in_place(|| Pool::open(path, input.pool.as_deref(), unrecorded));
    let pool = pool.map_err(|error| match &input.pool {
        Some(folder) => Failure::bad_input(format!("--pool {}: {error}", folder.display())),
        None => cannot(error),
    })?;
    let file = LocalFile::from_file(file).await.map_err(cannot)?;
    let holes = match format {
        ImageFormat::Raw => Some(file.data_extents().await.map_err(cannot)?),
        ImageFormat::Qcow2 | ImageFormat::Vmdk => None,
    };
    let mut source = Source::new(name_of(path), format, Arc::new(file));
    source.holes = holes;
    Ok(Content::File(source, Box::new(pool)))
}

fn only_files(place: &Place, format: Format) -> Failure {
    Failure::bad_input(format!(
        "{place}: {format} is read by qemu-nbd, and that only from files; copy it to a file first"
    ))
}
