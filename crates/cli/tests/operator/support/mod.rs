//! What the scenarios stand on, with a cluster for the `vmferry run` of the `e2e` tests.

mod ferry;
mod installation;
mod watch;

#[path = "../../e2e/support/lab.rs"]
mod lab;
#[path = "../../e2e/support/manifest.rs"]
mod manifest;
#[path = "../../e2e/support/outcome.rs"]
mod outcome;
// Not all that can be done to storage is done here.
#[allow(dead_code)]
#[path = "../../e2e/support/place.rs"]
mod place;
#[path = "../../e2e/support/process.rs"]
mod process;
#[path = "../../e2e/support/record.rs"]
mod record;

pub use ferry::Ferry;
#[allow(unused_imports, reason = "for tests that go past the scenarios")]
pub use installation::{shared, worker_account};
pub use lab::Lab;
pub use manifest::Crossing;
pub use outcome::Outcome;
pub use place::Place;
pub use record::{PHASES, Record};
pub use vmferry_testkit::Proxy;
