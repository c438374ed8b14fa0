//! The phase machine: one table, one row a phase.
//!
//! The engine reads it ([`Row::act`], [`Row::next`], the condition and the progress span), undoes by it (from the last row to
//! the first), `vmferry explain phases` prints it, and the documentation is rendered from it.

use std::fmt::Write;

use futures::future::BoxFuture;
use vmferry_api::Phase;
use vmferry_api::names::condition;

use crate::failure::Trouble;
use crate::phases::{
    creating, exporting, failed, importing, pending, ready, snapshotting, transferring, validating, validating_target,
};
use crate::run::{Outcome, Run};

/// Does one step of a phase: looks first, acts on what is missing, leaves what is to be recorded in the run.
pub(crate) type Act = for<'a> fn(&'a mut Run) -> BoxFuture<'a, Result<Outcome, Trouble>>;

/// Undoes what a phase may have made; does nothing where it never ran.
pub(crate) type Undo = for<'a> fn(&'a Run) -> BoxFuture<'a, Result<(), Trouble>>;

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
    pub(crate) act: Act,
    pub(crate) revert: Option<Undo>,
}

static TABLE: [Row; 11] = [
    Row {
        phase: Phase::Pending,
        does: "waits for a free slot, the oldest migration first",
        done_when: "a slot is free",
        condition: None,
        undo: "the slot is free again",
        progress: (0, 0),
        next: Some(Phase::Validating),
        act: pending::act,
        revert: None,
    },
    Row {
        phase: Phase::Validating,
        does: "checks source, target, staging storage, hints and conflicts; makes nothing",
        done_when: "all rules hold",
        condition: Some(condition::VALIDATED),
        undo: "nothing to undo",
        progress: (0, 2),
        next: Some(Phase::Snapshotting),
        act: validating::act,
        revert: None,
    },
    Row {
        phase: Phase::Snapshotting,
        does: "freezes the source's disks at one point in time, quiesced where the guest agent answers",
        done_when: "the snapshot's id is recorded",
        condition: Some(condition::SNAPSHOTTED),
        undo: "release the frozen state, delete the snapshot",
        progress: (2, 4),
        next: Some(Phase::Exporting),
        act: snapshotting::act,
        revert: Some(snapshotting::undo),
    },
    Row {
        phase: Phase::Exporting,
        does: "opens the frozen disks: capacity, allocation, place in staging; removes what an attempt that was given up has staged",
        done_when: "every disk opened and is recorded",
        condition: Some(condition::EXPORTED),
        undo: "nothing stays open between steps",
        progress: (4, 5),
        next: Some(Phase::Transferring),
        act: exporting::act,
        revert: None,
    },
    Row {
        phase: Phase::Transferring,
        does: "streams each disk, encoded for its destination, into staging",
        done_when: "every object is whole and its SHA-256 recorded",
        condition: Some(condition::TRANSFERRED),
        undo: "stop the job, abort uploads, delete objects and notes",
        progress: (5, 50),
        next: Some(Phase::Converting),
        act: transferring::act,
        revert: Some(transferring::undo),
    },
    Row {
        phase: Phase::Converting,
        does: "only what could not be encoded in flight: at present nothing",
        done_when: "the staged format suits the target",
        condition: Some(condition::CONVERTED),
        undo: "nothing to undo",
        progress: (50, 50),
        next: Some(Phase::Importing),
        act: crate::phases::converting::act,
        revert: None,
    },
    Row {
        phase: Phase::Importing,
        does: "makes the target volumes and streams each object into its own, verifying SHA-256 and content digest",
        done_when: "every volume is complete and verified",
        condition: Some(condition::IMPORTED),
        undo: "stop the job, delete the volumes",
        progress: (50, 95),
        next: Some(Phase::Creating),
        act: importing::act,
        revert: Some(importing::undo),
    },
    Row {
        phase: Phase::Creating,
        does: "defines the VM: firmware, cpu, memory, disks in order, NICs with their MACs, hints applied",
        done_when: "the VM exists and its id is recorded",
        condition: Some(condition::CREATED),
        undo: "delete the VM that this migration made, never another's",
        progress: (95, 97),
        next: Some(Phase::ValidatingTarget),
        act: creating::act,
        revert: Some(creating::undo),
    },
    Row {
        phase: Phase::ValidatingTarget,
        does: "compares the target VM's hardware and starts it where it is to run",
        done_when: "the hardware is right and the power state as asked",
        condition: Some(condition::READY),
        undo: "nothing to undo",
        progress: (97, 99),
        next: Some(Phase::Ready),
        act: validating_target::act,
        revert: None,
    },
    Row {
        phase: Phase::Ready,
        does: "declares the target VirtualMachine; cleans up as the policy says: intermediate, snapshot, and only then source",
        done_when: "all of it is done; failures are retried for as long as it takes",
        condition: Some(condition::READY),
        undo: "the target VM is the user's now and stays",
        progress: (99, 100),
        next: None,
        act: ready::act,
        revert: None,
    },
    Row {
        phase: Phase::Failed,
        does: "removes what this migration made, from the last phase to the first; leaves what it found",
        done_when: "nothing of it is left; failures are retried for as long as it takes",
        condition: Some(condition::FAILED),
        undo: "nothing to undo",
        progress: (0, 0),
        next: None,
        act: failed::act,
        revert: None,
    },
];

