//! Whole objects.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use rustix::io::Errno;
use vmferry_block::Buf;

use super::link::Link;
use super::session::{Handle, Session};
use super::tree;
use super::trouble::Trouble;
use crate::{Error, Kind, ObjectKey, ObjectMeta};

/// How many objects are remembered for reading.
const OPEN: usize = 8;
/// How many requests of one call are under way.
const UNDER_WAY: usize = 8;

pub(super) async fn head(link: &Link, key: &ObjectKey) -> Result<Option<ObjectMeta>, Error> {
    let look = |session: Session| async move {
        let Some(seat) = tree::find(&session, key).await? else {
            return Ok(None);
        };
        let found = session.find_any(&seat.folder, seat.name).await?;
        found.map(|node| Ok(node.file()?.meta)).transpose()
    };
    link.run("look up", || link.object(key), look).await
}

pub(super) async fn delete(link: &Link, key: &ObjectKey) -> Result<(), Error> {
    let remove = |session: Session| async move {
        if let Some(seat) = tree::find(&session, key).await? {
            session.remove(&seat.folder, seat.name).await?;
        }
        tree::prune(&session, key).await
    };
    link.run("delete", || link.object(key), remove).await
}

/// The objects that are being read: where they are, so that not every read walks the path.
#[derive(Debug, Default)]
pub(super) struct OpenObjects(Mutex<VecDeque<OpenObject>>);

#[derive(Debug, Clone)]
struct OpenObject {
    key: ObjectKey,
    version: String,
    folder: Handle,
    file: Handle,
}

impl OpenObjects {
    /// Fills `bufs` from `offset` of the object with this version.
    pub(super) async fn read(
        &self,
        link: &Link,
        key: &ObjectKey,
        version: &str,
        offset: u64,
        mut bufs: Vec<Buf>,
    ) -> Result<Vec<Buf>, Error> {
        let mut call = link.call();
        let mut missing = Missing::of(&bufs, offset);
        loop {
            let before = missing.len();
            let attempt = async {
                let session = call.session().await?;
                let object = self.find(&session, key, version).await?;
                let filled = fill(&session, &object.file, &mut missing, &mut bufs).await;
                if matches!(filled, Err(Trouble::Lost(_) | Trouble::Busy(_))) {
                    return filled;
                }
                // Asked after the read: what was read before a change is good, and a file that was cut short is another one.
                let now = session.find(&object.folder, name(key)).await?.file()?;
                if now.handle != object.file || now.meta.version != version {
                    return Err(Trouble::answer(
                        Errno::STALE,
                        "it was replaced or changed while it was read",
                    ));
                }
                filled
            };
            let trouble = match attempt.await {
                Ok(()) => return Ok(bufs),
                Err(trouble) => trouble,
            };
            if missing.len() < before {
                call.progressed();
            }
            self.forget(key);
            if trouble.is(Errno::NOENT) || trouble.is(Errno::STALE) {
                missing = Missing::of(&bufs, offset);
            }
            call.survive(trouble)
                .await
                .map_err(|trouble| fault(link, key, trouble))?;
        }
    }

    /// Forgets an object.
    pub(super) fn forget(&self, key: &ObjectKey) {
        self.lock().retain(|object| object.key != *key);
    }

