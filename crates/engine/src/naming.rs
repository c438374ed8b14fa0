//! Names of what a migration makes in staging, and of its jobs.
//!
//! Invariant: each carries the migration's tag, so that two migrations never share one and a foreign object never fits.

use std::fmt::Write;

use vmferry_api::Key;
use vmferry_provider::{ImageFormat, Owner};
use vmferry_staging::{InvalidKey, ObjectKey};

use crate::port::JobId;

/// Longest disk name that goes into a key as it is.
const MAX_DISK: usize = 64;
/// Longest namespace or name that goes into a key as it is: what Kubernetes allows for a name.
const MAX_NAME: usize = 200;

/// `<namespace>/<name>-<tag>/<disk>.<format>`.
pub(crate) fn object_key(
    migration: &Key,
    owner: &Owner,
    disk: &str,
    format: ImageFormat,
) -> Result<ObjectKey, InvalidKey> {
    let namespace = segment(&migration.namespace, 63);
    let name = segment(&migration.name, MAX_NAME);
    let disk = segment(disk, MAX_DISK);
    format!("{namespace}/{name}-{}/{disk}.{format}", owner.tag()).parse()
}

/// `export-<tag>-<attempt>`.
pub(crate) fn export_job(owner: &Owner, attempt: u32) -> JobId {
    JobId(format!("export-{}-{attempt}", owner.tag()))
}

/// `import-<tag>-<attempt>`.
pub(crate) fn import_job(owner: &Owner, attempt: u32) -> JobId {
    JobId(format!("import-{}-{attempt}", owner.tag()))
}

/// One segment of a key. A text that had to be changed gets a hash of the original, so that two texts stay two segments.
fn segment(text: &str, max: usize) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !text.is_empty() && text.len() <= max && !text.starts_with('.') && text.chars().all(allowed) {
        return text.to_owned();
    }
    let mut out: String = text
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .take(max)
        .collect();
    if out.is_empty() || out.starts_with('.') {
        out.insert(0, '_');
    }
    let _ = write!(out, "-{:016x}", fnv1a(text.as_bytes()));
    out
}

/// FNV-1a, 64 bits: stable over processes and versions, which `std`'s hasher does not promise.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owner() -> Owner {
        Owner::new("0f8fad5b-d9cb-469f-a165-70867728950e")
    }

    #[test]
    fn plain_names_stay_as_they_are() {
        let key = object_key(
            &Key::new("databases", "mysql.prod"),
            &owner(),
            "vda",
            ImageFormat::Qcow2,
        );
        assert_eq!(key.unwrap().as_str(), "databases/mysql.prod-0f8fad5bd9cb/vda.qcow2");
        assert_eq!(export_job(&owner(), 2).0, "export-0f8fad5bd9cb-2");
        assert_eq!(import_job(&owner(), 0).0, "import-0f8fad5bd9cb-0");
    }

    proptest! {
        #[test]
        fn any_disk_name_gives_a_key_below_the_migrations_folder(disk in "\\PC{0,200}", ns in "[a-z0-9-]{1,63}", name in "[a-z0-9.-]{1,253}") {
            let key = object_key(&Key::new(ns, name), &owner(), &disk, ImageFormat::Raw).unwrap();
            prop_assert_eq!(key.as_str().split('/').count(), 3);
            prop_assert!(key.as_str().contains("-0f8fad5bd9cb/"));
        }

        #[test]
        fn two_disks_never_share_a_key(a in "[a-c:/ .]{0,5}", b in "[a-c:/ .]{0,5}") {
            prop_assume!(a != b);
            let key = |disk: &str| object_key(&Key::new("n", "m"), &owner(), disk, ImageFormat::Raw).unwrap();
            prop_assert_ne!(key(&a), key(&b));
        }
    }
}
