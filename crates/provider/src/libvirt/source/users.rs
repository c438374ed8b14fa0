//! Who else on a host uses an image: what must be known before it is deleted.
//!
//! libvirt tells the chain of a domain's disk only while the domain runs. Of one that is shut off, the pools know: a volume's
//! description names the image that it stands on.

use std::collections::BTreeMap;

use virt::connect::Connect;
use virt::domain::Domain as VirtDomain;
use virt::error::Error as VirtError;
use virt_sys as sys_raw;

use super::backing;
use super::domain::is_missing;
use super::storage;
use crate::libvirt::xml::storage::PoolXml;
use crate::libvirt::xml::tree::Element;

/// The images that somebody uses, and who.
#[derive(Default)]
pub(super) struct Users {
    by_path: BTreeMap<String, String>,
    /// The first VM whose images cannot be looked into, and the path of that one.
    pub unknown: Option<(String, String)>,
}

impl Users {
    /// All users but the domain with the UUID `me`. Blocks.
    pub fn find(connect: &Connect, me: &str) -> Result<Self, VirtError> {
        let mut users = Self::default();
        // First, so that what is in a folder's pool is known to libvirt.
        users.add_volumes(connect)?;
        for domain in connect.list_all_domains(0)? {
            // A domain that is gone meanwhile uses nothing.
            match users.add_domain(connect, &domain, me) {
                Err(error) if error.code().to_raw() == sys_raw::VIR_ERR_NO_DOMAIN => {}
                added => added?,
            }
        }
        Ok(users)
    }

    /// Who uses the image at `path`.
    pub fn of(&self, path: &str) -> Option<&str> {
        self.by_path.get(&plain(path, "/")).map(String::as_str)
    }

    fn add(&mut self, path: String, user: &str) {
        self.by_path.entry(path).or_insert_with(|| user.to_owned());
    }

    /// What the volumes of all pools stand on.
    fn add_volumes(&mut self, connect: &Connect) -> Result<(), VirtError> {
        for pool in connect.list_all_storage_pools(sys_raw::VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)? {
            let holds_files = PoolXml::parse(&pool.xml_desc(0)?).is_ok_and(|pool| pool.holds_files());
            // One that cannot be read now is as it was when it was read last.
            if holds_files && let Err(error) = pool.refresh(0) {
                tracing::warn!(pool = pool.name()?, %error, "the pool cannot be read anew");
            }
            for volume in pool.list_all_volumes(0)? {
                let Ok(text) = volume.xml_desc(0) else { continue };
                let Ok(root) = Element::parse(&text) else { continue };
                if let Some(below) = root.text_at(&["backingStore", "path"]) {
                    self.add(plain(below, &volume.path()?), &format!("volume {:?}", volume.name()?));
                }
            }
        }
        Ok(())
    }

    /// The disks of a domain, with their chains where libvirt tells them.
    fn add_domain(&mut self, connect: &Connect, domain: &VirtDomain, me: &str) -> Result<(), VirtError> {
        if domain.uuid_string()? == me {
            return Ok(());
        }
        let user = format!("VM {:?}", domain.name()?);
        let runs = domain.is_active()?;
        let text = domain.xml_desc(0)?;
        let Ok(root) = Element::parse(&text) else {
            self.unknown.get_or_insert((user, "its description".to_owned()));
            return Ok(());
        };
        for disk in root
            .child("devices")
            .into_iter()
            .flat_map(|devices| devices.all("disk"))
        {
            let mut image = Some(disk);
            while let Some(holder) = image {
                if let Some(path) = source(connect, holder)? {
                    self.add(plain(&path, "/"), &user);
                }
                image = holder.child("backingStore");
            }
            if !runs
                && disk.attr_at(&["driver"], "type").is_some_and(|format| format != "raw")
                && let Some(path) = source(connect, disk)?
                && storage::volume(connect, &path)?.is_none()
            {
                self.unknown.get_or_insert((user.clone(), path));
            }
        }
        Ok(())
    }
}

/// The path of the image that a `<disk>` or `<backingStore>` names. Blocks.
fn source(connect: &Connect, holder: &Element) -> Result<Option<String>, VirtError> {
    let Some(source) = holder.child("source") else {
        return Ok(None);
    };
    if let Some(path) = source.attr("file").or(source.attr("dev")) {
        return Ok(Some(path.to_owned()));
    }
    let (Some(pool), Some(volume)) = (source.attr("pool"), source.attr("volume")) else {
        return Ok(None);
    };
    let found = connect
        .lookup_storage_pool_by_name(pool)
        .and_then(|pool| pool.lookup_storage_vol_by_name(volume))
        .and_then(|volume| volume.path());
    match found {
        Err(error) if is_missing(&error) => Ok(None),
        found => found.map(Some),
    }
}

/// A path without `.`, `..` and doubled slashes; as it is, where it is none. A relative one is from the folder of `from`.
fn plain(path: &str, from: &str) -> String {
    backing::resolve(from, path).unwrap_or_else(|_| path.to_owned())
}