    async fn find(&self, session: &Session, key: &ObjectKey, version: &str) -> Result<OpenObject, Trouble> {
        let known = |object: &&OpenObject| object.key == *key && object.version == version;
        if let Some(object) = self.lock().iter().find(known) {
            return Ok(object.clone());
        }
        let gone = || Trouble::Final(Kind::Changed, "it is gone".to_owned(), None);
        let seat = tree::find(session, key).await?.ok_or_else(gone)?;
        let node = session
            .find_any(&seat.folder, seat.name)
            .await?
            .ok_or_else(gone)?
            .file()?;
        if node.meta.version != version {
            return Err(Trouble::Final(
                Kind::Changed,
                "it is not the one that was opened".to_owned(),
                None,
            ));
        }
        let object = OpenObject {
            key: key.clone(),
            version: version.to_owned(),
            folder: seat.folder,
            file: node.handle,
        };
        let mut open = self.lock();
        open.retain(|object| object.key != *key);
        open.truncate(OPEN - 1);
        open.push_front(object.clone());
        Ok(object)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<OpenObject>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fault(link: &Link, key: &ObjectKey, trouble: Trouble) -> Error {
    let trouble = match trouble {
        Trouble::Answer {
            errno: Errno::NOENT | Errno::STALE,
            said,
        } => Trouble::Final(Kind::Changed, said, None),
        trouble => trouble,
    };
    trouble.fault("read", link.object(key))
}

fn name(key: &ObjectKey) -> &str {
    key.as_str().rsplit('/').next().unwrap_or_default()
}

/// What is still to be read: ranges of the buffers, with where in the object they begin.
#[derive(Debug)]
struct Missing(VecDeque<Range>);

#[derive(Debug, Clone, Copy)]
struct Range {
    buf: usize,
    start: usize,
    len: usize,
    offset: u64,
}

impl Missing {
    fn of(bufs: &[Buf], mut offset: u64) -> Self {
        let range = |(index, buf): (usize, &Buf)| {
            let range = Range {
                buf: index,
                start: 0,
                len: buf.len(),
                offset,
            };
            offset += buf.len() as u64;
            range
        };
        let ranges = bufs.iter().enumerate().map(range);
        Self(ranges.filter(|range| range.len > 0).collect())
    }

    /// How many bytes.
    fn len(&self) -> usize {
        self.0.iter().map(|range| range.len).sum()
    }

    /// The next range of at most `size` bytes.
    fn take(&mut self, size: usize) -> Option<Range> {
        let front = self.0.front_mut()?;
        let taken = Range {
            len: front.len.min(size),
            ..*front
        };
        *front = front.after(taken.len);
        if front.len == 0 {
            self.0.pop_front();
        }
        Some(taken)
    }
}

impl Range {
    fn after(self, len: usize) -> Self {
        Self {
            start: self.start + len,
            len: self.len - len,
            offset: self.offset + len as u64,
            ..self
        }
    }
}

/// Reads what is missing, with several requests under way. Where it fails, `missing` is what is still to be read.
async fn fill(session: &Session, file: &Handle, missing: &mut Missing, bufs: &mut [Buf]) -> Result<(), Trouble> {
    let ask = |range: Range| async move { (range, session.read(file, range.offset, range.len as u32).await) };
    let mut under_way = FuturesUnordered::new();
    let mut failed = None;
    loop {
        while failed.is_none() && under_way.len() < UNDER_WAY {
            let Some(range) = missing.take(session.read_size as usize) else {
                break;
            };
            under_way.push(ask(range));
        }
        let Some((range, answer)) = under_way.next().await else {
            break;
        };
        match answer.and_then(|bytes| place(range, &bytes, bufs)) {
            Ok(0) => {}
            Ok(left) => missing.0.push_front(range.after(range.len - left)),
            Err(trouble) => {
                missing.0.push_front(range);
                failed = Some(trouble);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Puts what was read where it belongs; says how many bytes of the range are still missing.
fn place(range: Range, bytes: &Bytes, bufs: &mut [Buf]) -> Result<usize, Trouble> {
    if bytes.is_empty() {
        return Err(Trouble::Final(
            Kind::Bug,
            format!("bytes at {} were asked for, and it ends before", range.offset),
            None,
        ));
    }
    if bytes.len() > range.len {
        return Err(Trouble::Lost("the server gave more than it was asked for".to_owned()));
    }
    bufs[range.buf][range.start..range.start + bytes.len()].copy_from_slice(bytes);
    Ok(range.len - bytes.len())
}
