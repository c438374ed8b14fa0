//! Requests under way, and what has come of their replies.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use vmferry_block::Buf;

use crate::Error;
use crate::error::breach;
use crate::wire::command;

/// How many separate runs of a read may have come so far. Servers send few, large and in order.
const MAX_RUNS: usize = 4096;

/// How often longer than other requests one may take that makes the server wait for its disk.
const PATIENCE: u32 = 10;

/// What goes to the server for a request.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// The command.
    pub command: u16,
    /// Its flags.
    pub flags: u16,
}

/// The bytes that follow a write.
pub struct Payload {
    /// The buffer; whoever made the request may hold it too.
    pub buf: Arc<Buf>,
    /// Which bytes of it.
    pub range: Range<usize>,
}

/// A request under way.
pub struct Pending {
    /// What is asked for.
    pub order: Order,
    /// Where it starts.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u32,
    /// When it was made.
    pub since: Instant,
    /// What it is for.
    pub work: Work,
    /// The first error of its reply. The reply goes on after it.
    pub error: Option<Error>,
}

/// What a request is for, with who waits for it.
pub enum Work {
    /// A read into the buffer.
    Read {
        buf: Buf,
        filled: Filled,
        done: oneshot::Sender<Result<Buf, Error>>,
    },
    /// Lengths and flags from the start of the request on.
    Status {
        extents: Vec<(u32, u32)>,
        done: oneshot::Sender<Result<Vec<(u32, u32)>, Error>>,
    },
    /// A command whose answer is only whether it was done; with the bytes until they are sent.
    Change {
        payload: Option<Payload>,
        done: oneshot::Sender<Result<(), Error>>,
    },
}

impl Pending {
    /// Takes the bytes that are to be sent after the request.
    pub fn payload(&mut self) -> Option<Payload> {
        match &mut self.work {
            Work::Change { payload, .. } => payload.take(),
            Work::Read { .. } | Work::Status { .. } => None,
        }
    }

    /// What it does, for messages.
    pub fn action(&self) -> &'static str {
        match self.order.command {
            command::WRITE => "write",
            command::WRITE_ZEROES => "zero",
            command::FLUSH => "flush",
            _ => "read",
        }
    }

    /// Whether it has been waiting for too long where `limit` is what a read may take.
    fn is_late(&self, limit: Duration) -> bool {
        let limit = match self.order.command {
            command::FLUSH | command::WRITE_ZEROES => limit * PATIENCE,
            _ => limit,
        };
        self.since.elapsed() >= limit
    }

    /// Hands the result to who waits for it. A read is whole only when every byte of it came.
    pub fn finish(self) {
        match self.work {
            Work::Read { buf, filled, done } => {
                let whole = filled.is(self.len);
                let _ = done.send(match self.error {
                    Some(error) => Err(error),
                    None if whole => Ok(buf),
                    None => breach(format!(
                        "a reply without all of the {} bytes at {}",
                        self.len, self.offset
                    )),
                });
            }
            Work::Status { extents, done } => {
                let _ = done.send(match self.error {
                    Some(error) => Err(error),
                    None if extents.is_empty() => breach(format!("no block status at {}", self.offset)),
                    None => Ok(extents),
                });
            }
            Work::Change { done, .. } => {
                let _ = done.send(self.error.map_or(Ok(()), Err));
            }
        }
    }

    /// Fails the request.
    pub fn fail(mut self, error: Error) {
        self.error = Some(error);
        self.finish();
    }
}

/// Which bytes of a buffer have come: runs in order, apart from each other.
#[derive(Debug, Default)]
pub struct Filled(Vec<(u32, u32)>);

impl Filled {
    /// Notes a run. Refused where it touches what came before, as the protocol forbids that.
    pub fn add(&mut self, start: u32, end: u32) -> Result<(), Error> {
        let at = self.0.partition_point(|run| run.1 <= start);
        if self.0.get(at).is_some_and(|next| next.0 < end) {
            return breach(format!("the bytes {start} to {end} of a read twice"));
        }
        let joins_next = self.0.get(at).is_some_and(|next| next.0 == end);
        let joins_last = at > 0 && self.0[at - 1].1 == start;
        match (joins_last, joins_next) {
            (true, true) => {
                self.0[at - 1].1 = self.0[at].1;
                self.0.remove(at);
            }
            (true, false) => self.0[at - 1].1 = end,
            (false, true) => self.0[at].0 = start,
            (false, false) if self.0.len() >= MAX_RUNS => return breach("a read in too many pieces"),
            (false, false) => self.0.insert(at, (start, end)),
        }
        Ok(())
    }

    /// Whether these are all of `len` bytes.
    fn is(&self, len: u32) -> bool {
        self.0 == [(0, len)]
    }
}

/// All requests under way, by cookie.
#[derive(Default)]
pub struct Table(Mutex<State>);

#[derive(Default)]
struct State {
    requests: HashMap<u64, Pending>,
    next: u64,
    /// Why there will be no more replies.
    failed: Option<Error>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request and gives its cookie, or fails it where the connection has failed.
    pub fn add(&self, request: Pending) -> Option<u64> {
        let mut state = self.lock();
        if let Some(error) = state.failed.clone() {
            drop(state);
            request.fail(error);
            return None;
        }
        let cookie = state.next;
        state.next += 1;
        state.requests.insert(cookie, request);
        Some(cookie)
    }

    /// Takes a request out, to give it a piece of its reply.
    pub fn take(&self, cookie: u64) -> Option<Pending> {
        self.lock().requests.remove(&cookie)
    }

    /// Puts a request back that waits for more.
    pub fn put(&self, cookie: u64, request: Pending) {
        self.lock().requests.insert(cookie, request);
    }

    /// Whether a request has been waiting for longer than `limit`.
    pub fn waits_longer_than(&self, limit: Duration) -> bool {
        self.lock().requests.values().any(|request| request.is_late(limit))
    }

    /// Fails all requests, those to come too.
    pub fn fail(&self, error: &Error) {
        let requests = {
            let mut state = self.lock();
            state.failed.get_or_insert_with(|| error.clone());
            std::mem::take(&mut state.requests)
        };
        for request in requests.into_values() {
            request.fail(error.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn filled_takes_each_byte_once(runs in prop::collection::vec((0u32..64, 1u32..16), 1..40)) {
            let (mut filled, mut model) = (Filled::default(), [false; 80]);
            for (start, len) in runs {
                let range = start as usize..(start + len) as usize;
                let fresh = !model[range.clone()].contains(&true);
                prop_assert_eq!(filled.add(start, start + len).is_ok(), fresh);
                if fresh {
                    model[range].fill(true);
                }
            }
            let front = model.iter().take_while(|&&set| set).count();
            let only_front = model[front..].iter().all(|&set| !set) && front > 0;
            prop_assert_eq!(filled.is(front as u32), only_front);
        }
    }
}
