//! What a server can do, found out by doing it with a few bytes in a hidden folder that is removed afterwards.

use reqwest::header::{CONTENT_RANGE, IF_MATCH};
use reqwest::{Method, StatusCode};
use vmferry_block::Buf;

use super::refusal::is_unable;
use super::server::{Moved, Server, headers, persist};
use crate::web::Trouble;
use crate::{Kind, PartBody};

/// How an object comes to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// As one file, written in ranges in any order: `PUT` with `Content-Range`, which RFC 9110, section 14.5, allows and Apache does.
    Ranges,
    /// As a file for each part, with a manifest.
    Segments,
}

impl Mode {
    /// How uploads are taken up again, for people.
    pub(super) fn note(self) -> &'static str {
        match self {
            Self::Ranges => "uploads are resumed by PUT with Content-Range",
            Self::Segments => {
                "the server takes no Content-Range in a PUT: the object is staged as segments with a manifest"
            }
        }
    }
}

impl Server {
    /// Finds out how objects come here, and that they can be written, read and deleted. Leaves nothing behind.
    pub(super) async fn probe(&self) -> Result<Mode, Trouble> {
        let folder = format!(".vmferry-{:016x}/", rand::random::<u64>());
        // First of all whether it could be removed again.
        self.delete(&format!("{folder}a")).await?;
        let made = match self.put_text_below(&format!("{folder}a"), "AAAA").await {
            Ok(made) => made,
            Err(trouble) => {
                self.sweep(&folder).await;
                return Err(missing_folder(trouble));
            }
        };
        let outcome = self.probe_in(&folder).await;
        let swept = self.delete(&folder).await;
        let own = self.url(&folder).path().to_owned();
        let made: Vec<&str> = made.iter().map(String::as_str).filter(|path| *path != own).collect();
        self.prune(&made).await;
        let mode = outcome?;
        swept?;
        if self.head(&format!("{folder}b")).await?.is_some() {
            return Err(Trouble::new(Kind::Unfit, "DELETE of a folder leaves what is in it"));
        }
        Ok(mode)
    }

    /// Removes what a probe that failed may have left.
    async fn sweep(&self, folder: &str) {
        for path in [&format!("{folder}a"), folder] {
            if let Err(trouble) = self.delete(path).await {
                tracing::debug!("{} may have stayed: {}", self.url(path), trouble.detail);
            }
        }
    }

    async fn probe_in(&self, folder: &str) -> Result<Mode, Trouble> {
        let (a, b) = (format!("{folder}a"), format!("{folder}b"));
        let takes_ranges = self.takes_ranges(folder).await?;
        if !takes_ranges {
            // A server that ignored Content-Range has written something else.
            self.put_text(&a, "AAAABBCC").await?;
        }
        self.gives_ranges(&a).await?;
        self.moves(&a, &b, "").await?;
        self.put_text(&a, "other").await?;
        if self.rename(&a, &b).await? != Moved::Taken {
            return Err(Trouble::new(
                Kind::Unfit,
                "the server overwrites what exists although MOVE came with Overwrite: F, so objects of others would not be safe",
            )
            .remedy("use a server that heeds Overwrite: F, such as nginx with its DAV module or Apache with mod_dav"));
        }
        if !takes_ranges {
            let (from, to) = (format!("{folder}f/"), format!("{folder}g/"));
            self.put_text_below(&format!("{from}0"), "0").await?;
            self.moves(&from, &to, "0").await?;
        }
        let meta = self.head(&b).await?;
        match meta {
            Some(meta) if meta.len == Some(8) && !meta.tag.is_empty() => {}
            Some(meta) if meta.len == Some(8) => {
                return Err(Trouble::new(
                    Kind::Unfit,
                    "the server gives neither ETag nor Last-Modified, so a change could not be noticed",
                ));
            }
            found => {
                return Err(Trouble::new(
                    Kind::Unfit,
                    format!(
                        "a file of 8 bytes has {:?} in the answer to HEAD",
                        found.and_then(|meta| meta.len)
                    ),
                ));
            }
        }
        Ok(if takes_ranges { Mode::Ranges } else { Mode::Segments })
    }

    /// Moves what has a file of this name in it, or is it.
    async fn moves(&self, from: &str, to: &str, file: &str) -> Result<(), Trouble> {
        let moved = self.rename(from, to).await?;
        if moved == Moved::Done || self.is_moved(from, to, file).await? {
            return Ok(());
        }
        Err(Trouble::new(Kind::Unfit, format!("MOVE of a new file says {moved:?}")))
    }

    /// Whether a move was done whose answer was lost.
    pub(super) async fn is_moved(&self, from: &str, to: &str, file: &str) -> Result<bool, Trouble> {
        let (from, to) = (format!("{from}{file}"), format!("{to}{file}"));
        Ok(self.head(&from).await?.is_none() && self.head(&to).await?.is_some())
    }

    /// Whether ranges of a file can be written out of order, beyond its end too, and never make a file.
    async fn takes_ranges(&self, folder: &str) -> Result<bool, Trouble> {
        let (a, none) = (format!("{folder}a"), format!("{folder}none"));
        for (path, range, text, hoped) in [
            (&a, "bytes 6-7/*", "CC", true),
            (&a, "bytes 4-5/*", "BB", true),
            (&none, "bytes 4-5/*", "BB", false),
        ] {
            if persist!(self.stores_range(path, range, text))? != hoped {
                return Ok(false);
            }
        }
        Ok(self.text(&a, 64).await?.as_deref() == Some("AAAABBCC"))
    }

    /// Whether a range of a file can be put.
    async fn stores_range(&self, path: &str, range: &str, text: &str) -> Result<bool, Trouble> {
        let fields = headers([(CONTENT_RANGE, range.to_owned()), (IF_MATCH, "*".to_owned())])?;
        let body = PartBody::held([Buf::copy_of(text.as_bytes())]);
        let answer = self.ask(&Method::PUT, path, fields, Some(body)).await?;
        match answer.status() {
            StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT => Ok(true),
            StatusCode::NOT_FOUND | StatusCode::CONFLICT => Ok(false),
            status if is_unable(status) => Ok(false),
            _ => Err(self.refusal(&Method::PUT, path, &answer)),
        }
    }

    /// Whether a range is answered with just that range.
    async fn gives_ranges(&self, path: &str) -> Result<(), Trouble> {
        let (status, text) = persist!(self.read_range(path))?;
        if (status, &*text) == (StatusCode::PARTIAL_CONTENT, "AB") {
            return Ok(());
        }
        let detail = format!(
            "the server ignores Range: asked for 2 of 8 bytes, it answered {status} and {} bytes",
            text.len()
        );
        Err(Trouble::new(Kind::Unfit, detail).remedy("use a server, or a way to it, that gives ranges of files"))
    }

    async fn read_range(&self, path: &str) -> Result<(StatusCode, String), Trouble> {
        let answer = self.range(path, 3, 5).await?;
        match answer.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok((answer.status(), answer.text(64).await?)),
            _ => Err(self.refusal(&Method::GET, path, &answer)),
        }
    }
}

/// A folder that could not be made is the endpoint's.
fn missing_folder(trouble: Trouble) -> Trouble {
    if trouble.kind == Kind::NotFound {
        return trouble.remedy("make the folder of spec.storage.endpoint on the server, or let the server take MKCOL");
    }
    trouble
}
