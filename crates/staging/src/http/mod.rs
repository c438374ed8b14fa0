//! HTTP servers: `storage.type: http` with an `endpoint`.
//!
//! What the server can do is found out once, by doing it with a few bytes ([`HttpStore::check`](StagingStore::check) or the first
//! upload), and the upload's id says it from then on:
//!
//! - *Ranges*: a `PUT` with `Content-Range` writes a part of a file (Apache with mod_dav). The object is one file `<key>`.
//! - *Segments*: any other server that heeds `MOVE` with `Overwrite: F` (nginx with its DAV module). Each part is a file of its own,
//!   and `<key>.manifest.json` names them; `cat <key>.parts/*/*` gives the object.
//!
//! What is not whole yet is below `.<name>.parts/` beside the object, which no key leads to; a note is `.<name>.note`. Whatever
//! others can see comes by one `MOVE` that overwrites nothing.
//!
//! A server that syncs nothing to its disk may lose what it confirmed when its power fails: HTTP has no word for that.
//!
//! Architecture Invariant: credentials go to the endpoint's host alone, and into no message.

mod auth;
mod folder;
mod manifest;
mod names;
mod note;
mod object;
mod probe;
mod refusal;
mod server;
mod upload;

use std::time::Duration;

use async_trait::async_trait;
use reqwest::Url;
use tokio::sync::OnceCell;
use vmferry_block::Buf;

pub use auth::Credentials;
use names::Names;
use object::Manifests;
use probe::Mode;
use server::Server;

use crate::hosts::HostPolicy;
use crate::web::{Client, Config, Redirects, Trouble};
use crate::{Error, Kind, ObjectKey, ObjectMeta, Part, PartBody, PartLimits, StagingStore, UploadId, Uploaded};

/// Where an HTTP store is, and how it is reached.
#[derive(Debug, Clone, Default)]
pub struct HttpConfig {
    /// `spec.storage.endpoint`: an `http://` or `https://` URL of a folder, without user, query and fragment.
    pub endpoint: String,
    /// Who we are.
    pub credentials: Credentials,
    /// Certificates of authorities that are trusted besides the machine's, as PEM: the Secret's `ca.crt`.
    pub ca: Option<String>,
    /// Which hosts may be talked to.
    pub hosts: HostPolicy,
    /// How long nothing may move on a connection; a minute where `None`.
    pub silence: Option<Duration>,
}

/// A staging store on an HTTP server.
#[derive(Debug)]
pub struct HttpStore {
    server: Server,
    /// What the server can do, once that was found out.
    mode: OnceCell<Mode>,
    manifests: Manifests,
}

impl HttpStore {
    /// The store at an endpoint. The server is not asked anything yet: [`check`](StagingStore::check) does.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where the endpoint, the credentials or the certificates make no sense; [`Kind::Denied`] where the endpoint is
    /// an address that may not be talked to.
    pub fn new(config: &HttpConfig) -> Result<Self, Error> {
        let base = base(&config.endpoint)?;
        let auth = config.credentials.header()?;
        let client = |redirects| {
            let config = Config {
                ca: config.ca.clone(),
                hosts: config.hosts.clone(),
                redirects,
                silence: config.silence,
            };
            let client = Client::new(config)?;
            client.check_url(&base)?;
            Ok::<_, Trouble>(client)
        };
        let clients = || Ok::<_, Trouble>((client(Redirects::SameHost)?, client(Redirects::No)?));
        let (reading, writing) = clients().map_err(|trouble| trouble.of("use", format!("HTTP storage {base}")))?;
        Ok(Self {
            server: Server {
                reading,
                writing,
                base,
                auth,
            },
            mode: OnceCell::new(),
            manifests: Manifests::default(),
        })
    }

    async fn mode(&self) -> Result<Mode, Error> {
        let mode = self.mode.get_or_try_init(|| self.server.probe()).await;
        mode.copied().map_err(|trouble| trouble.of("use", self.describe()))
    }

    /// Credentials that anybody on the way can read.
    fn is_exposed(&self) -> bool {
        let is_local = match self.server.base.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        self.server.auth.is_some() && self.server.base.scheme() == "http" && !is_local
    }

    /// The fault of `action` on the object.
    fn fault(&self, action: &'static str, key: &ObjectKey) -> impl FnOnce(Trouble) -> Error {
        let object = self.url(key);
        move |trouble| trouble.of(action, object)
    }

