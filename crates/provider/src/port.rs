//! The ports of this crate.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use vmferry_block::{AllocationMap, Buf, Digest};

use crate::{Error, ImageFormat, Owner, PowerState, Vm, VmId, VmSelector};

/// A hypervisor, as source and as target.
#[async_trait]
pub trait Hypervisor: SourceHost + TargetHost {
    /// How messages name it: kind and endpoint, never a credential.
    fn describe(&self) -> String;

    /// Whether it answers and accepts the credentials.
    async fn check(&self) -> Result<(), Error>;

    /// Finds a VM and reads its hardware. [`NotFound`](crate::Kind::NotFound) where there is none.
    async fn find_vm(&self, vm: &VmSelector) -> Result<Vm, Error>;

    /// The IP addresses by which others reach a VM's guest, as far as somebody tells the host: its guest agent, or who leased them.
    /// None of the loopback and no link-local ones. None at all where the VM does not run, or has no such agent.
    ///
    /// An error where it could not be found out this time, as while an agent hangs: then what was known before may still be so.
    async fn addresses(&self, vm: &VmId) -> Result<Vec<IpAddr>, Error> {
        let _ = vm;
        Ok(Vec::new())
    }
}

/// A frozen, consistent state of a VM's disks: a backup job, a snapshot, or the files of a VM that is shut off.
///
/// Two equal ids are the same point in time, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FrozenId(pub String);

impl FrozenId {
    /// What the id of a state begins with that nothing holds but that nobody writes: the disks of a VM that is shut off. It is
    /// the same for as long as they are, and can be asked for after its release, too.
    pub const OFFLINE: &str = "offline-";

    /// Whether it is the state of a VM that was shut off.
    pub fn is_offline(&self) -> bool {
        self.0.starts_with(Self::OFFLINE)
    }
}

/// A frozen state and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// Its id: the `snapshotId` of the status.
    pub id: FrozenId,
    /// One sentence for the event: `pull-mode backup job …, file systems frozen by the guest agent`.
    pub detail: String,
}

/// The side that a VM leaves.
#[async_trait]
pub trait SourceHost: Send + Sync {
    /// Refuses, before anything is made, what could not be exported: unsupported disks, a missing or hostile backing file.
    async fn check_source(&self, vm: &Vm) -> Result<(), Error>;

    /// Freezes the VM's disks, or finds the state that was frozen for `owner` before and still holds.
    ///
    /// `keep` says that the snapshot is to outlive the migration, where the hypervisor can do that.
    async fn freeze(&self, vm: &Vm, owner: &Owner, keep: bool) -> Result<Frozen, Error>;

    /// The state frozen for `owner` that still holds, if any.
    async fn frozen(&self, vm: &Vm, owner: &Owner) -> Result<Option<Frozen>, Error>;

    /// Ends what was frozen for `owner` and removes all that came with it (job, scratch files, sockets; the snapshot too
    /// unless `keep`). Nothing to do is success, and so is a VM that is gone.
    async fn release(&self, vm: &VmSelector, owner: &Owner, keep: bool) -> Result<(), Error>;

    /// Opens a disk in the frozen state. [`FrozenStateGone`](crate::Kind::FrozenStateGone) where it does not hold any more. It
    /// takes hold of nothing at the hypervisor before the first read.
    async fn open_disk(&self, vm: &Vm, frozen: &FrozenId, disk: &str) -> Result<DiskInput, Error>;

    /// Deletes the VM and its disks: only for `deleteSource: true`, after the target was validated. Gone is success.
    async fn delete_source(&self, vm: &VmSelector) -> Result<(), Error>;
}

/// How a disk of a frozen state can be read. A hypervisor has one way for all its disks.
pub enum DiskInput {
    /// At any offset.
    Random(Arc<dyn DiskSource>),
    /// Once, from front to back, as a file that the hypervisor makes of it.
    Stream(Box<dyn DiskStream>),
}

impl DiskInput {
    /// Virtual size of the disk in bytes.
    pub fn capacity(&self) -> u64 {
        match self {
            Self::Random(source) => source.capacity(),
            Self::Stream(stream) => stream.capacity(),
        }
    }

    /// The disk, where it can be read at any offset.
    pub fn into_random(self) -> Option<Arc<dyn DiskSource>> {
        match self {
            Self::Random(source) => Some(source),
            Self::Stream(_) => None,
        }
    }
}

/// A disk as a streamOptimized VMDK that the hypervisor makes while it is read. Nobody knows its length beforehand, and reading
/// it a second time may give other bytes of the same content.
#[async_trait]
pub trait DiskStream: Send {
    /// Virtual size of the disk in bytes.
    fn capacity(&self) -> u64;

