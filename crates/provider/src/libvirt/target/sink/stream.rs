//! Through libvirt: one sparse upload stream (`virStorageVolUpload`), strictly in order, holes for what is not written.
//!
//! libvirt's calls block, so the stream lives on a thread of its own, fed through a short queue: while it sends, the next
//! bytes are made. The thread ends when the sink is finished, fails or is dropped; in the last two cases it aborts the stream.
//!
//! Architecture Invariant: nothing is sent that the host cannot write. libvirt 11.3's daemon crashes (`double free`) at the
//! first byte past the declared length, and at the first that finds no space: so both are counted here, beforehand.
//!
//! libvirt has no call that makes a volume durable: what [`finish`](DiskSink::finish) waits for is that the host has written
//! all of it to the file.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;
use virt::error::Error as VirtError;
use virt::stream::Stream;
use virt_sys as flags;
use vmferry_block::Buf;

use super::{MORE_ROOM, check_end, check_range};
use crate::libvirt::Libvirt;
use crate::libvirt::conn::fault;
use crate::libvirt::target::name::Place;
use crate::libvirt::target::volume;
use crate::{DiskSink, Error, Kind};

/// Writes that wait for the thread: one in the making of the next is enough.
const QUEUE: usize = 1;

/// How long not one message may go out before the host counts as unreachable.
const STALL_LIMIT: Duration = Duration::from_mins(1);

/// How long the host may take to write what it was sent.
const FINISH_LIMIT: Duration = Duration::from_mins(10);

/// What is left free in the pool: file systems need some room for themselves.
const RESERVE: u64 = 16 << 20;

/// A grant is at most this part of what is free: so many uploads at once do not take more than there is.
const SHARE: u64 = 8;

/// The largest grant in bytes.
const LARGEST_GRANT: u64 = 1 << 30;

/// How much is sent between two looks at the clock.
const STEP: usize = 1 << 20;

/// A volume that is written through libvirt.
pub(super) struct StreamSink {
    libvirt: Libvirt,
    place: Place,
    len: u64,
    orders: mpsc::Sender<Order>,
    /// `None` after a write that failed or was given up: what came after it would be at the right place, but the sink
    /// would have a hole.
    front: Mutex<Option<Front>>,
    shared: Arc<Shared>,
}

/// How far the sink is.
#[derive(Debug, Clone, Copy)]
struct Front {
    /// Where the next write may start.
    at: u64,
    /// Bytes that may be sent before the pool is asked again how much is free.
    grant: u64,
}

/// What sink and thread share.
#[derive(Default)]
struct Shared {
    /// Counts what went out.
    sent: AtomicU64,
    /// Why the thread ended.
    trouble: std::sync::Mutex<Option<VirtError>>,
}

/// What the thread is told.
enum Order {
    Write { offset: u64, buf: Buf },
    Finish { end: u64, done: oneshot::Sender<()> },
}

impl StreamSink {
    /// Starts the upload of `len` bytes to an empty volume.
    pub async fn open(libvirt: &Libvirt, place: Place, len: u64) -> Result<Self, Error> {
        let at = place.clone();
        let stream = libvirt
            .handle
            .call("upload to", place.object(), move |connect| {
                let volume = volume::volume(connect, &at)?;
                let stream = Stream::new(connect, 0)?;
                volume.upload(&stream, 0, len, flags::VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)?;
                Ok(stream)
            })
            .await?;
        let (orders, queue) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("libvirt-upload".to_owned())
            .spawn(move || serve(stream, queue, &theirs))
            .map_err(|error| Error::new(Kind::Failed, "start a thread for", place.object()).source(error))?;
        Ok(Self {
            libvirt: libvirt.clone(),
            place,
            len,
            orders,
            front: Mutex::new(Some(Front { at: 0, grant: 0 })),
            shared,
        })
    }

