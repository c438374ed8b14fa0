//! The log, on standard error. It never gets in the way of the progress lines, which are drawn there too.

use std::io::Write;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::args::{Format, Logging};
use crate::output;

/// Starts logging. A filter that makes no sense is told and passed over.
pub fn init(logging: &Logging) {
    let default = match logging.verbose {
        0 => "error,vmferry=warn",
        1 => "error,vmferry=info",
        2 => "warn,vmferry=debug",
        _ => "info,vmferry=trace",
    };
    let wanted = std::env::var("VMFERRY_LOG").ok().filter(|text| !text.is_empty());
    let (filter, problem) = match wanted.as_deref().map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(default), Some(error)),
        None => (EnvFilter::new(default), None),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Stderr);
    // It fails only where a log was started before, which nobody does.
    let _ = match logging.log_format {
        Format::Text => log.with_ansi(output::colours()).try_init(),
        Format::Json => log.json().try_init(),
    };
    if let Some(error) = problem {
        tracing::warn!(%error, "VMFERRY_LOG is not a filter like vmferry=debug; it is passed over");
    }
}

/// Standard error, with the progress lines put aside while something is written.
struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        output::aside(|| std::io::stderr().lock().write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}
