//! Uploads: multipart with a length that is known beforehand (Proxmox VE takes no other), the file flowing past.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use tokio::sync::mpsc;
use tokio::time::Instant;
use vmferry_block::Digest;

use super::Client;
use super::answer::Answer;
use super::task::Upid;
use crate::{Error, Kind};

/// How long no byte may leave.
const SILENCE: Duration = Duration::from_mins(2);
/// How long the answer may take after the last byte: the node may copy the file to another by then.
const PATIENCE: Duration = Duration::from_mins(10);
/// How often it is looked whether bytes leave.
const LOOK: Duration = Duration::from_secs(1);

/// A file to be uploaded.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    /// The node.
    pub(crate) node: String,
    /// The storage.
    pub(crate) storage: String,
    /// Its name there. No quote or control character may be in it.
    pub(crate) file: String,
    /// Its length in bytes.
    pub(crate) len: u64,
    /// Its SHA-256, which the node compares, where it is known.
    pub(crate) checksum: Option<Digest>,
}

impl Client {
    /// Uploads a file of content `import`, whose bytes come out of a channel; the task that puts it in its place. A channel that
    /// closes early breaks the upload off, and then nothing is left of it.
    pub(crate) async fn upload(&self, upload: &Upload, pieces: mpsc::Receiver<Bytes>) -> Result<Upid, Error> {
        let object = format!("storage {} on node {}", upload.storage, upload.node);
        let action = "upload to";
        // A ticket that is refused after the body has begun would cost the whole body.
        self.be_let_in(action, &object).await?;
        let boundary = format!("vmferry-{:032x}", rand::random::<u128>());
        let life = Life::default();
        let body = Multipart::new(upload, &boundary, pieces, life.clone());
        let url = self
            .0
            .endpoint
            .url(&["nodes", &upload.node, "storage", &upload.storage, "upload"]);
        let request = self
            .0
            .http
            .post(url)
            .header(CONTENT_TYPE, format!("multipart/form-data; boundary={boundary}"))
            .body(reqwest::Body::wrap(body));
        let (request, _) = self.let_in(request, &Method::POST, None).await?;
        let exchange = async {
            match request.send().await {
                Ok(response) => Answer::read(response).await,
                Err(error) => Err(error),
            }
        };
        let answer = tokio::select! {
            answer = exchange => answer.map_err(|error| self.unreachable(action, &object, &error))?,
            limit = life.until_silent() => {
                let detail = format!("{}: nothing moved for {} s", self.name(), limit.as_secs());
                return Err(Error::new(Kind::Unreachable, action, object).detail(detail));
            }
        };
        let (upid, _) = answer.data::<String>(action, &object)?;
        Upid::parse(&upid)
    }
}

/// Whether the body moves.
#[derive(Debug, Clone, Default)]
struct Life(Arc<State>);

#[derive(Debug, Default)]
struct State {
    pieces: AtomicU64,
    /// It waits for whoever gives the bytes, and not for the network.
    is_hungry: AtomicBool,
    is_sent: AtomicBool,
}

impl Life {
    async fn until_silent(&self) -> Duration {
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.0.pieces.load(Ordering::Relaxed);
            // Bytes that are late are a matter of whoever gives them: it has limits of its own.
            if now != seen || (self.0.is_hungry.load(Ordering::Relaxed) && !self.0.is_sent.load(Ordering::Relaxed)) {
                (seen, since) = (now, Instant::now());
            }
            let limit = if self.0.is_sent.load(Ordering::Relaxed) {
                PATIENCE
            } else {
                SILENCE
            };
            if since.elapsed() >= limit {
                return limit;
            }
        }
    }
}

/// Head, file and tail.
struct Multipart {
    head: Option<Bytes>,
    pieces: mpsc::Receiver<Bytes>,
    /// Bytes of the file that are still to come.
    left: u64,
    tail: Option<Bytes>,
    life: Life,
}

impl Multipart {
    /// The fields come before the file, and in this order, or Proxmox VE does not see them.
    fn new(upload: &Upload, boundary: &str, pieces: mpsc::Receiver<Bytes>, life: Life) -> Self {
        let mut fields = vec![("content", "import".to_owned())];
        if let Some(checksum) = &upload.checksum {
            fields.push(("checksum-algorithm", "sha256".to_owned()));
            fields.push((
                "checksum",
                checksum.to_string().trim_start_matches("sha256:").to_owned(),
            ));
        }
        let fields = fields.iter().map(|(name, value)| {
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        });
        let head = format!(
            "{}--{boundary}\r\nContent-Disposition: form-data; name=\"filename\"; filename=\"{}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n",
            fields.collect::<String>(),
            upload.file
        );
        Self {
            head: Some(head.into()),
            pieces,
            left: upload.len,
            tail: Some(format!("\r\n--{boundary}--\r\n").into()),
            life,
        }
    }

    fn frame(&self, bytes: Bytes) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.life.0.is_hungry.store(false, Ordering::Relaxed);
        self.life.0.pieces.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

impl Body for Multipart {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(head) = self.head.take() {
            return self.frame(head);
        }
        if self.left > 0 {
            self.life.0.is_hungry.store(true, Ordering::Relaxed);
            return match self.pieces.poll_recv(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Some(piece)) if piece.len() as u64 <= self.left => {
                    self.left -= piece.len() as u64;
                    self.frame(piece)
                }
                Poll::Ready(Some(_)) => {
                    Poll::Ready(Some(Err(io::Error::other("the file is longer than it was said to be"))))
                }
                Poll::Ready(None) => Poll::Ready(Some(Err(io::Error::other("the file ended early")))),
            };
        }
        match self.tail.take() {
            Some(tail) => {
                self.life.0.is_sent.store(true, Ordering::Relaxed);
                self.frame(tail)
            }
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let known = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len) as u64;
        SizeHint::with_exact(known(&self.head) + self.left + known(&self.tail))
    }
}

#[cfg(test)]
mod tests {
    use vmferry_testkit::proxmox::{Options, Proxmox};

    use super::*;
    use crate::credentials::Credentials;

    #[tokio::test]
    async fn a_ticket_that_is_void_does_not_cost_the_upload() {
        let cluster = Proxmox::start(&Options::default());
        let credentials = Credentials {
            username: Some(Proxmox::USER.0.to_owned()),
            password: Some(Proxmox::USER.1.into()),
            fingerprint: Some(cluster.fingerprint().to_owned()),
            ..Credentials::default()
        };
        let client = Client::new(&cluster.url(), &credentials, false).unwrap();
        client.version().await.unwrap();
        cluster.expire_tickets();
        let upload = Upload {
            node: "pve1".to_owned(),
            storage: Proxmox::LOCAL.to_owned(),
            file: "a.raw".to_owned(),
            len: 4,
            checksum: None,
        };
        let (pieces, receiver) = mpsc::channel(1);
        pieces.send(Bytes::from_static(b"1234")).await.unwrap();
        client.upload(&upload, receiver).await.unwrap();
        cluster.settle();
        let sent = cluster.calls_of("POST", "/upload");
        assert_eq!(sent.iter().map(|call| call.status).collect::<Vec<_>>(), [200]);
        assert_eq!(cluster.volumes(), ["local:import/a.raw"]);
        assert_eq!(cluster.violations(), [""; 0]);
    }
}
