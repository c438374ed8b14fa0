//! The conformance suite that every store runs.
