//! nfs-ganesha: NFS versions 3, 4.0, 4.1 and 4.2 from user space, with one export.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::Must;
use crate::stores::{Server, free_port, listens, program};

/// What runs the server: mounts of its own, because for NFSv3 it insists on a port mapper, which listens at a fixed port (so it
/// is put into an empty network) and at a fixed socket (so `/run` is not the machine's). All of its processes end with the first.
const SCRIPT: &str = r#"
set -e
mount -t tmpfs tmpfs /run
if [ -n "$SIZE" ]; then
    # Another file each time: the one before may still be written to.
    IMAGE=$(mktemp "$DATA.XXXXXX")
    truncate -s "$SIZE" "$IMAGE"
    mkfs.ext4 -q -F -m 0 -O ^has_journal "$IMAGE"
    mount -o loop "$IMAGE" "$DATA"
    rm "$IMAGE"
    rmdir "$DATA/lost+found"
fi
unshare --net -- "$RPCBIND" -f &
for _ in $(seq 600); do [ ! -S /run/rpcbind.sock ] || break; sleep 0.05; done
exec "$GANESHA" -F -f "$CONF" -L /dev/stdout -p /run/ganesha.pid
"#;

/// What a server says once it serves.
const READY: &str = "NFS SERVER INITIALIZED";

/// How the folder is exported.
///
/// By default everybody may do everything, in a folder on disk.
#[derive(Debug, Clone, Default)]
pub struct Export {
    /// Nobody can write.
    pub read_only: bool,
    /// Root is nobody, and so cannot enter the folder, which is root's.
    pub squash: bool,
    /// Only calls from ports below 1024 are served.
    pub privileged_port: bool,
    /// The folder is a file system of this many bytes, which is made anew, and empty, with every start.
    pub size: Option<u64>,
}

/// A running nfs-ganesha.
#[derive(Debug)]
pub struct Ganesha {
    server: Server,
    export: Export,
    port: u16,
    mount_port: u16,
    starts: usize,
}

impl Ganesha {
    /// Where the export is in NFSv4.
    pub const PSEUDO: &str = "/export";

    /// A server with this export.
    pub fn start(export: Export) -> Self {
        let mut ganesha = Self {
            server: Server::new("ganesha"),
            export,
            port: free_port(),
            mount_port: free_port(),
            starts: 0,
        };
        for folder in ["data", "recovery"] {
            fs::create_dir(ganesha.server.folder().join(folder)).must("make a folder for nfs-ganesha");
        }
        ganesha.configure();
        ganesha.restart();
        ganesha
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port of its mount service, for NFSv3.
    pub fn mount_port(&self) -> u16 {
        self.mount_port
    }

    /// Where the export is in NFSv3: its real path.
    pub fn path(&self) -> PathBuf {
        self.server.folder().join("data")
    }

    /// The folder as this process sees it, while the server runs.
    pub fn folder(&self) -> PathBuf {
        match self.export.size {
            None => self.path(),
            Some(_) => Path::new("/proc")
                .join(self.inner_pid().to_string())
                .join("root")
                .join(self.path().strip_prefix("/").must("find the export")),
        }
    }

    /// Kills it as a power cut would.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again on the same ports.
    pub fn restart(&mut self) {
        self.server.kill();
        let data = self.path();
        let size = self.export.size.map(|size| size.to_string()).unwrap_or_default();
        let mut command = Command::new(program("unshare"));
        command
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child=KILL",
                "--propagation",
                "private",
            ])
            .args(["--", "sh", "-c", SCRIPT])
            .env("DATA", data)
            .env("SIZE", size)
            .env("CONF", self.server.folder().join("conf"))
            .env("RPCBIND", program("rpcbind"))
            .env("GANESHA", program("ganesha.nfsd"));
        self.starts += 1;
        let (starts, port, mount_port) = (self.starts, self.port, self.mount_port);
        let log = self.server.folder().join("log");
        self.server.start(&mut command, || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            said.matches(READY).count() >= starts && listens(port) && listens(mount_port)
        });
    }

    /// What it printed.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// The process in its own mounts, as seen from here.
    fn inner_pid(&self) -> u32 {
        let outer = self.server.pid();
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).must("find nfs-ganesha");
        let child = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
        child.must("find nfs-ganesha")
    }

    fn configure(&self) {
        let Export {
            read_only,
            squash,
            privileged_port,
            ..
        } = self.export;
        let mut conf = String::new();
        let _ = writeln!(
            conf,
            "NFS_CORE_PARAM {{ Protocols = 3,4; NFS_Port = {}; MNT_Port = {}; Bind_addr = 127.0.0.1; Enable_NLM = false; \
             Enable_RQUOTA = false; Enable_UDP = false; MaxRPCRecvBufferSize = 9437184; MaxRPCSendBufferSize = 9437184; }}",
            self.port, self.mount_port
        );
        let _ = writeln!(
            conf,
            "NFSV4 {{ Graceless = true; Grace_Period = 5; Lease_Lifetime = 10; Minor_Versions = 0,1,2; \
             RecoveryBackend = fs; RecoveryRoot = {}; Only_Numeric_Owners = true; }}",
            self.server.folder().join("recovery").display()
        );
        let _ = writeln!(
            conf,
            "EXPORT {{ Export_Id = 1; Path = {}; Pseudo = {}; Protocols = 3,4; Transports = TCP; Access_Type = {}; \
             Squash = {}; PrivilegedPort = {privileged_port}; SecType = sys; FSAL {{ Name = VFS; }} }}",
            self.path().display(),
            Self::PSEUDO,
            if read_only { "RO" } else { "RW" },
            if squash { "Root_Squash" } else { "No_Root_Squash" },
        );
        fs::write(self.server.folder().join("conf"), conf).must("configure nfs-ganesha");
    }
}
