//! The requests that the store makes, each tried again while it may help.

use std::time::Duration;

use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, LAST_MODIFIED,
    RANGE,
};
use reqwest::{Method, StatusCode, Url};
use vmferry_block::Buf;

use super::refusal::refusal;
use crate::web::{Answer, Client, Trouble};
use crate::{Kind, PartBody};

/// Does a call again while it fails in passing. What is called makes a new future each time.
macro_rules! persist {
    ($call:expr) => {{
        let mut tries = $crate::web::Tries::new();
        loop {
            match $call.await {
                Err(trouble) => tries.again(trouble).await?,
                outcome => break outcome,
            }
        }
    }};
}
pub(super) use persist;

/// How long a server may take to move or to remove what it has.
const WORKING: Duration = Duration::from_mins(10);

/// How often a file is read that is replaced meanwhile.
const SETTLING: u32 = 20;

/// A server and the folder on it below which everything is.
#[derive(Debug)]
pub(super) struct Server {
    /// Follows redirects on the same host, which only what reads may.
    pub(super) reading: Client,
    pub(super) writing: Client,
    /// Ends with a slash.
    pub(super) base: Url,
    pub(super) auth: Option<HeaderValue>,
}

/// What a server says of a file without sending it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    /// `None` where the server does not say.
    pub(super) len: Option<u64>,
    pub(super) tag: Tag,
}

/// What changes with a file: its `ETag` and its `Last-Modified`, each a dash where the server gives none.
///
/// Weak and strong are one: Apache calls a tag weak for the first second of a file's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag(pub(super) String);

impl Tag {
    pub(super) fn of(answer: &Answer) -> Self {
        let text = |name| answer.header(name).unwrap_or("-").trim();
        let etag = text(ETAG);
        Self(format!(
            "{} {}",
            etag.strip_prefix("W/").unwrap_or(etag),
            text(LAST_MODIFIED)
        ))
    }

    /// Whether the server gave neither.
    pub(super) fn is_empty(&self) -> bool {
        self.0 == "- -"
    }
}

/// What became of a move that spares what exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    Done,
    /// There is something of that name.
    Taken,
    /// There is nothing to move.
    Nothing,
}

/// A WebDAV method by its name.
pub(super) fn method(name: &'static str) -> Method {
    Method::from_bytes(name.as_bytes()).unwrap_or(Method::GET)
}

