//! Waiting, with a limit.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(25);

/// Waits until `look` finds something, and gives it; `None` after `limit`.
pub fn poll<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(STEP);
    }
}

/// Waits until `look` finds something, and gives it; ends the test after `limit`.
#[track_caller]
pub fn wait_for<T>(what: impl Display, limit: Duration, look: impl FnMut() -> Option<T>) -> T {
    poll(limit, look).unwrap_or_else(|| panic!("waited {limit:?} in vain for {what}"))
}
