//! What the tests share: two hosts, the manifests of a crossing, and a run of the binary.

mod ferry;
mod lab;
mod manifest;
mod outcome;
mod place;
mod process;
mod record;

pub use ferry::{Ferry, Ran};
pub use lab::Lab;
pub use manifest::Crossing;
pub use outcome::Outcome;
pub use place::Place;
pub use record::{PHASES, Record};
pub use vmferry_testkit::Proxy;
