//! What the user sees while migrations run, and at the end.
//!
//! One [`Reporter`] hears of every save and event and shows it in its form: progress lines on a terminal, plain lines where
//! the output goes elsewhere, or one JSON object a line.

mod json;
mod plain;
mod summary;
mod terminal;
pub mod units;

use std::io::{IsTerminal, Write};
use std::sync::{Arc, OnceLock};

use indicatif::MultiProgress;
use vmferry_api::{Key, VMMigration};
use vmferry_local::Observer;
use vmferry_worker::RunningJob;

use crate::args::Format;
use crate::drive::Ending;
use crate::exit::Failure;

pub use plain::{disk_line, moves_bytes};

/// Shows what happens.
pub trait Reporter: Observer {
    /// Something about a migration, or (without a key) about the whole command.
    fn note(&self, key: Option<&Key>, text: &str);
    /// How the jobs that are under way are doing, several times a second.
    fn running(&self, _jobs: &[RunningJob]) {}
    /// How it ended: each migration with its last known state, where there is one.
    fn summary(&self, endings: &[(Key, Ending, Option<VMMigration>)]);
}

/// The reporter of this form.
pub fn reporter(format: Format) -> Arc<dyn Reporter> {
    match format {
        Format::Json => Arc::new(json::Json),
        Format::Text if std::io::stdout().is_terminal() && std::io::stderr().is_terminal() => {
            Arc::new(terminal::Terminal::new(bars().clone()))
        }
        Format::Text => Arc::new(plain::Plain::default()),
    }
}

/// Lets a reporter hear what a store tells an observer.
pub fn observer(reporter: &Arc<dyn Reporter>) -> Arc<dyn Observer> {
    Arc::clone(reporter) as Arc<dyn Observer>
}

/// Tells the user why nothing came of it.
pub fn error(failure: &Failure) {
    for message in &failure.messages {
        aside(|| {
            let _ = writeln!(std::io::stderr().lock(), "error: {message}");
        });
    }
}

/// Writes a line to standard output. Whoever reads it may have gone, which is no failure of ours.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Whether standard error takes colours.
pub fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Does something on the terminal with the progress lines put aside.
pub fn aside<T>(work: impl FnOnce() -> T) -> T {
    bars().suspend(work)
}

/// The progress lines of this process. Where standard error is no terminal, they draw nothing.
fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(MultiProgress::new)
}
