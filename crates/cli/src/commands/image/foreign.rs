//! Formats that vmferry does not read itself: `qemu-nbd` reads them, in a process of its own that can do nothing else.
//!
//! The process gets the image as an open file, read-only, so that no name reaches its command line, and opens no other file
//! for it. It serves one connection on a socket in a private folder, and ends with that connection, whatever becomes of us.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use vmferry_image::Image;
use vmferry_nbd::Client;

use super::nbd;
use crate::exit::Failure;

/// How long it may take until it serves.
const START: Duration = Duration::from_secs(30);
/// How often that is looked for.
const LOOK: Duration = Duration::from_millis(10);
/// How long it may take to end, and to say why.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How much of its complaints is shown, in bytes.
const COMPLAINT: u64 = 2000;
const EXPORT: &str = "disk";

/// A running `qemu-nbd`. Dropping it ends the process and removes its socket.
pub struct Server {
    process: Child,
    folder: TempDir,
}

impl Server {
    /// Reads `file`, which messages call `name`, as an image of QEMU's format `driver`.
    pub async fn open(file: File, driver: &'static str, name: &str) -> Result<(Self, Image), Failure> {
        let mut server = Self::start(file, driver, name)?;
        let client = server.connect(driver, name).await?;
        let image = nbd::image(client, name).await?;
        Ok((server, image))
    }

    fn start(file: File, driver: &'static str, name: &str) -> Result<Self, Failure> {
        let private = std::fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new()
            .prefix("vmferry-")
            .permissions(private)
            .tempdir()
            .map_err(|error| Failure::failed(format!("cannot make a folder for the socket of qemu-nbd: {error}")))?;
        // `backing=` is the null of this syntax: a backing file would be opened by a path that the image names.
        let options =
            format!("driver={driver},backing=,file.driver=file,file.filename=/proc/self/fd/0,file.locking=off");
        let process = Command::new("qemu-nbd")
            .args(["--read-only", "--shared=1", "--export-name", EXPORT, "--socket"])
            .arg(folder.path().join("nbd"))
            .args(["--image-opts", &options])
            .stdin(Stdio::from(file))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Failure::failed(format!(
                    "cannot read image {name}: {driver} is read by qemu-nbd, which is not installed; install it (Debian, \
                     Ubuntu: qemu-utils; Fedora: qemu-img), or convert the image elsewhere first: qemu-img convert -O qcow2"
                )),
                _ => Failure::failed(format!("cannot start qemu-nbd to read image {name}: {error}")),
            })?;
        Ok(Self { process, folder })
    }

    async fn connect(&mut self, driver: &str, name: &str) -> Result<Client, Failure> {
        let socket = self.folder.path().join("nbd");
        let until = Instant::now() + START;
        loop {
            if let Ok(stream) = UnixStream::connect(&socket).await {
                return match Client::connect(stream, EXPORT).await {
                    Ok(client) => Ok(client),
                    // It listens before it opens the image, and ends where it cannot.
                    Err(_) if self.ends_soon().await => Err(self.refusal(driver, name).await),
                    Err(error) => Err(Failure::failed(format!(
                        "cannot read image {name} by qemu-nbd: {error}"
                    ))),
                };
            }
            if let Ok(Some(_)) = self.process.try_wait() {
                return Err(self.refusal(driver, name).await);
            }
            if Instant::now() > until {
                return Err(Failure::failed(format!(
                    "cannot read image {name}: qemu-nbd did not open it within {} s",
                    START.as_secs()
                )));
            }
            sleep(LOOK).await;
        }
    }

    /// Whether the process ends now that it has closed the connection.
    async fn ends_soon(&mut self) -> bool {
        matches!(timeout(LAST_WORDS, self.process.wait()).await, Ok(Ok(_)))
    }

    /// Why it ended before it served.
    async fn refusal(&mut self, driver: &str, name: &str) -> Failure {
        let complaint = self.complaint().await;
        Failure::failed(format!(
            "cannot read image {name} as {driver}: {complaint}; if it is another format, give that with -f"
        ))
    }

    /// What it said before it ended, in one line.
    async fn complaint(&mut self) -> String {
        let mut text = Vec::new();
        if let Some(stderr) = self.process.stderr.take() {
            let _ = timeout(LAST_WORDS, stderr.take(COMPLAINT).read_to_end(&mut text)).await;
        }
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().map(|line| line.trim_start_matches("qemu-nbd: "));
        let text: Vec<String> = lines.map(|line| line.replace(char::is_control, "")).collect();
        match text.join(" ").trim() {
            "" => "qemu-nbd ended without a word".to_owned(),
            text => format!("qemu-nbd says: {text}"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.start_kill();
    }
}
