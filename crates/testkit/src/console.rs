//! The serial console of a guest, by way of libvirt.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::Host;
use crate::command::Must;

/// Opens the console until a line contains `text`.
#[track_caller]
pub(crate) fn line_with(host: &Host, domain: &str, text: &str, limit: Duration) -> String {
    // `virsh console` wants a terminal: script(1) gives it one. Its standard input stays open, or it would hang up.
    let console = format!("virsh -q -c '{}' console --force '{domain}'", host.uri());
    let mut child = Command::new("script")
        .args(["--quiet", "--flush", "--return", "--command", &console, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .must("run script(1)");
    let output = child.stdout.take().must("read the console");
    let (send, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if send.send(String::from_utf8_lossy(&line).trim().to_owned()).is_err() {
                return;
            }
        }
    });
    let (start, mut seen) = (Instant::now(), Vec::new());
    let found = loop {
        match lines.recv_timeout(limit.saturating_sub(start.elapsed())) {
            Ok(line) if line.contains(text) => break Some(line),
            Ok(line) => seen.push(line),
            Err(_) => break None,
        }
    };
    drop(lines);
    let _ = child.kill();
    let _ = child.wait();
    let _ = reader.join();
    found.unwrap_or_else(|| {
        panic!(
            "{domain} on {} did not say `{text}` in {limit:?}, only {seen:?}",
            host.label()
        )
    })
}
