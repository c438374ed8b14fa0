//! Where things go: what the Provider's defaults and the migration's hints name, or the only one that there is.

mod choice;
mod network;
mod storage;

use crate::vsphere::VSphere;
use crate::vsphere::client::{Client, Object, Trouble, escape};
use crate::vsphere::soap::{Arg, Moref};
use crate::{Error, Kind};
use choice::Choice;

pub(super) use network::Network;

/// The name that vSphere gives the pool of all resources of a cluster or host.
const ALL_RESOURCES: &str = "Resources";

/// The datacenter and the folder that VMs of ours are in.
#[derive(Debug, Clone)]
pub(super) struct Home {
    /// The datacenter.
    pub datacenter: Moref,
    /// The folder for VMs.
    pub folder: Moref,
    /// The datacenter's folder of datastores.
    datastores: Moref,
    /// The datacenter's folder of hosts and clusters.
    hosts: Moref,
}

/// Where a VM is made.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Its datacenter and its folder.
    pub home: Home,
    /// Its resource pool.
    pub pool: Moref,
    /// Its host, which has the datastore.
    pub host: Moref,
    /// Name of its datastore.
    pub datastore: String,
    /// What is free there in bytes.
    pub free: u64,
    /// The networks of its cluster or host.
    networks: Vec<Moref>,
}

impl Home {
    /// Finds it.
    pub async fn find(vsphere: &VSphere) -> Result<Self, Error> {
        let (client, placement) = (&vsphere.client, &vsphere.placement);
        let root = &client.content().root;
        let paths = ["name", "vmFolder", "hostFolder", "datastoreFolder"];
        let all = below(client, root, "Datacenter", &paths, "datacenters").await?;
        let choice = Choice::new("datacenter", "datacenter", placement.datacenter.as_deref());
        let found = choice.one_of(client, all).await?;
        let part = |path: &str| {
            let moref = found.props.moref(path);
            moref.ok_or_else(|| unreadable(&format!("the {path} of datacenter {}", found.moref.value)))
        };
        let home = Self {
            folder: part("vmFolder")?,
            hosts: part("hostFolder")?,
            datastores: part("datastoreFolder")?,
            datacenter: found.moref.clone(),
        };
        let Some(name) = placement.folder.as_deref() else {
            return Ok(home);
        };
        let folders = below(client, &home.folder, "Folder", &["name"], "VM folders").await?;
        let choice = Choice::new("VM folder", "folder", Some(name));
        let folder = choice.one_of(client, folders).await?.moref;
        Ok(Self { folder, ..home })
    }

    /// What has that name in the folder.
    pub async fn child(&self, client: &Client, name: &str) -> Result<Option<Moref>, Trouble> {
        let args = [Arg::moref("entity", &self.folder), Arg::text("name", escape(name))];
        let answer = client.call(&client.content().search_index, "FindChild", &args).await?;
        Ok(answer.moref_at("returnval"))
    }
}

impl Place {
    /// Finds it. `storage` is what the migration names as a datastore, or a cluster of some.
    pub async fn find(vsphere: &VSphere, storage: Option<&str>) -> Result<Self, Error> {
        let (client, placement) = (&vsphere.client, &vsphere.placement);
        let home = Home::find(vsphere).await?;
        let compute = compute(vsphere, &home).await?;
        let wanted = storage.or(placement.datastore.as_deref());
        let datastore = storage::find(client, &home, &compute.props.morefs("datastore"), wanted).await?;
        let host = host(vsphere, &compute, &datastore).await?;
        Ok(Self {
            pool: pool(vsphere, &compute).await?,
            host,
            networks: compute.props.morefs("network"),
            datastore: datastore.name,
            free: datastore.free,
            home,
        })
    }
}

