//! Requests under way, and what has come of their replies.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use vmferry_block::Buf;

use crate::Error;
use crate::error::breach;

/// How many separate runs of a read may have come so far. Servers send few, large and in order.
const MAX_RUNS: usize = 4096;

/// A request under way.
pub struct Pending {
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
}

impl Pending {
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
        self.lock()
            .requests
            .values()
            .any(|request| request.since.elapsed() >= limit)
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
