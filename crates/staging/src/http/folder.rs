//! Folders: made where they are missing, removed where they are empty.
//!
//! Architecture Invariant: to delete a folder over HTTP is to delete everything in it. One that is not ours alone is therefore
//! deleted only under a lock (WebDAV class 2) that was taken before it was seen to be empty. Where a server has no locks, as
//! nginx, empty folders stay.

use quick_xml::events::Event;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use vmferry_block::Buf;

use super::server::{Server, headers, method};
use crate::web::{Answer, Trouble};
use crate::{Kind, PartBody};

/// What is asked of each entry of a folder: as little as possible. RFC 4918, section 9.1.
const LIST: &str = r#"<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop><D:resourcetype/></D:prop></D:propfind>"#;
/// RFC 4918, section 9.10.
const LOCK: &str = r#"<?xml version="1.0" encoding="utf-8"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockinfo>"#;
/// The longest list of a folder that is read, in bytes. A longer one is of a folder that is not empty.
const LONGEST: usize = 64 << 10;
/// How many folders are made in a row, while others remove them again.
const DEEPEST: usize = 300;
/// How often folders are made for one file, while others remove them because they are empty.
const TRIES: u32 = 4;

impl Server {
    /// Puts a small file, and makes the folders that it needs. Gives the folders that were made, the deepest first.
    pub(super) async fn put_text_below(&self, path: &str, text: &str) -> Result<Vec<String>, Trouble> {
        let mut made = Vec::new();
        for attempt in 1.. {
            match self.put_text(path, text).await {
                Err(trouble) if trouble.kind == Kind::NotFound && attempt < TRIES => {
                    made.extend(self.make_folder(parent(path)).await?);
                }
                outcome => return outcome.map(|()| made),
            }
        }
        Ok(made)
    }

    /// Makes a folder and those that lead to it, from the root of the server on; gives the paths of those that were made, the deepest
    /// first.
    pub(super) async fn make_folder(&self, path: &str) -> Result<Vec<String>, Trouble> {
        let mut missing = vec![self.url(path).path().to_owned()];
        let (mut made, mut refused) = (Vec::new(), None);
        while let Some(folder) = missing.last() {
            let answer = self.ask(&method("MKCOL"), folder, HeaderMap::new(), None).await?;
            match answer.status() {
                StatusCode::CREATED | StatusCode::OK | StatusCode::NO_CONTENT => {
                    made.insert(0, folder.clone());
                    missing.pop();
                }
                // It exists. RFC 4918, section 9.3.1.
                StatusCode::METHOD_NOT_ALLOWED => drop(missing.pop()),
                StatusCode::CONFLICT | StatusCode::NOT_FOUND if folder != "/" && missing.len() < DEEPEST => {
                    let above = parent(folder).to_owned();
                    missing.push(above);
                }
                // Apache's answer, too, where another one made it at that moment: asked again, it says that it exists.
                StatusCode::FORBIDDEN if refused.as_ref() != Some(folder) => refused = Some(folder.clone()),
                _ => return Err(self.refusal(&method("MKCOL"), folder, &answer)),
            }
        }
        Ok(made)
    }

    /// Removes those of `folders`, the deepest first, that are empty. What the server will not do is left.
    pub(super) async fn prune(&self, folders: &[&str]) {
        for folder in folders {
            match self.remove_if_empty(folder).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(trouble) => {
                    tracing::debug!("folder {} stays: {}", self.url(folder), trouble.detail);
                    return;
                }
            }
        }
    }

    /// Whether the folder is gone now.
    async fn remove_if_empty(&self, folder: &str) -> Result<bool, Trouble> {
        match self.is_empty(folder).await? {
            None => return Ok(true),
            Some(false) => return Ok(false),
            Some(true) => {}
        }
        let Some(token) = self.lock(folder).await? else {
            return Ok(false);
        };
        if self.is_empty(folder).await.is_ok_and(|empty| empty == Some(true)) {
            let tagged = format!("<{}> (<{token}>)", self.url(folder).path());
            let fields = headers([(HeaderName::from_static("if"), tagged)])?;
            let answer = self.ask(&reqwest::Method::DELETE, folder, fields, None).await?;
            if answer.status() == StatusCode::NO_CONTENT || answer.status() == StatusCode::OK {
                return Ok(true);
            }
        }
        let fields = headers([(HeaderName::from_static("lock-token"), format!("<{token}>"))])?;
        self.ask(&method("UNLOCK"), folder, fields, None).await?;
        Ok(false)
    }

    /// Whether there is nothing in a folder; `None` where there is no such folder.
    async fn is_empty(&self, folder: &str) -> Result<Option<bool>, Trouble> {
        let answer = self.ask_xml("PROPFIND", folder, "1", LIST).await?;
        match answer.status() {
            StatusCode::MULTI_STATUS => {
                let text = answer.text(LONGEST).await?;
                Ok(Some(text.len() < LONGEST && responses(&text) == Some(1)))
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
            _ => Err(self.refusal(&method("PROPFIND"), folder, &answer)),
        }
    }

    /// Locks a folder for half a minute; gives the lock's token. `None` where somebody else has it.
    async fn lock(&self, folder: &str) -> Result<Option<String>, Trouble> {
        let answer = self.ask_xml("LOCK", folder, "infinity", LOCK).await?;
        match answer.status() {
            StatusCode::OK | StatusCode::CREATED => {
                let token = answer.header(HeaderName::from_static("lock-token"));
                Ok(token.map(|token| token.trim().trim_start_matches('<').trim_end_matches('>').to_owned()))
            }
            StatusCode::LOCKED | StatusCode::MULTI_STATUS => Ok(None),
            _ => Err(self.refusal(&method("LOCK"), folder, &answer)),
        }
    }

    async fn ask_xml(&self, name: &'static str, path: &str, depth: &str, xml: &str) -> Result<Answer, Trouble> {
        let fields = headers([
            (HeaderName::from_static("depth"), depth.to_owned()),
            (HeaderName::from_static("timeout"), "Second-30".to_owned()),
            (CONTENT_TYPE, "application/xml; charset=utf-8".to_owned()),
        ])?;
        let body = PartBody::held([Buf::copy_of(xml.as_bytes())]);
        self.ask(&method(name), path, fields, Some(body)).await
    }
}

/// The folder in which a file or folder is: empty for the endpoint itself.
fn parent(path: &str) -> &str {
    let inner = path.strip_suffix('/').unwrap_or(path);
    inner.rfind('/').map_or("", |at| &path[..=at])
}

/// How many entries a list has, the folder itself among them; `None` where it is no list.
fn responses(xml: &str) -> Option<usize> {
    let mut reader = quick_xml::Reader::from_str(xml);
    let mut count = 0;
    loop {
        match reader.read_event() {
            Ok(Event::Start(start)) if start.local_name().as_ref() == "response" => count += 1,
            Ok(Event::Eof) => return Some(count),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_counted_whatever_their_prefix() {
        let list = r#"<?xml version="1.0"?><a:multistatus xmlns:a="DAV:"><a:response><a:href>/x/</a:href></a:response>
            <response xmlns="DAV:"><href>/x/y</href></response></a:multistatus>"#;
        assert_eq!(responses(list), Some(2));
        assert_eq!(responses("<a><b></a>"), None);
    }

    #[test]
    fn folders_have_folders() {
        for (path, above) in [
            ("a/b/c", "a/b/"),
            ("a/b/", "a/"),
            ("a/", ""),
            ("a", ""),
            ("", ""),
            ("/a/", "/"),
        ] {
            assert_eq!(parent(path), above, "{path:?}");
        }
    }
}
