//! The log, on standard error. It never gets in the way of the progress lines, which are drawn there too.

use std::io::Write;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::args::{Format, Logging};
use crate::output;

/// What is logged of the Kubernetes client where nothing else is asked for: nothing. Who calls it says what failed; and it
/// writes out an answer that it cannot parse, which may be a Secret.
const CLIENT: &str = "kube_client=off";

/// Starts logging: for people before a terminal, or for a service. A filter that makes no sense is told and passed over.
pub fn init(logging: &Logging, service: bool) {
    let default = match logging.verbose + u8::from(service) {
        0 => "error,vmferry=warn",
        1 => "error,vmferry=info",
        2 => "warn,vmferry=debug",
        _ => "info,vmferry=trace",
    };
    let default = format!("{default},{CLIENT}");
    let wanted = std::env::var("VMFERRY_LOG").ok().filter(|text| !text.is_empty());
    let (filter, problem) = match wanted.as_deref().map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(&default), Some(error)),
        None => (EnvFilter::new(&default), None),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Stderr);
    // It fails only where a log was started before, which nobody does.
    let form = logging
        .log_format
        .unwrap_or(if service { Format::Json } else { Format::Text });
    let _ = match form {
        Format::Text => log.with_ansi(output::colours()).try_init(),
        Format::Json => log.json().with_current_span(false).try_init(),
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
