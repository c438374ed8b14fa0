//! What goes wrong between us and the server, before anybody names the object.

use std::io;

use nfs_rs::{Nfs3ErrorCode, Nfs3MountErrorCode, Nfs4ErrorCode, NfsError};
use rustix::io::Errno;

use crate::hosts::Refused;
use crate::{Error, Kind};

/// How nfs-rs 0.11.1 says that a call was denied (RFC 5531, section 9, `MSG_DENIED`).
const DENIED: &str = "could not parse response due to bad status";
/// What to do where this machine may not use the export.
const WHO: &str = "see that the server exports spec.storage.path to this machine; an export that is not 'insecure' also wants the \
                   mount option resvport, and the privilege to use it";

/// Why a call did not succeed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection broke, nobody answers, or what the server knew of us is gone: connect again, and do again what was not
    /// committed.
    Lost(String),
    /// The server asks for patience.
    Busy(String),
    /// The server's answer.
    Answer {
        /// What it means, in the terms of the file system.
        errno: Errno,
        /// Its own words.
        said: String,
    },
    /// The server was restarted between a write and its commit, and may have lost what was written.
    Forgot,
    /// Anything else, which is final.
    Final(Kind, String, Option<&'static str>),
    /// A fault that has its name already.
    Fault(Error),
}

impl Trouble {
    /// An answer as if the server had given it.
    pub(super) fn answer(errno: Errno, said: impl Into<String>) -> Self {
        Self::Answer {
            errno,
            said: said.into(),
        }
    }

    /// Whether the server gave this answer.
    pub(super) fn is(&self, wanted: Errno) -> bool {
        matches!(self, Self::Answer { errno, .. } if *errno == wanted)
    }

    /// In words, without object.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Lost(said) | Self::Busy(said) | Self::Answer { said, .. } | Self::Final(_, said, _) => said.clone(),
            Self::Forgot => "the server was restarted and may have lost what was written".to_owned(),
            Self::Fault(error) => error.to_string(),
        }
    }

    /// The fault of doing `action` to `object`.
    pub(super) fn fault(self, action: &'static str, object: impl Into<String>) -> Error {
        let said = self.text();
        let (kind, remedy) = match self {
            Self::Fault(error) => return error,
            Self::Lost(_) | Self::Forgot => (
                Kind::Unreachable,
                Some("check that the NFS server runs and can be reached from here"),
            ),
            Self::Busy(_) => (Kind::Busy, Some("see what keeps the NFS server busy")),
            Self::Answer { errno, .. } => meaning(errno),
            Self::Final(kind, _, remedy) => (kind, remedy),
        };
        let fault = Error::new(kind, action, object).detail(said);
        match remedy {
            Some(remedy) => fault.remedy(remedy),
            None => fault,
        }
    }
}

fn meaning(errno: Errno) -> (Kind, Option<&'static str>) {
    match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => {
            (Kind::NoSpace, Some("free some space there or use another staging path"))
        }
        Errno::ACCESS | Errno::PERM => (
            Kind::Denied,
            Some(
                "let our user write there: set uid and gid in the Secret's mountOptions to the folder's owner, or change the \
                 export's squash; an export that is not 'insecure' also wants the option resvport",
            ),
        ),
        Errno::ROFS => (Kind::Denied, Some("export the folder read-write")),
        Errno::NOENT => (
            Kind::NotFound,
            Some(
                "set spec.storage.path to a folder that the server exports to this machine: for NFSv4 as seen from its root, for \
                 NFSv3 its real path; a server may hide it from ports that are not low ones (mount option resvport)",
            ),
        ),
        Errno::STALE => (
            Kind::Unreachable,
            Some("the export was made again or moved on the server: see that it is as it was"),
        ),
        Errno::LOOP | Errno::NOTDIR | Errno::ISDIR => (
            Kind::Invalid,
            Some(
                "remove the symbolic link, file or folder that stands in the way: vmferry follows no link below the staging path",
            ),
        ),
        Errno::NAMETOOLONG => (Kind::Invalid, Some("use shorter names")),
        Errno::EXIST => (Kind::NameTaken, Some("remove it, or give the migration another name")),
        Errno::OPNOTSUPP => (Kind::Unfit, Some("use another server or another version of NFS")),
        _ => (Kind::Failed, None),
    }
}

