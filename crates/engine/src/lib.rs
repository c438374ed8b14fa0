//! What a migration is: a durable saga over ports.
//!
//! Architecture Invariant: no Kubernetes, no file and no SDK is known here, only the ports of [`port`] and those of the
//! provider and staging crates. The engine never moves a byte itself.

pub mod port;
