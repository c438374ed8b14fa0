//! Opening an image, wherever it lies.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;
use vmferry_block::{LocalFile, ReadAt};
use vmferry_image::{Image, ImageFormat, Limits, NoBacking, Source};

use super::args::Input;
use super::foreign::Server;
use super::format::{FRONT, Format};
use super::nbd::{self, Bytes};
use super::place::Place;
use super::pool::{Pool, name_of};
use super::store;
use crate::exit::Failure;

/// An open image.
pub struct Opened {
    /// Its content.
    pub image: Arc<Image>,
    /// Its format.
    pub format: Format,
    /// How messages call it.
    pub name: String,
    /// Length of its file or object, where it has one, in bytes.
    pub file_size: Option<u64>,
    /// Bytes that its file takes on the disk, where that is known.
    pub disk_usage: Option<u64>,
    /// The process that reads it, if one does.
    server: Option<Server>,
}

impl Opened {
    fn new(image: Image, format: Format, name: String) -> Self {
        Self {
            image: Arc::new(image),
            format,
            name,
            file_size: None,
            disk_usage: None,
            server: None,
        }
    }
}

/// Opens the image at `place`.
pub async fn open(place: &Place, input: &Input) -> Result<Opened, Failure> {
    let format = Format::of_place(place, input.format.as_deref(), "-f")?;
    let believed = input.format.is_some();
    match place {
        Place::File(path) => open_file(path, format, believed, input).await,
        Place::Nbd(export) => {
            let client = nbd::connect(export).await?;
            let name = place.to_string();
            match format {
                Format::Native(ImageFormat::Raw) => Ok(Opened::new(nbd::image(client, &name).await?, format, name)),
                Format::Native(native) => alone(Arc::new(Bytes(client)), native, name).await,
                Format::Foreign(_) => Err(only_files(place, format)),
            }
        }
        Place::Store(object) => match format {
            Format::Native(native) => {
                alone(store::read(object, &input.access).await?, native, object.url.clone()).await
            }
            Format::Foreign(_) => Err(only_files(place, format)),
        },
    }
}

/// Opens the file of a copy that was just written.
pub async fn open_copy(path: &Path, format: ImageFormat) -> Result<Image, Failure> {
    let cannot = |error: std::io::Error| Failure::failed(format!("cannot read {} back: {error}", path.display()));
    let file = LocalFile::open(path).await.map_err(cannot)?;
    let mut source = Source::new(name_of(path), format, Arc::new(file));
    source.holes = None;
    Image::open(source, &NoBacking, Limits::default())
        .await
        .map_err(Failure::failed)
}

/// An image that must be one file.
async fn alone(file: Arc<dyn ReadAt>, format: ImageFormat, name: String) -> Result<Opened, Failure> {
    let size = file.size();
    let source = Source::new(name.clone(), format, file);
    let image = Image::open(source, &NoBacking, Limits::default())
        .await
        .map_err(Failure::failed)?;
    let mut opened = Opened::new(image, Format::Native(format), name);
    opened.file_size = Some(size);
    Ok(opened)
}

async fn open_file(path: &Path, format: Format, believed: bool, input: &Input) -> Result<Opened, Failure> {
    let name = name_of(path);
    let cannot = |error: std::io::Error| Failure::failed(format!("cannot open image {name}: {error}"));
    let (file, front) = tokio::task::block_in_place(|| look(path)).map_err(cannot)?;
    check_look(&name, format, believed, &front)?;
    let found = file.metadata().map_err(cannot)?;
    let (image, server) = match format {
        Format::Native(native) => (open_native(path, file, native, input).await?, None),
        Format::Foreign(driver) => {
            let (server, image) = Server::open(file, driver, &name).await?;
            (image, Some(server))
        }
    };
    let mut opened = Opened::new(image, format, name);
    opened.file_size = found.is_file().then_some(found.len());
    opened.disk_usage = found.is_file().then_some(found.blocks() * 512);
    opened.server = server;
    Ok(opened)
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

async fn open_native(path: &Path, file: File, format: ImageFormat, input: &Input) -> Result<Image, Failure> {
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
    Image::open(source, &pool, Limits::default())
        .await
        .map_err(Failure::failed)
}

fn only_files(place: &Place, format: Format) -> Failure {
    Failure::bad_input(format!(
        "{place}: {format} is read by qemu-nbd, and that only from files; copy it to a file first"
    ))
}
