//! Storage pools.

use virt::connect::Connect;
use virt::error::Error as VirtError;
use virt::storage_pool::StoragePool;
use virt_sys as sys;

use crate::libvirt::Libvirt;
use crate::libvirt::xml::storage::PoolXml;
use crate::{Error, Kind};

/// What is looked at before a pool is used.
struct Seen {
    active: bool,
    xml: String,
    available: u64,
}

impl Libvirt {
    /// The pool that a hint names, or the default.
    pub(super) fn pool_name<'a>(&'a self, hint: Option<&'a str>) -> &'a str {
        hint.filter(|hint| !hint.is_empty()).unwrap_or(&self.default_storage)
    }

    /// Refuses a pool that volumes cannot be made in. How many bytes are free in it.
    pub(super) async fn check_pool(&self, name: &str) -> Result<u64, Error> {
        let object = object(name);
        let wanted = name.to_owned();
        let looked_up = self
            .handle
            .call("use", &object, move |connect| {
                let pool = match connect.lookup_storage_pool_by_name(&wanted) {
                    Ok(pool) => pool,
                    Err(error) if error.code().to_raw() == sys::VIR_ERR_NO_STORAGE_POOL => {
                        return Ok(Err(names(connect)));
                    }
                    Err(error) => return Err(error),
                };
                see(&pool).map(Ok)
            })
            .await?;
        let seen = looked_up.map_err(|known| {
            Error::new(Kind::NotFound, "use", &object)
                .detail(format!("the host has no such pool; it has {}", listed(&known)))
                .remedy("name one of them in spec.targetStorageHint")
        })?;
        if !seen.active {
            return Err(Error::new(Kind::NotFound, "use", &object)
                .detail("it is not active")
                .remedy(format!("start it on the target host: virsh pool-start {name}")));
        }
        let pool = PoolXml::parse(&seen.xml)
            .map_err(|error| Error::new(Kind::Invalid, "read the description of", &object).source(error))?;
        if !pool.holds_files() {
            return Err(Error::new(Kind::Unsupported, "use", &object)
                .detail(format!("it is of type {}, where volumes are not files", pool.kind))
                .remedy("name a pool of type dir, fs or netfs in spec.targetStorageHint"));
        }
        Ok(seen.available)
    }
}

/// How messages call a pool.
pub(super) fn object(name: &str) -> String {
    format!("storage pool \"{name}\"")
}

fn see(pool: &StoragePool) -> Result<Seen, VirtError> {
    let active = pool.is_active()?;
    if active {
        // The numbers of the last refresh may be days old. Where it cannot be done now, they must do.
        let _ = pool.refresh(0);
    }
    Ok(Seen {
        active,
        xml: pool.xml_desc(0)?,
        available: pool.info()?.available,
    })
}

/// The names of the active pools; none where the host does not tell.
fn names(connect: &Connect) -> Vec<String> {
    let mut names = connect.list_storage_pools().unwrap_or_default();
    names.sort();
    names
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "no active one".to_owned(),
        names => names.join(", "),
    }
}
