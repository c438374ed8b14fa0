//! Where a staged file of ours is, and how it gets there.

use super::choose::Choice;
use crate::{Error, ImageFormat, Kind, Owner, VolumeId, VolumeSpec};

/// How the bytes of a disk get to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As an image of content `import`, from 8.4 on: the node fetches it, or it is uploaded.
    Import,
    /// As an image in an OVA, on 8.3, where an upload takes nothing else.
    Ova,
    /// Written into the folder of a storage that is also one of this machine, from 8.3 on.
    Shared,
    /// Streamed into a file of the node by ssh, and made a disk by `qm importdisk`: before 8.3, and where no storage takes imports.
    Node,
}

/// What stands for the storage of a file that is in none: see [`Way::Node`]. No storage can be called so.
pub(super) const NO_STORAGE: &str = "-";

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::Ova => "ova",
            Self::Shared => "shared",
            Self::Node => "node",
        }
    }
}

/// The file of one disk: `import@pve1/local-lvm/local/vmferry-0123456789ab-disk0.qcow2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub way: Way,
    pub node: String,
    /// The storage into which the disk goes.
    pub target: String,
    /// The storage of the file.
    pub storage: String,
    /// Name of the image; its ending is its format.
    pub image: String,
}

impl Place {
    /// The place of a disk of `owner`.
    pub fn new(choice: &Choice, spec: &VolumeSpec, owner: &Owner) -> Result<Self, Error> {
        Ok(Self {
            way: choice.way,
            node: choice.node.clone(),
            target: choice.target.name.clone(),
            storage: choice
                .import
                .as_ref()
                .map_or(NO_STORAGE, |storage| &storage.name)
                .to_owned(),
            image: format!("{}.{}", stem(spec.index, owner)?, spec.format),
        })
    }

    /// Reads a volume's id, which must be `owner`'s.
    pub fn owned(id: &VolumeId, owner: &Owner) -> Result<Self, Error> {
        let place = Self::parse(id)?;
        if is_ours(&place.image, owner)? {
            return Ok(place);
        }
        let detail = "its name does not carry this migration's tag";
        Err(Error::new(Kind::NameTaken, "use", format!("the volume id {:?}", id.0)).detail(detail))
    }

    /// Reads a volume's id, whosever it is.
    pub fn parse(id: &VolumeId) -> Result<Self, Error> {
        let parsed = id.0.split_once('@').and_then(|(name, rest)| {
            let ways = [Way::Import, Way::Ova, Way::Shared, Way::Node];
            let way = ways.into_iter().find(|way| way.name() == name)?;
            let mut parts = rest.split('/');
            let (node, target) = (parts.next()?, parts.next()?);
            let (storage, image) = (parts.next()?, parts.next()?);
            let is_whole = parts.next().is_none() && [node, target, storage, image].iter().all(|part| !part.is_empty());
            is_whole.then(|| Self {
                way,
                node: node.to_owned(),
                target: target.to_owned(),
                storage: storage.to_owned(),
                image: image.to_owned(),
            })
        });
        parsed.ok_or_else(|| {
            Error::new(Kind::Invalid, "use", format!("the volume id {:?}", id.0))
                .detail("it is not WAY@NODE/TARGET/STORAGE/FILE")
        })
    }

    /// The image's format, as its name says it.
    pub fn format(&self) -> Result<ImageFormat, Error> {
        let format = self.image.rsplit_once('.').and_then(|(_, ending)| ending.parse().ok());
        format
            .ok_or_else(|| Error::new(Kind::Invalid, "use", self.object()).detail("its name has no ending of a format"))
    }

    /// The id.
    pub fn id(&self) -> VolumeId {
        VolumeId(format!(
            "{}@{}/{}/{}/{}",
            self.way.name(),
            self.node,
            self.target,
            self.storage,
            self.image
        ))
    }

    /// The file's name without the ending of its format.
    pub fn stem(&self) -> &str {
        self.image.rsplit_once('.').map_or("", |(stem, _)| stem)
    }

