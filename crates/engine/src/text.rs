//! Sizes and durations as people read them.

use std::fmt::Write;
use std::time::Duration;

/// A size in decimal units, as the API's messages have it: `10GB`, `4.5GB`, `512B`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let number = format!("{value:.1}");
    format!("{}{}", number.strip_suffix(".0").unwrap_or(&number), UNITS[unit])
}

/// A duration in whole seconds: `5m`, `1h30m`, `45s`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let mut out = String::new();
    for (count, unit) in parts.into_iter().filter(|(count, _)| *count > 0) {
        let _ = write!(out, "{count}{unit}");
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

/// `1 disk`, `2 disks`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A sentence with what is worth telling besides.
pub(crate) fn noted(text: &str, notes: &[String]) -> String {
    let clauses = notes.iter().map(String::as_str);
    std::iter::once(text).chain(clauses).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal_at_most() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (4_500_000_000, "4.5GB"),
            (10_000_000_000, "10GB"),
            (999_999_999, "1GB"),
            (3_000_000_000_000_000, "3000TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn durations_are_written_as_in_the_manifest() {
        for (seconds, text) in [(0, "0s"), (45, "45s"), (300, "5m"), (5400, "1h30m"), (3601, "1h1s")] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }
}
