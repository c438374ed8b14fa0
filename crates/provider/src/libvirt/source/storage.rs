//! Volumes and pools of a source host, found by path.

use virt::connect::Connect;
use virt::error::Error as VirtError;
use virt::storage_pool::StoragePool;
use virt::storage_vol::StorageVol;
use virt_sys as sys_raw;

use super::domain::is_missing;
use crate::libvirt::xml::storage::PoolXml;

/// The folder of a path.
pub(super) fn folder(path: &str) -> &str {
    path.rsplit_once('/')
        .map_or("", |(folder, _)| if folder.is_empty() { "/" } else { folder })
}

/// The active pool whose volumes are the files of `folder`. Blocks.
pub(super) fn pool_of(connect: &Connect, folder: &str) -> Result<Option<StoragePool>, VirtError> {
    for pool in connect.list_all_storage_pools(sys_raw::VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)? {
        let Ok(described) = PoolXml::parse(&pool.xml_desc(0)?) else {
            continue;
        };
        let path = described.path.as_deref().map(|path| path.trim_end_matches('/'));
        if described.holds_files() && path == Some(folder) {
            return Ok(Some(pool));
        }
    }
    Ok(None)
}

/// The volume at `path`, also where it was made behind libvirt's back. Blocks.
pub(super) fn volume(connect: &Connect, path: &str) -> Result<Option<StorageVol>, VirtError> {
    match vmferry_libvirt::vol_by_path(connect, path) {
        Ok(volume) => return Ok(Some(volume)),
        Err(error) if is_missing(&error) => {}
        Err(error) => return Err(error),
    }
    let Some(pool) = pool_of(connect, folder(path))? else {
        return Ok(None);
    };
    pool.refresh(0)?;
    match vmferry_libvirt::vol_by_path(connect, path) {
        Ok(volume) => Ok(Some(volume)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
