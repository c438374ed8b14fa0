//! How requests are let in: an API token, or a ticket that is renewed.

use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, COOKIE, HeaderValue};
use reqwest::{Method, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use crate::credentials::Credentials;
use crate::{Error, Kind};

/// A ticket is good for two hours. It is renewed with time to spare.
const RENEWED_AFTER: Duration = Duration::from_mins(90);

/// What lets requests in.
pub(super) enum Auth {
    /// An API token: `PVEAPIToken=user@realm!name=secret`. No CSRF token is needed with it.
    Token { id: String, header: HeaderValue },
    /// User and password, and the ticket that they were exchanged for. The lock is held while one logs in, so that the others
    /// wait for the same ticket.
    Ticket {
        username: String,
        password: SecretString,
        current: Mutex<Option<Ticket>>,
    },
}

/// What a login gave.
#[derive(Clone)]
pub(super) struct Ticket {
    cookie: HeaderValue,
    csrf: HeaderValue,
    since: Instant,
    /// Tells a ticket that was refused from one that another request got meanwhile.
    number: u64,
}

impl Auth {
    /// Reads the Secret's keys. A token wins over a password.
    pub(super) fn new(credentials: &Credentials) -> Result<Self, Error> {
        match (&credentials.token_id, &credentials.token_secret) {
            (Some(id), Some(secret)) => return token(id.trim(), secret),
            (None, None) => {}
            _ => {
                return Err(invalid(
                    "token_id and token_secret come together; one of them is missing",
                ));
            }
        }
        let (Some(username), Some(password)) = (&credentials.username, &credentials.password) else {
            return Err(invalid(
                "it holds neither token_id and token_secret nor username and password",
            ));
        };
        if !username.contains('@') {
            return Err(invalid("username has no realm").remedy("write it with its realm: root@pam, vmferry@pve"));
        }
        Ok(Self::Ticket {
            username: username.clone(),
            password: password.clone(),
            current: Mutex::new(None),
        })
    }

    /// Who is let in, for messages and for what only `root@pam` may do.
    pub(super) fn user(&self) -> &str {
        match self {
            Self::Token { id, .. } => id,
            Self::Ticket { username, .. } => username,
        }
    }
}

fn token(id: &str, secret: &SecretString) -> Result<Auth, Error> {
    let is_id = id
        .split_once('!')
        .is_some_and(|(user, name)| user.contains('@') && !name.is_empty());
    if !is_id {
        return Err(invalid("token_id is not of the form user@realm!name")
            .remedy("take the Token ID as Proxmox VE shows it (pveum user token list USER)"));
    }
    let text = format!("PVEAPIToken={id}={}", secret.expose_secret().trim());
    let mut header =
        HeaderValue::from_str(&text).map_err(|_| invalid("the token holds characters that no token has"))?;
    header.set_sensitive(true);
    Ok(Auth::Token {
        id: id.to_owned(),
        header,
    })
}

impl Ticket {
    /// The ticket of an answer of `POST /access/ticket`.
    pub(super) fn new(ticket: &str, csrf: &str, number: u64) -> Result<Self, Error> {
        let value = |text: &str| {
            let mut value = HeaderValue::from_str(text)
                .map_err(|_| Error::new(Kind::Failed, "log in to", "Proxmox VE").detail("the ticket cannot be read"))?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        };
        Ok(Self {
            cookie: value(&format!("PVEAuthCookie={ticket}"))?,
            csrf: value(csrf)?,
            since: Instant::now(),
            number,
        })
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.is_younger(RENEWED_AFTER)
    }

    pub(super) fn is_younger(&self, age: Duration) -> bool {
        self.since.elapsed() < age
    }

    /// Lets a request in. Only writes need the second half.
    pub(super) fn put_on(&self, request: RequestBuilder, method: &Method) -> RequestBuilder {
        let request = request.header(COOKIE, self.cookie.clone());
        if *method == Method::GET {
            return request;
        }
        request.header("CSRFPreventionToken", self.csrf.clone())
    }
}

/// Lets a request in with a token.
pub(super) fn put_token(request: RequestBuilder, header: &HeaderValue) -> RequestBuilder {
    request.header(AUTHORIZATION, header.clone())
}

fn invalid(detail: &str) -> Error {
    Error::new(Kind::Invalid, "use", "the Provider's Secret")
        .detail(detail)
        .remedy("put token_id (user@realm!name) and token_secret into it, or username (user@realm) and password")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(values: [Option<&str>; 4]) -> Credentials {
        let [username, password, token_id, token_secret] = values;
        Credentials {
            username: username.map(str::to_owned),
            password: password.map(SecretString::from),
            token_id: token_id.map(str::to_owned),
            token_secret: token_secret.map(SecretString::from),
            ..Credentials::default()
        }
    }

    #[test]
    fn a_token_wins_and_never_prints() {
        let auth = Auth::new(&credentials([
            Some("root@pam"),
            Some("p"),
            Some("a@pve!t"),
            Some("hush\n"),
        ]))
        .unwrap();
        let Auth::Token { id, header } = &auth else { panic!() };
        assert_eq!((id.as_str(), auth.user()), ("a@pve!t", "a@pve!t"));
        assert_eq!(header.to_str().unwrap(), "PVEAPIToken=a@pve!t=hush");
        assert!(!format!("{header:?}").contains("hush"));
    }

    #[test]
    fn a_ticket_has_an_age() {
        let ticket = Ticket::new("PVE:a@pve:1::x", "1:y", 1).unwrap();
        assert!(ticket.is_fresh() && ticket.is_younger(Duration::from_mins(1)) && !ticket.is_younger(Duration::ZERO));
    }

    #[test]
    fn what_lets_nobody_in_is_refused() {
        for values in [
            [None, None, None, None],
            [Some("root@pam"), None, None, None],
            [Some("root"), Some("p"), None, None],
            [None, None, Some("a@pve!t"), None],
            [Some("root@pam"), Some("p"), None, Some("s")],
            [None, None, Some("a@pve"), Some("s")],
            [None, None, Some("a!t"), Some("s")],
            [None, None, Some("a@pve!t"), Some("s\ns")],
        ] {
            let Err(error) = Auth::new(&credentials(values)) else {
                panic!("{values:?}");
            };
            assert_eq!(error.kind(), Kind::Invalid, "{values:?}");
        }
    }
}
