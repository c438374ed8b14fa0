//! Calls: a request is made, signed, sent, and its refusal understood.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use sha2::{Digest as _, Sha256};
use vmferry_block::Buf;

use super::place::Place;
use super::refusal::Refusal;
use super::settings::Settings;
use super::sign::{Payload, Signer};
use super::xml;
use crate::web::{Answer, Client, Config, Redirects, Tries, Trouble};
use crate::{Error, Kind, PartBody};

/// The longest error answer that is read, in bytes.
const LONGEST_ERROR: usize = 64 << 10;

/// What a call does, and what is known of it before it is made.
#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    method: Method,
    /// The object's name; empty for the bucket.
    name: &'a str,
    query: Vec<(&'a str, &'a str)>,
    headers: Vec<(&'static str, String)>,
    text: Option<String>,
    /// What AWS calls the permission for it.
    permission: &'static str,
    patience: Option<Duration>,
    /// Whether nothing is lost when it is made twice.
    may_repeat: bool,
    /// Whether what it is answered is XML of the server's own.
    speaks_xml: bool,
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, name: &'a str, permission: &'static str) -> Self {
        Self {
            method,
            name,
            query: Vec::new(),
            headers: Vec::new(),
            text: None,
            permission,
            patience: None,
            may_repeat: true,
            speaks_xml: true,
        }
    }

    pub(super) fn query(mut self, key: &'a str, value: &'a str) -> Self {
        self.query.push((key, value));
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// How long the answer may take after the last byte was sent.
    pub(super) fn patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// It is made again only when the server refused it, not when the answer was lost.
    pub(super) fn once(mut self) -> Self {
        self.may_repeat = false;
        self
    }

    /// It is answered by a text of ours.
    pub(super) fn plain(mut self) -> Self {
        self.speaks_xml = false;
        self
    }

    /// The tries of it: one that took all of its time may be made again.
    fn tries(&self) -> Tries {
        Tries::of_calls_of(self.patience.unwrap_or_default())
    }

    /// Waits before the next try; gives the refusal back where there shall be none.
    pub(super) async fn failed(&self, tries: &mut Tries, refusal: Refusal) -> Result<(), Refusal> {
        let is_lost = refusal.status.is_none() && !self.may_repeat;
        let passes = matches!(refusal.trouble.kind, Kind::Unreachable | Kind::Busy | Kind::Failed);
        if is_lost || !passes {
            return Err(refusal);
        }
        let Refusal { code, status, trouble } = refusal;
        let again = tries.again(trouble).await;
        again.map_err(|trouble| Refusal { code, status, trouble })
    }
}

/// The way to one bucket.
#[derive(Debug)]
pub(super) struct Wire {
    client: Client,
    signer: Signer,
    pub(super) place: Place,
}

impl Wire {
    pub(super) fn new(settings: &Settings) -> Result<Self, Error> {
        settings.check()?;
        let place = Place::new(
            &settings.bucket,
            settings.region.as_deref(),
            settings.endpoint.as_deref(),
        )?;
        let config = Config {
            ca: settings.ca.clone(),
            hosts: settings.hosts.clone(),
            redirects: Redirects::No,
            silence: settings.silence,
        };
        let named = |trouble: Trouble| trouble.of("use", place.describe());
        let client = Client::new(config).map_err(named)?;
        client.check_url(&place.url("", &[])).map_err(named)?;
        Ok(Self {
            client,
            signer: Signer::new(settings, &place.region),
            place,
        })
    }

    pub(super) fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Makes a call until it succeeds, is refused for good, or patience ends. Success has its body still unread.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Answer, Refusal> {
        let mut tries = call.tries();
        loop {
            match self.once(call).await {
                Ok(answer) => return Ok(answer),
                Err(refusal) => call.failed(&mut tries, refusal).await?,
            }
        }
    }

    /// The same with the answer's whole text, of at most `most` bytes, which is also looked at for an error.
    pub(super) async fn call_text(&self, call: &Call<'_>, most: usize) -> Result<String, Refusal> {
        let mut tries = call.tries();
        loop {
            match self.once_text(call, most).await {
                Ok(text) => return Ok(text),
                Err(refusal) => call.failed(&mut tries, refusal).await?,
            }
        }
    }

    async fn once_text(&self, call: &Call<'_>, most: usize) -> Result<String, Refusal> {
        let answer = self.once(call).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let text = answer.text(most).await?;
        // A note may be any text; what servers say is XML.
        match xml::error_in(&text).filter(|_| call.speaks_xml) {
            Some(_) => Err(Refusal::new(status, &headers, &text, call.permission, &self.place)),
            None => Ok(text),
        }
    }

    /// The same for an answer of this form.
    pub(super) async fn call_xml<T: serde::de::DeserializeOwned>(&self, call: &Call<'_>) -> Result<T, Refusal> {
        let text = self.call_text(call, xml::LONGEST).await?;
        xml::parse(&text).ok_or_else(|| {
            Trouble::new(Kind::Unfit, "the server's answer is none of S3's")
                .remedy("check that spec.storage.endpoint is an S3 server")
                .into()
        })
    }

    /// Makes a call with a part as its body, once.
    pub(super) async fn put(&self, call: &Call<'_>, body: PartBody, payload: Payload) -> Result<Answer, Refusal> {
        self.send(call, Some(body), payload).await
    }

    async fn once(&self, call: &Call<'_>) -> Result<Answer, Refusal> {
        let text = call.text.as_deref().unwrap_or_default().as_bytes();
        let body = (!text.is_empty()).then(|| PartBody::held([Buf::copy_of(text)]));
        let digest = Payload::Digest(Sha256::digest(text).into());
        let outcome = self.send(call, body, digest).await;
        match outcome {
            // The answer to a HEAD has no body: the same question as a GET tells why.
            Err(refusal) if call.method == Method::HEAD && needs_words(&refusal) => {
                Err(self.in_words(call).await.unwrap_or(refusal))
            }
            outcome => outcome,
        }
    }

    async fn in_words(&self, call: &Call<'_>) -> Option<Refusal> {
        let mut asked = call.clone().header("range", "bytes=0-0");
        asked.method = Method::GET;
        let answer = self
            .send(&asked, None, Payload::Digest(Sha256::digest(b"").into()))
            .await;
        answer.err().filter(|refusal| !refusal.code.is_empty())
    }

    async fn send(&self, call: &Call<'_>, body: Option<PartBody>, payload: Payload) -> Result<Answer, Refusal> {
        let url = self.place.url(call.name, &call.query);
        let mut request = self
            .client
            .request(call.method.clone(), url)
            .build()
            .map_err(Trouble::from)?;
        for (name, value) in &call.headers {
            let value = HeaderValue::from_str(value)
                .map_err(|_| Trouble::new(Kind::Bug, format!("the header {name} cannot be sent")))?;
            request.headers_mut().insert(*name, value);
        }
        if body.is_some() && !request.headers().contains_key(CONTENT_TYPE) {
            let binary = HeaderValue::from_static("application/octet-stream");
            request.headers_mut().insert(CONTENT_TYPE, binary);
        }
        self.signer.sign(&mut request, payload)?;
        let answer = self.client.send(request, body, call.patience).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let headers = answer.headers().clone();
        // A refusal whose text is lost on the way is still one.
        let text = answer.text(LONGEST_ERROR).await.unwrap_or_default();
        Err(Refusal::new(status, &headers, &text, call.permission, &self.place))
    }
}

fn needs_words(refusal: &Refusal) -> bool {
    let clear = [404, 412, 429, 500, 502, 503, 504];
    refusal.status.is_some_and(|status| !clear.contains(&status.as_u16()))
}
