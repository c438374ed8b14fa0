//! A cluster, a migration to it, and the server that a node fetches from.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use secrecy::SecretString;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use vmferry_block::{Buf, Digest};
use vmferry_provider::credentials::Credentials;
use vmferry_provider::proxmox::{self, Config, Ssh};
use vmferry_provider::{
    Accel, CreatedVm, Creation, Disk, DiskBus, DiskSink, Error, Firmware, Hardware, ImageFormat, Nic, NicAttachment,
    Owner, Pull, ScsiController, TargetDisk, TargetHost, TargetPlan, VmSpec, VolumeId, VolumeSpec,
};
use vmferry_testkit::proxmox::{Options, Proxmox, Version};
use vmferry_testkit::{Format, MIB, image};

pub const NAME: &str = "web-1";

/// How long a node may take to see that a connection is gone, and to end what served it.
const SETTLING: Duration = Duration::from_secs(10);

pub fn owner() -> Owner {
    Owner::new("0f4b5c6d-7e8f-4a0b-9c1d-2e3f40516273")
}

/// A cluster and a disk that comes to it.
pub struct Site {
    pub cluster: Proxmox,
    pub folder: TempDir,
    pub config: Config,
}

impl Site {
    pub fn new(version: Version) -> Self {
        Self::with(&Options::new(version))
    }

    pub fn with(options: &Options) -> Self {
        let cluster = Proxmox::start(options);
        let mut config = Config {
            endpoint: cluster.url(),
            credentials: Credentials {
                token_id: Some(Proxmox::TOKEN.0.to_owned()),
                token_secret: Some(SecretString::from(Proxmox::TOKEN.1)),
                fingerprint: Some(cluster.fingerprint().to_owned()),
                ..Credentials::default()
            },
            insecure: false,
            node: Some("pve1".to_owned()),
            storage: Some(Proxmox::LOCAL.to_owned()),
            import_storage: None,
            bridge: None,
            ssh: Ssh {
                port: cluster.ssh_port(),
                ..Ssh::default()
            },
            shared: None,
        };
        if options.ssh {
            config.credentials.ssh_private_key = Some(SecretString::from(cluster.ssh_key()));
            config.credentials.known_hosts = Some(cluster.known_hosts());
        }
        Self {
            cluster,
            folder: TempDir::new().unwrap(),
            config,
        }
    }

    pub async fn host(&self) -> proxmox::Proxmox {
        proxmox::Proxmox::connect(self.config.clone()).await.unwrap()
    }

    /// An image with something in it.
    pub fn image(&self, name: &str, format: Format) -> PathBuf {
        let path = self.folder.path().join(name);
        image::create(&path, format, 8 * MIB);
        image::write_pattern(&path, format, MIB, 2 * MIB, name.bytes().next().unwrap());
        path
    }

    /// Nothing was asked that is not of the official API.
    #[track_caller]
    pub fn assert_sound(&self) {
        assert_eq!(self.cluster.violations(), Vec::<String>::new());
        assert_eq!(self.cluster.spool(), Vec::<String>::new());
    }

    /// Nothing of ours is there.
    #[track_caller]
    pub fn assert_empty(&self) {
        self.cluster.settle();
        self.assert_is_there(&[]);
        self.assert_sound();
    }

    /// VMs and their volumes are there, and nothing else.
    #[track_caller]
    pub fn assert_only_vms(&self) {
        let others = |lines: Vec<String>| {
            lines
                .into_iter()
                .filter(|line| !line.starts_with("vm ") && !line.starts_with("volume "))
        };
        let empty = vmferry_testkit::poll(SETTLING, || {
            others(self.cluster.inventory()).next().is_none().then_some(())
        });
        assert!(empty.is_some(), "{:#?}", self.cluster.inventory());
    }

    /// Just that is there.
    #[track_caller]
    pub fn assert_is_there(&self, expected: &[String]) {
        let same = vmferry_testkit::poll(SETTLING, || (self.cluster.inventory() == expected).then_some(()));
        assert!(
            same.is_some(),
            "expected {expected:#?}, now {:#?}",
            self.cluster.inventory()
        );
    }
}

pub fn volume(index: u32, format: ImageFormat) -> VolumeSpec {
    VolumeSpec {
        index,
        vm_name: NAME.to_owned(),
        storage: None,
        format,
        capacity: 8 * MIB,
    }
}

