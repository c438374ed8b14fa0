//! What went wrong, and what it means.

use std::borrow::Cow;
use std::error::Error as StdError;

use crate::tls;
use crate::vsphere::soap::{Moref, VimFault};
use crate::{Error, Kind};

/// What went wrong with a call, before anybody said what it was for.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    /// What it means.
    pub(crate) kind: Kind,
    /// The server's own fault, where it gave one.
    pub(crate) fault: Option<Box<VimFault>>,
    /// What the other side answered, or what happened instead.
    pub(crate) detail: String,
    /// What can be done about it.
    pub(crate) remedy: Option<Cow<'static, str>>,
}

impl Trouble {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            fault: None,
            detail: detail.into(),
            remedy: None,
        }
    }

    /// With what can be done about it.
    #[must_use]
    pub(crate) fn remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// With another meaning.
    #[must_use]
    pub(crate) fn meaning(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Whether the server answered with a fault of this type.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.fault.as_ref().is_some_and(|fault| fault.is(name))
    }

    /// The object that the server's fault is about, where it names one.
    pub(crate) fn object(&self) -> Option<&Moref> {
        self.fault.as_ref()?.object.as_ref()
    }

    /// The error of `action` (a verb) on `object`.
    pub(crate) fn of(self, action: impl Into<Cow<'static, str>>, object: impl Into<String>) -> Error {
        let error = Error::new(self.kind, action, object).detail(self.detail);
        match self.remedy {
            Some(remedy) => error.remedy(remedy),
            None => error,
        }
    }
}

/// What a fault of this type means. What is not listed may pass.
fn kind_of(name: &str) -> Kind {
    match name {
        "InvalidLogin" | "NoPermission" | "NotAuthenticated" | "PasswordExpired" | "InvalidClientCertificate" => {
            Kind::Denied
        }
        "DuplicateName" | "AlreadyExists" | "FileAlreadyExists" | "VmAlreadyExistsInDatacenter" => Kind::NameTaken,
        "ManagedObjectNotFound" | "NotFound" | "FileNotFound" | "InvalidDatastore" | "InvalidFolder" => Kind::NotFound,
        "InvalidPowerState" | "InvalidState" | "TaskInProgress" | "ResourceInUse" | "ConcurrentAccess"
        | "MethodDisabled" | "FileLocked" | "SnapshotLocked" => Kind::Busy,
        "NoDiskSpace" | "InsufficientStorageSpace" => Kind::NoSpace,
        "HostNotConnected"
        | "HostNotReachable"
        | "HostCommunication"
        | "HostConnectFault"
        | "NoHost"
        | "InvalidHostState"
        | "InaccessibleDatastore" => Kind::Unreachable,
        "RestrictedVersion"
        | "NotSupported"
        | "NotImplemented"
        | "MethodNotFound"
        | "NotEnoughLicenses"
        | "LicenseExpired"
        | "InvalidLicense"
        | "VirtualHardwareVersionNotSupported"
        | "VirtualHardwareCompatibilityIssue"
        | "DeviceNotSupported"
        | "DeviceControllerNotSupported"
        | "DiskNotSupported"
        | "ToolsUnavailable" => Kind::Unsupported,
        "InvalidArgument"
        | "InvalidRequest"
        | "InvalidType"
        | "InvalidName"
        | "InvalidProperty"
        | "InvalidVmConfig"
        | "InvalidDeviceSpec"
        | "InvalidDatastorePath"
        | "InvalidFormat"
        | "GuestOsNotSupported"
        | "VmConfigFault" => Kind::Invalid,
        _ => Kind::Failed,
    }
}

fn remedy_of(name: &str) -> Option<&'static str> {
    Some(match name {
        "InvalidLogin" => "check username and password in the Provider's Secret",
        "PasswordExpired" => "change the user's password, and put the new one into the Provider's Secret",
        "NoPermission" => {
            "give the user a role with this privilege on this object (docs/providers/vsphere.md lists them all)"
        }
        "RestrictedVersion" => {
            "a free ESXi licence allows reading only: license the host, or connect to the vCenter that manages it"
        }
        "NotEnoughLicenses" | "LicenseExpired" | "InvalidLicense" => "license the host",
        "NoDiskSpace" | "InsufficientStorageSpace" => "make room on the datastore, or choose another",
        "TaskInProgress" | "ConcurrentAccess" => "wait until the other operation on the VM has ended",
        _ => return None,
    })
}

