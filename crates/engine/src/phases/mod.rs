//! The phases, a file each. All have the same shape: look at the world, act on what is missing, leave the record in the run.

pub(crate) mod converting;
pub(crate) mod creating;
pub(crate) mod exporting;
pub(crate) mod failed;
pub(crate) mod importing;
pub(crate) mod pending;
pub(crate) mod ready;
pub(crate) mod snapshotting;
pub(crate) mod transferring;
pub(crate) mod validating;
pub(crate) mod validating_target;

mod conflict;
