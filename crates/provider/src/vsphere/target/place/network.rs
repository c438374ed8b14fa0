//! What network interfaces are attached to.

use super::Place;
use super::choice::{is_named, names, several_of};
use crate::vsphere::VSphere;
use crate::vsphere::client::{Client, Object, unescape};
use crate::vsphere::soap::Moref;
use crate::{Error, Kind, NicAttachment};

/// A network, as an interface refers to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::vsphere::target) enum Network {
    /// A portgroup of a host's own switch.
    Standard { moref: Moref, name: String },
    /// A portgroup of a distributed switch.
    Distributed { switch: String, portgroup: String },
    /// A network of NSX.
    Opaque { id: String, kind: String },
}

impl Place {
    /// The network of each interface, in order.
    pub async fn networks(&self, vsphere: &VSphere, wanted: &[&NicAttachment]) -> Result<Vec<Network>, Error> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let client = &vsphere.client;
        let all = self.all_networks(client).await?;
        let default = vsphere.placement.network.as_deref();
        let mut found = Vec::with_capacity(wanted.len());
        for attachment in wanted {
            let object = match pick(attachment, default, &all)? {
                Picked::Object(object) => object,
                Picked::Several(name, several) => return Err(ambiguous(client, name, &several).await),
                Picked::Path(path) => {
                    let at = client.find_by_path(path).await;
                    let at = at.map_err(|trouble| trouble.of("find", format!("network {path:?}")))?;
                    let object = all.iter().find(|one| Some(&one.moref) == at.as_ref());
                    object.ok_or_else(|| absent(path, &all))?
                }
            };
            found.push(describe(client, object).await?);
        }
        Ok(found)
    }

    async fn all_networks(&self, client: &Client) -> Result<Vec<Object>, Error> {
        let mut all = Vec::new();
        for (kind, paths) in [
            ("Network", &["name"][..]),
            (
                "DistributedVirtualPortgroup",
                &["name", "key", "config.distributedVirtualSwitch"][..],
            ),
            ("OpaqueNetwork", &["name", "summary"][..]),
        ] {
            let morefs: Vec<_> = self
                .networks
                .iter()
                .filter(|network| network.kind == kind)
                .cloned()
                .collect();
            let found = client.properties_of(&morefs, paths).await;
            all.extend(found.map_err(|trouble| trouble.of("read the networks of", client.describe()))?);
        }
        Ok(all)
    }
}

enum Picked<'a> {
    Object(&'a Object),
    Several(&'a str, Vec<&'a Object>),
    Path(&'a str),
}

/// By name, which only one may have; what is no network of vSphere's goes to the default, where there is one.
fn pick<'a>(attachment: &'a NicAttachment, default: Option<&'a str>, all: &'a [Object]) -> Result<Picked<'a>, Error> {
    let named = |name: &'a str| {
        let found: Vec<_> = all.iter().filter(|one| is_named(one, name)).collect();
        match found[..] {
            [] => name.contains('/').then_some(Picked::Path(name)),
            [object] => Some(Picked::Object(object)),
            _ => Some(Picked::Several(name, found)),
        }
    };
    let (name, fallback) = match attachment {
        NicAttachment::Network(name) => (name.as_str(), None),
        NicAttachment::Bridge(name) => (name.as_str(), default),
        NicAttachment::User | NicAttachment::Other(_) => {
            let what = match attachment {
                NicAttachment::Other(what) => what.as_str(),
                _ => "user-mode networking",
            };
            let Some(default) = default else {
                return Err(Error::new(Kind::Unsupported, "attach", format!("a network interface to {what}"))
                    .detail("vSphere has nothing like it")
                    .remedy(
                        "name a network of the target for it in spec.targetNetworkHints, or network in the Provider's \
                         spec.defaults",
                    ));
            };
            (default, None)
        }
    };
    let found = named(name).or_else(|| fallback.and_then(named));
    found.ok_or_else(|| absent(fallback.unwrap_or(name), all))
}

fn absent(name: &str, all: &[Object]) -> Error {
    let there = if all.is_empty() {
        "no network".to_owned()
    } else {
        names(all)
    };
    Error::new(Kind::NotFound, "use", format!("network {name:?}"))
        .detail(format!("the cluster or host has {there}"))
        .remedy("name another network in spec.targetNetworkHints, by its name or its inventory path")
}

/// The error for a name that several networks have.
async fn ambiguous(client: &Client, name: &str, several: &[&Object]) -> Error {
    Error::new(Kind::Invalid, "choose", format!("network {name:?}"))
        .detail(several_of(client, several).await)
        .remedy(
            "name one by its inventory path in spec.targetNetworkHints, or as network in the Provider's spec.defaults",
        )
}

async fn describe(client: &Client, object: &Object) -> Result<Network, Error> {
    let name = unescape(object.props.text("name").unwrap_or_default());
    let unreadable = || super::unreadable(&format!("network {name:?}"));
    match object.moref.kind.as_str() {
        "DistributedVirtualPortgroup" => {
            let switch = object
                .props
                .moref("config.distributedVirtualSwitch")
                .ok_or_else(unreadable)?;
            let props = client.properties(&switch, &["uuid"]).await;
            let props = props.map_err(|trouble| trouble.of("read the switch of", format!("network {name:?}")))?;
            Ok(Network::Distributed {
                switch: props.text("uuid").ok_or_else(unreadable)?.to_owned(),
                portgroup: object.props.text("key").unwrap_or(&object.moref.value).to_owned(),
            })
        }
        "OpaqueNetwork" => {
            let summary = object.props.get("summary").ok_or_else(unreadable)?;
            let part = |path| summary.text_at(path).map(str::to_owned).ok_or_else(unreadable);
            Ok(Network::Opaque {
                id: part("opaqueNetworkId")?,
                kind: part("opaqueNetworkType")?,
            })
        }
        _ => Ok(Network::Standard {
            moref: object.moref.clone(),
            name,
        }),
    }
}
