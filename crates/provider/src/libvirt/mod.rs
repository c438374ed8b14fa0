//! libvirt/KVM, through the libvirt API.