impl Server {
    /// The URL of a path: below the endpoint, or on the server where it starts with a slash. Paths are made of keys, of names of
    /// ours, which need no escapes, and of the endpoint's own.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        if path.starts_with('/') {
            url.set_path(path);
        } else {
            url.set_path(&format!("{}{path}", self.base.path()));
        }
        url
    }

    /// One request and the head of its answer, whatever it is.
    pub(super) async fn ask(
        &self,
        method: &Method,
        path: &str,
        headers: HeaderMap,
        body: Option<PartBody>,
    ) -> Result<Answer, Trouble> {
        let is_reading = [Method::GET, Method::HEAD].contains(method);
        let client = if is_reading { &self.reading } else { &self.writing };
        let mut request = client.request(method.clone(), self.url(path)).headers(headers);
        if let Some(auth) = &self.auth {
            request = request.header(AUTHORIZATION, auth.clone());
        }
        if *method == Method::PUT && body.is_none() {
            request = request.header(CONTENT_LENGTH, 0);
        }
        let is_working = ["MOVE", "DELETE"].contains(&method.as_str());
        client.send(request.build()?, body, is_working.then_some(WORKING)).await
    }

    pub(super) fn refusal(&self, method: &Method, path: &str, answer: &Answer) -> Trouble {
        refusal(method, &self.url(path), answer)
    }

    /// A request without a body, and what the head of its answer says; asked again while that fails in passing.
    async fn call<T>(
        &self,
        method: Method,
        path: &str,
        fields: &HeaderMap,
        read: impl Fn(&Answer) -> Option<T> + Send,
    ) -> Result<T, Trouble> {
        let once = async || {
            let answer = self.ask(&method, path, fields.clone(), None).await?;
            read(&answer).ok_or_else(|| self.refusal(&method, path, &answer))
        };
        persist!(once())
    }

    /// A file's length and tag, without the file; `None` where there is none.
    pub(super) async fn head(&self, path: &str) -> Result<Option<Meta>, Trouble> {
        self.call(Method::HEAD, path, &HeaderMap::new(), |answer| match answer.status() {
            StatusCode::NOT_FOUND | StatusCode::GONE => Some(None),
            StatusCode::OK => Some(Some(Meta {
                len: answer.header(CONTENT_LENGTH).and_then(|len| len.trim().parse().ok()),
                tag: Tag::of(answer),
            })),
            _ => None,
        })
        .await
    }

    /// A small file as text; `None` where there is none.
    pub(super) async fn text(&self, path: &str, most: usize) -> Result<Option<String>, Trouble> {
        let found = persist!(self.text_once(path, most))?;
        Ok(found.map(|(text, _)| text))
    }

    /// A small file that may be replaced at any time, as it was at one time.
    ///
    /// Apache looks at a file's length and then opens it: what comes may be the front of the next one.
    pub(super) async fn settled_text(&self, path: &str, most: usize) -> Result<Option<String>, Trouble> {
        for _ in 0..SETTLING {
            let Some((text, tag)) = persist!(self.text_once(path, most))? else {
                return Ok(None);
            };
            if self.head(path).await?.is_some_and(|meta| meta.tag == tag) {
                return Ok(Some(text));
            }
        }
        Err(Trouble::new(Kind::Busy, "it is replaced all the time"))
    }

    async fn text_once(&self, path: &str, most: usize) -> Result<Option<(String, Tag)>, Trouble> {
        let answer = self.ask(&Method::GET, path, HeaderMap::new(), None).await?;
        match answer.status() {
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
            StatusCode::OK => {}
            _ => return Err(self.refusal(&Method::GET, path, &answer)),
        }
        let claimed = answer.header(CONTENT_LENGTH).and_then(|len| len.parse::<usize>().ok());
        let tag = Tag::of(&answer);
        let text = answer.text(most + 1).await?;
        if text.len() > most {
            let detail = format!("it is longer than {most} bytes: none of ours");
            return Err(Trouble::new(Kind::Invalid, detail));
        }
        match claimed {
            Some(claimed) if claimed != text.len() => {
                let detail = format!("{} of {claimed} bytes came", text.len());
                Err(Trouble::new(Kind::Unreachable, detail))
            }
            _ => Ok(Some((text, tag))),
        }
    }

    /// A range of a file, asked for once.
    pub(super) async fn range(&self, path: &str, first: u64, end: u64) -> Result<Answer, Trouble> {
        let headers = headers([(RANGE, format!("bytes={first}-{}", end - 1))])?;
        self.ask(&Method::GET, path, headers, None).await
    }

    /// Puts a file, or the range of one that exists. Tried again where the body is held. [`Kind::NotFound`] where its folder
    /// is missing, or the file that the range is for.
    pub(super) async fn put(&self, path: &str, body: PartBody, offset: Option<u64>) -> Result<(), Trouble> {
        let mut fields = HeaderMap::new();
        if let Some(offset) = offset {
            let range = format!("bytes {offset}-{}/*", offset + body.len() - 1);
            fields = headers([(CONTENT_RANGE, range), (IF_MATCH, "*".to_owned())])?;
        }
        if body.again().is_none() {
            // It flows past: whoever makes it makes it again.
            return self.put_once(path, body, &fields).await;
        }
        let once = async || match body.again() {
            Some(body) => self.put_once(path, body, &fields).await,
            None => Err(Trouble::new(Kind::Bug, "a part that was held is gone")),
        };
        persist!(once())
    }

    async fn put_once(&self, path: &str, body: PartBody, fields: &HeaderMap) -> Result<(), Trouble> {
        let answer = self.ask(&Method::PUT, path, fields.clone(), Some(body)).await?;
        match answer.status() {
            StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Ok(()),
            StatusCode::PRECONDITION_FAILED if fields.contains_key(CONTENT_RANGE) => {
                Err(Trouble::new(Kind::NotFound, "the server has no such upload any more"))
            }
            _ => Err(self.refusal(&Method::PUT, path, &answer)),
        }
    }

    /// Puts a small file.
    pub(super) async fn put_text(&self, path: &str, text: &str) -> Result<(), Trouble> {
        self.put(path, PartBody::held([Buf::copy_of(text.as_bytes())]), None)
            .await
    }

    /// Removes a file, or a folder with everything in it; says whether there was one.
    pub(super) async fn delete(&self, path: &str) -> Result<bool, Trouble> {
        self.call(Method::DELETE, path, &HeaderMap::new(), |answer| {
            match answer.status() {
                StatusCode::OK | StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Some(true),
                StatusCode::NOT_FOUND | StatusCode::GONE => Some(false),
                _ => None,
            }
        })
        .await
    }

    /// Gives a file or folder another name in the same folder or in one that exists, unless there is something of that name.
    ///
    /// It may be tried again after it was done and the answer was lost: then it says [`Moved::Nothing`] or [`Moved::Taken`], by what
    /// the server looks at first.
    pub(super) async fn rename(&self, from: &str, to: &str) -> Result<Moved, Trouble> {
        let url = self.url(to);
        let mut names = vec![url.to_string(), url.path().to_owned()];
        // Behind a proxy a server may know itself by another scheme: then it refuses its own address. Some take the path alone, which
        // RFC 4918, section 10.3, allows; Apache does not.
        if let Some(rest) = names[0].strip_prefix("https://") {
            names.insert(1, format!("http://{rest}"));
        }
        for name in names {
            if let Some(moved) = self.rename_to(from, &name).await? {
                return Ok(moved);
            }
        }
        Err(Trouble::new(
            Kind::Unfit,
            "the server does not take its own address as the destination of a MOVE",
        )
        .remedy(
            "let the proxy before the server pass on Host and the scheme, or set spec.storage.endpoint to the server",
        ))
    }

    /// `None` where the server does not see itself in the destination.
    async fn rename_to(&self, from: &str, destination: &str) -> Result<Option<Moved>, Trouble> {
        let fields = headers([
            (HeaderName::from_static("destination"), destination.to_owned()),
            (HeaderName::from_static("overwrite"), "F".to_owned()),
        ])?;
        self.call(method("MOVE"), from, &fields, |answer| match answer.status() {
            StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT => Some(Some(Moved::Done)),
            StatusCode::PRECONDITION_FAILED => Some(Some(Moved::Taken)),
            StatusCode::NOT_FOUND | StatusCode::GONE => Some(Some(Moved::Nothing)),
            StatusCode::BAD_REQUEST | StatusCode::BAD_GATEWAY => Some(None),
            _ => None,
        })
        .await
    }
}

/// Headers out of names and texts.
pub(super) fn headers<const N: usize>(pairs: [(HeaderName, String); N]) -> Result<HeaderMap, Trouble> {
    let mut map = HeaderMap::new();
    for (name, text) in pairs {
        let value =
            HeaderValue::from_str(&text).map_err(|error| Trouble::new(Kind::Bug, format!("{name}: {error}")))?;
        map.insert(name, value);
    }
    Ok(map)
}