    /// Hands an order to the thread, waiting as long as it makes progress.
    async fn order(&self, order: Order) -> Result<(), Error> {
        let mut handing = std::pin::pin!(self.orders.send(order));
        loop {
            let before = self.shared.sent.load(Ordering::Relaxed);
            match timeout(STALL_LIMIT, handing.as_mut()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) => return Err(self.trouble("write")),
                Err(_) if self.shared.sent.load(Ordering::Relaxed) > before => {}
                Err(_) => return Err(self.stalled("write", STALL_LIMIT)),
            }
        }
    }

    /// Why the thread ended.
    fn trouble(&self, action: &'static str) -> Error {
        let object = self.place.object();
        let trouble = self
            .shared
            .trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(error) = trouble else {
            return Error::new(Kind::Failed, action, object).detail("the upload has ended before");
        };
        let fault = fault(action, object, error);
        match fault.kind() {
            Kind::NoSpace => fault.remedy(MORE_ROOM),
            _ => fault,
        }
    }

    fn stalled(&self, action: &'static str, limit: Duration) -> Error {
        Error::new(Kind::Unreachable, action, self.place.object())
            .detail(format!("the host has taken nothing for {} s", limit.as_secs()))
    }

    /// Takes the front; it is put back when what comes now has succeeded.
    fn advance(&self, front: &mut Option<Front>) -> Result<Front, Error> {
        front.take().ok_or_else(|| self.trouble("write"))
    }

    /// Asks how many bytes may be sent: a part of what is free, as others may be writing there, too.
    async fn grant(&self, wanted: u64) -> Result<u64, Error> {
        let free = self.libvirt.check_pool(&self.place.pool).await?;
        let spare = free.saturating_sub(RESERVE);
        if spare < wanted {
            return Err(Error::new(Kind::NoSpace, "write", self.place.object())
                .detail(format!("the pool has {} MiB left", free >> 20))
                .remedy(MORE_ROOM));
        }
        Ok((spare / SHARE).min(LARGEST_GRANT).max(wanted))
    }

    fn out_of_order(&self, offset: u64, at: u64) -> Error {
        Error::new(Kind::Bug, "write", self.place.object())
            .detail(format!("a write at {offset} comes after one that ended at {at}"))
    }
}

#[async_trait]
impl DiskSink for StreamSink {
    fn concurrency(&self) -> usize {
        1
    }

    async fn write(&self, offset: u64, buf: Buf) -> Result<(), Error> {
        let end = check_range(&self.place, offset, &buf, self.len)?;
        let wanted = buf.len() as u64;
        let mut place = self.front.lock().await;
        let mut front = self.advance(&mut place)?;
        if offset < front.at {
            return Err(self.out_of_order(offset, front.at));
        }
        if front.grant < wanted {
            front.grant = self.grant(wanted).await?;
        }
        self.order(Order::Write { offset, buf }).await?;
        *place = Some(Front {
            at: end,
            grant: front.grant - wanted,
        });
        Ok(())
    }

    async fn finish(&self, len: u64) -> Result<(), Error> {
        check_end(&self.place, len, self.len)?;
        let mut place = self.front.lock().await;
        let front = self.advance(&mut place)?;
        if len < front.at {
            return Err(self.out_of_order(len, front.at));
        }
        let (done, waiting) = oneshot::channel();
        self.order(Order::Finish { end: len, done }).await?;
        match timeout(FINISH_LIMIT, waiting).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(self.trouble("finish")),
            Err(_) => return Err(self.stalled("finish", FINISH_LIMIT)),
        }
        volume::refresh(&self.libvirt, &self.place).await;
        let got = volume::describe(&self.libvirt, &self.place).await?.file_bytes;
        if got == len {
            return Ok(());
        }
        Err(Error::new(Kind::Failed, "finish", self.place.object())
            .detail(format!("the host has {got} bytes of the {len} that were sent")))
    }
}

/// The thread: sends until it is told to finish, or there is nobody any more who could tell it.
fn serve(stream: Stream, mut queue: mpsc::Receiver<Order>, shared: &Shared) {
    let mut at = 0;
    while let Some(order) = queue.blocking_recv() {
        let (done, sent) = match order {
            Order::Write { offset, buf } => (None, send(&stream, &mut at, offset, &buf, shared)),
            Order::Finish { end, done } => (Some(done), send(&stream, &mut at, end, &[], shared)),
        };
        match (done, sent) {
            (None, Ok(())) => {}
            (Some(done), Ok(())) => {
                match stream.finish() {
                    // Whoever waited may have given up.
                    Ok(()) => drop(done.send(())),
                    Err(error) => shared.fail(error),
                }
                return;
            }
            (done, Err(error)) => {
                // Before whoever waits is woken, by `done` or by the end of the queue.
                shared.fail(error);
                drop(done);
                break;
            }
        }
    }
    // What went wrong is known already, or nobody wants to know.
    let _ = stream.abort();
}

/// Sends a hole up to `offset` and the bytes from there.
fn send(stream: &Stream, at: &mut u64, offset: u64, bytes: &[u8], shared: &Shared) -> Result<(), VirtError> {
    if offset > *at {
        vmferry_libvirt::send_hole(stream, offset - *at)?;
    }
    for step in bytes.chunks(STEP) {
        vmferry_libvirt::send(stream, step)?;
        shared.sent.fetch_add(step.len() as u64, Ordering::Relaxed);
    }
    *at = offset + bytes.len() as u64;
    Ok(())
}

impl Shared {
    fn fail(&self, error: VirtError) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}
