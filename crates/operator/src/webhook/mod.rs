//! Admission: whoever names an object of another namespace must be allowed to use it there.
//!
//! The controller reads Secrets and Providers with its own rights, which are wider than those of who declares a migration. So
//! each reference into another namespace that a create or update brings is checked with a `SubjectAccessReview` of the user.
//! References within a namespace need none: who may declare migrations there acts for it.
//!
//! Architecture Invariant: the webhook decides nothing but this. What a resource may look like is said by the CRD and checked by
//! the engine. Where it cannot find out, it answers with an error and not with a verdict: `failurePolicy` is what decides.

mod access;
mod certificate;
mod error;
mod references;
mod review;
mod server;

pub use error::{Error, Kind};
pub use references::{Reference, references};
pub use server::{Options, Webhook};
