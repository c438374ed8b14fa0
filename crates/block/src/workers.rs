//! Long-lived threads for calls that block.
//!
//! A thread for every call costs more than the call, so there are a few for the whole process, started when they are
//! first needed and never stopped. Work that was handed over runs to its end even when nobody waits for it any more: it
//! owns all that it touches.
//!
//! A file system that does not answer, such as an NFS server's that is away, keeps the threads that wait for it. So there are
//! [`Lanes`]: no more of the work on one file system is handed over at a time than they let through, and the rest waits without a
//! thread.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use tokio::sync::{Semaphore, oneshot};

/// Enough for several file systems at once.
const THREADS: usize = 32;
/// Enough to keep one busy.
const LANES: usize = 10;

/// The lanes of the file systems on which files are open, by their device numbers.
static BY_DEVICE: LazyLock<Mutex<HashMap<u64, Weak<Semaphore>>>> = LazyLock::new(Mutex::default);

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

/// How much work on one file system may be under way at a time.
#[derive(Debug, Clone)]
pub(crate) struct Lanes(Arc<Semaphore>);

impl Lanes {
    /// Those of the file system that the file is on. Blocks.
    pub(crate) fn of(file: &std::fs::File) -> io::Result<Self> {
        let device = file.metadata()?.dev();
        let mut all = BY_DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, lanes| lanes.strong_count() > 0);
        if let Some(lanes) = all.get(&device).and_then(Weak::upgrade) {
            return Ok(Self(lanes));
        }
        let lanes = Arc::new(Semaphore::new(LANES));
        all.insert(device, Arc::downgrade(&lanes));
        Ok(Self(lanes))
    }

    /// [`run`], once there is a lane. Work that nobody waits for any more keeps its lane to its end.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let lane = Arc::clone(&self.0).acquire_owned().await.map_err(io::Error::other)?;
        run(move || {
            let outcome = work();
            drop(lane);
            outcome
        })
        .await
    }
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
    async fn a_file_system_that_does_not_answer_leaves_threads_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let lanes = Lanes::of(&std::fs::File::open(folder.path()).unwrap()).unwrap();
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        // They hang, their callers go away, and others come.
        for _ in 0..3 * THREADS {
            let (lanes, gate) = (lanes.clone(), Arc::clone(&gate));
            tokio::spawn(async move {
                let hung = lanes.run(move || {
                    let _ = gate.lock().unwrap().recv();
                    Ok(())
                });
                let _ = tokio::time::timeout(std::time::Duration::from_millis(20), hung).await;
            });
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let other = Lanes::of(&std::fs::File::open("/proc").unwrap()).unwrap();
        let done = tokio::time::timeout(std::time::Duration::from_secs(20), other.run(|| Ok(7)));
        assert_eq!(done.await.unwrap().unwrap(), 7);
        drop(open);
        assert_eq!(lanes.run(|| Ok(8)).await.unwrap(), 8);
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
