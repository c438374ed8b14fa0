//! The endpoint of a Provider: which libvirt URIs are taken, and nothing else.
//!
//! libvirt's own URIs can name a command to run (`+ext`, `command=`, `netcat=`, `proxy=`), a key file (`keyfile=`) or turn
//! verification off (`no_verify=`). An endpoint comes from a manifest, so only what is known to be harmless is taken, and the
//! URI for libvirt is made anew from the parsed parts.

use std::fmt;

use crate::{Error, Kind};

/// What is allowed, as messages say it.
const ALLOWED: &str = "spec.endpoint must be one of qemu:///system, qemu:///session, qemu+unix:///system?socket=PATH, \
                       qemu+unix:///session?socket=PATH, qemu+tcp://HOST[:PORT]/system, \
                       qemu+tls://HOST[:PORT]/system[?pkipath=PATH], qemu+ssh://[USER@]HOST[:PORT]/system[?socket=PATH] \
                       or qemu+ssh://[USER@]HOST[:PORT]/session?socket=PATH";

/// A parsed endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::libvirt) struct Endpoint {
    /// Whose VMs.
    pub mode: Mode,
    /// The way there.
    pub transport: Transport,
}

/// Whose VMs: those of the machine, or those of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::libvirt) enum Mode {
    /// `/system`.
    System,
    /// `/session`.
    Session,
}

/// The way to a libvirt host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::libvirt) enum Transport {
    /// The local daemon, wherever libvirt finds it.
    Local,
    /// A local socket.
    Unix {
        /// Its path.
        socket: String,
    },
    /// TCP.
    Tcp(Address),
    /// TLS, by libvirt with its own certificates.
    Tls {
        /// The host.
        address: Address,
        /// Where the certificates are, where they are not at libvirt's default place.
        pkipath: Option<String>,
    },
    /// ssh, by us.
    Ssh {
        /// The user, where the endpoint names one.
        user: Option<String>,
        /// The host.
        address: Address,
        /// The remote socket, where it is not at one of libvirt's default places.
        socket: Option<String>,
    },
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::libvirt) struct Address {
    /// Name or IP address, IPv6 without brackets.
    pub host: String,
    /// The port, where it is not the protocol's.
    pub port: Option<u16>,
}

impl Endpoint {
    /// Parses the value of `spec.endpoint`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        parse(text).map_err(|why| {
            Error::new(Kind::Invalid, "use", format!("spec.endpoint {:?}", Shown(text)))
                .detail(why)
                .remedy(ALLOWED)
        })
    }

    /// The URI that libvirt gets. ssh is not among them: its way ends at a local socket of ours.
    pub fn uri(&self) -> String {
        let mode = self.mode;
        match &self.transport {
            Transport::Local => format!("qemu:///{mode}"),
            Transport::Unix { socket } => Self::unix_uri(mode, socket),
            Transport::Tcp(address) => format!("qemu+tcp://{address}/{mode}"),
            Transport::Tls { address, pkipath: None } => format!("qemu+tls://{address}/{mode}"),
            Transport::Tls {
                address,
                pkipath: Some(path),
            } => format!("qemu+tls://{address}/{mode}?pkipath={}", encode(path)),
            Transport::Ssh { socket, .. } => Self::unix_uri(mode, socket.as_deref().unwrap_or_default()),
        }
    }

    /// The URI of a daemon that listens on a local socket.
    pub fn unix_uri(mode: Mode, socket: &str) -> String {
        format!("qemu+unix:///{mode}?socket={}&mode=legacy", encode(socket))
    }
}

/// The endpoint as messages name it.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = self.mode;
        match &self.transport {
            Transport::Unix { socket } => write!(f, "qemu+unix:///{mode}?socket={socket}"),
            Transport::Ssh { user, address, .. } => {
                let (user, at) = user.as_ref().map_or(("", ""), |user| (user.as_str(), "@"));
                write!(f, "qemu+ssh://{user}{at}{address}/{mode}")
            }
            Transport::Tls { address, .. } => write!(f, "qemu+tls://{address}/{mode}"),
            Transport::Local | Transport::Tcp(_) => f.write_str(&self.uri()),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::Session => "session",
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// A refused endpoint without a password that someone may have put into it.
struct Shown<'a>(&'a str);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = match self
            .0
            .split_once("://")
            .and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?)))
        {
            Some((scheme, (user, rest))) if user.contains(':') => format!("{scheme}://[REDACTED]@{rest}"),
            _ => self.0.to_owned(),
        };
        write!(f, "{shown:?}")
    }
}