impl From<Refused> for Trouble {
    fn from(refused: Refused) -> Self {
        let said = refused.to_string();
        match refused {
            // A resolver may be down as a server may.
            Refused::Unknown { .. } => Self::Lost(said),
            Refused::NotAllowed { .. } => Self::Final(
                Kind::Denied,
                said,
                Some("use an allowed host, or add it to --allowed-storage-hosts"),
            ),
            Refused::Never { .. } => Self::Final(
                Kind::Denied,
                said,
                Some("set spec.storage.endpoint to the storage server"),
            ),
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Fault(error)
    }
}

impl From<NfsError> for Trouble {
    fn from(error: NfsError) -> Self {
        if error.is_server_busy() {
            return Self::Busy(format!("the server asks to wait: {error}"));
        }
        match &error {
            NfsError::Nfs3(code) => nfs3(code),
            NfsError::Nfs4(code) => nfs4(*code),
            NfsError::Mount(code) => mount3(code),
            NfsError::Io(io) if io.kind() == io::ErrorKind::PermissionDenied => {
                Self::Final(Kind::Denied, error.to_string(), Some("set the mount option noresvport"))
            }
            NfsError::OperationOutcome(outcome) => match &*outcome.source {
                NfsError::Rpc(_) if outcome.context().operation == "write_verifier" => Self::Forgot,
                NfsError::Rpc(said) if said == DENIED => denied(),
                // Status codes are authoritative; all else means that nobody knows what happened.
                NfsError::Nfs3(code) => nfs3(code),
                NfsError::Nfs4(code) => nfs4(*code),
                source => Self::Lost(source.to_string()),
            },
            NfsError::Unsupported(_) => Self::Final(Kind::Unfit, error.to_string(), None),
            NfsError::Rpc(said) if said == DENIED => denied(),
            // Connections, sessions, leases, open files, replies that make no sense: a new connection is a new start.
            _ => Self::Lost(error.to_string()),
        }
    }
}

fn denied() -> Trouble {
    let said = "the server takes no call with our credentials (sec=sys), or none from our port";
    Trouble::Final(Kind::Denied, said.to_owned(), Some(WHO))
}

fn nfs3(code: &Nfs3ErrorCode) -> Trouble {
    use Nfs3ErrorCode as Code;
    let said = format!("the server says {code:?}, {code}");
    let errno = match code {
        Code::NFS3ERR_JUKEBOX => return Trouble::Busy(said),
        Code::NFS3ERR_PERM => Errno::PERM,
        Code::NFS3ERR_NOENT => Errno::NOENT,
        Code::NFS3ERR_ACCES => Errno::ACCESS,
        Code::NFS3ERR_EXIST => Errno::EXIST,
        Code::NFS3ERR_NOTDIR => Errno::NOTDIR,
        Code::NFS3ERR_ISDIR => Errno::ISDIR,
        Code::NFS3ERR_FBIG => Errno::FBIG,
        Code::NFS3ERR_NOSPC => Errno::NOSPC,
        Code::NFS3ERR_ROFS => Errno::ROFS,
        Code::NFS3ERR_NAMETOOLONG => Errno::NAMETOOLONG,
        Code::NFS3ERR_NOTEMPTY => Errno::NOTEMPTY,
        Code::NFS3ERR_DQUOT => Errno::DQUOT,
        Code::NFS3ERR_STALE | Code::NFS3ERR_BADHANDLE => Errno::STALE,
        Code::NFS3ERR_NOTSUPP => Errno::OPNOTSUPP,
        _ => Errno::IO,
    };
    Trouble::answer(errno, said)
}

fn mount3(code: &Nfs3MountErrorCode) -> Trouble {
    use Nfs3MountErrorCode as Code;
    let said = format!("the server says {code:?}, {code}");
    let errno = match code {
        // Some say so of a path that is not there, too.
        Code::MNT3ERR_PERM | Code::MNT3ERR_ACCES => return Trouble::Final(Kind::Denied, said, Some(WHO)),
        Code::MNT3ERR_NOENT => Errno::NOENT,
        Code::MNT3ERR_NOTDIR => Errno::NOTDIR,
        Code::MNT3ERR_NAMETOOLONG => Errno::NAMETOOLONG,
        Code::MNT3ERR_NOTSUPP => Errno::OPNOTSUPP,
        _ => Errno::IO,
    };
    Trouble::answer(errno, said)
}

fn nfs4(code: Nfs4ErrorCode) -> Trouble {
    use Nfs4ErrorCode as Code;
    let said = format!("the server says {code:?}, {code}");
    match code {
        Code::NFS4ERR_DELAY | Code::NFS4ERR_GRACE | Code::NFS4ERR_FILE_OPEN => Trouble::Busy(said),
        Code::NFS4ERR_WRONGSEC => Trouble::Final(
            Kind::Denied,
            said,
            Some("export it with sec=sys, or mount it and leave spec.storage.endpoint away"),
        ),
        Code::NFS4ERR_EXPIRED
        | Code::NFS4ERR_STALE_CLIENTID
        | Code::NFS4ERR_STALE_STATEID
        | Code::NFS4ERR_OLD_STATEID
        | Code::NFS4ERR_BAD_STATEID
        | Code::NFS4ERR_BAD_SEQID
        | Code::NFS4ERR_ADMIN_REVOKED
        | Code::NFS4ERR_BADSESSION
        | Code::NFS4ERR_BADSLOT
        | Code::NFS4ERR_DEADSESSION
        | Code::NFS4ERR_CONN_NOT_BOUND_TO_SESSION
        | Code::NFS4ERR_SEQ_MISORDERED
        | Code::NFS4ERR_SEQ_FALSE_RETRY
        | Code::NFS4ERR_RETRY_UNCACHED_REP => Trouble::Lost(said),
        code => Trouble::answer(errno4(code), said),
    }
}

fn errno4(code: Nfs4ErrorCode) -> Errno {
    use Nfs4ErrorCode as Code;
    match code {
        Code::NFS4ERR_PERM => Errno::PERM,
        Code::NFS4ERR_NOENT => Errno::NOENT,
        Code::NFS4ERR_ACCESS => Errno::ACCESS,
        Code::NFS4ERR_EXIST => Errno::EXIST,
        Code::NFS4ERR_NOTDIR => Errno::NOTDIR,
        Code::NFS4ERR_ISDIR => Errno::ISDIR,
        Code::NFS4ERR_FBIG => Errno::FBIG,
        Code::NFS4ERR_NOSPC => Errno::NOSPC,
        Code::NFS4ERR_ROFS => Errno::ROFS,
        Code::NFS4ERR_NAMETOOLONG => Errno::NAMETOOLONG,
        Code::NFS4ERR_NOTEMPTY => Errno::NOTEMPTY,
        Code::NFS4ERR_DQUOT => Errno::DQUOT,
        Code::NFS4ERR_SYMLINK => Errno::LOOP,
        Code::NFS4ERR_STALE | Code::NFS4ERR_BADHANDLE | Code::NFS4ERR_FHEXPIRED => Errno::STALE,
        Code::NFS4ERR_NOTSUPP => Errno::OPNOTSUPP,
        _ => Errno::IO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_its_kind() {
        for (error, kind) in [
            (NfsError::Nfs3(Nfs3ErrorCode::NFS3ERR_ACCES), Kind::Denied),
            (NfsError::Nfs4(Nfs4ErrorCode::NFS4ERR_ROFS), Kind::Denied),
            (NfsError::Nfs3(Nfs3ErrorCode::NFS3ERR_DQUOT), Kind::NoSpace),
            (NfsError::Nfs4(Nfs4ErrorCode::NFS4ERR_NOSPC), Kind::NoSpace),
            (NfsError::Nfs3(Nfs3ErrorCode::NFS3ERR_JUKEBOX), Kind::Busy),
            (NfsError::Nfs4(Nfs4ErrorCode::NFS4ERR_GRACE), Kind::Busy),
            (NfsError::Nfs4(Nfs4ErrorCode::NFS4ERR_NAMETOOLONG), Kind::Invalid),
            (NfsError::Nfs4(Nfs4ErrorCode::NFS4ERR_SYMLINK), Kind::Invalid),
            (NfsError::Nfs4(Nfs4ErrorCode::NFS4ERR_BADSESSION), Kind::Unreachable),
            (NfsError::Mount(Nfs3MountErrorCode::MNT3ERR_NOENT), Kind::NotFound),
            (NfsError::Mount(Nfs3MountErrorCode::MNT3ERR_ACCES), Kind::Denied),
            (NfsError::Nfs3(Nfs3ErrorCode::NFS3ERR_IO), Kind::Failed),
            (NfsError::Io(io::ErrorKind::BrokenPipe.into()), Kind::Unreachable),
        ] {
            let text = error.to_string();
            let fault = Trouble::from(error).fault("write", "disk");
            assert_eq!(fault.kind(), kind, "{text}: {fault}");
        }
    }

    #[test]
    fn a_fault_reads_well() {
        let fault = Trouble::from(NfsError::Nfs4(Nfs4ErrorCode::NFS4ERR_ROFS)).fault("write to", "NFS server h:/e");
        assert_eq!(
            fault.to_string(),
            "cannot write to NFS server h:/e: the server says NFS4ERR_ROFS, read-only file system; export the folder \
             read-write"
        );
    }
}
