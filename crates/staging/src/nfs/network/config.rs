//! Where an NFS staging storage is and how it is spoken to.

use std::time::Duration;

use super::options::MountOptions;
use crate::hosts::HostPolicy;
use crate::{Error, Kind};

/// How long a call waits without hearing from the server.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long the next piece of a part is waited for before what was written is committed: whoever makes the pieces may need
/// back the buffers that wait.
const LULL: Duration = Duration::from_millis(20);

/// What a staging store over NFS is made of.
#[derive(Debug, Clone)]
pub struct NfsConfig {
    /// `spec.storage.endpoint`: a host, `host:port` or `nfs://host[:port]`. A port in the mount options counts more.
    pub endpoint: String,
    /// `spec.storage.path`: an absolute path on the server. Over NFSv4 as seen from the server's root (its pseudo path), over
    /// NFSv3 the real path of an export or of a folder in it.
    pub path: String,
    /// `mountOptions` of the credentials Secret.
    pub options: MountOptions,
    /// Which hosts may be talked to.
    pub hosts: HostPolicy,
    /// How long a call may hear nothing from the server before it fails; it connects again meanwhile.
    pub patience: Duration,
}

impl NfsConfig {
    /// With the mount options' defaults, any host that is not refused always, and a minute's patience.
    pub fn new(endpoint: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            path: path.into(),
            options: MountOptions::default(),
            hosts: HostPolicy::default(),
            patience: PATIENCE,
        }
    }
}

/// A config that makes sense.
#[derive(Debug)]
pub(super) struct Target {
    /// Name or address, an IPv6 address without brackets.
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// The path's segments.
    pub(super) segments: Vec<String>,
    pub(super) options: MountOptions,
    pub(super) hosts: HostPolicy,
    pub(super) patience: Duration,
    pub(super) lull: Duration,
}

impl Target {
    pub(super) fn new(config: NfsConfig) -> Result<Self, Error> {
        let (host, port) = split_endpoint(&config.endpoint).map_err(|detail| {
            Error::new(Kind::Invalid, "use", format!("NFS endpoint {:?}", config.endpoint))
                .detail(detail)
                .remedy("set spec.storage.endpoint to the server's name or address, for example nfs.example.com")
        })?;
        let segments = split_path(&config.path).map_err(|detail| {
            Error::new(Kind::Invalid, "use", format!("NFS path {:?}", config.path))
                .detail(detail)
                .remedy("set spec.storage.path to the folder that the server exports, for example /exports/staging")
        })?;
        Ok(Self {
            host,
            port: config.options.port.or(port),
            segments,
            options: config.options,
            hosts: config.hosts,
            patience: config.patience,
            lull: LULL,
        })
    }

    /// The host as a URL has it.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        }
    }

    /// The path on the server.
    pub(super) fn path(&self) -> String {
        format!("/{}", self.segments.join("/"))
    }
}

/// Host and port of an endpoint.
fn split_endpoint(text: &str) -> Result<(String, Option<u16>), &'static str> {
    let rest = text.trim();
    let rest = rest.strip_prefix("nfs://").unwrap_or(rest);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('/') {
        return Err("it has a path, which belongs into spec.storage.path");
    }
    let (host, port) = if let Some(rest) = rest.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or("its bracket is not closed")?;
        match port {
            "" => (host, None),
            port => (
                host,
                Some(port.strip_prefix(':').ok_or("what follows the bracket is no port")?),
            ),
        }
    } else {
        match rest.split_once(':') {
            // More than one colon: an IPv6 address without brackets.
            Some((_, port)) if port.contains(':') => (rest, None),
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        }
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(allowed) {
        return Err("it is not the name or address of a host");
    }
    let port = port.map(|port| {
        port.parse::<u16>()
            .ok()
            .filter(|port| *port > 0)
            .ok_or("its port is no port")
    });
    Ok((host.to_owned(), port.transpose()?))
}

/// The segments of a path.
fn split_path(text: &str) -> Result<Vec<String>, &'static str> {
    if !text.starts_with('/') {
        return Err("it is not an absolute path");
    }
    let segments = text.split('/').filter(|segment| !segment.is_empty());
    if segments.clone().any(|segment| matches!(segment, "." | "..")) {
        return Err("it has a '.' or '..' in it");
    }
    if text.chars().any(char::is_control) {
        return Err("it has a control character in it");
    }
    Ok(segments.map(ToOwned::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_hosts_with_or_without_port() {
        for (text, host, port) in [
            ("nfs.example.com", "nfs.example.com", None),
            ("nfs://nfs.example.com/", "nfs.example.com", None),
            ("nfs.example.com:2050", "nfs.example.com", Some(2050)),
            ("nfs://192.0.2.1:2050", "192.0.2.1", Some(2050)),
            ("[2001:db8::1]:2050", "2001:db8::1", Some(2050)),
            ("2001:db8::1", "2001:db8::1", None),
        ] {
            assert_eq!(split_endpoint(text), Ok((host.to_owned(), port)), "{text}");
        }
        for bad in [
            "",
            "nfs://",
            "https://nfs.example.com",
            "nfs.example.com:/exports",
            "user@host",
            "host:0",
            "host:x",
            "[::1",
            "[::1]x",
            "a b",
        ] {
            assert!(split_endpoint(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn paths_are_absolute_and_plain() {
        assert_eq!(split_path("/a//b c/").unwrap(), ["a", "b c"]);
        assert!(split_path("/").unwrap().is_empty());
        for bad in ["", "a", "/a/../b", "/./a", "/a\nb"] {
            assert!(split_path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_said_by_its_field() {
        let error = Target::new(NfsConfig::new("h:/x", "/x")).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains("spec.storage.endpoint"), "{error}");
        let error = Target::new(NfsConfig::new("h", "x")).unwrap_err();
        assert!(error.to_string().contains("spec.storage.path"), "{error}");
    }
}
