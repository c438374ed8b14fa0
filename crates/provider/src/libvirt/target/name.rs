//! The names of what is made, and how they show whose it is.

use crate::{Error, Kind, Owner, VolumeId, VolumeSpec};

/// The longest VM name in bytes: with what is added to it for a volume it stays within the 255 of a file name.
const LONGEST: usize = 200;

/// Refuses what cannot be the name of a domain and the beginning of a file name.
pub(super) fn check_vm_name(name: &str) -> Result<(), Error> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > LONGEST {
        "it is longer than 200 bytes"
    } else if name.contains('/')
        || name
            .chars()
            .any(|c| c.is_control() || !crate::libvirt::xml::tree::is_legal(c))
    {
        "it holds a slash or a control character"
    } else if name.trim() != name || name.starts_with(['.', '-']) {
        "it starts with a dot or a dash, or starts or ends with a blank"
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

/// The name of a volume.
pub(super) fn volume(spec: &VolumeSpec, owner: &Owner) -> Result<String, Error> {
    check_vm_name(&spec.vm_name)?;
    let tag = tag(owner)?;
    Ok(format!("{}-disk{}-{tag}.{}", spec.vm_name, spec.index, spec.format))
}

/// A volume's id in its two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The pool.
    pub pool: String,
    /// The volume.
    pub volume: String,
}

impl Place {
    /// Splits an id.
    pub fn parse(id: &VolumeId) -> Result<Self, Error> {
        match id.0.split_once('/') {
            Some((pool, volume)) if !pool.is_empty() && !volume.is_empty() && !volume.contains('/') => Ok(Self {
                pool: pool.to_owned(),
                volume: volume.to_owned(),
            }),
            _ => {
                Err(Error::new(Kind::Invalid, "use", format!("the volume id {:?}", id.0))
                    .detail("it is not POOL/VOLUME"))
            }
        }
    }

    /// Splits the id of a volume that must be `owner`'s.
    pub fn owned(id: &VolumeId, owner: &Owner) -> Result<Self, Error> {
        let place = Self::parse(id)?;
        let tag = tag(owner)?;
        let stem = place.volume.rsplit_once('.').map_or("", |(stem, _)| stem);
        let is_ours = stem
            .strip_suffix(tag.as_str())
            .and_then(|rest| rest.strip_suffix('-'))
            .and_then(|rest| rest.rsplit_once("-disk"))
            .is_some_and(|(_, index)| !index.is_empty() && index.bytes().all(|digit| digit.is_ascii_digit()));
        if is_ours {
            return Ok(place);
        }
        Err(Error::new(Kind::NameTaken, "use", place.object()).detail("its name does not carry this migration's tag"))
    }

    /// The id.
    pub fn id(&self) -> VolumeId {
        VolumeId(format!("{}/{}", self.pool, self.volume))
    }

    /// How messages call it.
    pub fn object(&self) -> String {
        format!("volume \"{}\" of pool \"{}\"", self.volume, self.pool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageFormat;

    fn spec(vm_name: &str) -> VolumeSpec {
        VolumeSpec {
            index: 3,
            vm_name: vm_name.to_owned(),
            storage: None,
            format: ImageFormat::Qcow2,
            capacity: 1,
        }
    }

    #[test]
    fn a_volume_says_whose_it_is() {
        let owner = Owner::new("0123abcd-4567-89EF-0000-000000000000");
        let name = volume(&spec("web"), &owner).unwrap();
        assert_eq!(name, "web-disk3-0123abcd4567.qcow2");
        let id = VolumeId(format!("p/{name}"));
        assert_eq!(Place::owned(&id, &owner).unwrap().id(), id);
        let other = Owner::new("1123abcd-4567-89ef-0000-000000000000");
        assert_eq!(Place::owned(&id, &other).unwrap_err().kind(), Kind::NameTaken);
        for foreign in [
            "p/web.qcow2",
            "p/0123abcd4567.qcow2",
            "p/x-disk-0123abcd4567.raw",
            "p/x-disk1x-0123abcd4567.raw",
        ] {
            let error = Place::owned(&VolumeId(foreign.to_owned()), &owner).unwrap_err();
            assert_eq!(error.kind(), Kind::NameTaken, "{foreign}");
        }
        for nonsense in ["", "p", "/v", "p/", "p/a/b"] {
            assert!(Place::parse(&VolumeId(nonsense.to_owned())).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn a_short_uid_marks_nothing() {
        assert_eq!(
            volume(&spec("web"), &Owner::new("u-1")).unwrap_err().kind(),
            Kind::Invalid
        );
    }

    #[test]
    fn names_that_are_paths_or_worse_are_refused() {
        let long = "x".repeat(201);
        for name in [
            "",
            "a/b",
            "..",
            ".x",
            "-x",
            "a\nb",
            "a\u{0}b",
            " a",
            "a ",
            "a\u{fffe}",
            long.as_str(),
        ] {
            assert_eq!(check_vm_name(name).unwrap_err().kind(), Kind::Invalid, "{name:?}");
        }
        for name in ["a", "web 1", "<&\"'>", "münchen", &long[1..]] {
            check_vm_name(name).unwrap();
        }
    }
}