    async fn prune(&self, key: &ObjectKey) {
        let folders = Names::of(key).folders();
        let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
        self.server.prune(&folders).await;
    }
}

/// The URL of the folder below which everything is.
fn base(endpoint: &str) -> Result<Url, Error> {
    let invalid = |detail: &str| {
        // It may have a password or a signature in it.
        let shown = if endpoint.contains(['@', '?']) { "…" } else { endpoint };
        Error::new(Kind::Invalid, "use", format!("endpoint {shown:?}"))
            .detail(detail)
            .remedy("set spec.storage.endpoint to the URL of a folder, for example https://files.example.com/staging")
    };
    let mut url: Url = endpoint
        .trim()
        .parse()
        .map_err(|error: url::ParseError| invalid(&error.to_string()))?;
    if !["http", "https"].contains(&url.scheme()) || url.host_str().is_none() {
        return Err(invalid("it is no http:// or https:// URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("it has a user in it: credentials belong into the Secret"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("it has a query or a fragment"));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

#[async_trait]
impl StagingStore for HttpStore {
    fn describe(&self) -> String {
        format!("HTTP storage {}", self.server.base)
    }

    fn url(&self, key: &ObjectKey) -> String {
        self.server.url(key.as_str()).to_string()
    }

    fn limits(&self) -> PartLimits {
        PartLimits {
            min: 1 << 20,
            max: 1 << 30,
            count: 100_000,
            joined: 0,
            in_flight: 2,
        }
    }

    async fn check(&self, _need: u64) -> Result<Vec<String>, Error> {
        let mode = self.server.probe().await;
        let mode = mode.map_err(|trouble| trouble.of("check", self.describe()))?;
        // Another call may have found it out meanwhile.
        let _ = self.mode.set(mode);
        let mut notes = vec![mode.note().to_owned()];
        if self.is_exposed() {
            notes.push("the credentials go over http:// unencrypted: use https:// where the server has it".to_owned());
        }
        Ok(notes)
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, Error> {
        let meta = object::head(&self.server, &self.manifests, key).await;
        meta.map_err(self.fault("look up", key))
    }

    async fn read(&self, key: &ObjectKey, version: &str, offset: u64, mut bufs: Vec<Buf>) -> Result<Vec<Buf>, Error> {
        object::read(&self.server, &self.manifests, key, version, offset, &mut bufs)
            .await
            .map_err(self.fault("read", key))?;
        Ok(bufs)
    }

    async fn begin(&self, key: &ObjectKey, most: u64, part_size: u64) -> Result<UploadId, Error> {
        let mode = self.mode().await?;
        let upload = upload::begin(&self.server, mode, key, most, part_size).await;
        upload.map_err(self.fault("upload", key))
    }

    async fn parts(&self, key: &ObjectKey, upload: &UploadId) -> Result<Uploaded, Error> {
        let parts = upload::parts(&self.server, key, upload).await;
        parts.map_err(self.fault("look up the upload of", key))
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        offset: u64,
        body: PartBody,
    ) -> Result<Part, Error> {
        let part = upload::put_part(&self.server, key, upload, number, offset, body).await;
        part.map_err(|trouble| trouble.of("upload", format!("part {number} of {}", self.url(key))))
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        len: u64,
        parts: &[Part],
    ) -> Result<ObjectMeta, Error> {
        let meta = upload::complete(&self.server, &self.manifests, key, upload, len, parts).await;
        meta.map_err(self.fault("complete", key))
    }

    async fn abort(&self, key: &ObjectKey) -> Result<(), Error> {
        let ended = upload::abort(&self.server, key).await;
        ended.map_err(self.fault("abort the uploads of", key))?;
        self.prune(key).await;
        Ok(())
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        let deleted = object::delete(&self.server, key).await;
        deleted.map_err(self.fault("delete", key))?;
        self.prune(key).await;
        Ok(())
    }

    async fn note(&self, key: &ObjectKey) -> Result<Option<String>, Error> {
        let note = note::read(&self.server, key).await;
        note.map_err(self.fault("read the note of", key))
    }

    async fn put_note(&self, key: &ObjectKey, text: &str) -> Result<(), Error> {
        let stored = note::write(&self.server, key, text).await;
        stored.map_err(self.fault("write the note of", key))
    }

    async fn delete_note(&self, key: &ObjectKey) -> Result<(), Error> {
        let deleted = note::delete(&self.server, key).await;
        deleted.map_err(self.fault("delete the note of", key))?;
        self.prune(key).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
