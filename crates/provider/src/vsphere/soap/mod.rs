//! SOAP as vCenter and ESXi speak it: what is sent ([`Arg`]), what comes back ([`Element`]), and how they say no ([`VimFault`]).
//!
//! Pure: nothing in here talks to a host. Names from outside are escaped here and nowhere else.

mod element;
mod envelope;
mod fault;
mod moref;

pub(crate) use element::{Element, MAX_BYTES};
pub(crate) use envelope::{Arg, envelope};
pub(crate) use fault::{Body, VimFault, body};
pub(crate) use moref::Moref;

#[cfg(test)]
mod tests;
