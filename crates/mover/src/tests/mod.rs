//! Whole transfers between real files, broken off in every way.

mod import;
mod resume;
mod segments;
mod sent;
mod streams;
mod support;
mod transfer;
