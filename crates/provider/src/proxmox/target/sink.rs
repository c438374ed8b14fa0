//! Writing a staged file: as an upload that flows past, or into the shared folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use vmferry_block::{Buf, Digest};

use super::files::{self, COPYING};
use super::place::{Place, Way};
use super::{copies, node, ova};
use crate::proxmox::Proxmox;
use crate::proxmox::client::task::Upid;
use crate::proxmox::client::upload::Upload;
use crate::{DiskSink, Error, Kind};

/// Pieces on their way, beside the one that is being sent.
const PIECES: usize = 2;

/// Opens a place for writing a file of `len` bytes.
pub(super) async fn open(
    proxmox: &Proxmox,
    place: Place,
    len: u64,
    checksum: Option<Digest>,
) -> Result<Arc<dyn DiskSink>, Error> {
    if place.way == Way::Node {
        return node::open(proxmox, &place, len, checksum).await;
    }
    if place.way != Way::Shared {
        // One that an earlier attempt sent would be written over this one.
        copies::end(proxmox, &place.node, place.stem()).await?;
        files::room(proxmox, &place, len).await?;
        return Ok(Arc::new(Sent::start(proxmox, place, len, checksum)?));
    }
    let shared = proxmox
        .config
        .shared
        .as_ref()
        .filter(|shared| shared.storage == place.storage);
    let Some(shared) = shared else {
        return Err(Error::new(Kind::Invalid, "write", place.object())
            .detail("it was to be written into a shared folder, which the Provider does not name any more"));
    };
    Ok(Arc::new(Written::start(&shared.path, place, len).await?))
}

/// A file that is uploaded while it is written.
struct Sent {
    proxmox: Proxmox,
    place: Place,
    len: u64,
    state: Mutex<Sending>,
}

struct Sending {
    at: u64,
    pieces: Option<mpsc::Sender<Bytes>>,
    tail: Option<Bytes>,
    request: Option<Request>,
}

/// The request. It is broken off when this is dropped.
struct Request(JoinHandle<Result<Upid, Error>>);

impl Drop for Request {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Sent {
    fn start(proxmox: &Proxmox, place: Place, len: u64, checksum: Option<Digest>) -> Result<Self, Error> {
        let (pieces, receiver) = mpsc::channel(PIECES);
        let wrap = (place.way == Way::Ova)
            .then(|| ova::wrap(&place.image, len))
            .transpose()?;
        let (head, tail) = wrap.map_or((None, None), |wrap| (Some(wrap.head), Some(wrap.tail)));
        let around = [&head, &tail]
            .iter()
            .map(|part| part.as_ref().map_or(0, Bytes::len) as u64)
            .sum::<u64>();
        let upload = Upload {
            node: place.node.clone(),
            storage: place.storage.clone(),
            file: place.file(),
            len: len + around,
            // Of an archive around the object nobody knows it beforehand.
            checksum: checksum.filter(|_| place.way == Way::Import),
        };
        if let Some(head) = head {
            // There is room for it: nothing was sent yet.
            let _ = pieces.try_send(head);
        }
        let client = proxmox.client.clone();
        let request = tokio::spawn(async move { client.upload(&upload, receiver).await });
        Ok(Self {
            proxmox: proxmox.clone(),
            place,
            len,
            state: Mutex::new(Sending {
                at: 0,
                pieces: Some(pieces),
                tail,
                request: Some(Request(request)),
            }),
        })
    }

    fn bug(&self, detail: String) -> Error {
        Error::new(Kind::Bug, "write", self.place.object()).detail(detail)
    }

    /// What the request said.
    async fn answer(&self, state: &mut Sending) -> Result<Upid, Error> {
        let Some(mut request) = state.request.take() else {
            return Err(Error::new(Kind::Failed, "write", self.place.object()).detail("the upload has failed already"));
        };
        match (&mut request.0).await {
            Ok(answer) => answer,
            Err(panic) => Err(Error::new(Kind::Bug, "write", self.place.object()).source(panic)),
        }
    }
}

#[async_trait]
impl DiskSink for Sent {
    fn concurrency(&self) -> usize {
        1
    }

    async fn write(&self, offset: u64, buf: Buf) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        if offset != state.at || buf.len() as u64 > self.len - state.at {
            return Err(self.bug(format!(
                "{} bytes at {offset} after {} of {}",
                buf.len(),
                state.at,
                self.len
            )));
        }
        if buf.is_empty() {
            return Ok(());
        }
        state.at += buf.len() as u64;
        let is_sent = match &state.pieces {
            Some(pieces) => pieces.send(Bytes::from_owner(buf)).await.is_ok(),
            None => false,
        };
        if is_sent {
            return Ok(());
        }
        state.pieces = None;
        let why = self.answer(&mut state).await.err();
        Err(why.unwrap_or_else(|| {
            Error::new(Kind::Failed, "write", self.place.object())
                .detail("Proxmox VE answered before it had the whole file")
        }))
    }

