//! Whole transfers between real files, broken off in every way.

mod resume;
mod support;
mod transfer;