pub fn plan(disks: Vec<VolumeSpec>) -> TargetPlan {
    TargetPlan {
        name: NAME.to_owned(),
        storage: None,
        disks,
        attachments: vec![NicAttachment::Bridge("vmbr0.5".to_owned())],
    }
}

pub fn disk(name: &str, capacity: u64) -> Disk {
    Disk {
        name: name.to_owned(),
        bus: DiskBus::Scsi,
        controller: Some(ScsiController::Virtio),
        format: ImageFormat::Qcow2,
        capacity,
        serial: Some(format!("serial-{name}")),
        boot_order: None,
    }
}

/// A VM with a disk for each volume, as large as it is.
pub fn vm(volumes: &[VolumeId]) -> VmSpec {
    VmSpec {
        name: NAME.to_owned(),
        hardware: Hardware {
            firmware: Firmware::Bios,
            machine: None,
            arch: "x86_64".to_owned(),
            accel: Some(Accel::Hardware),
            vcpus: 2,
            cpu_model: None,
            memory_bytes: 64 * MIB,
            disks: (0..volumes.len())
                .map(|index| disk(&format!("d{index}"), 8 * MIB))
                .collect(),
            nics: vec![Nic {
                name: "eth0".to_owned(),
                mac: "52:54:00:00:00:01".to_owned(),
                model: Some("virtio".to_owned()),
                attachment: NicAttachment::Bridge("vmbr0.5".to_owned()),
            }],
            guest_agent: true,
            guest_os: None,
        },
        disks: volumes
            .iter()
            .map(|volume| TargetDisk {
                volume: volume.clone(),
                format: ImageFormat::Qcow2,
            })
            .collect(),
    }
}

/// Writes a file into a volume.
pub async fn write(host: &proxmox::Proxmox, volume: &VolumeId, file: &Path) -> Result<(), Error> {
    let bytes = fs::read(file).unwrap();
    let sum = sum(&bytes);
    write_as(host, volume, &bytes, sum).await
}

/// Writes bytes that are said to have this checksum.
pub async fn write_as(host: &proxmox::Proxmox, volume: &VolumeId, bytes: &[u8], sum: Digest) -> Result<(), Error> {
    let sink: Arc<dyn DiskSink> = host.open_sink(volume, &owner(), bytes.len() as u64, Some(sum)).await?;
    let mut at = 0;
    for piece in bytes.chunks(100_000) {
        sink.write(at, Buf::copy_of(piece)).await?;
        at += piece.len() as u64;
    }
    sink.finish(at).await
}

fn sum(bytes: &[u8]) -> Digest {
    let sum: Vec<_> = digest(&SHA256, bytes)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{}", sum.concat()).parse().unwrap()
}

/// Makes a VM, however long it takes.
pub async fn create(host: &proxmox::Proxmox, spec: &VmSpec) -> Result<CreatedVm, Error> {
    loop {
        match host.create_vm(spec, &owner()).await? {
            Creation::Done(created) => return Ok(created),
            Creation::UnderWay(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Undoes all, as the engine does.
pub async fn undo(host: &proxmox::Proxmox, disks: u32) {
    host.delete_created(NAME, &owner()).await.unwrap();
    for index in 0..disks {
        host.delete_volume(&volume(index, ImageFormat::Qcow2), &owner())
            .await
            .unwrap();
    }
}

/// A server of one file.
pub struct Store {
    url: String,
    file: PathBuf,
    asked: Arc<AtomicUsize>,
}

impl Store {
    /// Serves a file with this status.
    pub fn start(file: &Path, status: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!(
            "http://{}/bucket/key?X-Amz-Signature=hush&x=a%2Bb",
            listener.local_addr().unwrap()
        );
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, body) = (Arc::clone(&asked), fs::read(file).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
                    head.push(byte[0]);
                }
                count.fetch_add(1, Ordering::Relaxed);
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            }
        });
        Self {
            url,
            file: file.to_owned(),
            asked,
        }
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// The object, with the checksum of these bytes.
    pub fn object(&self) -> Pull {
        let bytes = fs::read(&self.file).unwrap();
        Pull {
            url: SecretString::from(self.url.clone()),
            len: bytes.len() as u64,
            checksum: sum(&bytes),
        }
    }

    pub async fn pull(&self, host: &proxmox::Proxmox, volume: &VolumeId) -> Result<bool, Error> {
        host.pull(volume, &owner(), &self.object(), &CancellationToken::new())
            .await
    }
}
