//! Reading a disk back: its extent over the server's access to datastores, with ranges.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{CONTENT_LENGTH, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use vmferry_block::{AllocationMap, Buf};

use super::name::{Carried, split_path};
use super::place::Home;
use crate::vsphere::VSphere;
use crate::vsphere::client::{Client, Trouble};
use crate::vsphere::soap::Moref;
use crate::{DiskSource, Error, Kind, VolumeId};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_mins(2);

/// The most folders that are between a datacenter and the root.
const DEEPEST: usize = 64;

/// Opens a disk of a carrier.
pub(super) async fn open(vsphere: &VSphere, id: &VolumeId) -> Result<Arc<dyn DiskSource>, Error> {
    let carried = Carried::parse(id)?;
    let object = carried.object();
    let home = Home::find(vsphere).await?;
    let found = super::found::Found::by_name(&vsphere.client, &home, &carried.carrier).await?;
    let disk = found.as_ref().and_then(|found| found.disks.first()).ok_or_else(|| {
        Error::new(Kind::NotFound, "open", &object).detail("there is no such carrier, or its disk is the VM's by now")
    })?;
    let url = extent_url(&vsphere.client, &home.datacenter, &disk.path).await;
    let extent = Extent {
        client: vsphere.client.clone(),
        url: url.map_err(|trouble| trouble.of("open", &object))?,
        capacity: disk.capacity,
        object: object.clone(),
    };
    let answer = extent
        .ask(Method::HEAD, None)
        .await
        .map_err(|trouble| trouble.of("open", &object))?;
    let len = answer
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|len| len.to_str().ok()?.parse::<u64>().ok());
    if answer.status() == StatusCode::OK && len.is_none_or(|len| len == extent.capacity) {
        return Ok(Arc::new(extent));
    }
    Err(Error::new(Kind::Unsupported, "read", object)
        .detail(format!("the server answered {} to a look at its extent", answer.status()))
        .remedy("leave out --verify readback: disks on vSAN and vVols cannot be read as files; the import's checksum was checked"))
}

/// Where the extent of a disk is.
async fn extent_url(client: &Client, datacenter: &Moref, path: &str) -> Result<Url, Trouble> {
    let unfit = || Trouble::new(Kind::Failed, format!("{path:?} is no path of a disk"));
    let (datastore, file) = split_path(path).ok_or_else(unfit)?;
    let stem = file.strip_suffix(".vmdk").ok_or_else(unfit)?;
    let mut url = client.endpoint().url().clone();
    {
        let mut segments = url.path_segments_mut().map_err(|()| unfit())?;
        segments
            .clear()
            .push("folder")
            .extend(format!("{stem}-flat.vmdk").split('/'));
    }
    let datacenter = inventory_path(client, datacenter).await?;
    url.query_pairs_mut()
        .append_pair("dcPath", &datacenter)
        .append_pair("dsName", datastore);
    Ok(url)
}

/// Names from the root's children down, with slashes between them, as the server keeps them.
pub(super) async fn inventory_path(client: &Client, object: &Moref) -> Result<String, Trouble> {
    let root = &client.content().root;
    let (mut names, mut next) = (Vec::new(), object.clone());
    for _ in 0..DEEPEST {
        if next == *root {
            break;
        }
        let props = client.properties(&next, &["name", "parent"]).await?;
        names.push(props.text("name").unwrap_or_default().to_owned());
        match props.moref("parent") {
            Some(parent) => next = parent,
            None => break,
        }
    }
    names.reverse();
    Ok(names.join("/"))
}

/// A flat extent: the disk's bytes as the guest sees them.
struct Extent {
    client: Client,
    url: Url,
    capacity: u64,
    object: String,
}

impl Extent {
    /// Asks; once more with a new session where the old one has ended.
    async fn ask(&self, method: Method, range: Option<(u64, u64)>) -> Result<Response, Trouble> {
        let answer = self.send(method.clone(), range).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        // Any call renews the session.
        self.client.properties(&self.client.content().root, &["name"]).await?;
        self.send(method, range).await
    }

    async fn send(&self, method: Method, range: Option<(u64, u64)>) -> Result<Response, Trouble> {
        let http = self.client.http().main();
        let mut request = http
            .request(method, self.url.clone())
            .headers(self.client.signed())
            .timeout(LIMIT);
        if let Some((start, end)) = range {
            request = request.header(RANGE, format!("bytes={start}-{}", end - 1));
        }
        Ok(request.send().await?)
    }

    async fn fill(&self, offset: u64, buf: &mut Buf) -> Result<(), Trouble> {
        let end = offset + buf.len() as u64;
        let mut answer = self.ask(Method::GET, Some((offset, end))).await?;
        if answer.status() != StatusCode::PARTIAL_CONTENT {
            return Err(Trouble::new(
                Kind::Failed,
                format!("the server answered {} to a range", answer.status()),
            ));
        }
        let mut at = 0;
        while let Some(chunk) = answer.chunk().await? {
            let into = buf.get_mut(at..at + chunk.len());
            let into = into.ok_or_else(|| Trouble::new(Kind::Failed, "the server sent more than was asked for"))?;
            into.copy_from_slice(&chunk);
            at += chunk.len();
        }
        if at < buf.len() {
            return Err(Trouble::new(
                Kind::Unreachable,
                format!("the server sent {at} bytes of {}", buf.len()),
            ));
        }
        Ok(())
    }
}

#[async_trait]
impl DiskSource for Extent {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Over HTTP nobody tells holes.
    async fn map(&self) -> Result<AllocationMap, Error> {
        Ok(AllocationMap::full(self.capacity))
    }

    async fn read(&self, offset: u64, mut buf: Buf) -> Result<Buf, Error> {
        if buf.is_empty() {
            return Ok(buf);
        }
        let filled = self.fill(offset, &mut buf).await;
        filled.map_err(|trouble| trouble.of("read", &self.object))?;
        Ok(buf)
    }

    async fn finish(&self) -> Result<(), Error> {
        Ok(())
    }
}
