//! A hypervisor whose disks are files in a folder, and a store with one provider.

#![expect(clippy::unwrap_used, reason = "only tests are built from this")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use vmferry_api::{
    Key, MigrationStorage, Provider, ProviderSpec, ProviderType, Secret, StorageType, VMMigration, VirtualMachine,
};
use vmferry_block::{AllocationMap, Buf, LocalFile, LocalFileWriter, ReadAt as _};
use vmferry_engine::port::{Connector, Direction, DiskJob, Job, JobId, Store, StoreError};
use vmferry_provider::{
    Creation, DiskInput, DiskSink, DiskSource, Error, Firmware, Frozen, FrozenId, Hardware, Hypervisor, ImageFormat,
    Kind, Owner, PowerState, SourceHost, TargetHost, TargetPlan, Vm, VmId, VmSelector, VmSpec, Volume, VolumeId,
    VolumeSpec,
};
use vmferry_staging::StagingStore;
use vmferry_staging::nfs::MountedPath;

pub const MIB: u64 = 1 << 20;

pub fn provider_key() -> Key {
    Key::new("ns", "files")
}

/// An export of two disks.
pub fn job(capacity: u64) -> Job {
    let disk = |name: &str| DiskJob {
        name: name.to_owned(),
        capacity,
        object: format!("ns/vm/{name}.qcow2").parse().unwrap(),
        staged_format: ImageFormat::Qcow2,
        target: None,
    };
    Job {
        id: JobId("export-1".to_owned()),
        migration: Key::new("ns", "vm"),
        owner: Owner::new("uid-1"),
        direction: Direction::Export {
            provider: provider_key(),
            vm: VmSelector {
                id: None,
                name: "vm".to_owned(),
            },
            frozen: FrozenId("frozen-1".to_owned()),
        },
        storage: MigrationStorage {
            storage_type: StorageType::Nfs,
            bucket: None,
            region: None,
            endpoint: None,
            path: None,
            credentials_secret_ref: None,
        },
        bandwidth_limit: None,
        disks: vec![disk("vda"), disk("vdb")],
    }
}

/// The folder, and what goes wrong in it.
pub struct Files {
    folder: tempfile::TempDir,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    reads: AtomicUsize,
    delay_micros: AtomicU64,
    is_lost: AtomicBool,
    /// Whether the second disk's volume gives nothing back.
    is_sealed: AtomicBool,
}

