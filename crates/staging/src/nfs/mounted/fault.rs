//! What an answer of the file system means.

use rustix::io::Errno;

use crate::{Error, Kind};

/// The fault for `errno` while doing `action` to `object`.
pub(super) fn fault(action: &'static str, object: impl Into<String>, errno: Errno) -> Error {
    let (kind, remedy) = meaning(errno);
    let fault = Error::new(kind, action, object).source(std::io::Error::from(errno));
    match remedy {
        Some(remedy) => fault.remedy(remedy),
        None => fault,
    }
}

fn meaning(errno: Errno) -> (Kind, Option<&'static str>) {
    match errno {
        Errno::NOSPC | Errno::DQUOT => (Kind::NoSpace, Some("free some space there or use another staging path")),
        Errno::ACCESS | Errno::PERM | Errno::ROFS => (
            Kind::Denied,
            Some("let the user that vmferry runs as write to the staging path"),
        ),
        Errno::STALE
        | Errno::IO
        | Errno::TIMEDOUT
        | Errno::NOTCONN
        | Errno::CONNREFUSED
        | Errno::CONNRESET
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH => (
            Kind::Unreachable,
            Some("check that the NFS server answers and that the mount is healthy"),
        ),
        Errno::LOOP | Errno::NOTDIR | Errno::ISDIR => (
            Kind::Invalid,
            Some(
                "remove the symbolic link, file or folder that stands in the way: vmferry follows no link below the staging path",
            ),
        ),
        Errno::NAMETOOLONG => (Kind::Invalid, Some("use shorter names")),
        Errno::EXIST => (Kind::NameTaken, Some("remove it, or give the migration another name")),
        _ => (Kind::Failed, None),
    }
}
