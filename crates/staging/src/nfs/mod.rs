//! NFS, as a mounted path.
