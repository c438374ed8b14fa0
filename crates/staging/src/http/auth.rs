//! Who we are to the server.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};

use crate::{Error, Kind};

/// What a Secret says of who we are.
#[derive(Clone, Default)]
pub enum Credentials {
    /// Nobody: no `Authorization` is sent.
    #[default]
    None,
    /// A token: `Authorization: Bearer <token>` (RFC 6750).
    Token(SecretString),
    /// A name and a password: `Authorization: Basic` (RFC 7617).
    Password {
        /// The name, without a colon.
        username: String,
        /// The password.
        password: SecretString,
    },
}

impl Credentials {
    /// The credentials out of the Secret's keys `token`, `username` and `password`. A token is taken as `Bearer_<token>`,
    /// `Bearer <token>` or `<token>`; space around any of them does not count.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where a token and a name are given, or a name without a password, or a password without a name.
    pub fn from_keys(
        token: Option<&SecretString>,
        username: Option<&str>,
        password: Option<&SecretString>,
    ) -> Result<Self, Error> {
        let invalid = |detail: &str| {
            Err(
                Error::new(Kind::Invalid, "use", "the credentials Secret of the HTTP storage")
                    .detail(detail)
                    .remedy("give either the key token, or the keys username and password"),
            )
        };
        match (token, username, password) {
            (None, None, None) => Ok(Self::None),
            (Some(token), None, None) => {
                let text = token.expose_secret().trim();
                let bare = ["Bearer_", "Bearer "]
                    .iter()
                    .find_map(|scheme| text.strip_prefix(scheme));
                Ok(Self::Token(bare.unwrap_or(text).trim().into()))
            }
            (None, Some(username), Some(password)) => Ok(Self::Password {
                username: username.trim().to_owned(),
                password: password.expose_secret().trim_end_matches(['\r', '\n']).into(),
            }),
            (Some(_), ..) => invalid("it has a token and a username or password"),
            (None, Some(_), None) => invalid("it has a username and no password"),
            (None, None, Some(_)) => invalid("it has a password and no username"),
        }
    }

    /// The value of `Authorization`, which no log shows.
    pub(super) fn header(&self) -> Result<Option<HeaderValue>, Error> {
        let (text, key) = match self {
            Self::None => return Ok(None),
            Self::Token(token) => (format!("Bearer {}", token.expose_secret()), "token"),
            Self::Password { username, .. } if username.contains(':') => {
                return Err(
                    Error::new(Kind::Invalid, "use", "key username of the credentials Secret")
                        .detail("it has a colon, which basic authentication cannot express"),
                );
            }
            Self::Password { username, password } => {
                let pair = format!("{username}:{}", password.expose_secret());
                (format!("Basic {}", STANDARD.encode(pair)), "password")
            }
        };
        // What is said of a token that is none must not show it.
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            Error::new(Kind::Invalid, "use", format!("key {key} of the credentials Secret"))
                .detail("it has a line break or another character that no HTTP header can carry")
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Token(_) => "Token",
            Self::Password { .. } => "Password",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_token_is_the_same() {
        for text in [
            "Bearer_t0k.en",
            "Bearer t0k.en",
            "t0k.en",
            " t0k.en\n",
            "Bearer_ t0k.en ",
        ] {
            let credentials = Credentials::from_keys(Some(&text.into()), None, None).unwrap();
            let header = credentials.header().unwrap().unwrap();
            assert_eq!(header.to_str().unwrap(), "Bearer t0k.en", "{text:?}");
            assert!(!format!("{header:?}{credentials:?}").contains("t0k.en"));
        }
    }

    #[test]
    fn a_name_and_a_password_are_basic() {
        let credentials = Credentials::from_keys(None, Some("Aladdin"), Some(&"open sesame".into())).unwrap();
        // The example of RFC 7617, section 2.
        assert_eq!(
            credentials.header().unwrap().unwrap().to_str().unwrap(),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_telling_it() {
        let secret = SecretString::from("hush");
        for (token, username, password) in [
            (Some(&secret), Some("u"), Some(&secret)),
            (None, Some("u"), None),
            (None, None, Some(&secret)),
        ] {
            let error = Credentials::from_keys(token, username, password).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
        }
        let broken = Credentials::from_keys(Some(&"hush\nhush".into()), None, None).unwrap();
        let error = broken.header().unwrap_err();
        assert!(
            error.to_string().contains("key token") && !error.to_string().contains("hush"),
            "{error}"
        );
        assert!(
            Credentials::from_keys(None, Some("a:b"), Some(&secret))
                .unwrap()
                .header()
                .is_err()
        );
    }
}
