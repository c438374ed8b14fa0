//! The system's clock.

use jiff::Timestamp;
use vmferry_api::Time;
use vmferry_engine::port::Clock;

/// The system's clock, in whole seconds.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        let now = Timestamp::now();
        Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
    }
}
