//! The disks of a VM that is shut off: its image files, backing chains included.
//!
//! Nothing is frozen, as nobody writes. The state's name is a digest over what the files look like from outside, so files
//! that changed, or a VM that was started, make it another state.
//!
//! A block device looks as before after a VM ran on it, and libvirt does not count how often a domain was started. What can be
//! seen is that it runs, which is looked for while it is read, and that it was stopped in another way than before.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_lc_rs::digest;
use vmferry_block::{AllocationMap, Buf};
use vmferry_image::{BackingRef, Error as ImageError, Image, Kind as ImageKind, Limits, Opener, Source};

use super::backing;
use super::domain::{Domain, DomainDisk};
use super::export::gone;
use super::file::{self, Origin};
use super::storage::folder;
use crate::libvirt::Libvirt;
use crate::libvirt::volume::{ImageDisk, image_fault};
use crate::{DiskSource, Error, FrozenId, ImageFormat, Kind, PowerState, VmSelector};

/// How often it is looked whether the VM runs: more seldom than one can be started and shut down again.
const LOOK: Duration = Duration::from_secs(5);

/// Refuses a VM that only looks as if it were shut off: what its guest has not written yet is in the saved memory.
fn check_saved(domain: &Domain) -> Result<(), Error> {
    if !domain.is_saved {
        return Ok(());
    }
    Err(
        Error::new(Kind::Unsupported, "read the disks of", domain.object.clone())
            .detail("its memory is saved (virsh managedsave), so its disks alone are not what its guest left")
            .remedy("start it, and move it running or shut it down; or give up its memory (virsh managedsave-remove)"),
    )
}

/// The state of all of the VM's disks.
pub(super) async fn state(libvirt: &Libvirt, domain: &Domain) -> Result<FrozenId, Error> {
    check_saved(domain)?;
    let mut hash = digest::Context::new(&digest::SHA256);
    for disk in &domain.disks {
        hash.update(format!("disk {}\n", disk.model.name).as_bytes());
        for stamp in open_chain(libvirt, domain, disk).await?.1 {
            hash.update(format!("{stamp}\n").as_bytes());
        }
        if disk.is_block {
            hash.update(format!("stopped {}\n", domain.reason).as_bytes());
        }
    }
    let digest = hash.finish();
    // 128 bits are plenty to tell states apart.
    let number = digest
        .as_ref()
        .iter()
        .take(16)
        .fold(0, |number: u128, &byte| number << 8 | u128::from(byte));
    Ok(FrozenId(format!("{}{number:032x}", FrozenId::OFFLINE)))
}

/// Checks that every disk's chain can be read and may be followed.
pub(super) async fn check(libvirt: &Libvirt, domain: &Domain) -> Result<(), Error> {
    check_saved(domain)?;
    for disk in &domain.disks {
        open_chain(libvirt, domain, disk).await?;
    }
    Ok(())
}

/// Opens a disk in the state `frozen`.
pub(super) async fn open(
    libvirt: &Libvirt,
    domain: &Domain,
    vm: &VmSelector,
    frozen: &FrozenId,
    disk: &str,
) -> Result<Offline, Error> {
    let watch = Watch {
        libvirt: libvirt.clone(),
        vm: vm.clone(),
        frozen: frozen.clone(),
        last: Mutex::new(Instant::now()),
    };
    watch.compare(domain).await?;
    let (image, _) = open_chain(libvirt, domain, domain.disk(disk)?).await?;
    let object = format!("disk {disk:?} of {}", domain.object);
    Ok(Offline {
        disk: ImageDisk::new(image, object),
        watch,
    })
}

/// A disk of a VM that is shut off.
pub(super) struct Offline {
    disk: ImageDisk,
    watch: Watch,
}

/// What must not change while it is read.
struct Watch {
    libvirt: Libvirt,
    vm: VmSelector,
    frozen: FrozenId,
    /// When it was looked last.
    last: Mutex<Instant>,
}

