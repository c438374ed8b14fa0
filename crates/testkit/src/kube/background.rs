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

/// Runs a future to its end. A thread of its own drives it, since the test's may be driving a runtime already.
pub(super) fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let ended = thread::scope(|scope| scope.spawn(|| runtime().block_on(future)).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