/// The phases in order.
pub fn table() -> &'static [Row] {
    &TABLE
}

/// The row of a phase.
pub fn row(phase: Phase) -> &'static Row {
    // The table has a row for each phase, in the order of the enum; a test holds it to that.
    &TABLE[phase as usize]
}

/// The table as text, for a terminal: a few lines a phase.
pub fn text() -> String {
    let mut out = String::new();
    for row in table() {
        let name = format!("{:?}", row.phase);
        let condition = row.condition.unwrap_or("–");
        let (from, to) = row.progress;
        let span = if row.phase == Phase::Failed {
            "as it was".to_owned()
        } else {
            format!("{from}–{to} %")
        };
        let _ = write!(
            out,
            "{name}\n  does       {}\n  done when  {}\n  condition  {condition}\n  undo       {}\n  progress   {span}\n",
            row.does, row.done_when, row.undo
        );
        if let Some(next) = row.next {
            let _ = writeln!(out, "  next       {next:?}");
        }
        out.push('\n');
    }
    out
}

/// The table as Markdown.
pub fn markdown() -> String {
    let mut out = String::from(
        "| phase | does | done when | condition | undo | progress | next |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in table() {
        let (from, to) = row.progress;
        let condition = row.condition.unwrap_or("–");
        let next = row.next.map_or_else(|| "–".to_owned(), |next| format!("{next:?}"));
        let _ = writeln!(
            out,
            "| {:?} | {} | {} | {condition} | {} | {from}–{to} | {next} |",
            row.phase, row.does, row.done_when, row.undo
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [&str; 11] = [
        "Pending",
        "Validating",
        "Snapshotting",
        "Exporting",
        "Transferring",
        "Converting",
        "Importing",
        "Creating",
        "ValidatingTarget",
        "Ready",
        "Failed",
    ];
    const CONDITIONS: [&str; 9] = [
        "Validated",
        "Snapshotted",
        "Exported",
        "Transferred",
        "Converted",
        "Imported",
        "Created",
        "Ready",
        "Failed",
    ];

    #[test]
    fn the_table_has_the_phases_of_the_reference_in_order() {
        let names: Vec<_> = table().iter().map(|row| format!("{:?}", row.phase)).collect();
        assert_eq!(names, PHASES);
        for each in table() {
            assert_eq!(row(each.phase).phase, each.phase);
        }
    }

    #[test]
    fn the_table_has_the_conditions_of_the_reference() {
        let mut found: Vec<_> = table().iter().filter_map(|row| row.condition).collect();
        found.dedup();
        assert_eq!(found, CONDITIONS);
    }

    #[test]
    fn the_phases_follow_each_other_and_progress_never_goes_back() {
        let mut row = row(Phase::Pending);
        let mut seen = 1;
        while let Some(next) = row.next {
            let after = super::row(next);
            assert!(row.progress.0 <= row.progress.1);
            assert_eq!(row.progress.1, after.progress.0, "{next:?}");
            row = after;
            seen += 1;
        }
        assert_eq!((row.phase, row.progress.1), (Phase::Ready, 100));
        assert_eq!(seen, table().len() - 1, "only Failed is off the way");
    }

    #[test]
    fn both_renderings_name_every_phase() {
        for phase in PHASES {
            assert!(text().contains(&format!("{phase}\n")), "{phase}");
            assert!(markdown().contains(&format!("| {phase} |")), "{phase}");
        }
    }
}
