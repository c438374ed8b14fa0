//! The qcow2 format, versions 2 and 3: QEMU's `docs/interop/qcow2.txt`.

pub(crate) mod spec;
