//! A world to test the engine in: faithful fakes of all ports over one state, with faults and crashes at will.

pub(crate) mod manifests;

mod check;
mod drive;
mod executor;
mod hosts;
mod staging;
mod store;
mod world;

mod arrival;
mod bad_input;
mod faults;
mod limits;
mod midway;
mod requests;
mod scenarios;
mod spec_changes;

use drive::{Drive, End};
