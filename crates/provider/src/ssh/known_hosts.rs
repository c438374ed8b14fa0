//! Which host keys are trusted: the `known_hosts` format of sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".
//!
//! Never trust on first use: a key that is not written down beforehand is refused.

use aws_lc_rs::hmac;
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, Marker};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, PublicKey};

/// What a list of trusted keys says about one host's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the key that is written down.
    Trusted,
    /// The host is not in the list.
    Unknown,
    /// The host is in the list with other keys.
    Changed,
    /// The key must not be used any more.
    Revoked,
}

/// The entries of a list that speak of one host.
#[derive(Debug, Default)]
pub(super) struct KnownHost {
    trusted: Vec<KeyData>,
    revoked: Vec<KeyData>,
}

impl KnownHost {
    /// What `list` says about `host` (name or address as it is connected to) and `port`.
    ///
    /// Lines that are not well-formed say nothing, as in OpenSSH, and so do certificate authorities: no host certificate is
    /// ever asked for.
    pub fn find(list: &str, host: &str, port: u16) -> Self {
        let host = host.to_lowercase();
        let name = if port == 22 { host } else { format!("[{host}]:{port}") };
        let mut known = Self::default();
        for line in list.lines() {
            let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Ok(entry) = line.parse::<Entry>() else { continue };
            if !matches(entry.host_patterns(), &name) {
                continue;
            }
            let key = entry.public_key().key_data().clone();
            match entry.marker() {
                None => known.trusted.push(key),
                Some(Marker::Revoked) => known.revoked.push(key),
                Some(Marker::CertAuthority) => {}
            }
        }
        known
    }

    /// What they say about `key`.
    pub fn verdict(&self, key: &PublicKey) -> Verdict {
        let key = key.key_data();
        if self.revoked.contains(key) {
            Verdict::Revoked
        } else if self.trusted.contains(key) {
            Verdict::Trusted
        } else if self.trusted.is_empty() {
            Verdict::Unknown
        } else {
            Verdict::Changed
        }
    }

    /// `offered` with the kinds of key first that are trusted: a host has several keys, and shows the first kind asked for.
    pub fn prefer(&self, offered: &[Algorithm]) -> Vec<Algorithm> {
        let kind = |algorithm: &Algorithm| match algorithm {
            Algorithm::Rsa { .. } => Algorithm::Rsa { hash: None },
            other => other.clone(),
        };
        let known = |algorithm: &&Algorithm| self.trusted.iter().any(|key| kind(&key.algorithm()) == kind(algorithm));
        let (first, last): (Vec<&Algorithm>, Vec<&Algorithm>) = offered.iter().partition(known);
        first.into_iter().chain(last).cloned().collect()
    }
}

/// Whether an entry's host field speaks of `name`.
fn matches(patterns: &HostPatterns, name: &str) -> bool {
    match patterns {
        HostPatterns::HashedName { salt, hash } => {
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
            hmac::verify(&key, name.as_bytes(), hash).is_ok()
        }
        HostPatterns::Patterns(patterns) => {
            let hit = |pattern: &str| glob(pattern.to_lowercase().as_bytes(), name.as_bytes());
            let refused = patterns.iter().filter_map(|pattern| pattern.strip_prefix('!')).any(hit);
            !refused && patterns.iter().any(|pattern| !pattern.starts_with('!') && hit(pattern))
        }
    }
}

/// `*` and `?` as in ssh_config(5), "PATTERNS".
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), None) => glob(rest, name),
        (Some((b'*', rest)), Some((_, tail))) => glob(rest, name) || glob(pattern, tail),
        (Some((b'?', rest)), Some((_, tail))) => glob(rest, tail),
        (Some((want, rest)), Some((byte, tail))) => want == byte && glob(rest, tail),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
    const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    fn verdict(list: &str, host: &str, port: u16) -> Verdict {
        KnownHost::find(list, host, port).verdict(&A.parse().unwrap())
    }

    #[test]
    fn knows_the_forms_of_a_host() {
        assert_eq!(verdict(&format!("kvm1 {A} root@kvm1"), "kvm1", 22), Verdict::Trusted);
        assert_eq!(
            verdict(&format!("# x\n\nKVM1,10.0.0.1\t{A}"), "kvm1", 22),
            Verdict::Trusted
        );
        assert_eq!(verdict(&format!("[kvm1]:2222 {A}"), "kvm1", 2222), Verdict::Trusted);
        assert_eq!(verdict(&format!("kvm1 {A}"), "kvm1", 2222), Verdict::Unknown);
        assert_eq!(verdict(&format!("[kvm1]:2222 {A}"), "kvm1", 22), Verdict::Unknown);
        assert_eq!(
            verdict(&format!("*.lab,!bad.lab {A}"), "good.lab", 22),
            Verdict::Trusted
        );
        assert_eq!(verdict(&format!("*.lab,!bad.lab {A}"), "bad.lab", 22), Verdict::Unknown);
        assert_eq!(verdict("", "kvm1", 22), Verdict::Unknown);
        assert_eq!(verdict("kvm1 ssh-ed25519 garbage", "kvm1", 22), Verdict::Unknown);
    }

    #[test]
    fn knows_a_hashed_host() {
        // ssh-keygen -H of the name 127.0.0.1 (from sshd(8)'s format: HMAC-SHA1 with the salt as key).
        let salt = [7u8; 20];
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
        let tag = hmac::sign(&key, b"[127.0.0.1]:2222");
        let mut hash = [0; 20];
        hash.copy_from_slice(tag.as_ref());
        let salt = salt.to_vec();
        let field = HostPatterns::HashedName { salt, hash }.to_string();
        let list = format!("{field} {A}");
        assert!(list.starts_with("|1|"), "{list}");
        assert_eq!(verdict(&list, "127.0.0.1", 2222), Verdict::Trusted);
        assert_eq!(verdict(&list, "127.0.0.2", 2222), Verdict::Unknown);
    }

    #[test]
    fn tells_changed_and_revoked_from_unknown() {
        assert_eq!(verdict(&format!("kvm1 {B}"), "kvm1", 22), Verdict::Changed);
        assert_eq!(verdict(&format!("kvm1 {B}\nkvm1 {A}"), "kvm1", 22), Verdict::Trusted);
        assert_eq!(
            verdict(&format!("kvm1 {A}\n@revoked * {A}"), "kvm1", 22),
            Verdict::Revoked
        );
        assert_eq!(verdict(&format!("@cert-authority * {A}"), "kvm1", 22), Verdict::Unknown);
    }

    #[test]
    fn asks_for_the_kind_of_key_that_it_knows() {
        let known = KnownHost::find(&format!("kvm1 {A}"), "kvm1", 22);
        let rsa = Algorithm::Rsa { hash: None };
        assert_eq!(
            known.prefer(&[rsa.clone(), Algorithm::Ed25519]),
            [Algorithm::Ed25519, rsa]
        );
    }
}
