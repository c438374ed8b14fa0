//! What the runs stand on: that of the `e2e` tests.

// Not all that can be done to a run or to storage is done here.
#[allow(dead_code)]
#[path = "../../e2e/support/ferry.rs"]
mod ferry;
#[allow(dead_code)]
#[path = "../../e2e/support/manifest.rs"]
mod manifest;
#[allow(dead_code)]
#[path = "../../e2e/support/outcome.rs"]
mod outcome;
#[allow(dead_code)]
#[path = "../../e2e/support/place.rs"]
mod place;
#[path = "../../e2e/support/process.rs"]
mod process;
#[allow(dead_code)]
#[path = "../../e2e/support/record.rs"]
mod record;

pub use ferry::Ferry;
pub use manifest::Crossing;
pub use outcome::Outcome;
pub use place::Place;
pub use record::Record;
