//! State in a directory: what a cluster keeps for the operator, this keeps for `vmferry run`.
//!
//! ```text
//! <state>/format                                 which layout this is
//! <state>/lock                                   held by the process that works here, with its id
//! <state>/migrations/<namespace>/<name>.json     a migration, its status and where its manifests were
//! <state>/virtualmachines/<namespace>/<name>.json
//! <state>/providers/<namespace>/<name>.json
//! <state>/events/<namespace>/<name>.jsonl        what happened to a migration, a line an event
//! <state>/run/                                   sockets of the running process, wiped when the next one starts
//! ```
//!
//! Every file but the events is replaced as a whole: written beside, made durable, renamed, and the rename made durable. So a
//! crash at any instant leaves the old or the new state. One process at a time works here (a lock that the kernel drops with
//! the process); anyone may read at any time.
//!
//! Architecture Invariant: no Secret is ever written here. Secrets come from the manifests of the current command.

mod apply;
mod error;
mod events;
mod file;
mod lock;
mod open;
mod record;
mod store;

pub use apply::{Applied, Change, Refusal};
pub use error::{Error, Kind};
pub use events::{LocalEvents, LoggedEvent, Observer};
pub use open::StateDir;
pub use record::Record;
pub use store::LocalStore;