impl Watch {
    /// Ends the reading of a VM that runs, once in a while.
    async fn look(&self) -> Result<(), Error> {
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() < LOOK {
                return Ok(());
            }
            *last = Instant::now();
        }
        let runs = self
            .libvirt
            .with_domain("look at", &self.vm, |_, domain| domain.is_active());
        match runs.await {
            Ok(true) => Err(gone(&self.vm.name, &self.frozen, "the VM was started")),
            Ok(false) => Ok(()),
            Err(error) => {
                // Whoever reads it does not need the daemon, and without it nobody starts a VM.
                tracing::debug!(vm = self.vm.name, %error, "cannot look whether the VM runs");
                Ok(())
            }
        }
    }

    async fn compare(&self, domain: &Domain) -> Result<(), Error> {
        if domain.power == PowerState::On || domain.is_saved {
            return Err(gone(&domain.object, &self.frozen, "the VM was started"));
        }
        if state(&self.libvirt, domain).await? != self.frozen {
            return Err(gone(&domain.object, &self.frozen, "its image files have changed"));
        }
        Ok(())
    }
}

#[async_trait]
impl DiskSource for Offline {
    fn capacity(&self) -> u64 {
        self.disk.capacity()
    }

    async fn map(&self) -> Result<AllocationMap, Error> {
        self.disk.map().await
    }

    async fn read(&self, offset: u64, buf: Buf) -> Result<Buf, Error> {
        self.watch.look().await?;
        self.disk.read(offset, buf).await
    }

    async fn finish(&self) -> Result<(), Error> {
        let domain = Domain::read(&self.watch.libvirt, &self.watch.vm).await?;
        self.watch.compare(&domain).await
    }
}

/// Opens a disk's image with its chain. Also how each file looks from outside.
async fn open_chain(libvirt: &Libvirt, domain: &Domain, disk: &DomainDisk) -> Result<(Image, Vec<String>), Error> {
    let object = format!("disk {:?} of {}", disk.model.name, domain.object);
    let top = file::open(libvirt, &disk.path, disk.model.format, Origin::Domain, &object).await?;
    let chain = Chain {
        libvirt,
        object: &object,
        folder: folder(&disk.path),
        files: Mutex::new(vec![(disk.path.clone(), top.stamp)]),
        refusal: Mutex::new(None),
    };
    let image = match Image::open(top.source, &chain, Limits::default()).await {
        Ok(image) => image,
        Err(error) => {
            let refusal = chain.refusal.into_inner().unwrap_or_else(PoisonError::into_inner);
            return Err(refusal.unwrap_or_else(|| image_fault("open", &object, error).remedy(backing::REMEDY)));
        }
    };
    let files = chain.files.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((image, files.into_iter().map(|(_, stamp)| stamp).collect()))
}

/// Opens the backing files of one disk, where the rules of [`backing`] allow it.
struct Chain<'a> {
    libvirt: &'a Libvirt,
    object: &'a str,
    folder: &'a str,
    /// Path and looks of what was opened so far.
    files: Mutex<Vec<(String, String)>>,
    /// Why one was refused, in full.
    refusal: Mutex<Option<Error>>,
}

impl Chain<'_> {
    fn allowed(&self, backing: &BackingRef) -> Result<(String, ImageFormat), String> {
        let path = backing::resolve(&backing.from, &backing.path)?;
        let path = file::local_alias(self.libvirt, &path, self.folder).unwrap_or(path);
        backing::check_folder(&path, self.folder)?;
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if files.iter().any(|(opened, _)| *opened == path) {
            return Err("the chain is a loop".to_owned());
        }
        match backing.format.as_deref().map(str::parse) {
            Some(Ok(format @ (ImageFormat::Raw | ImageFormat::Qcow2))) => Ok((path, format)),
            Some(_) => Err("its format is not raw or qcow2".to_owned()),
            None => Err("its format is not recorded, and guessing it could be led astray".to_owned()),
        }
    }

    async fn open(&self, backing: &BackingRef) -> Result<Source, Error> {
        let (path, format) = self
            .allowed(backing)
            .map_err(|why| backing::hostile(self.object, &backing.from, &backing.path, &why))?;
        let origin = Origin::Image(&backing.from);
        let opened = file::open(self.libvirt, &path, format, origin, self.object).await?;
        self.files
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((path, opened.stamp));
        Ok(opened.source)
    }
}

#[async_trait]
impl Opener for Chain<'_> {
    async fn open_backing(&self, backing: &BackingRef) -> Result<Source, ImageError> {
        self.open(backing).await.map_err(|error| {
            let kind = match error.kind() {
                Kind::Hostile => ImageKind::Hostile,
                Kind::NotFound => ImageKind::Missing,
                _ => ImageKind::Io,
            };
            let short =
                ImageError::new(kind, "open", format!("backing file {:?}", backing.path)).detail(error.to_string());
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            short
        })
    }
}
