//! A local socket for libvirt, which speaks ssh only through a binary, and so gets the other end of a channel of ours.
//!
//! The socket lives in a folder that only we can enter, takes one connection, and is gone as soon as it has it: nothing stays
//! behind, whatever kills us later. libvirt runs in this process, so the socket is named through `/proc/self/fd`, which
//! keeps the name within `sun_path` wherever the runtime folder lies.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::copy_bidirectional;
use tokio::net::UnixListener;

use super::tunnel::Tunnel;
use crate::{Error, Kind};

/// The name of the socket within its folder.
const SOCKET: &str = "libvirt";

/// A socket that waits for libvirt.
pub(in crate::libvirt) struct Listener {
    folder: Arc<Folder>,
    fault: Arc<Mutex<Option<Error>>>,
}

/// A folder with a socket; both go when it is dropped.
struct Folder {
    path: PathBuf,
    /// Keeps the path through `/proc/self/fd` valid.
    descriptor: File,
}

impl Listener {
    /// Listens under `runtime_dir`. The one connection is forwarded to libvirt's socket at the other side of `tunnel`.
    pub(super) fn start(runtime_dir: &Path, tunnel: Tunnel) -> Result<Self, Error> {
        let (folder, socket) = bind(runtime_dir).map_err(|error| {
            Error::new(
                Kind::Failed,
                "listen in",
                format!("runtime folder {}", runtime_dir.display()),
            )
            .source(error)
        })?;
        let folder = Arc::new(folder);
        let fault = Arc::new(Mutex::new(None));
        let (file, slot) = (Arc::clone(&folder), Arc::clone(&fault));
        tokio::spawn(async move {
            let Ok((mut near, _)) = socket.accept().await else {
                return;
            };
            file.unlink();
            drop((socket, file));
            match tunnel.open_libvirt().await {
                // Either side closing is the end of the connection; both notice by themselves.
                Ok(mut far) => {
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                }
                Err(error) => *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
            }
        });
        Ok(Self { folder, fault })
    }

    /// Where it listens, for this process only.
    pub fn path(&self) -> String {
        self.folder.socket()
    }

    /// Why the way to the other side could not be opened, if so.
    pub fn take_fault(&self) -> Option<Error> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn bind(runtime_dir: &Path) -> io::Result<(Folder, UnixListener)> {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder.recursive(true).create(runtime_dir)?;
    let path = runtime_dir.join(format!("ssh-{:016x}", rand::random::<u64>()));
    builder.recursive(false).create(&path)?;
    let descriptor = File::open(&path)?;
    let folder = Folder { path, descriptor };
    let socket = UnixListener::bind(folder.socket())?;
    Ok((folder, socket))
}

impl Folder {
    fn socket(&self) -> String {
        format!("/proc/self/fd/{}/{SOCKET}", self.descriptor.as_raw_fd())
    }

    fn unlink(&self) {
        let _ = std::fs::remove_file(self.path.join(SOCKET));
        let _ = std::fs::remove_dir(&self.path);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.unlink();
    }
}
