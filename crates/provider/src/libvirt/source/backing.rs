//! Which backing files may be followed.
//!
//! What an image names as its backing file was written by whoever made the image, and that may be a guest's owner: followed
//! blindly, it reads any file, device or server of the host. So a backing file is followed only where it is a plain
//! file in the folder of the disk's own image, which is also its pool.

use super::storage::folder;
use crate::libvirt::xml::{BackingXml, SourceXml};
use crate::{Error, Kind};

/// What to do about a refused one.
pub(super) const REMEDY: &str = "flatten the disk (virsh blockpull, or qemu-img convert -O qcow2), or put the backing file into \
                                 the folder of the disk's image";

/// The path that `reference` in the image `from` means, without `.`, `..` and doubled slashes. `Err` says why it is refused.
pub(super) fn resolve(from: &str, reference: &str) -> Result<String, String> {
    // qemu takes everything up to a colon before the first slash for a protocol (`path_has_protocol`).
    let front = reference.split('/').next().unwrap_or_default();
    if reference.is_empty() || front.contains(':') {
        return Err("it is not a path".to_owned());
    }
    if reference.chars().any(char::is_control) {
        return Err("it holds a control character".to_owned());
    }
    let whole = if reference.starts_with('/') {
        reference.to_owned()
    } else {
        format!("{}/{reference}", folder(from))
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Refuses a path outside the folder.
pub(super) fn check_folder(path: &str, allowed: &str) -> Result<(), String> {
    if folder(path) == allowed {
        Ok(())
    } else {
        Err(format!("it lies outside {allowed}, the folder of the disk's image"))
    }
}

/// Checks the chain of a running VM's disk, which qemu has open already.
pub(super) fn check_live(object: &str, image: &str, chain: &[BackingXml]) -> Result<(), Error> {
    let mut from = image;
    for backing in chain {
        let (reference, answer) = match &backing.source {
            SourceXml::File(path) => {
                let resolved = resolve(from, path).and_then(|path| check_folder(&path, folder(image)));
                (path.as_str(), resolved)
            }
            SourceXml::Block(path) => (path.as_str(), Err("it is a device".to_owned())),
            SourceXml::Volume { volume, .. } => {
                (volume.as_str(), Err("it is a volume of a pool, not a file".to_owned()))
            }
            SourceXml::Other(kind) => (kind.as_str(), Err("it is not a file".to_owned())),
            SourceXml::Empty => continue,
        };
        answer.map_err(|why| hostile(object, from, reference, &why))?;
        from = reference;
    }
    Ok(())
}

/// The fault for a backing file that must not be followed.
pub(super) fn hostile(object: &str, from: &str, reference: &str, why: &str) -> Error {
    Error::new(
        Kind::Hostile,
        "follow",
        format!("backing file {reference:?} of {from} of {object}"),
    )
    .detail(why)
    .remedy(REMEDY)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_paths_are_resolved() {
        assert_eq!(resolve("/pool/top", "base").as_deref(), Ok("/pool/base"));
        assert_eq!(resolve("/pool/top", "./x/../base").as_deref(), Ok("/pool/base"));
        assert_eq!(
            resolve("/pool/top", "../../../etc/shadow").as_deref(),
            Ok("/etc/shadow")
        );
        assert_eq!(resolve("/pool/top", "//pool//base").as_deref(), Ok("/pool/base"));
        assert_eq!(resolve("/pool/top", "./a:b").as_deref(), Ok("/pool/a:b"));
        for bad in [
            "json:{\"file.filename\":\"/etc/shadow\"}",
            "nbd://h/x",
            "nbd:unix:/s",
            "file:/etc/shadow",
            "",
            "a\nb",
        ] {
            assert!(resolve("/pool/top", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_running_chain_stays_in_its_folder() {
        let file = |path: &str| BackingXml {
            source: SourceXml::File(path.into()),
            format: Some("qcow2".into()),
        };
        assert!(check_live("d", "/pool/top", &[file("/pool/mid"), file("/pool/base")]).is_ok());
        for bad in [file("/etc/shadow"), file("/pool/../etc/x"), file("/pool/sub/x")] {
            let error = check_live("disk \"vda\"", "/pool/top", &[file("/pool/mid"), bad]).unwrap_err();
            assert_eq!(error.kind(), Kind::Hostile);
            assert!(error.to_string().contains("of /pool/mid of disk \"vda\""), "{error}");
        }
        let device = BackingXml {
            source: SourceXml::Block("/dev/sda".into()),
            format: None,
        };
        assert!(check_live("d", "/pool/top", &[device]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_let_through_lies_directly_in_the_folder(reference in "[./a:]{0,12}") {
            if let Ok(path) = resolve("/pool/top", &reference) && check_folder(&path, "/pool").is_ok() {
                let name = path.strip_prefix("/pool/").unwrap();
                prop_assert!(!name.is_empty() && !name.contains('/') && name != "..");
            }
        }
    }
}
