//! An image file of the host, opened where it is: here, or through libvirt.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;
use vmferry_block::LocalFile;
use vmferry_image::{ImageFormat, Source};

use super::read_ahead::ReadAhead;
use super::storage;
use crate::libvirt::volume::{RemoteVolume, described};
use crate::libvirt::xml::storage::VolumeXml;
use crate::libvirt::{Libvirt, local};
use crate::{Error, Kind};

/// Who names the file.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin<'a> {
    /// The domain: whoever administers the host. It may be a link, or a device.
    Domain,
    /// An image, by its path: anyone.
    Image(&'a str),
}

/// An open image file.
pub(super) struct Opened {
    pub source: Source,
    /// How it looks from outside: path, size, time of the last write in nanoseconds.
    pub stamp: String,
}

/// Opens the file at `path`, for reading. `disk` is what messages call the disk that it belongs to.
pub(super) async fn open(
    libvirt: &Libvirt,
    path: &str,
    format: ImageFormat,
    origin: Origin<'_>,
    disk: &str,
) -> Result<Opened, Error> {
    let object = match origin {
        Origin::Domain => format!("image {path} of {disk}"),
        Origin::Image(from) => format!("backing file {path} of {from} of {disk}"),
    };
    let volume = find_volume(libvirt, path, &object).await?;
    let may_be_here = match volume {
        Some(_) => libvirt.may_be_local(),
        None => libvirt.is_here().await?,
    };
    if may_be_here && let Some(file) = open_here(path, volume.clone(), origin, &object).await? {
        return local_file(file, path, format, &object).await;
    }
    let Some(volume) = volume else {
        return Err(Error::new(Kind::Unsupported, "read", object)
            .detail("it lies in no active storage pool of the host, and the host is not this machine, by its name and its processors")
            .remedy("define a pool for its folder (virsh pool-create-as), or start the VM"));
    };
    let remote = RemoteVolume::open(&libvirt.handle, path).await?;
    let mtime = volume.changed.as_ref().map_or("", |(mtime, _)| mtime.as_str());
    Ok(Opened {
        stamp: format!("{path} {} {mtime}", volume.file_bytes),
        source: Source::new(path, format, Arc::new(ReadAhead::new(Arc::new(remote)))),
    })
}

/// The volume at `path`, if it is one.
async fn find_volume(libvirt: &Libvirt, path: &str, object: &str) -> Result<Option<VolumeXml>, Error> {
    let wanted = path.to_owned();
    let find = libvirt.handle.call("find", object, move |connect| {
        match storage::volume(connect, &wanted)? {
            Some(volume) => volume.xml_desc(0).map(Some),
            None => Ok(None),
        }
    });
    find.await?.map(|text| described(object, &text)).transpose()
}

/// Opens a file of this machine: the very one that the host has. `None` where it is not, or not for us.
async fn open_here(
    path: &str,
    volume: Option<VolumeXml>,
    origin: Origin<'_>,
    object: &str,
) -> Result<Option<File>, Error> {
    let follow = matches!(origin, Origin::Domain);
    let wanted = path.to_owned();
    let open = tokio::task::spawn_blocking(move || match volume {
        // libvirt would follow it.
        Some(_) if !follow && is_link(Path::new(&wanted)) => Err(rustix::io::Errno::LOOP.into()),
        Some(volume) => Ok(local::open(&volume, false)),
        None => plain(Path::new(&wanted), follow).map(Some),
    });
    match open.await {
        Ok(Ok(file)) => Ok(file),
        Ok(Err(error)) => Err(open_fault(&error, object)),
        Err(panic) => Err(Error::new(Kind::Bug, "open", object).source(panic)),
    }
}

fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_symlink())
}

/// Opens a file outside of any pool. Links are followed only where the domain names them. Blocks.
fn plain(path: &Path, follow: bool) -> io::Result<File> {
    let flags = if follow {
        OFlags::NONBLOCK
    } else {
        OFlags::NONBLOCK | OFlags::NOFOLLOW
    };
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() || (follow && kind.is_block_device()) {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file"))
}

fn open_fault(error: &io::Error, object: &str) -> Error {
    let symlink = rustix::io::Errno::LOOP.raw_os_error();
    let (kind, remedy) = match error.kind() {
        io::ErrorKind::NotFound => (Kind::NotFound, "put the file back, or detach the disk"),
        io::ErrorKind::PermissionDenied => (
            Kind::Denied,
            "run vmferry as a user that may read it, or put it into a pool",
        ),
        _ if error.raw_os_error() == Some(symlink) => (Kind::Hostile, super::backing::REMEDY),
        io::ErrorKind::InvalidInput => (Kind::Hostile, super::backing::REMEDY),
        _ => (Kind::Failed, "look at the host's log"),
    };
    Error::new(kind, "open", object)
        .detail(error.to_string())
        .remedy(remedy)
}

async fn local_file(file: File, path: &str, format: ImageFormat, object: &str) -> Result<Opened, Error> {
    let fault = |error: io::Error| Error::new(Kind::Failed, "open", object).source(error);
    let seen = file.metadata().map_err(fault)?;
    let stamp = format!("{path} {} {}.{:09}", seen.len(), seen.mtime(), seen.mtime_nsec());
    let file = LocalFile::from_file(file).await.map_err(fault)?;
    let holes = match format {
        ImageFormat::Raw => Some(file.data_extents().await.map_err(fault)?),
        _ => None,
    };
    let mut source = Source::new(path, format, Arc::new(file));
    source.holes = holes;
    Ok(Opened { source, stamp })
}

/// The path of the same file below `folder`, where `path` leads there by another way (a linked folder, say). Only for files
/// of this machine.
pub(super) fn local_alias(libvirt: &Libvirt, path: &str, folder: &str) -> Option<String> {
    if !libvirt.may_be_local() || storage::folder(path) == folder {
        return None;
    }
    let (here, there) = (storage::folder(path), path.rsplit('/').next()?);
    let same = std::fs::canonicalize(here).ok()? == std::fs::canonicalize(folder).ok()?;
    same.then(|| format!("{folder}/{there}"))
}