    /// The most bytes that the file can have, as near as the hypervisor can tell: parts in staging are cut by it.
    fn most(&self) -> u64 {
        most_of(self.capacity())
    }

    /// Fills `buf` with the next bytes of the file and gives it back: shorter than it was only at the end of the file, empty
    /// behind it. An answer that ends early is an error, where the hypervisor's protocol can tell.
    async fn read(&mut self, buf: Buf) -> Result<Buf, Error>;

    /// Called once after the last read: whether the hypervisor says that it sent all, and the frozen state held all through. A
    /// copy is good only when it says so. Dropped without it, the reading is called off at the hypervisor.
    async fn finish(self: Box<Self>) -> Result<(), Error>;
}

/// The most bytes that the streamOptimized VMDK of a disk of so many bytes has.
pub(crate) fn most_of(capacity: u64) -> u64 {
    // Data that cannot be packed takes less than a sector in a grain more.
    capacity.saturating_add(capacity / 64 + (1 << 20))
}

/// A disk that can be read at any offset, by several tasks at once.
#[async_trait]
pub trait DiskSource: Send + Sync {
    /// Virtual size in bytes.
    fn capacity(&self) -> u64;

    /// Which parts hold data.
    async fn map(&self) -> Result<AllocationMap, Error>;

    /// Fills the whole of `buf` from `offset` and gives it back.
    async fn read(&self, offset: u64, buf: Buf) -> Result<Buf, Error>;

    /// Called once after the last read: whether the frozen state held all through. A copy is good only when it says so.
    async fn finish(&self) -> Result<(), Error>;
}

/// What is to be made at the target, for checking beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetPlan {
    /// Name of the VM to be made.
    pub name: String,
    /// Where its disks go (libvirt: a pool); `None` is the provider's default.
    pub storage: Option<String>,
    /// Its disks.
    pub disks: Vec<VolumeSpec>,
    /// What its network interfaces will be attached to.
    pub attachments: Vec<crate::NicAttachment>,
}

/// A volume to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// Position among the VM's disks, from 0.
    pub index: u32,
    /// Name of the VM that it is for.
    pub vm_name: String,
    /// Where it goes (libvirt: a pool); `None` is the provider's default.
    pub storage: Option<String>,
    /// Format of the file.
    pub format: ImageFormat,
    /// Virtual size in bytes.
    pub capacity: u64,
}

/// The hypervisor's own name of a volume (libvirt: `pool/volume`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VolumeId(pub String);

/// A volume of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its id.
    pub id: VolumeId,
    /// Its format.
    pub format: ImageFormat,
}

/// A volume file that is written from front to back.
#[async_trait]
pub trait DiskSink: Send + Sync {
    /// How many writes may be under way at once. At 1, they come in ascending order and each waits for the one before.
    fn concurrency(&self) -> usize;

    /// Writes `buf` at `offset` of the *file* (the container, with its header and tables), never past the length that is
    /// later given to [`finish`](Self::finish). What is never written reads as zeros.
    async fn write(&self, offset: u64, buf: Buf) -> Result<(), Error>;

    /// Makes durable what was written up to now, so that a later process can go on behind it
    /// ([`TargetHost::reopen_sink`]). `false` where this provider has no such thing; then nothing is done.
    async fn flush(&self) -> Result<bool, Error> {
        Ok(false)
    }

    /// Makes the file `len` bytes long and durable.
    async fn finish(&self, len: u64) -> Result<(), Error>;
}

/// A VM to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSpec {
    /// Its name.
    pub name: String,
    /// What it is made of, hints applied.
    pub hardware: crate::Hardware,
    /// Its volumes, one for each disk of the hardware, in the same order.
    pub disks: Vec<TargetDisk>,
}

/// A volume that becomes a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetDisk {
    /// The volume.
    pub volume: VolumeId,
    /// Its format.
    pub format: ImageFormat,
}

/// A VM that we made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedVm {
    /// Its id.
    pub id: VmId,
    /// Its name.
    pub name: String,
}

/// How a target takes in what is staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intake {
    /// As a volume file of the target's format and size, laid out here.
    File,
    /// As the staged object is, byte for byte, front to back; the host makes a disk of it and grows it where that is asked for.
    /// These are the formats that it takes, the best first.
    Object(&'static [ImageFormat]),
}

/// A staged object that a host may fetch by itself.
#[derive(Debug, Clone)]
pub struct Pull {
    /// Where it is; whoever has this URL can read the object until it expires.
    pub url: SecretString,
    /// Its length in bytes.
    pub len: u64,
    /// Its SHA-256.
    pub checksum: Digest,
}