/// The cluster, or the host in none, whose resources are used.
async fn compute(vsphere: &VSphere, home: &Home) -> Result<Object, Error> {
    let (client, placement) = (&vsphere.client, &vsphere.placement);
    let paths = ["name", "resourcePool", "host", "datastore", "network"];
    let mut all = below(client, &home.hosts, "ComputeResource", &paths, "clusters and hosts").await?;
    // Some servers give clusters with the others, some do not.
    for cluster in below(client, &home.hosts, "ClusterComputeResource", &paths, "clusters").await? {
        if all.iter().all(|known| known.moref != cluster.moref) {
            all.push(cluster);
        }
    }
    let choice = Choice::new("cluster or host", "cluster", placement.cluster.as_deref());
    if placement.cluster.is_none()
        && let Some(host) = placement.host.as_deref()
    {
        let hosts = below(client, &home.hosts, "HostSystem", &["name"], "hosts").await?;
        let host = Choice::new("host", "host", Some(host)).one_of(client, hosts).await?;
        all.retain(|compute| compute.props.morefs("host").contains(&host.moref));
    }
    choice.one_of(client, all).await
}

/// The named pool, or that of all resources.
async fn pool(vsphere: &VSphere, compute: &Object) -> Result<Moref, Error> {
    let root = compute.props.moref("resourcePool");
    let root = root.ok_or_else(|| unreadable(&format!("the resource pool of {}", compute.moref.value)))?;
    let Some(name) = vsphere
        .placement
        .resource_pool
        .as_deref()
        .filter(|name| *name != ALL_RESOURCES)
    else {
        return Ok(root);
    };
    let pools = below(&vsphere.client, &root, "ResourcePool", &["name"], "resource pools").await?;
    let choice = Choice::new("resource pool", "resourcePool", Some(name));
    Ok(choice.one_of(&vsphere.client, pools).await?.moref)
}

/// The named host, or of those that are up and have the datastore the one that uses the least memory.
async fn host(vsphere: &VSphere, compute: &Object, datastore: &storage::Datastore) -> Result<Moref, Error> {
    let client = &vsphere.client;
    let paths = [
        "name",
        "runtime.connectionState",
        "runtime.inMaintenanceMode",
        "datastore",
        "summary.quickStats.overallMemoryUsage",
    ];
    let all = client.properties_of(&compute.props.morefs("host"), &paths).await;
    let mut all = all.map_err(|trouble| trouble.of("read the hosts of", client.describe()))?;
    if let Some(name) = vsphere.placement.host.as_deref() {
        all = vec![Choice::new("host", "host", Some(name)).one_of(client, all).await?];
    }
    let is_usable = |host: &&Object| {
        host.props.text("runtime.connectionState") == Some("connected")
            && host.props.flag("runtime.inMaintenanceMode") != Some(true)
            && host.props.morefs("datastore").contains(&datastore.moref)
    };
    let usage = |host: &&Object| {
        let used = host.props.text("summary.quickStats.overallMemoryUsage");
        used.and_then(|used| used.parse::<u64>().ok()).unwrap_or(0)
    };
    let found = all.iter().filter(is_usable).min_by_key(usage);
    found.map(|host| host.moref.clone()).ok_or_else(|| {
        let state = |host: &Object| {
            let text = |path| host.props.text(path).unwrap_or("unknown").to_owned();
            let maintenance = host.props.flag("runtime.inMaintenanceMode") == Some(true);
            let rest = if maintenance { ", in maintenance" } else { "" };
            format!("{} is {}{rest}", text("name"), text("runtime.connectionState"))
        };
        let states: Vec<_> = all.iter().take(choice::NAMED).map(state).collect();
        Error::new(Kind::Unreachable, "use", format!("datastore {:?}", datastore.name))
            .detail(format!("no host that is up has it: {}", states.join("; ")))
            .remedy("bring a host back, or name another datastore, cluster or host in the Provider's spec.defaults")
    })
}

/// Everything of a type below a folder or a pool.
async fn below(
    client: &Client,
    container: &Moref,
    kind: &'static str,
    paths: &[&'static str],
    what: &str,
) -> Result<Vec<Object>, Error> {
    let found = client.properties_below(container, kind, paths).await;
    found.map_err(|trouble| trouble.of(format!("list the {what} of"), client.describe()))
}

fn unreadable(what: &str) -> Error {
    Error::new(Kind::Denied, "read", what)
        .detail("the server does not show it")
        .remedy("give the user a role with System.View and System.Read on it (docs/providers/vsphere.md)")
}
