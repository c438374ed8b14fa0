//! How far a copy is, on a terminal.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::units;

/// A line that shows how far it is; none where standard error is no terminal.
pub struct Progress {
    bar: ProgressBar,
    since: Instant,
}

impl Progress {
    /// A line for `total` bytes.
    pub fn new(what: &str, total: u64) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::new(total)
        } else {
            ProgressBar::hidden()
        };
        // The template is well-formed; a test holds it to that.
        if let Ok(style) = style() {
            bar.set_style(style);
        }
        bar.set_prefix(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Self {
            bar,
            since: Instant::now(),
        }
    }

    /// Says that so many more bytes are done.
    pub fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
        if self.bar.is_hidden() {
            return;
        }
        let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
        let rate = rate(done, self.since.elapsed());
        let text = format!("{} / {}  {}", units::size(done), units::size(total), units::rate(rate));
        self.bar.set_message(text);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Bytes a second.
pub fn rate(bytes: u64, time: Duration) -> u64 {
    let millis = time.as_millis().max(1);
    u64::try_from(u128::from(bytes) * 1000 / millis).unwrap_or(u64::MAX)
}

fn style() -> Result<ProgressStyle, indicatif::style::TemplateError> {
    ProgressStyle::with_template("{prefix} {wide_bar} {msg}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_well_formed() {
        assert!(style().is_ok());
    }

    #[test]
    fn a_rate_is_bytes_a_second() {
        assert_eq!(rate(3000, Duration::from_millis(1500)), 2000);
        assert_eq!(rate(5, Duration::ZERO), 5000);
    }
}
