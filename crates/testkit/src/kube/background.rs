//! Waiting for something asynchronous, wherever the test is.

use std::future::Future;
use std::thread;

use tokio::runtime::{Builder, Runtime};

use crate::command::Must;

/// A runtime of one thread.
pub(super) fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .must("make a runtime")
}

/// Makes a future and runs it to its end, on a thread of its own: the test's may be driving a runtime already.
pub(super) fn block_on<T: Send, F: Future<Output = T>>(make: impl FnOnce() -> F + Send) -> T {
    let ended = thread::scope(|scope| scope.spawn(|| runtime().block_on(make())).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