/// The parts of a URI, as `scheme://authority/path?query`.
fn parse(text: &str) -> Result<Endpoint, String> {
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '#') {
        return Err("it holds a blank, a control character or a fragment".to_owned());
    }
    let (scheme, rest) = text.split_once("://").ok_or("it is not a URI")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').ok_or("it has no /system or /session")?;
    let mode = match path {
        "system" => Mode::System,
        "session" => Mode::Session,
        other => return Err(format!("its path is /{other}, not /system or /session")),
    };
    let mut query = Query::parse(query)?;
    let transport = match scheme {
        "qemu" => local(authority, Transport::Local)?,
        "qemu+unix" => {
            let socket = query.path("socket")?.ok_or("it has no socket=PATH")?;
            local(authority, Transport::Unix { socket })?
        }
        "qemu+tcp" => Transport::Tcp(remote(authority, mode)?),
        "qemu+tls" => Transport::Tls {
            address: remote(authority, mode)?,
            pkipath: query.path("pkipath")?,
        },
        "qemu+ssh" => ssh(authority, mode, query.path("socket")?)?,
        other => return Err(format!("its scheme {other:?} is not supported")),
    };
    query.nothing_left()?;
    Ok(Endpoint { mode, transport })
}

/// A transport that has no host.
fn local(authority: &str, transport: Transport) -> Result<Transport, String> {
    match authority {
        "" => Ok(transport),
        host => Err(format!(
            "it names the host {host:?}, but its scheme is for this machine only"
        )),
    }
}

/// A transport to the system daemon of another host, without a user.
fn remote(authority: &str, mode: Mode) -> Result<Address, String> {
    if mode == Mode::Session {
        return Err("a session daemon does not listen on the network".to_owned());
    }
    if authority.contains('@') {
        return Err("it names a user: credentials belong into the Secret of spec.credentialSecretRef".to_owned());
    }
    address(authority)
}

fn ssh(authority: &str, mode: Mode, socket: Option<String>) -> Result<Transport, String> {
    if mode == Mode::Session && socket.is_none() {
        return Err("a session daemon's socket is not known: it needs socket=PATH".to_owned());
    }
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let user = match user {
        None => None,
        Some(user) if user.contains(':') => {
            return Err("it carries a password: credentials belong into the Secret of spec.credentialSecretRef".into());
        }
        Some("") => return Err("its user is empty".to_owned()),
        Some(user) => Some(decode(user)?),
    };
    let address = address(host)?;
    Ok(Transport::Ssh { user, address, socket })
}

/// `HOST[:PORT]`, IPv6 in brackets.
fn address(text: &str) -> Result<Address, String> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or("its IPv6 address has no closing bracket")?;
        host.parse::<std::net::Ipv6Addr>()
            .map_err(|_| format!("{host:?} is not an IPv6 address"))?;
        (host, port)
    } else {
        let at = text.find(':').unwrap_or(text.len());
        let host = &text[..at];
        let known = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if host.is_empty() || host.starts_with('-') || !host.chars().all(known) {
            return Err(format!("{host:?} is not a host name or an IP address"));
        }
        (host, &text[at..])
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some(digits) => match digits.parse::<u16>() {
            Ok(port) if port > 0 => Some(port),
            _ => return Err(format!("{digits:?} is not a port")),
        },
        None => return Err(format!("{port:?} follows the address")),
    };
    Ok(Address {
        host: host.to_owned(),
        port,
    })
}

/// The parameters of a URI. Each may be there once.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Result<Self, String> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("its parameter {pair:?} has no value"))?;
            if pairs.iter().any(|(known, _)| known == name) {
                return Err(format!("its parameter {name:?} is there twice"));
            }
            pairs.push((name.to_owned(), decode(value)?));
        }
        Ok(Self(pairs))
    }

    /// Takes a parameter that must be an absolute path.
    fn path(&mut self, name: &str) -> Result<Option<String>, String> {
        let Some(at) = self.0.iter().position(|(known, _)| known == name) else {
            return Ok(None);
        };
        let (_, path) = self.0.swap_remove(at);
        if path.starts_with('/') {
            Ok(Some(path))
        } else {
            Err(format!("its parameter {name}={path:?} is not an absolute path"))
        }
    }

    fn nothing_left(&self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("its parameter {name:?} is not allowed")),
        }
    }
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String, String> {
    let bad = || format!("{text:?} is not well percent-encoded");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || {
                    rest.next()
                        .and_then(|digit| char::from(digit).to_digit(16))
                        .ok_or_else(bad)
                };
                u8::try_from(digit()? * 16 + digit()?).map_err(|_| bad())?
            }
            byte => byte,
        });
    }
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    if text.chars().any(char::is_control) {
        return Err(bad());
    }
    Ok(text)
}

