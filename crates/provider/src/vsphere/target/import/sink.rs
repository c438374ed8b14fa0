//! The sink of a disk: the object's bytes, in order, into one upload.

use async_trait::async_trait;
use tokio::sync::Mutex;
use vmferry_block::Buf;

use super::upload::Upload;
use super::{Import, header};
use crate::{DiskSink, Error, Kind};

/// A disk that is being imported.
pub(super) struct ImportSink {
    import: Import,
    len: u64,
    front: Mutex<Front>,
}

/// How far it is.
struct Front {
    /// Where the next write starts.
    at: u64,
    state: State,
}

enum State {
    /// Too little has come to know the disk's capacity.
    Waiting(Vec<u8>),
    /// The disk is being sent.
    Sending(Box<Upload>),
    /// A write failed or was given up, or it is all done.
    Over,
}

impl ImportSink {
    /// A sink for an object of `len` bytes.
    pub fn new(import: Import, len: u64) -> Self {
        let front = Front {
            at: 0,
            state: State::Waiting(Vec::new()),
        };
        Self {
            import,
            len,
            front: Mutex::new(front),
        }
    }

    fn bug(&self, verb: &'static str, what: String) -> Error {
        Error::new(Kind::Bug, verb, self.import.object()).detail(what)
    }

    /// Takes in the next bytes, and gives how it is then.
    async fn take(&self, state: State, buf: Buf) -> Result<State, Error> {
        match state {
            State::Over => {
                Err(Error::new(Kind::Failed, "write", self.import.object()).detail("the import has ended before"))
            }
            State::Sending(upload) => self.send(upload, buf).await,
            State::Waiting(mut head) => {
                if head.is_empty() && buf.len() >= header::LEN {
                    let upload = self.begin(&buf).await?;
                    return self.send(upload, buf).await;
                }
                head.extend_from_slice(&buf);
                if head.len() < header::LEN {
                    return Ok(State::Waiting(head));
                }
                let upload = self.begin(&head).await?;
                self.send(upload, Buf::copy_of(&head)).await
            }
        }
    }

    async fn begin(&self, head: &[u8]) -> Result<Box<Upload>, Error> {
        let capacity = header::capacity(head).map_err(|why| {
            Error::new(Kind::Invalid, "import", self.import.object())
                .detail(format!("the staged object is no disk: {why}"))
        })?;
        let begun = self.import.begin(capacity).await?;
        let upload = Upload::start(begun, self.len).map_err(|trouble| self.import.failed("import", trouble))?;
        Ok(Box::new(upload))
    }

    async fn send(&self, mut upload: Box<Upload>, buf: Buf) -> Result<State, Error> {
        match upload.send(buf).await {
            Ok(()) => Ok(State::Sending(upload)),
            Err(trouble) => {
                let trouble = upload.call_off(trouble).await;
                Err(self.import.failed("upload", trouble))
            }
        }
    }
}

#[async_trait]
impl DiskSink for ImportSink {
    fn concurrency(&self) -> usize {
        1
    }

    async fn write(&self, offset: u64, buf: Buf) -> Result<(), Error> {
        let mut front = self.front.lock().await;
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.len);
        let Some(end) = end.filter(|_| offset == front.at) else {
            let what = format!(
                "{} bytes at {offset} are not the next of {} at {}",
                buf.len(),
                self.len,
                front.at
            );
            return Err(self.bug("write", what));
        };
        // A write that is given up leaves nothing to go on with.
        let state = std::mem::replace(&mut front.state, State::Over);
        front.state = self.take(state, buf).await?;
        front.at = end;
        Ok(())
    }

    async fn finish(&self, len: u64) -> Result<(), Error> {
        let mut front = self.front.lock().await;
        if len != self.len || front.at != len {
            let what = format!(
                "the object ends at {len}, {} of {} bytes were written",
                front.at, self.len
            );
            return Err(self.bug("finish", what));
        }
        let State::Sending(upload) = std::mem::replace(&mut front.state, State::Over) else {
            return Err(Error::new(Kind::Invalid, "import", self.import.object())
                .detail("the staged object is too short to be a disk"));
        };
        let finished = upload.finish().await;
        finished.map_err(|trouble| self.import.failed("import", trouble))?;
        match self.import.made().await? {
            Some(_) => Ok(()),
            None => Err(Error::new(Kind::Failed, "find", self.import.object())
                .detail("it was imported, and its carrier is gone")),
        }
    }
}