    async fn finish(&self, len: u64) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        if len != self.len || state.at != len {
            return Err(self.bug(format!(
                "{} of {} bytes came, and {len} are said to be all",
                state.at, self.len
            )));
        }
        if let (Some(pieces), Some(tail)) = (state.pieces.take(), state.tail.take()) {
            // Where it fails, the answer says why.
            let _ = pieces.send(tail).await;
        }
        let task = self.answer(&mut state).await?;
        let what = self.place.object();
        if let Err(error) = self.proxmox.client.wait(&task, COPYING, "upload", &what).await {
            files::remove(&self.proxmox, &self.place).await?;
            return Err(error);
        }
        let found = files::find(&self.proxmox, &self.place).await?;
        match found.map(|found| found.size) {
            // Of an OVA it says the size of the archive.
            Some(Some(size)) if self.place.way == Way::Import && size != len => {
                files::remove(&self.proxmox, &self.place).await?;
                Err(Error::new(Kind::Failed, "upload", what).detail(format!("{size} bytes arrived of {len}")))
            }
            Some(_) => Ok(()),
            None => Err(Error::new(Kind::Failed, "upload", what).detail("it is not there after it was uploaded")),
        }
    }
}

/// A file in the shared folder under another name, until it is whole.
struct Written {
    part: Part,
    target: PathBuf,
    place: Place,
    len: u64,
    state: Mutex<(u64, File)>,
}

/// A file that is not whole. It goes when this is dropped.
pub(super) struct Part(PathBuf);

/// The name of a disk's file while it is written: `import/.vmferry-0123456789ab-disk0.part`. Proxmox VE does not list it.
pub(super) fn part_of(folder: &Path, stem: &str) -> Part {
    Part(folder.join("import").join(format!(".{stem}.part")))
}

impl Part {
    /// Deletes it. Gone is success.
    pub(super) async fn remove(&self) -> Result<(), Error> {
        match fs::remove_file(&self.0).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::new(Kind::Failed, "delete", self.0.display().to_string()).source(error))
            }
            _ => Ok(()),
        }
    }
}

impl Written {
    async fn start(folder: &Path, place: Place, len: u64) -> Result<Self, Error> {
        let directory = folder.join("import");
        let stem = place
            .image
            .rsplit_once('.')
            .map_or(place.image.as_str(), |(stem, _)| stem);
        let part = part_of(folder, stem);
        let opened = async {
            // The storage's own folder must be there: where it is not, it is not mounted.
            match fs::create_dir(&directory).await {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            File::create(&part.0).await
        };
        let file = opened.await.map_err(|error| {
            Error::new(Kind::Failed, "create", part.0.display().to_string())
                .source(error)
                .remedy("check that the shared storage is mounted here and may be written to")
        })?;
        Ok(Self {
            target: directory.join(place.file()),
            part,
            place,
            len,
            state: Mutex::new((0, file)),
        })
    }

    fn fault(&self, error: std::io::Error) -> Error {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::NoSpace,
            _ => Kind::Failed,
        };
        Error::new(kind, "write", self.target.display().to_string()).source(error)
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // After it was finished it has another name, and nothing is there.
        if let Err(error) = std::fs::remove_file(&self.part.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "cannot delete {}", self.part.0.display());
        }
    }
}

#[async_trait]
impl DiskSink for Written {
    fn concurrency(&self) -> usize {
        1
    }

    async fn write(&self, offset: u64, buf: Buf) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        if offset != state.0 || buf.len() as u64 > self.len - state.0 {
            let detail = format!("{} bytes at {offset} after {} of {}", buf.len(), state.0, self.len);
            return Err(Error::new(Kind::Bug, "write", self.place.object()).detail(detail));
        }
        state.0 += buf.len() as u64;
        state.1.write_all(&buf).await.map_err(|error| self.fault(error))
    }

    async fn finish(&self, len: u64) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        if len != self.len || state.0 != len {
            let detail = format!("{} of {} bytes came, and {len} are said to be all", state.0, self.len);
            return Err(Error::new(Kind::Bug, "write", self.place.object()).detail(detail));
        }
        let made = async {
            state.1.flush().await?;
            state.1.sync_all().await?;
            fs::rename(&self.part.0, &self.target).await?;
            // So that the name is durable, too.
            File::open(self.target.parent().unwrap_or(Path::new(".")))
                .await?
                .sync_all()
                .await
        };
        made.await.map_err(|error| self.fault(error))
    }
}
