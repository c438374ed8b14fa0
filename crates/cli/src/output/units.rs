//! Numbers with their units.

use std::time::Duration;

use jiff::Timestamp;
use vmferry_api::{GoDuration, Time};

/// A size: `512 B`, `4.5 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would be printed as 1024.0 goes to the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A rate: `120.0 MiB/s`.
pub fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", size(bytes_per_second))
}

/// A duration in whole seconds: `1h2m3s`.
pub fn duration(duration: Duration) -> String {
    GoDuration(Duration::from_secs(duration.as_secs())).to_string()
}

/// From one time to another; nothing where the clock went back.
pub fn between(from: &Time, to: &Time) -> Duration {
    let seconds = to.0.as_second().saturating_sub(from.0.as_second());
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// How long ago, in its two largest units: `3d4h`, `5m10s`.
pub fn age(since: &Time) -> String {
    let seconds = between(since, &Time(Timestamp::now())).as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// A number of the status, which is never negative.
pub fn count(number: Option<i64>) -> u64 {
    number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0)
}

/// Percent of a whole, 100 only where all of it is done.
pub fn percent(done: u64, total: u64) -> u64 {
    if total == 0 {
        return 0;
    }
    u64::try_from(u128::from(done.min(total)) * 100 / u128::from(total)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_their_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (4_831_838_208, "4.5 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn percents_stay_between_nothing_and_all() {
        assert_eq!(percent(0, 0), 0);
        assert_eq!(percent(999, 1000), 99);
        assert_eq!(percent(2000, 1000), 100);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
    }
}