    /// The name of the file that holds it.
    pub fn file(&self) -> String {
        match self.way {
            Way::Import | Way::Shared | Way::Node => self.image.clone(),
            Way::Ova => format!("{}.ova", self.stem()),
        }
    }

    /// The id of that file at Proxmox VE.
    pub fn volid(&self) -> String {
        format!("{}:import/{}", self.storage, self.file())
    }

    /// What `import-from` names.
    pub fn import_from(&self) -> String {
        match self.way {
            Way::Import | Way::Shared | Way::Node => self.volid(),
            Way::Ova => format!("{}/{}", self.volid(), self.image),
        }
    }

    /// How messages call it.
    pub fn object(&self) -> String {
        match self.way {
            Way::Node => format!("file {} on node {}", self.image, self.node),
            _ => format!("volume {} on node {}", self.volid(), self.node),
        }
    }
}

/// The name of a disk's file without its ending. The VM's name is not in it: Proxmox VE takes fewer characters here.
pub(super) fn stem(index: u32, owner: &Owner) -> Result<String, Error> {
    Ok(format!("{}-disk{index}", mark(owner)?))
}

/// `vmferry-` and the owner's tag: the tag that a VM of ours has, and the beginning of a file's name.
pub(super) fn mark(owner: &Owner) -> Result<String, Error> {
    let tag = owner.tag();
    if tag.len() == 12 {
        return Ok(format!("vmferry-{tag}"));
    }
    Err(
        Error::new(Kind::Invalid, "mark", "what is made with the migration's UID")
            .detail(format!("the UID {:?} has fewer than twelve hex digits", owner.uid))
            .remedy("use a UUID"),
    )
}

/// Whether a file's name says that it is a disk of `owner`.
fn is_ours(file: &str, owner: &Owner) -> Result<bool, Error> {
    let start = format!("{}-disk", mark(owner)?);
    let rest = file.strip_prefix(&start).and_then(|rest| rest.split_once('.'));
    let formats = [ImageFormat::Qcow2, ImageFormat::Raw, ImageFormat::Vmdk];
    Ok(rest.is_some_and(|(index, ending)| {
        !index.is_empty()
            && index.bytes().all(|byte| byte.is_ascii_digit())
            && formats.iter().any(|format| format.to_string() == ending)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_the_way_and_whose_it_is() {
        let owner = Owner::new("0123abcd-4567-89EF-0000-000000000000");
        let id = VolumeId("ova@pve1/thin/local/vmferry-0123abcd4567-disk2.qcow2".to_owned());
        let place = Place::owned(&id, &owner).unwrap();
        assert_eq!(
            (place.way, place.target.as_str(), place.storage.as_str()),
            (Way::Ova, "thin", "local")
        );
        assert_eq!(place.id(), id);
        let from = "local:import/vmferry-0123abcd4567-disk2.ova/vmferry-0123abcd4567-disk2.qcow2";
        assert_eq!(place.import_from(), from);
        let other = Owner::new("1123abcd-4567-89ef-0000-000000000000");
        assert_eq!(Place::owned(&place.id(), &other).unwrap_err().kind(), Kind::NameTaken);
        for text in [
            "",
            "import@",
            "ssh@a/b/c/d",
            "import@a/b/c",
            "import@a/b/c/d/e",
            "import@/b/c/d",
        ] {
            let error = Place::owned(&VolumeId(text.into()), &owner).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{text}");
        }
        for file in [
            "web.qcow2",
            "vmferry-0123abcd4567-disk.qcow2",
            "vmferry-0123abcd4567-disk1.iso",
            "vmferry-0123abcd45-disk1.raw",
        ] {
            let id = VolumeId(format!("import@a/b/c/{file}"));
            assert_eq!(Place::owned(&id, &owner).unwrap_err().kind(), Kind::NameTaken, "{file}");
        }
        assert_eq!(mark(&Owner::new("u-1")).unwrap_err().kind(), Kind::Invalid);
    }
}
