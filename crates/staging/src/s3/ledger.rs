//! Which uploads of a key are under way.
//!
//! A server that lists multipart uploads is asked. For one that does not, or does not let us, the ids stand in a small object of
//! our own beside the staged one, a line each.

use reqwest::Method;
use tokio::sync::{Mutex, OnceCell};

use super::refusal::Refusal;
use super::small;
use super::wire::{Call, Wire};
use super::xml::{ListedUpload, UploadsPage};
use crate::{Kind, ObjectKey};

/// Pages of uploads at most; a page has 1,000.
const PAGES: usize = 100;

/// Knows the uploads of keys.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    lists: OnceCell<bool>,
    /// Held while a list of ours is read and written again.
    writing: Mutex<()>,
}

impl Ledger {
    /// Whether the server lists uploads.
    pub(super) async fn is_the_servers(&self, wire: &Wire) -> Result<bool, Refusal> {
        let ask = || async {
            let call = list_call("").query("max-uploads", "1");
            match wire.call_xml::<UploadsPage>(&call).await {
                Ok(_) => Ok(true),
                Err(refusal) if refusal.is_unsupported() => Ok(false),
                Err(refusal) => Err(refusal),
            }
        };
        self.lists.get_or_try_init(ask).await.copied()
    }

    /// Notes down an upload.
    pub(super) async fn add(&self, wire: &Wire, key: &ObjectKey, id: &str) -> Result<(), Refusal> {
        self.change(wire, key, |ids| ids.push(id.to_owned())).await
    }

    /// Strikes out an upload.
    pub(super) async fn remove(&self, wire: &Wire, key: &ObjectKey, id: &str) -> Result<(), Refusal> {
        self.change(wire, key, |ids| ids.retain(|noted| noted != id)).await
    }

    async fn change(&self, wire: &Wire, key: &ObjectKey, change: impl FnOnce(&mut Vec<String>)) -> Result<(), Refusal> {
        if self.is_the_servers(wire).await? {
            return Ok(());
        }
        let _alone = self.writing.lock().await;
        let name = name(key);
        let old = noted(wire, &name).await?;
        let mut ids = old.clone();
        change(&mut ids);
        if ids == old {
            Ok(())
        } else if ids.is_empty() {
            small::delete(wire, &name).await
        } else {
            small::write(wire, &name, &ids.join("\n")).await.map(drop)
        }
    }

    /// Whether this upload is noted down; `None` where the server itself knows better.
    pub(super) async fn has(&self, wire: &Wire, key: &ObjectKey, id: &str) -> Result<Option<bool>, Refusal> {
        if self.is_the_servers(wire).await? {
            return Ok(None);
        }
        let ids = noted(wire, &name(key)).await?;
        Ok(Some(ids.iter().any(|noted| noted == id)))
    }

    /// All uploads of exactly this key.
    pub(super) async fn uploads(&self, wire: &Wire, key: &ObjectKey) -> Result<Vec<String>, Refusal> {
        if self.is_the_servers(wire).await? {
            let listed = listed(wire, key.as_str()).await?;
            let ours = listed.into_iter().filter(|upload| upload.key == key.as_str());
            Ok(ours.map(|upload| upload.upload_id).collect())
        } else {
            noted(wire, &name(key)).await
        }
    }
}

fn name(key: &ObjectKey) -> String {
    small::name_beside(key, "uploads")
}

async fn noted(wire: &Wire, name: &str) -> Result<Vec<String>, Refusal> {
    let text = small::read(wire, name).await?.unwrap_or_default();
    Ok(text.lines().filter(|id| !id.is_empty()).map(str::to_owned).collect())
}

fn list_call(prefix: &str) -> Call<'_> {
    Call::new(Method::GET, "", "s3:ListBucketMultipartUploads")
        .query("uploads", "")
        .query("prefix", prefix)
}

/// The uploads under way of all names that begin so, as the server lists them.
pub(super) async fn listed(wire: &Wire, prefix: &str) -> Result<Vec<ListedUpload>, Refusal> {
    let mut found = Vec::new();
    let mut marker: Option<(String, String)> = None;
    for _ in 0..PAGES {
        let mut call = list_call(prefix);
        if let Some((key, upload)) = &marker {
            call = call.query("key-marker", key).query("upload-id-marker", upload);
        }
        let page: UploadsPage = match wire.call_xml(&call).await {
            Err(refusal) if refusal.trouble.kind == Kind::NotFound => break,
            page => page?,
        };
        marker = page.next().map(|(key, upload)| (key.to_owned(), upload.to_owned()));
        found.extend(page.uploads.into_iter().filter(|upload| upload.key.starts_with(prefix)));
        if marker.is_none() {
            break;
        }
    }
    Ok(found)
}