impl Files {
    pub fn new(capacity: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("staging")).unwrap();
        for (seed, disk) in [(3u64, "vda"), (5, "vdb")] {
            let words = (0..capacity / 8).map(|at| (at * seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
            std::fs::write(folder.path().join(disk), bytes).unwrap();
        }
        Self {
            folder,
            state: Arc::default(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub fn connector(&self) -> Arc<dyn Connector> {
        Arc::new(self.host())
    }

    pub fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.host())
    }

    pub fn slow(&self, delay: Duration) {
        self.state
            .delay_micros
            .store(delay.as_micros() as u64, Ordering::Relaxed);
    }

    pub fn lose_frozen_state(&self, lost: bool) {
        self.state.is_lost.store(lost, Ordering::Relaxed);
    }

    pub fn seal_second_volume(&self) {
        self.state.is_sealed.store(true, Ordering::Relaxed);
    }

    pub fn reads(&self) -> usize {
        self.state.reads.load(Ordering::Relaxed)
    }

    /// Blocks that the staging folder holds.
    pub fn staged_bytes(&self) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        let Ok(folder) = std::fs::read_dir(self.path("staging/ns/vm")) else {
            return 0;
        };
        folder.map(|entry| entry.unwrap().metadata().unwrap().blocks()).sum()
    }

    fn host(&self) -> Host {
        Host {
            folder: self.folder.path().to_owned(),
            state: Arc::clone(&self.state),
        }
    }
}

#[derive(Clone)]
struct Host {
    folder: PathBuf,
    state: Arc<State>,
}

fn fault(kind: Kind, detail: &str) -> Error {
    Error::new(kind, "use", "the test's host").detail(detail)
}

fn io(error: std::io::Error) -> Error {
    Error::new(Kind::Failed, "use", "the test's disk").source(error)
}

fn unused<T>() -> Result<T, Error> {
    Err(fault(Kind::Unsupported, "no job asks for that"))
}

#[async_trait]
impl Connector for Host {
    async fn hypervisor(&self, _: &Provider, _: Option<&Secret>) -> Result<Arc<dyn Hypervisor>, Error> {
        Ok(Arc::new(self.clone()))
    }
    async fn staging(
        &self,
        storage: &MigrationStorage,
        _: Option<&Secret>,
    ) -> Result<Arc<dyn StagingStore>, vmferry_staging::Error> {
        let default = self.folder.join("staging");
        Ok(Arc::new(MountedPath::new(
            storage.path.clone().map_or(default, PathBuf::from),
        )?))
    }
}

#[async_trait]
impl Store for Host {
    async fn migration(&self, _: &Key) -> Result<Option<VMMigration>, StoreError> {
        Ok(None)
    }
    async fn migrations(&self) -> Result<Vec<VMMigration>, StoreError> {
        Ok(Vec::new())
    }
    async fn save(&self, _: &VMMigration) -> Result<(), StoreError> {
        Ok(())
    }
    async fn virtual_machine(&self, _: &Key) -> Result<Option<VirtualMachine>, StoreError> {
        Ok(None)
    }
    async fn create_virtual_machine(&self, _: &VirtualMachine) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn provider(&self, key: &Key) -> Result<Option<Provider>, StoreError> {
        let spec = ProviderSpec {
            provider_type: ProviderType::Libvirt,
            endpoint: String::new(),
            credential_secret_ref: None,
            insecure_skip_verify: None,
            defaults: None,
            other: std::collections::BTreeMap::default(),
        };
        Ok((*key == provider_key()).then(|| Provider::new(&key.name, spec)))
    }
    async fn secret(&self, _: &Key) -> Result<Option<Secret>, StoreError> {
        Ok(None)
    }
}

#[async_trait]
impl Hypervisor for Host {
    fn describe(&self) -> String {
        "the test's host".to_owned()
    }
    async fn check(&self) -> Result<(), Error> {
        Ok(())
    }
    async fn find_vm(&self, vm: &VmSelector) -> Result<Vm, Error> {
        Ok(Vm {
            id: VmId(vm.name.clone()),
            name: vm.name.clone(),
            power: PowerState::Off,
            hardware: Hardware {
                firmware: Firmware::Bios,
                machine: None,
                arch: "x86_64".to_owned(),
                accel: None,
                vcpus: 1,
                cpu_model: None,
                memory_bytes: MIB,
                disks: Vec::new(),
                nics: Vec::new(),
                guest_agent: false,
                guest_os: None,
            },
        })
    }
}

#[async_trait]
impl SourceHost for Host {
    async fn check_source(&self, _: &Vm) -> Result<(), Error> {
        unused()
    }
    async fn freeze(&self, _: &Vm, _: &Owner, _: bool) -> Result<Frozen, Error> {
        unused()
    }
    async fn frozen(&self, _: &Vm, _: &Owner) -> Result<Option<Frozen>, Error> {
        unused()
    }
    async fn release(&self, _: &VmSelector, _: &Owner, _: bool) -> Result<(), Error> {
        unused()
    }
    async fn open_disk(&self, _: &Vm, frozen: &FrozenId, disk: &str) -> Result<DiskInput, Error> {
        assert_eq!(frozen.0, "frozen-1");
        self.open(disk).await.map(DiskInput::Random)
    }
    async fn delete_source(&self, _: &VmSelector) -> Result<(), Error> {
        unused()
    }
}

#[async_trait]
impl TargetHost for Host {
    fn native_format(&self) -> ImageFormat {
        ImageFormat::Raw
    }
    fn formats(&self) -> &'static [ImageFormat] {
        &[ImageFormat::Raw]
    }
    async fn check_target(&self, _: &TargetPlan, _: &Owner) -> Result<(), Error> {
        unused()
    }
    async fn create_volume(&self, _: &VolumeSpec, _: &Owner) -> Result<Volume, Error> {
        unused()
    }
    async fn open_sink(
        &self,
        volume: &VolumeId,
        owner: &Owner,
        _: u64,
        _: Option<vmferry_block::Digest>,
    ) -> Result<Arc<dyn DiskSink>, Error> {
        assert_eq!(owner.uid, "uid-1");
        let path = self.folder.join(&volume.0);
        // From the front, whatever it held before.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        Ok(Arc::new(File(LocalFileWriter::create_new(path).await.map_err(io)?)))
    }
    fn reads_back(&self, volume: &VolumeId) -> bool {
        !(volume.0.starts_with("vdb") && self.state.is_sealed.load(Ordering::Relaxed))
    }
    async fn open_volume(&self, volume: &VolumeId, _: ImageFormat) -> Result<Arc<dyn DiskSource>, Error> {
        assert!(self.reads_back(volume), "{volume:?} was to be read");
        self.open(&volume.0).await
    }
    async fn delete_volume(&self, _: &VolumeSpec, _: &Owner) -> Result<(), Error> {
        unused()
    }
    async fn create_vm(&self, _: &VmSpec, _: &Owner) -> Result<Creation, Error> {
        unused()
    }
    async fn set_power(&self, _: &VmId, _: &Owner, _: PowerState) -> Result<(), Error> {
        unused()
    }
    async fn delete_created(&self, _: &str, _: &Owner) -> Result<(), Error> {
        unused()
    }
}

impl Host {
    async fn open(&self, name: &str) -> Result<Arc<dyn DiskSource>, Error> {
        let file = LocalFile::open(self.folder.join(name)).await.map_err(io)?;
        let state = Arc::clone(&self.state);
        Ok(Arc::new(Disk { file, state }))
    }
}

struct Disk {
    file: LocalFile,
    state: Arc<State>,
}

#[async_trait]
impl DiskSource for Disk {
    fn capacity(&self) -> u64 {
        self.file.size()
    }
    async fn map(&self) -> Result<AllocationMap, Error> {
        self.file.data_extents().await.map_err(io)
    }
    async fn read(&self, offset: u64, buf: Buf) -> Result<Buf, Error> {
        let delay = self.state.delay_micros.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_micros(delay)).await;
        self.state.reads.fetch_add(1, Ordering::Relaxed);
        self.file.read_at(offset, buf).await.map_err(io)
    }
    async fn finish(&self) -> Result<(), Error> {
        if self.state.is_lost.load(Ordering::Relaxed) {
            return Err(fault(Kind::FrozenStateGone, "the job ended"));
        }
        Ok(())
    }
}

struct File(LocalFileWriter);

#[async_trait]
impl DiskSink for File {
    fn concurrency(&self) -> usize {
        4
    }
    async fn write(&self, offset: u64, buf: Buf) -> Result<(), Error> {
        self.0.write_at(offset, buf).await.map_err(io)
    }
    async fn finish(&self, len: u64) -> Result<(), Error> {
        self.0.set_len(len).await.map_err(io)?;
        self.0.sync().await.map_err(io)
    }
}