impl From<VimFault> for Trouble {
    fn from(fault: VimFault) -> Self {
        let mut detail = fault.message.clone();
        if !fault.privileges.is_empty() {
            let on = fault
                .object
                .as_ref()
                .map(|object| format!(" on {object}"))
                .unwrap_or_default();
            detail = format!(
                "{} (privilege {}{on})",
                detail.trim_end_matches('.'),
                fault.privileges.join(", ")
            );
        } else if !fault.name.is_empty() && !detail.contains(&fault.name) {
            detail = format!("{} ({})", detail.trim_end_matches('.'), fault.name);
        }
        Self {
            kind: kind_of(&fault.name),
            remedy: remedy_of(&fault.name).map(Cow::Borrowed),
            detail,
            fault: Some(Box::new(fault)),
        }
    }
}

impl From<reqwest::Error> for Trouble {
    fn from(error: reqwest::Error) -> Self {
        // The URL of a lease is the permission to use it.
        let error = error.without_url();
        let is_timeout = error.is_timeout();
        let mut chain: Vec<String> = Vec::new();
        let mut next: Option<&(dyn StdError + 'static)> = Some(&error);
        while let Some(cause) = next {
            let text = cause.to_string();
            if chain.last().is_none_or(|last| !last.contains(&text)) {
                chain.push(text);
            }
            next = cause.source();
        }
        let detail = chain.join(": ");
        if tls::is_mismatch(&detail) {
            return Self::new(Kind::Untrusted, detail)
                .remedy("if it was renewed on purpose, put the new fingerprint into the Secret as thumbprint");
        }
        if detail.contains("certificate") {
            return Self::new(Kind::Untrusted, detail).remedy(
                "put the certificate of the authority that signed the server's into the Secret as ca.crt \
                 (vCenter: https://HOST/certs/download.zip), or the server's fingerprint as thumbprint",
            );
        }
        let detail = if is_timeout {
            format!("no answer came in time: {detail}")
        } else {
            detail
        };
        Self::new(Kind::Unreachable, detail).remedy("check the address, and that port 443 is open")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(name: &str) -> VimFault {
        VimFault {
            name: name.to_owned(),
            message: "The server says no.".to_owned(),
            ..VimFault::default()
        }
    }

    #[test]
    fn faults_mean_what_callers_decide_by() {
        for (name, kind) in [
            ("InvalidLogin", Kind::Denied),
            ("DuplicateName", Kind::NameTaken),
            ("InvalidPowerState", Kind::Busy),
            ("RestrictedVersion", Kind::Unsupported),
            ("ManagedObjectNotFound", Kind::NotFound),
            ("TaskInProgress", Kind::Busy),
            ("NoDiskSpace", Kind::NoSpace),
            ("Timedout", Kind::Failed),
            ("HostNotConnected", Kind::Unreachable),
            ("SomethingNew", Kind::Failed),
            ("", Kind::Failed),
        ] {
            let trouble = Trouble::from(fault(name));
            assert_eq!(trouble.kind, kind, "{name}");
            assert!(trouble.detail.starts_with("The server says no"), "{name}");
        }
    }

    #[test]
    fn a_missing_privilege_is_named_with_its_object() {
        let error = Trouble::from(VimFault {
            object: Some(Moref::new("Folder", "group-v3")),
            privileges: vec!["VApp.Import".to_owned()],
            ..fault("NoPermission")
        })
        .of("import into", "folder \"vm\"");
        let text = error.to_string();
        assert!(text.contains("privilege VApp.Import on Folder:group-v3"), "{text}");
        assert!(text.contains("role"), "{text}");
    }

    #[test]
    fn a_free_licence_is_told() {
        let text = Trouble::from(fault("RestrictedVersion"))
            .of("start", "VM \"a\"")
            .to_string();
        assert!(text.contains("free ESXi licence"), "{text}");
    }
}