/// How far a VM to be made is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Creation {
    /// It is made.
    Done(CreatedVm),
    /// The host is at it, for as long as copying a disk takes: the same call later says how far it is. What is being done, in
    /// words, for the status.
    UnderWay(String),
}

impl Creation {
    /// The VM, where it is made.
    pub fn done(self) -> Option<CreatedVm> {
        match self {
            Self::Done(created) => Some(created),
            Self::UnderWay(_) => None,
        }
    }
}

/// The side at which a VM arrives.
#[async_trait]
pub trait TargetHost: Send + Sync {
    /// The format that its disks have unless another is asked for.
    fn native_format(&self) -> ImageFormat;

    /// The formats that its disks can have.
    fn formats(&self) -> &'static [ImageFormat];

    /// How it takes in what is staged.
    fn intake(&self) -> Intake {
        Intake::File
    }

    /// Refuses, before anything is made, what could not be made: pool, space, format, networks, the name. A VM of that name
    /// that carries `owner` is no obstacle.
    async fn check_target(&self, plan: &TargetPlan, owner: &Owner) -> Result<(), Error>;

    /// Makes an empty volume, or finds the one that was made for `owner` before.
    async fn create_volume(&self, spec: &VolumeSpec, owner: &Owner) -> Result<Volume, Error>;

    /// Has the host fetch a staged object into a volume of `owner` by itself, checked against its SHA-256, and waits until it has.
    /// `false`, and nothing is changed, where this host cannot, or cannot reach the object: then the bytes are brought to
    /// [`open_sink`](Self::open_sink). Only for [`Intake::Object`]. After `cancel` nothing moves any more when it returns.
    async fn pull(
        &self,
        volume: &VolumeId,
        owner: &Owner,
        object: &Pull,
        cancel: &CancellationToken,
    ) -> Result<bool, Error> {
        let _ = (volume, owner, object, cancel);
        Ok(false)
    }

    /// Opens a volume of `owner` for writing, from the front, whatever it held before. `len` is the length of the volume's file,
    /// or of the staged object where the [`intake`](Self::intake) is that; then writes come in ascending order without gaps,
    /// whatever [`concurrency`](DiskSink::concurrency) says, and a sink that is dropped before its `finish` leaves nothing.
    ///
    /// `checksum` is the SHA-256 of the staged object, `None` where a volume's file is laid out here. A host that can compare
    /// does so: then `finish` fails where something else arrived.
    async fn open_sink(
        &self,
        volume: &VolumeId,
        owner: &Owner,
        len: u64,
        checksum: Option<Digest>,
    ) -> Result<Arc<dyn DiskSink>, Error>;

    /// Opens a volume of `owner` that an earlier sink of the same `len` has written the first `kept` bytes of, for going on
    /// behind them; what lies there now is discarded. `None`, and nothing is changed, where this provider cannot do that, or
    /// where the volume's file is not as that sink left it.
    async fn reopen_sink(
        &self,
        volume: &VolumeId,
        owner: &Owner,
        len: u64,
        kept: u64,
    ) -> Result<Option<Arc<dyn DiskSink>>, Error> {
        let _ = (volume, owner, len, kept);
        Ok(None)
    }

    /// Whether this volume can be read back ([`open_volume`](Self::open_volume)).
    fn reads_back(&self, volume: &VolumeId) -> bool {
        let _ = volume;
        true
    }

    /// Opens a volume for reading its content back.
    async fn open_volume(&self, volume: &VolumeId, format: ImageFormat) -> Result<Arc<dyn DiskSource>, Error>;

    /// Deletes a volume of `owner`, and no other. Gone is success.
    async fn delete_volume(&self, spec: &VolumeSpec, owner: &Owner) -> Result<(), Error>;

    /// Defines the VM, not started, or finds the one that was made for `owner` before, and finishes it where that was cut short.
    /// Disks have the capacity of `spec.hardware`, which may be more than what was imported. When it is done, nothing is left of
    /// what was only needed for the import. [`NameTaken`](crate::Kind::NameTaken) where the name is another's.
    async fn create_vm(&self, spec: &VmSpec, owner: &Owner) -> Result<Creation, Error>;

    /// Starts or stops a VM of `owner`, and waits until it is so.
    async fn set_power(&self, vm: &VmId, owner: &Owner, power: PowerState) -> Result<(), Error>;

    /// Deletes the VM of that name (stopping it first) if it carries `owner`, and no other, half made or whole. Its volumes may go
    /// with it. Gone is success.
    async fn delete_created(&self, name: &str, owner: &Owner) -> Result<(), Error>;
}
