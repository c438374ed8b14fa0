//! Datastores, and clusters of them.

use super::choice::{is_named, names};
use super::{Home, below};
use crate::vsphere::client::{Client, Object, unescape};
use crate::vsphere::soap::Moref;
use crate::{Error, Kind};

const PATHS: [&str; 2] = ["name", "summary"];

/// What to do about a datastore that cannot be used.
const REMEDY: &str = "name another in spec.targetStorageHint, or as datastore in the Provider's spec.defaults";

/// A datastore that can be used.
#[derive(Debug, Clone)]
pub(super) struct Datastore {
    pub moref: Moref,
    pub name: String,
    /// What is free there in bytes.
    pub free: u64,
}

impl Datastore {
    /// A datastore that is in use, or why it cannot be.
    fn of(object: &Object) -> Result<Self, &'static str> {
        let summary = object.props.get("summary").ok_or("the server does not show it")?;
        if summary.flag_at("accessible") != Some(true) {
            return Err("it is not accessible");
        }
        if summary.text_at("maintenanceMode").is_some_and(|mode| mode != "normal") {
            return Err("it is in maintenance");
        }
        let free = summary.number_at("freeSpace").and_then(|free| u64::try_from(free).ok());
        Ok(Self {
            moref: object.moref.clone(),
            name: unescape(object.props.text("name").unwrap_or_default()),
            free: free.unwrap_or(0),
        })
    }
}

/// The datastore of that name or path, or the member of a datastore cluster of that name that has most free; the only one that can
/// be used where none is named. `reachable` are those of the cluster or host.
pub(super) async fn find(
    client: &Client,
    home: &Home,
    reachable: &[Moref],
    wanted: Option<&str>,
) -> Result<Datastore, Error> {
    let all = client.properties_of(reachable, &PATHS).await;
    let all = all.map_err(|trouble| trouble.of("read the datastores of", client.describe()))?;
    let Some(wanted) = wanted else {
        return only(&all);
    };
    let object = format!("datastore {wanted:?}");
    let at = if wanted.contains('/') {
        let at = client.find_by_path(wanted).await;
        at.map_err(|trouble| trouble.of("find", &object))?
    } else {
        None
    };
    let is_it = |one: &&Object| is_named(one, wanted) || Some(&one.moref) == at.as_ref();
    if let Some(found) = all.iter().find(is_it) {
        return Datastore::of(found).map_err(|why| unusable(&object, why));
    }
    let pods = below(
        client,
        &home.datastores,
        "StoragePod",
        &["name", "childEntity"],
        "datastore clusters",
    )
    .await?;
    if let Some(pod) = pods.iter().find(is_it) {
        let members = pod.props.morefs("childEntity");
        let usable = all
            .iter()
            .filter(|one| members.contains(&one.moref))
            .filter_map(|one| Datastore::of(one).ok());
        let most = usable.max_by(|a, b| a.free.cmp(&b.free).then_with(|| b.name.cmp(&a.name)));
        let object = format!("datastore cluster {wanted:?}");
        return most.ok_or_else(|| unusable(&object, "none of its datastores can be used from the cluster or host"));
    }
    Err(Error::new(Kind::NotFound, "find", object)
        .detail(format!(
            "the cluster or host has {}",
            if all.is_empty() {
                "no datastore".to_owned()
            } else {
                names(&all)
            }
        ))
        .remedy(REMEDY))
}

fn only(all: &[Object]) -> Result<Datastore, Error> {
    let mut usable: Vec<_> = all.iter().filter_map(|one| Datastore::of(one).ok()).collect();
    match usable.len() {
        1 => Ok(usable.remove(0)),
        0 => Err(unusable(
            "a datastore",
            "the cluster or host has none that is accessible and not in maintenance",
        )),
        _ => Err(Error::new(Kind::Invalid, "choose", "a datastore")
            .detail(format!("there are several: {}", names(all)))
            .remedy("name one in spec.targetStorageHint, or as datastore in the Provider's spec.defaults")),
    }
}

fn unusable(object: &str, why: &str) -> Error {
    Error::new(Kind::Unreachable, "use", object)
        .detail(why.to_owned())
        .remedy(REMEDY)
}
