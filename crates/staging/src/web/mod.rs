//! HTTP as the stores need it: what S3 and plain HTTP servers have in common.
//!
//! - [`Client`] sends a request with a part as its body and gives up when nothing moves for a minute, in either direction; how long
//!   the whole takes does not matter.
//! - [`Answer`] reads a body right into the buffers of whoever asked.
//! - [`Trouble`] is what went wrong, classified, before anybody named the object. [`Tries`] say what is worth trying again, and when.
//!
//! Architecture Invariant: no text that comes out of here has a URL's query or a header in it: both may hold secrets.

mod answer;
mod body;
mod client;
mod persist;
mod trouble;

pub(crate) use answer::Answer;
pub(crate) use client::{Client, Config, Redirects};
pub(crate) use persist::Tries;
pub(crate) use trouble::Trouble;

#[cfg(test)]
mod tests;