/// Percent-encodes what may not stand in a parameter's value.
fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => encoded.push(byte.into()),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uri(text: &str) -> String {
        Endpoint::parse(text).unwrap().uri()
    }

    fn refusal(text: &str) -> String {
        let fault = Endpoint::parse(text).unwrap_err();
        assert_eq!(fault.kind(), Kind::Invalid);
        fault.to_string()
    }

    #[test]
    fn takes_the_forms_that_are_allowed() {
        assert_eq!(uri("qemu:///system"), "qemu:///system");
        assert_eq!(uri("qemu:///session"), "qemu:///session");
        assert_eq!(
            uri("qemu+unix:///session?socket=/tmp/a%20b/s"),
            "qemu+unix:///session?socket=/tmp/a%20b/s&mode=legacy"
        );
        assert_eq!(
            uri("qemu+tcp://kvm1.example:16509/system"),
            "qemu+tcp://kvm1.example:16509/system"
        );
        assert_eq!(uri("qemu+tcp://[::1]:1/system"), "qemu+tcp://[::1]:1/system");
        assert_eq!(
            uri("qemu+tls://h/system?pkipath=/etc/pki"),
            "qemu+tls://h/system?pkipath=/etc/pki"
        );
    }

    #[test]
    fn takes_ssh_apart() {
        let endpoint = Endpoint::parse("qemu+ssh://root@kvm1:2222/system?socket=/run/x").unwrap();
        assert_eq!(endpoint.to_string(), "qemu+ssh://root@kvm1:2222/system");
        let address = Address {
            host: "kvm1".into(),
            port: Some(2222),
        };
        let socket = Some("/run/x".into());
        let user = Some("root".into());
        assert_eq!(endpoint.transport, Transport::Ssh { user, address, socket });
    }

    #[test]
    fn refuses_all_else_and_says_why() {
        for (text, why) in [
            ("", "not a URI"),
            ("qemu+ext://h/system?command=/bin/sh", "scheme \"qemu+ext\""),
            ("qemu+libssh://h/system", "scheme"),
            ("xen:///system", "scheme"),
            ("qemu:///embed", "/embed"),
            ("qemu://h/system", "this machine only"),
            ("qemu+unix:///system", "no socket"),
            ("qemu+unix:///system?socket=run/x", "absolute"),
            ("qemu+ssh://h/system?command=/bin/sh", "\"command\" is not allowed"),
            ("qemu+ssh://h/system?netcat=/bin/sh", "\"netcat\" is not allowed"),
            ("qemu+ssh://h/system?keyfile=/etc/shadow", "\"keyfile\""),
            ("qemu+ssh://h/session", "needs socket"),
            ("qemu+ssh://-oProxyCommand=x/system", "host name"),
            ("qemu+tls://h/system?no_verify=1", "\"no_verify\""),
            ("qemu+tcp://h:0/system", "port"),
            ("qemu+tcp://u@h/system", "Secret"),
            ("qemu+tcp://h/session", "session daemon"),
            ("qemu+tcp:///system", "host name"),
            ("qemu+unix:///system?socket=/a&socket=/b", "twice"),
            ("qemu+unix:///system?socket=/a%0a", "percent"),
            ("qemu+unix:///system?socket=/a#x", "fragment"),
        ] {
            let message = refusal(text);
            assert!(message.contains(why), "{text}: {message}");
            assert!(message.contains("spec.endpoint must be one of"), "{message}");
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_a_password() {
        let message = refusal("qemu+ssh://root:hunter2@kvm1/system");
        assert!(
            message.contains("password") && !message.contains("hunter2"),
            "{message}"
        );
    }

    proptest! {
        #[test]
        fn never_panics_and_never_lets_an_unknown_parameter_through(text in "qemu(\\+(unix|ssh|tcp|tls|ext))?://[a-z@:.\\[\\]]{0,12}/(system|session)(\\?[a-z=&/%0-9]{0,24})?") {
            if let Ok(endpoint) = Endpoint::parse(&text) {
                let uri = endpoint.uri();
                let query = uri.split_once('?').map_or("", |(_, query)| query);
                for pair in query.split('&').filter(|pair| !pair.is_empty()) {
                    let name = pair.split('=').next().unwrap();
                    prop_assert!(["socket", "mode", "pkipath"].contains(&name), "{uri}");
                }
            }
        }
    }
}
