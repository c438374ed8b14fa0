//! The session: made once, and made anew by whoever first notices that it ended.

use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use reqwest::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::runtime::{Builder, Handle};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::call::{Request, send};
use super::http::client;
use super::{Client, Endpoint, Inner, Trouble};
use crate::credentials::Credentials;
use crate::tls::Trust;
use crate::vsphere::soap::{Arg, Moref};
use crate::{Error, Kind};

/// How long logging out may take.
const GOODBYE: Duration = Duration::from_secs(3);

/// Who we are at the server, and what it remembers us by.
pub(super) struct Session {
    user: String,
    password: SecretString,
    ticket: RwLock<Ticket>,
    /// Held while logging in.
    door: Mutex<()>,
}

/// What proves that we logged in.
#[derive(Clone, Default)]
pub(super) struct Ticket {
    /// How often we logged in.
    pub(super) generation: u64,
    cookie: Option<HeaderValue>,
}

impl Ticket {
    /// Adds it to the headers of a request to the server itself.
    pub(super) fn sign(&self, headers: &mut HeaderMap) {
        if let Some(cookie) = &self.cookie {
            headers.insert(COOKIE, cookie.clone());
        }
    }
}

impl Session {
    /// The session of this user, not logged in yet.
    pub(super) fn new(endpoint: &Endpoint, credentials: &Credentials) -> Result<Self, Error> {
        let missing = |key: &str| {
            Error::new(Kind::Denied, "log in to", endpoint.object())
                .detail(format!("there is no {key}"))
                .remedy("put username and password into the Provider's Secret")
        };
        let user = endpoint.user().or(credentials.username.as_deref());
        Ok(Self {
            user: user.ok_or_else(|| missing("username"))?.to_owned(),
            password: credentials.password.clone().ok_or_else(|| missing("password"))?,
            ticket: RwLock::default(),
            door: Mutex::default(),
        })
    }

    pub(super) fn ticket(&self) -> Ticket {
        self.ticket.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Client {
    /// Logs in, unless somebody did since the generation `seen`.
    pub(super) async fn log_in(&self, seen: u64) -> Result<(), Trouble> {
        let Inner { session, content, .. } = &*self.0;
        let _door = session.door.lock().await;
        if session.ticket().generation != seen {
            return Ok(());
        }
        let request = Request {
            this: &content.session_manager,
            method: "Login",
            args: &[
                Arg::text("userName", &session.user),
                Arg::text("password", session.password.expose_secret()),
            ],
        };
        let answer = send(&self.0.http, &self.0.endpoint, &request, &Ticket::default()).await?;
        let cookie = cookie(&answer.headers).ok_or_else(|| {
            Trouble::new(Kind::Unsupported, "the answer to the login sets no cookie").remedy("check the endpoint")
        })?;
        let mut ticket = session.ticket.write().unwrap_or_else(PoisonError::into_inner);
        *ticket = Ticket {
            generation: seen + 1,
            cookie: Some(cookie),
        };
        Ok(())
    }

    /// Which session it is, counted from 1. What belongs to one ends with it: views, pages, leases.
    pub(super) fn session(&self) -> u64 {
        self.0.session.ticket().generation
    }

    /// What shows the server itself who asks, for requests beside the API.
    pub(crate) fn signed(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        self.0.session.ticket().sign(&mut headers);
        headers
    }
}

impl Inner {
    /// Logs out: servers keep a session for half an hour, and only so many. A courtesy, and yet the end of a process waits for it.
    pub(super) fn end_session(&self) {
        let ticket = self.session.ticket();
        if ticket.generation == 0 {
            return;
        }
        let goodbye = Goodbye {
            trust: self.http.trust().clone(),
            endpoint: self.endpoint.clone(),
            manager: self.content.session_manager.clone(),
            ticket,
        };
        // A runtime that is being shut down drops what it is given, and that says goodbye too.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn_blocking(move || drop(goodbye));
        }
    }
}

/// A session that is ended when this is dropped.
struct Goodbye {
    trust: Trust,
    endpoint: Endpoint,
    manager: Moref,
    ticket: Ticket,
}

impl Goodbye {
    /// Logs out by a connection of its own: those of a runtime end with it.
    fn log_out(&self) -> Result<(), Trouble> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Trouble::new(Kind::Failed, error.to_string()))?;
        let http = client(&self.trust)?;
        let request = Request {
            this: &self.manager,
            method: "Logout",
            args: &[],
        };
        let out = request.post(&http, &self.endpoint, &self.ticket);
        match runtime.block_on(async { timeout(GOODBYE, out).await }) {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(Trouble::new(Kind::Unreachable, "no answer")),
        }
    }
}

impl Drop for Goodbye {
    fn drop(&mut self) {
        // In a thread of its own, since this may be one of a runtime that ends, in which nothing can be waited for otherwise.
        let out = thread::scope(|scope| {
            let thread = thread::Builder::new().spawn_scoped(scope, || self.log_out());
            thread.map(thread::ScopedJoinHandle::join)
        });
        if let Ok(Ok(Err(trouble))) = out {
            tracing::debug!(endpoint = %self.endpoint, detail = trouble.detail, "could not log out");
        }
    }
}

/// All cookies that an answer sets, in the form in which they are sent back. Servers differ in their name.
fn cookie(headers: &HeaderMap) -> Option<HeaderValue> {
    let values = headers.get_all(SET_COOKIE).iter();
    let pairs: Vec<&str> = values
        .filter_map(|value| value.to_str().ok()?.split(';').next())
        .map(str::trim)
        .filter(|pair| pair.contains('='))
        .collect();
    let mut cookie = HeaderValue::from_str(&pairs.join("; "))
        .ok()
        .filter(|_| !pairs.is_empty())?;
    cookie.set_sensitive(true);
    Some(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_go_back_as_they_came() {
        let mut headers = HeaderMap::new();
        assert!(cookie(&headers).is_none());
        let set = "vmware_soap_session=\"0a1b\"; Path=/; HttpOnly; Secure; ";
        headers.append(SET_COOKIE, HeaderValue::from_static(set));
        headers.append(SET_COOKIE, HeaderValue::from_static("x=y"));
        let cookie = cookie(&headers).unwrap();
        assert_eq!(cookie, "vmware_soap_session=\"0a1b\"; x=y");
        assert!(!format!("{cookie:?}").contains("0a1b"));
    }
}
