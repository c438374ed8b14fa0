//! The phase machine: one table, one row a phase.

use vmferry_api::Phase;

/// A phase.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The phase.
    pub phase: Phase,
    /// What it does.
    pub does: &'static str,
    /// When it is done.
    pub done_when: &'static str,
    /// The condition that says so.
    pub condition: Option<&'static str>,
    /// What is undone on failure or deletion.
    pub undo: &'static str,
    /// Progress of the whole migration when it starts and when it ends, in percent.
    pub progress: (u8, u8),
    /// The phase after it.
    pub next: Option<Phase>,
}

/// The phases in order.
pub fn table() -> &'static [Row] {
    &[]
}

/// The table as text, for a terminal.
pub fn text() -> String {
    String::new()
}

/// The table as Markdown.
pub fn markdown() -> String {
    String::new()
}
