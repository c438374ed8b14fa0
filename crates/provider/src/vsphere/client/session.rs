//! The session: made once, and made anew by whoever first notices that it ended.

use std::sync::{PoisonError, RwLock};

use reqwest::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Mutex;

use super::call::{Request, send};
use super::{Client, Endpoint, Inner, Trouble};
use crate::credentials::Credentials;
use crate::vsphere::soap::Arg;
use crate::{Error, Kind};

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

    /// What shows the server itself who asks, for requests beside the API.
    pub(crate) fn signed(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        self.0.session.ticket().sign(&mut headers);
        headers
    }
}

impl Inner {
    /// Logs out in the background, where there still is one. It is a courtesy, and nobody waits for it.
    pub(super) fn end_session(&self) {
        let ticket = self.session.ticket();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if ticket.generation == 0 {
            return;
        }
        let http = self.http.main().clone();
        let (endpoint, manager) = (self.endpoint.clone(), self.content.session_manager.clone());
        runtime.spawn(async move {
            let request = Request {
                this: &manager,
                method: "Logout",
                args: &[],
            };
            if let Err(trouble) = request.post(&http, &endpoint, &ticket).await {
                tracing::debug!(%endpoint, detail = trouble.detail, "could not log out");
            }
        });
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
