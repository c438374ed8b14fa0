//! What a migration is: a durable saga over ports.
//!
//! [`phase::table`] says in one place what each phase does, how it is seen to be done and how it is undone. [`Engine::step`]
//! does one turn of observe → act → record; whoever drives it (a loop on one machine, a controller on a cluster) only calls
//! it again. Nothing that matters is kept in memory: all that a step knows, it reads from the store and from the world.
//!
//! Architecture Invariant: no Kubernetes, no file and no SDK is known here, only the ports of [`port`] and those of the
//! provider and staging crates. The engine never moves a byte itself.

mod cleanup;
mod deletion;
mod engine;
mod failure;
mod hints;
mod host;
mod line;
mod naming;
mod phases;
mod plan;
mod request;
mod run;
#[cfg(test)]
mod testing;
mod text;
mod transfer;
mod world;

pub mod phase;
pub mod port;

pub use engine::{Config, Engine, Next, Ports};
