//! Where images lie, as the command line names it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use crate::exit::Failure;

/// A place for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file of this machine.
    File(PathBuf),
    /// An export of an NBD server.
    Nbd(Export),
    /// An object of a staging store.
    Store(Object),
}

/// An export behind a socket of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    pub socket: PathBuf,
    pub name: String,
}

/// An object by its URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub scheme: Scheme,
    /// The text as it was given.
    pub url: String,
}

/// The kinds of stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    S3,
    Http,
    Nfs,
}

impl Place {
    /// Reads what the command line says. A text with `://` is a URL, anything else a path.
    pub fn parse(text: &OsStr) -> Result<Self, Failure> {
        let url = text.to_str().and_then(|text| text.split_once("://"));
        let Some((scheme, rest)) = url.filter(|(scheme, _)| is_scheme(scheme)) else {
            return Ok(Self::File(text.into()));
        };
        // Said without the text: it may hold a password.
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if host.contains('@') {
            return Err(Failure::bad_input(format!(
                "a {scheme}:// place holds credentials; put them into a Secret and give it with --secret"
            )));
        }
        let object = |scheme| {
            let url = text.to_string_lossy().into_owned();
            Ok(Self::Store(Object { scheme, url }))
        };
        match scheme {
            "nbd+unix" => Export::parse(rest)
                .map(Self::Nbd)
                .map_err(|why| Failure::bad_input(format!("{}: {why}", text.display()))),
            "s3" => object(Scheme::S3),
            "http" | "https" => object(Scheme::Http),
            "nfs" => object(Scheme::Nfs),
            _ => Err(Failure::bad_input(format!(
                "{}: {scheme}:// is not a place for images; use a file, nbd+unix://, s3://, https://, http:// or nfs:// \
                 (a file of such a name: ./{})",
                text.display(),
                text.display()
            ))),
        }
    }

    /// The last part of its name, which says the format where nothing else does.
    pub fn file_name(&self) -> Option<OsString> {
        match self {
            Self::File(path) => path.file_name().map(OsStr::to_owned),
            Self::Nbd(_) => None,
            Self::Store(object) => {
                let path = object.url.split(['?', '#']).next().unwrap_or_default();
                path.rsplit('/').next().map(OsString::from)
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Nbd(export) => write!(f, "nbd+unix:///{}?socket={}", export.name, export.socket.display()),
            Self::Store(object) => f.write_str(&object.url),
        }
    }
}

impl Export {
    /// `/EXPORT?socket=PATH` with `%XX` for what has a meaning in URLs
    /// (<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md>).
    fn parse(rest: &str) -> Result<Self, String> {
        const FORM: &str = "write nbd+unix:///EXPORT?socket=PATH";
        let (path, query) = rest
            .split_once('?')
            .ok_or_else(|| format!("it names no socket; {FORM}"))?;
        let Some(name) = path.strip_prefix('/').or(path.is_empty().then_some("")) else {
            return Err(format!("a Unix socket has no host; {FORM}"));
        };
        let mut socket = None;
        for pair in query.split('&') {
            match pair.split_once('=') {
                Some(("socket", value)) if !value.is_empty() => socket = Some(decode(value)?),
                _ => return Err(format!("{pair:?} is not known; {FORM}")),
            }
        }
        let socket = socket.ok_or_else(|| format!("it names no socket; {FORM}"))?;
        let name = String::from_utf8(decode(name)?).map_err(|_| "the export's name is not UTF-8 text".to_owned())?;
        Ok(Self {
            socket: OsString::from_vec(socket).into(),
            name,
        })
    }
}

/// Letters, digits, `+`, `-` and `.`, a letter first (RFC 3986, 3.1).
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// Takes `%XX` for the byte that it means.
pub fn decode(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let number = digits.and_then(|digits| u8::from_str_radix(&String::from_utf8_lossy(digits), 16).ok());
        let number = number.filter(|number| *number != 0);
        bytes.push(number.ok_or_else(|| format!("{text:?} has a % without two hex digits; write % as %25"))?);
        rest = &after[2..];
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Result<Place, Failure> {
        Place::parse(OsStr::new(text))
    }

    #[test]
    fn paths_and_urls_are_told_apart() {
        for path in [
            "disk.raw",
            "/a/b c",
            "a:b",
            "://x",
            "-f",
            "json:{\"file\":{}}",
            "./s3://b/k",
        ] {
            assert_eq!(place(path).unwrap(), Place::File(path.into()), "{path}");
        }
        for (url, scheme) in [
            ("s3://b/k", Scheme::S3),
            ("https://h/p", Scheme::Http),
            ("http://h/p", Scheme::Http),
            ("nfs://h/p?vers=3", Scheme::Nfs),
        ] {
            let url = url.to_owned();
            assert_eq!(place(&url).unwrap(), Place::Store(Object { scheme, url }));
        }
        let secret = place("https://me:hunter2@h/x").unwrap_err();
        assert!(!secret.messages[0].contains("hunter2") && secret.messages[0].contains("--secret"));
        assert!(place("ssh://h/x").unwrap_err().messages[0].contains("./ssh://h/x"));
    }

    #[test]
    fn an_export_is_named_by_socket_and_name() {
        let export = |socket: &str, name: &str| {
            let (socket, name) = (socket.into(), name.to_owned());
            Place::Nbd(Export { socket, name })
        };
        assert_eq!(place("nbd+unix:///d?socket=/run/x").unwrap(), export("/run/x", "d"));
        assert_eq!(
            place("nbd+unix://?socket=/run/a+b%20c").unwrap(),
            export("/run/a+b c", "")
        );
        assert_eq!(place("nbd+unix:///a%2Fb?socket=rel").unwrap(), export("rel", "a/b"));
        for bad in [
            "nbd+unix:///d",
            "nbd+unix://host/d?socket=/x",
            "nbd+unix:///d?socket=",
            "nbd+unix:///d?sock=/x",
            "nbd+unix:///d?socket=/x%0",
            "nbd+unix:///d?socket=/x%00",
        ] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_name_that_says_the_format() {
        for (text, name) in [
            ("a/b.raw", Some("b.raw")),
            ("s3://b/x/y.qcow2", Some("y.qcow2")),
            ("https://h/z.vmdk?sig=a/b.raw", Some("z.vmdk")),
            ("nbd+unix:///d.qcow2?socket=/x.raw", None),
        ] {
            assert_eq!(place(text).unwrap().file_name(), name.map(OsString::from), "{text}");
        }
    }
}
