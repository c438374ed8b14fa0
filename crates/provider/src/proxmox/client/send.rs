//! Sending requests: let in, timed, tried again where that is harmless.

use std::error::Error as StdError;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder, StatusCode};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::answer::Answer;
use super::auth::{Auth, Ticket, put_token};
use super::{Call, Client};
use crate::tls::is_mismatch;
use crate::{Error, Kind};

/// How long an answer may take. Proxmox VE itself gives up on another node after half a minute.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often a question is asked that got no answer.
const TRIES: u32 = 4;
/// The oldest ticket that a long request is begun with: it is good for two hours.
const YOUNG: Duration = Duration::from_hours(1);
/// The pause after the first try; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(300);

/// What `POST /access/ticket` answers.
#[derive(Deserialize)]
struct Login {
    ticket: String,
    #[serde(rename = "CSRFPreventionToken")]
    csrf: Option<String>,
    #[serde(rename = "NeedTFA", default)]
    need_tfa: Option<serde_json::Value>,
}

impl Client {
    /// Sends a call and reads the data of its answer.
    pub(crate) async fn send<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Error> {
        self.send_counted(call).await.map(|(data, _)| data)
    }

    /// [`send`](Self::send), with the number of all entries where the answer is a part of a list.
    pub(crate) async fn send_counted<T: DeserializeOwned>(&self, call: &Call) -> Result<(T, Option<u64>), Error> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let sent = match self.exchange(call).await {
                Ok(answer) => answer.data(call.action, &call.object),
                Err(error) => Err(error),
            };
            match sent {
                // Only a question may be asked twice: nobody knows what became of the rest.
                Err(error) if error.kind() == Kind::Unreachable && call.method == Method::GET && attempt < TRIES => {
                    tracing::debug!(%error, attempt, "Proxmox VE is asked again");
                }
                sent => return sent,
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.7..1.3))).await;
            pause *= 2;
        }
        Err(Error::new(Kind::Bug, call.action, &call.object))
    }

    async fn exchange(&self, call: &Call) -> Result<Answer, Error> {
        let path: Vec<_> = call.path.iter().map(String::as_str).collect();
        let mut url = self.0.endpoint.url(&path);
        if call.has_query() && !call.params.is_empty() {
            url.set_query(Some(&call.form()));
        }
        // A ticket that was refused: it is tried once more with another.
        let mut refused = None;
        loop {
            let mut request = self.0.http.request(call.method.clone(), url.clone()).timeout(PATIENCE);
            if !call.has_query() {
                request = request
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(call.form());
            }
            let (request, number) = self.let_in(request, &call.method, refused).await?;
            let answer = match request.send().await {
                Ok(response) => Answer::read(response).await,
                Err(error) => Err(error),
            };
            let answer = answer.map_err(|error| self.unreachable(call.action, &call.object, &error))?;
            if answer.status() != StatusCode::UNAUTHORIZED || number.is_none() || refused.is_some() {
                return Ok(answer);
            }
            refused = number;
        }
    }

    /// Puts on a request what lets it in; gives the ticket's number. `refused` is the number of one that was not accepted.
    pub(super) async fn let_in(
        &self,
        request: RequestBuilder,
        method: &Method,
        refused: Option<u64>,
    ) -> Result<(RequestBuilder, Option<u64>), Error> {
        let ticket = match &self.0.auth {
            Auth::Token { header, .. } => return Ok((put_token(request, header), None)),
            Auth::Ticket { .. } => self.ticket(refused).await?,
        };
        Ok((ticket.put_on(request, method), Some(ticket.number())))
    }

    /// Makes sure that the next request will be let in: a ticket that is not young is renewed, and the other side is asked whether
    /// it takes it. A token needs none of that.
    pub(super) async fn be_let_in(&self, action: &'static str, object: &str) -> Result<(), Error> {
        let Auth::Ticket { current, .. } = &self.0.auth else {
            return Ok(());
        };
        current.lock().await.take_if(|ticket| !ticket.is_younger(YOUNG));
        let _: serde_json::Value = self.send(&Call::get(&["version"], action, object)).await?;
        Ok(())
    }

    /// The ticket, or a new one where it is old or was refused. Whoever needs a new one at the same time waits for the same.
    async fn ticket(&self, refused: Option<u64>) -> Result<Ticket, Error> {
        let Auth::Ticket {
            username,
            password,
            current,
        } = &self.0.auth
        else {
            return Err(Error::new(Kind::Bug, "log in to", self.object()));
        };
        let mut current = current.lock().await;
        let known = current.as_ref();
        if let Some(ticket) = known.filter(|ticket| ticket.is_fresh() && Some(ticket.number()) != refused) {
            return Ok(ticket.clone());
        }
        // After one that was put aside, too, it must be another.
        let number = known.map_or_else(rand::random, |ticket| ticket.number().wrapping_add(1));
        let ticket = self.log_in(username, password.expose_secret(), number).await?;
        *current = Some(ticket.clone());
        Ok(ticket)
    }

    async fn log_in(&self, username: &str, password: &str, number: u64) -> Result<Ticket, Error> {
        let object = self.object();
        let form = Call::post(&[], "log in to", &object)
            .with("username", username)
            .with("password", password)
            .form();
        let request = self
            .0
            .http
            .post(self.0.endpoint.url(&["access", "ticket"]))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form)
            .timeout(PATIENCE);
        let answer = match request.send().await {
            Ok(response) => Answer::read(response).await,
            Err(error) => Err(error),
        };
        let answer = answer.map_err(|error| self.unreachable("log in to", &object, &error))?;
        let (login, _) = answer.data::<Login>("log in to", &object)?;
        match login.csrf {
            Some(csrf) if login.need_tfa.is_none() => Ticket::new(&login.ticket, &csrf, number),
            _ => Err(Error::new(Kind::Denied, "log in to", object)
                .detail(format!("user {username} needs a second factor"))
                .remedy(
                    "use an API token: pveum user token add USER NAME, then token_id and token_secret in the Secret",
                )),
        }
    }

    /// How messages name the other side.
    pub(crate) fn object(&self) -> String {
        format!("Proxmox VE at {}", self.name())
    }

    /// What it means that no answer came.
    pub(super) fn unreachable(&self, action: &'static str, object: &str, error: &reqwest::Error) -> Error {
        let mut chain: Vec<String> = Vec::new();
        // The outermost says only for which URL.
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if chain.last().is_none_or(|last| !last.contains(&text)) {
                chain.push(text);
            }
            next = cause.source();
        }
        if error.is_timeout() && chain.is_empty() {
            chain.push(format!("no answer within {} s", PATIENCE.as_secs()));
        }
        let detail = format!("{}: {}", self.name(), chain.join(": "));
        if is_mismatch(&detail) {
            return Error::new(Kind::Untrusted, action, object)
                .detail(detail)
                .remedy("if it was renewed on purpose, put the new fingerprint into the Secret (pvenode cert info)");
        }
        if detail.contains("certificate") {
            return Error::new(Kind::Untrusted, action, object).detail(detail).remedy(
                "put /etc/pve/pve-root-ca.pem into the Secret as ca.crt, or the certificate's SHA-256 as fingerprint",
            );
        }
        Error::new(Kind::Unreachable, action, object)
            .detail(detail)
            .remedy("check the endpoint, and that pveproxy runs and is let through (TCP 8006)")
    }
}
