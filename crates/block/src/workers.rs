//! Long-lived threads for calls that block.
//!
//! A thread for every call costs more than the call, so there are a few for the whole process, started when they are
//! first needed and never stopped. Work that was handed over runs to its end even when nobody waits for it any more: it
//! owns all that it touches.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::oneshot;

/// Enough to keep a disk busy, with some to spare for a file system that does not answer.
const THREADS: usize = 16;

static WORKERS: Workers = Workers {
    state: Mutex::new(State {
        jobs: VecDeque::new(),
        idle: 0,
        threads: 0,
    }),
    wake: Condvar::new(),
};

type Job = Box<dyn FnOnce() + Send>;

struct Workers {
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
}

/// Runs `work` on one of the threads and waits for its result.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let (answer, result) = oneshot::channel();
    WORKERS.submit(Box::new(move || {
        // Nobody may be waiting any more; then the result is dropped here.
        let _ = answer.send(work());
    }))?;
    result
        .await
        .map_err(|_| io::Error::other("the thread that did the work panicked"))?
}

impl Workers {
    fn submit(&'static self, job: Job) -> io::Result<()> {
        let mut state = self.lock();
        if state.jobs.len() >= state.idle && state.threads < THREADS {
            let name = format!("blocking-{}", state.threads);
            let started = thread::Builder::new().name(name).spawn(|| self.serve());
            match started {
                Ok(_) => state.threads += 1,
                // The threads that there are will come to it.
                Err(_) if state.threads > 0 => {}
                Err(error) => return Err(error),
            }
        }
        state.jobs.push_back(job);
        self.wake.notify_one();
        Ok(())
    }

    fn serve(&self) {
        let mut state = self.lock();
        loop {
            while let Some(job) = state.jobs.pop_front() {
                drop(state);
                // A panic reaches the one who waits as a dropped channel.
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = self.lock();
            }
            state.idle += 1;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_threads_live_on() {
        for _ in 0..2 * THREADS {
            assert!(run::<()>(|| panic!("on purpose")).await.is_err());
        }
        assert_eq!(run(|| Ok(7)).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn more_work_than_threads_is_all_done() {
        let work = (0..200).map(|n| tokio::spawn(run(move || Ok(n))));
        let mut sum = 0;
        for task in work.collect::<Vec<_>>() {
            sum += task.await.unwrap().unwrap();
        }
        assert_eq!(sum, 199 * 200 / 2);
        assert!(WORKERS.lock().threads <= THREADS);
    }
}
