//! Which hosts may be talked to.
//!
//! The endpoint of a staging storage is written by whoever may create a migration, and vmferry opens it from where it runs:
//! inside a cluster, on a hypervisor's network. So there are addresses that it never talks to, whatever a manifest says (link-local
//! ones, where clouds hand out credentials), and an operator can say which hosts are allowed at all.
//!
//! Architecture Invariant: what is checked is the address that is connected to, not only the name that leads to it: a name can
//! lead anywhere, and somewhere else a moment later.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// Which hosts may be talked to. Without a rule: all but those that never are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostPolicy {
    allowed: Arc<[Rule]>,
}

/// One entry of `--allowed-storage-hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// This name.
    Name(String),
    /// Every name that ends in this, which starts with a dot.
    Suffix(String),
    /// The addresses that share their first bits with this one.
    Net(IpAddr, u8),
}

/// A text that is no rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a host: give a name, *.domain, an address, or a network such as 10.0.0.0/8")]
pub struct InvalidRule(String);

/// A host that may not be talked to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// Nobody may.
    #[error(
        "{host} is at {address}, an address that is never used for storage: it is link-local, or a cloud's metadata service"
    )]
    Never {
        /// The host as it was named.
        host: String,
        /// Its address.
        address: IpAddr,
    },
    /// The operator allowed others.
    #[error("{host} is not one of the allowed storage hosts")]
    NotAllowed {
        /// The host as it was named.
        host: String,
    },
    /// The name leads nowhere.
    #[error("{host} has no address: {detail}")]
    Unknown {
        /// The host as it was named.
        host: String,
        /// What the resolver said.
        detail: String,
    },
}

impl HostPolicy {
    /// Only hosts that one of these rules allows: names, `*.domain`, addresses, networks (`10.0.0.0/8`).
    pub fn allowing<'a>(rules: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidRule> {
        let allowed = rules.into_iter().map(str::parse).collect::<Result<Arc<[Rule]>, _>>()?;
        Ok(Self { allowed })
    }

    /// Whether a host that was named as `host` (without port, an IPv6 address without brackets) may be talked to at `address`.
    pub fn check(&self, host: &str, address: IpAddr) -> Result<(), Refused> {
        let address = address.to_canonical();
        let host_text = || host.to_owned();
        if is_never_used(address) {
            return Err(Refused::Never {
                host: host_text(),
                address,
            });
        }
        let fits = |rule: &Rule| rule.names(host) || rule.holds(address);
        if self.allowed.is_empty() || self.allowed.iter().any(fits) {
            return Ok(());
        }
        Err(Refused::NotAllowed { host: host_text() })
    }

    /// The addresses of a host, all of which may be talked to.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Refused> {
        let unknown = |detail: String| Refused::Unknown {
            host: host.to_owned(),
            detail,
        };
        let plain = host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((plain, port)).await;
        let addresses: Vec<SocketAddr> = found.map_err(|error| unknown(error.to_string()))?.collect();
        if addresses.is_empty() {
            return Err(unknown("the resolver knows none".to_owned()));
        }
        for address in &addresses {
            self.check(plain, address.ip())?;
        }
        Ok(addresses)
    }
}

impl Rule {
    fn names(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        match self {
            Self::Name(name) => host == *name,
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            Self::Net(..) => false,
        }
    }

    fn holds(&self, address: IpAddr) -> bool {
        let Self::Net(net, bits) = self else { return false };
        match (net, address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(*bits)).unwrap_or(0);
                (net.to_bits() ^ address.to_bits()) & mask == 0
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(*bits)).unwrap_or(0);
                (net.to_bits() ^ address.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Rule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let invalid = || InvalidRule(text.to_owned());
        let text = text.trim();
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            let address = address.to_canonical();
            return Ok(Self::Net(address, if address.is_ipv4() { 32 } else { 128 }));
        }
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| invalid())?;
            let bits: u8 = bits.parse().map_err(|_| invalid())?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            return if bits <= most {
                Ok(Self::Net(address, bits))
            } else {
                Err(invalid())
            };
        }
        let name = text.trim_end_matches('.').to_ascii_lowercase();
        let (suffix, rest) = match name.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, name.as_str()),
        };
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        };
        if !rest.split('.').all(is_label) {
            return Err(invalid());
        }
        Ok(if suffix {
            Self::Suffix(format!(".{rest}"))
        } else {
            Self::Name(name)
        })
    }
}

