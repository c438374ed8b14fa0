//! Work that is spread over threads by turns, and gathered in the same order.

use std::thread::available_parallelism;

use tokio::sync::mpsc;

use crate::Error;
use crate::hasher::spawn;

/// Threads for work that one processor cannot keep up with, at least and at most.
const LEAST: usize = 2;
const MOST: usize = 8;
/// Pieces of work that may wait on either side of a thread.
const QUEUE: usize = 1;

/// The threads' far ends: what went in comes out in the same order.
pub(crate) struct Gather<T> {
    lanes: Vec<mpsc::Receiver<T>>,
    next: usize,
}

/// Starts a thread for each processor, with a worker of its own that `make` makes. They end when what they are given ends or
/// nobody takes what they give.
pub(crate) fn spread<A: Send + 'static, B: Send + 'static, W: FnMut(A) -> B>(
    name: &'static str,
    make: impl Fn() -> W + Clone + Send + 'static,
) -> Result<(Vec<mpsc::Sender<A>>, Gather<B>), Error> {
    let count = count();
    let (mut ways, mut lanes) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        let (give, mut given) = mpsc::channel(QUEUE);
        let (done, lane) = mpsc::channel(QUEUE);
        let make = make.clone();
        spawn(name, move || {
            let mut work = make();
            while let Some(piece) = given.blocking_recv() {
                if done.blocking_send(work(piece)).is_err() {
                    break;
                }
            }
        })?;
        ways.push(give);
        lanes.push(lane);
    }
    Ok((ways, Gather { lanes, next: 0 }))
}

/// How many threads [`spread`] starts.
pub(crate) fn count() -> usize {
    available_parallelism().map_or(LEAST, usize::from).clamp(LEAST, MOST)
}

impl<T> Gather<T> {
    /// The next piece, for a thread that may block.
    pub(crate) fn next(&mut self) -> Option<T> {
        let lane = self.lanes.get_mut(self.next)?;
        let piece = lane.blocking_recv()?;
        self.next = (self.next + 1) % self.lanes.len();
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn order_is_kept_whoever_is_slow() {
        let (ways, mut gather) = spread("test", || {
            |n: u64| {
                std::thread::sleep(Duration::from_micros(n * 7919 % 300));
                n
            }
        })
        .unwrap();
        let all = tokio::task::spawn_blocking(move || std::iter::from_fn(|| gather.next()).collect::<Vec<_>>());
        for (n, way) in (0..200).zip(ways.iter().cycle()) {
            way.send(n).await.unwrap();
        }
        drop(ways);
        assert_eq!(all.await.unwrap(), (0..200).collect::<Vec<_>>());
    }
}
