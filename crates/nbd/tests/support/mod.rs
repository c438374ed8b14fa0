//! The real server, started by the test that needs it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::UnixStream;
use vmferry_nbd::{Client, Error};

/// A `qemu-nbd` on a socket in a folder of its own.
pub struct Server {
    child: Child,
    pub folder: TempDir,
}

impl Server {
    /// Serves an image as the export `disk`, with more arguments.
    pub async fn start(folder: TempDir, format: &str, image: &Path, more: &[&str]) -> Self {
        let image = image.to_str().unwrap();
        let args = [more, &["--format", format, image]].concat();
        Self::launch(folder, &args).await
    }

    /// Serves with these arguments.
    pub async fn launch(folder: TempDir, args: &[&str]) -> Self {
        let child = Command::new("qemu-nbd")
            .args(["--persistent", "--shared=0", "--export-name=disk", "--socket"])
            .arg(folder.path().join("nbd"))
            .args(args)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, folder };
        for _ in 0..200 {
            if UnixStream::connect(server.folder.path().join("nbd")).await.is_ok() {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("qemu-nbd does not listen");
    }

    /// A connection to an export.
    pub async fn open(&self, export: &str) -> Result<Client, Error> {
        let stream = UnixStream::connect(self.folder.path().join("nbd")).await.unwrap();
        Client::connect(stream, export).await
    }

    /// Ends the server without a goodbye.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
