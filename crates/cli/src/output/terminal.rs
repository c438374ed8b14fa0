//! Progress lines on a terminal: one for each migration that runs, one below it for each disk that moves.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use vmferry_api::manifest::key_of;
use vmferry_api::names::event;
use vmferry_api::{Key, Phase, VMMigration, VMMigrationStatus};
use vmferry_engine::port::{DiskProgress, Event, EventType};
use vmferry_local::Observer;
use vmferry_worker::RunningJob;

use super::plain::moves_bytes;
use super::{Reporter, aside, line, summary, units};
use crate::drive::Ending;

/// Progress lines.
pub(super) struct Terminal {
    bars: MultiProgress,
    lines: Mutex<HashMap<Key, Lines>>,
}

/// The lines of a migration.
struct Lines {
    head: ProgressBar,
    disks: Vec<ProgressBar>,
    phase: Phase,
}

impl Terminal {
    pub fn new(bars: MultiProgress) -> Self {
        Self {
            bars,
            lines: Mutex::default(),
        }
    }

    fn head(&self, key: &Key) -> Lines {
        let head = self.bars.add(ProgressBar::new_spinner());
        head.set_style(style("{spinner} {prefix}  {wide_msg}"));
        head.set_prefix(key.to_string());
        head.enable_steady_tick(Duration::from_millis(200));
        Lines {
            head,
            disks: Vec::new(),
            phase: Phase::Pending,
        }
    }

    fn show(&self, lines: &mut Lines, status: &VMMigrationStatus) {
        let message = status.message.as_deref().unwrap_or_default();
        lines
            .head
            .set_message(format!("{:?}  {} %  {message}", status.phase, status.progress));
        if lines.phase != status.phase {
            lines.phase = status.phase;
            clear(&mut lines.disks);
        }
        if !moves_bytes(status.phase) {
            return;
        }
        for disk in status.disks.iter().skip(lines.disks.len()) {
            let above = lines.disks.last().unwrap_or(&lines.head);
            let bar = self.bars.insert_after(above, ProgressBar::new(1));
            bar.set_style(style("    {prefix:<8} {wide_bar} {msg}"));
            bar.set_prefix(disk.name.clone());
            lines.disks.push(bar);
        }
    }
}

fn show_disk(bar: &ProgressBar, disk: &DiskProgress) {
    bar.set_length(disk.total.max(1));
    bar.set_position(disk.done);
    let left = disk.total.saturating_sub(disk.done);
    let eta = match left.checked_div(disk.rate) {
        Some(seconds) if left > 0 => format!("  {} left", units::duration(Duration::from_secs(seconds))),
        _ => String::new(),
    };
    let (done, total) = (units::size(disk.done), units::size(disk.total));
    bar.set_message(format!("{done} / {total}  {}{eta}", units::rate(disk.rate)));
}

fn clear(bars: &mut Vec<ProgressBar>) {
    for bar in bars.drain(..) {
        bar.finish_and_clear();
    }
}

/// A template of ours is always well-formed; a test holds it to that.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Observer for Terminal {
    fn saved(&self, migration: &VMMigration) {
        let Some(status) = &migration.status else { return };
        let key = key_of(migration);
        let mut all = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if status.completion_time.is_some() {
            if let Some(mut lines) = all.remove(&key) {
                clear(&mut lines.disks);
                lines.head.finish_and_clear();
            }
            return;
        }
        let lines = all.entry(key.clone()).or_insert_with(|| self.head(&key));
        self.show(lines, status);
    }

    fn event(&self, migration: &VMMigration, event: &Event) {
        if event.reason == event::TRANSFER_PROGRESS {
            return;
        }
        let mark = match event.event_type {
            EventType::Normal => " ",
            EventType::Warning | EventType::Error => "!",
        };
        aside(|| line(&format!("{mark} {}  {}", key_of(migration), event.message)));
    }
}

impl Reporter for Terminal {
    fn note(&self, key: Option<&Key>, text: &str) {
        aside(|| match key {
            Some(key) => line(&format!("  {key}  {text}")),
            None => line(text),
        });
    }

    fn running(&self, jobs: &[RunningJob]) {
        let all = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for job in jobs {
            let bars = all
                .get(&job.migration)
                .map(|lines| lines.disks.as_slice())
                .unwrap_or_default();
            for (bar, (_, disk)) in bars.iter().zip(&job.disks) {
                show_disk(bar, disk);
            }
        }
    }

    fn summary(&self, endings: &[(Key, Ending, Option<VMMigration>)]) {
        let mut all = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, mut lines) in all.drain() {
            clear(&mut lines.disks);
            lines.head.finish_and_clear();
        }
        aside(|| {
            for (key, ending, migration) in endings {
                for text in summary::lines(key, *ending, migration.as_ref()) {
                    line(&text);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_well_formed() {
        for template in ["{spinner} {prefix}  {wide_msg}", "    {prefix:<8} {wide_bar} {msg}"] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
