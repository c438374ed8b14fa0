//! For how long something did not change, as seen from here.
//!
//! Times of other machines are not looked at: their clocks may be wrong. A cache may be behind what was read directly, so that
//! an old state may be seen after a new one; that is no change. So it is kept of several states when each was seen first.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many states of one thing are kept apart.
const STATES: usize = 8;
/// What nobody asked for since so long is forgotten.
const FORGOTTEN: Duration = Duration::from_mins(30);

/// When states of things were seen first.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    things: Mutex<HashMap<String, Thing>>,
}

#[derive(Debug)]
struct Thing {
    /// Each state with when it was seen first; the one that was asked for last is last.
    states: VecDeque<(String, Instant)>,
    asked: Instant,
}

impl Sightings {
    /// For how long `thing` was seen in the state `mark`: nothing when it is seen in it for the first time.
    pub(super) fn age(&self, thing: &str, mark: &str) -> Duration {
        let now = Instant::now();
        let mut things = self.things.lock().unwrap_or_else(PoisonError::into_inner);
        if !things.contains_key(thing) {
            things.retain(|_, other| now.duration_since(other.asked) < FORGOTTEN);
        }
        let known = things.entry(thing.to_owned()).or_insert_with(|| Thing {
            states: VecDeque::new(),
            asked: now,
        });
        known.asked = now;
        now.duration_since(known.since(mark, now))
    }
}

impl Thing {
    fn since(&mut self, mark: &str, now: Instant) -> Instant {
        let known = self.states.iter().position(|(state, _)| state == mark);
        let known = known.and_then(|index| self.states.remove(index));
        let (mark, since) = known.unwrap_or_else(|| (mark.to_owned(), now));
        self.states.push_back((mark, since));
        if self.states.len() > STATES {
            self.states.pop_front();
        }
        since
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    const WHILE: Duration = Duration::from_millis(20);

    #[test]
    fn a_state_that_stays_grows_old_and_a_new_one_is_young() {
        let sightings = Sightings::default();
        assert!(sightings.age("a", "1") < WHILE);
        sleep(WHILE);
        assert!(sightings.age("a", "1") >= WHILE);
        assert!(sightings.age("a", "2") < WHILE);
        assert!(sightings.age("b", "1") < WHILE);
    }

    #[test]
    fn an_old_state_that_is_seen_after_a_new_one_makes_neither_younger() {
        let sightings = Sightings::default();
        sightings.age("a", "1");
        sightings.age("a", "2");
        sleep(WHILE);
        for mark in ["1", "2", "1", "2"] {
            assert!(sightings.age("a", mark) >= WHILE, "{mark}");
        }
        for other in 3..60 {
            sightings.age("a", &other.to_string());
            assert!(sightings.age("a", "1") >= WHILE, "{other}");
        }
    }
}