/// Addresses at which there is no storage of a user's, and often something that must not be asked.
fn is_never_used(address: IpAddr) -> bool {
    /// Metadata services that are not at a link-local address: AWS over IPv6, Alibaba, Oracle.
    const METADATA: [IpAddr; 3] = [
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
        IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
        IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    ];
    let special = match address {
        IpAddr::V4(address) => {
            address.is_link_local() || address.is_unspecified() || address.is_broadcast() || address.is_multicast()
        }
        IpAddr::V6(address) => {
            // The NAT64 prefix carries an IPv4 address in its last bits.
            let [.., high, low] = address.segments();
            let inner = Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
            let is_nat64 = address.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
            address.is_unicast_link_local()
                || address.is_unspecified()
                || address.is_multicast()
                || (is_nat64 && is_never_used(IpAddr::V4(inner)))
        }
    };
    special || METADATA.contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn metadata_and_link_local_addresses_are_never_used() {
        for address in [
            "169.254.169.254",
            "169.254.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "0.0.0.0",
            "::",
            "224.0.0.1",
        ] {
            for policy in [HostPolicy::default(), HostPolicy::allowing([address]).unwrap()] {
                let refused = policy.check("innocent.example.com", ip(address)).unwrap_err();
                assert!(matches!(refused, Refused::Never { .. }), "{address}: {refused}");
            }
        }
        for address in ["127.0.0.1", "10.1.2.3", "192.0.2.1", "2001:db8::1", "::1"] {
            HostPolicy::default().check("h", ip(address)).unwrap();
        }
    }

    #[test]
    fn rules_name_hosts_domains_addresses_and_networks() {
        let policy =
            HostPolicy::allowing(["s3.example.com", "*.storage.example.com", "10.0.0.0/8", "2001:db8::/32"]).unwrap();
        for (host, address, allowed) in [
            ("S3.example.com", "192.0.2.1", true),
            ("s3.example.com.", "192.0.2.1", true),
            ("x.s3.example.com", "192.0.2.1", false),
            ("a.storage.example.com", "192.0.2.1", true),
            ("storage.example.com", "192.0.2.1", false),
            ("evilstorage.example.com", "192.0.2.1", false),
            ("anything", "10.200.0.1", true),
            ("10.200.0.1", "10.200.0.1", true),
            ("11.0.0.1", "11.0.0.1", false),
            ("v6", "2001:db8:1::1", true),
            ("v6", "2001:db9::1", false),
        ] {
            assert_eq!(policy.check(host, ip(address)).is_ok(), allowed, "{host} at {address}");
        }
        for bad in ["", "a b", "http://x", "10.0.0.0/33", "*.", "*", "x/y", "a..b"] {
            assert!(HostPolicy::allowing([bad]).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_name_is_resolved_and_every_address_looked_at() {
        let found = HostPolicy::default().resolve("127.0.0.1", 80).await.unwrap();
        assert_eq!(found, ["127.0.0.1:80".parse().unwrap()]);
        let refused = HostPolicy::default().resolve("169.254.169.254", 80).await.unwrap_err();
        assert!(matches!(refused, Refused::Never { .. }));
        let unknown = HostPolicy::default()
            .resolve("no-such-host.invalid", 80)
            .await
            .unwrap_err();
        assert!(matches!(unknown, Refused::Unknown { .. }));
    }
}
