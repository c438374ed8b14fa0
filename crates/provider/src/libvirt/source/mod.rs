//! The source side.
