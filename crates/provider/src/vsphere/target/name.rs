//! The names of what is made, and how they show whose it is.

use crate::vsphere::client::escape;
use crate::{Error, Kind, Owner, VolumeId, VolumeSpec};

/// The longest VM name in characters, as vSphere counts them: escaped.
const LONGEST: usize = 80;

/// Refuses what cannot be the name of a VM.
pub(super) fn check_vm_name(name: &str) -> Result<(), Error> {
    let why = if name.trim().is_empty() {
        "it is empty"
    } else if escape(name).chars().count() > LONGEST {
        "it is longer than the 80 characters that vSphere allows"
    } else if name.chars().any(char::is_control) {
        "it holds a control character"
    } else {
        return Ok(());
    };
    Err(Error::new(Kind::Invalid, "use", format!("the VM name {name:?}"))
        .detail(why)
        .remedy("choose another spec.targetName"))
}

/// The tag of an owner, which must be long enough to be told from all others.
fn tag(owner: &Owner) -> Result<String, Error> {
    let tag = owner.tag();
    if tag.len() == 12 {
        return Ok(tag);
    }
    Err(
        Error::new(Kind::Invalid, "mark", "what is made with the migration's UID")
            .detail(format!("the UID {:?} has fewer than twelve hex digits", owner.uid))
            .remedy("use a UUID"),
    )
}

/// A volume's id in its two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Carried {
    /// Name of the datastore.
    pub datastore: String,
    /// Name of the carrier: `vmferry-<tag>-<index>`.
    pub carrier: String,
}

impl Carried {
    /// The name of the carrier of a volume.
    pub fn name_of(spec: &VolumeSpec, owner: &Owner) -> Result<String, Error> {
        check_vm_name(&spec.vm_name)?;
        Ok(format!("vmferry-{}-{}", tag(owner)?, spec.index))
    }

    /// Splits an id. A datastore's name may hold slashes, a carrier's never does.
    pub fn parse(id: &VolumeId) -> Result<Self, Error> {
        match id.0.rsplit_once('/') {
            Some((datastore, carrier)) if !datastore.is_empty() && carrier.starts_with("vmferry-") => Ok(Self {
                datastore: datastore.to_owned(),
                carrier: carrier.to_owned(),
            }),
            _ => Err(Error::new(Kind::Invalid, "use", format!("the volume id {:?}", id.0))
                .detail("it is not DATASTORE/CARRIER")),
        }
    }

    /// Splits the id of a volume that must be `owner`'s.
    pub fn owned(id: &VolumeId, owner: &Owner) -> Result<Self, Error> {
        let carried = Self::parse(id)?;
        let index = carried
            .carrier
            .strip_prefix(&format!("vmferry-{}-", tag(owner)?))
            .filter(|index| !index.is_empty() && index.bytes().all(|digit| digit.is_ascii_digit()));
        match index {
            Some(_) => Ok(carried),
            None => Err(Error::new(Kind::NameTaken, "use", carried.object())
                .detail("its name does not carry this migration's tag")),
        }
    }

    /// The id.
    pub fn id(&self) -> VolumeId {
        VolumeId(format!("{}/{}", self.datastore, self.carrier))
    }

    /// How messages call it.
    pub fn object(&self) -> String {
        format!("disk {:?} on datastore {:?}", self.carrier, self.datastore)
    }
}

/// The parts of `[datastore] folder/file`.
pub(super) fn split_path(path: &str) -> Option<(&str, &str)> {
    let (datastore, file) = path.strip_prefix('[')?.split_once(']')?;
    Some((datastore, file.trim_start()))
}

/// The folder of `[datastore] folder/file`, as `[datastore] folder`.
pub(super) fn folder_of(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(folder, _)| folder)
}

/// Where a VM keeps the disk of this index, beside its `.vmx` file.
pub(super) fn disk_path(vmx: &str, index: usize) -> Option<String> {
    let stem = vmx.strip_suffix(".vmx")?;
    folder_of(vmx)?;
    Some(match index {
        0 => format!("{stem}.vmdk"),
        _ => format!("{stem}_{index}.vmdk"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner::new("0f8fad5b-d9cb-469f-a165-70867728950e")
    }

    #[test]
    fn a_volume_is_its_owners_by_its_name() {
        let id = VolumeId("ds/with/slash/vmferry-0f8fad5bd9cb-12".to_owned());
        let carried = Carried::owned(&id, &owner()).unwrap();
        assert_eq!((carried.datastore.as_str(), carried.id()), ("ds/with/slash", id));
        for other in [
            "ds/vmferry-0f8fad5bd9cb-",
            "ds/vmferry-0f8fad5bd9cc-0",
            "ds/vmferry-0f8fad5bd9cb-0x",
        ] {
            let error = Carried::owned(&VolumeId(other.to_owned()), &owner()).unwrap_err();
            assert_eq!(error.kind(), Kind::NameTaken, "{other}");
        }
        for none in ["", "ds", "/vmferry-0f8fad5bd9cb-0", "ds/web"] {
            let error = Carried::owned(&VolumeId(none.to_owned()), &owner()).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{none}");
        }
        assert!(tag(&Owner::new("short")).is_err());
    }

    #[test]
    fn names_that_vsphere_cannot_have_are_refused() {
        for name in ["", " ", "a\nb", &"x".repeat(81), &"/".repeat(27)] {
            assert_eq!(check_vm_name(name).unwrap_err().kind(), Kind::Invalid, "{name:?}");
        }
        for name in ["web", "a/b [c]%", &"ü".repeat(80)] {
            check_vm_name(name).unwrap();
        }
    }

    #[test]
    fn disks_lie_beside_the_configuration() {
        assert_eq!(disk_path("[ds] a b/c.vmx", 0).unwrap(), "[ds] a b/c.vmdk");
        assert_eq!(disk_path("[ds] a/c.vmx", 2).unwrap(), "[ds] a/c_2.vmdk");
        assert_eq!(disk_path("[ds] c", 0), None);
        assert_eq!(split_path("[d s] a/b.vmdk"), Some(("d s", "a/b.vmdk")));
        assert_eq!(folder_of("[ds] a/b.vmdk"), Some("[ds] a"));
    }
}
