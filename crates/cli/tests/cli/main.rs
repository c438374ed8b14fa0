//! The command line without a hypervisor: input, messages, exit codes, forms of output.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod image;
mod looking;
mod running;
mod support;
