//! The host in a Provider's endpoint, so that two Providers that lead to one machine share its limit.

use std::net::IpAddr;

/// The host, in lower case, without user and port: `kvm-1.example.com`, `10.0.0.7`, `::1`. An endpoint without one means the
/// machine that vmferry runs on.
pub(crate) fn of(endpoint: &str) -> String {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let name = without_port(host).trim_end_matches('.').to_lowercase();
    let address = name.parse::<IpAddr>().map(|address| address.to_canonical());
    match address {
        Ok(address) if address.is_loopback() => LOCAL.to_owned(),
        Ok(address) => address.to_string(),
        Err(_) if name.is_empty() => LOCAL.to_owned(),
        Err(_) => name,
    }
}

const LOCAL: &str = "localhost";

/// Without the port, and an IPv6 address without its brackets.
fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    match host.split_once(':') {
        // Several colons are an IPv6 address without brackets, which has no port.
        Some((name, port)) if !port.contains(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_one_host_however_it_is_written() {
        for (endpoint, host) in [
            ("qemu+ssh://root@KVM-1.example.com./system", "kvm-1.example.com"),
            (
                "qemu+ssh://root@kvm-1.example.com:2222/system?keyfile=/x@y",
                "kvm-1.example.com",
            ),
            ("https://vcenter.example.com/sdk", "vcenter.example.com"),
            ("pve-1:8006", "pve-1"),
            ("https://[2001:DB8::0:1]:8006", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("https://[::ffff:10.0.0.7]/", "10.0.0.7"),
            ("10.0.0.7", "10.0.0.7"),
            ("qemu:///system", "localhost"),
            ("qemu+unix:///system?socket=/run/a:b", "localhost"),
            ("qemu+tcp://127.0.0.1/system", "localhost"),
            ("", "localhost"),
        ] {
            assert_eq!(of(endpoint), host, "{endpoint}");
        }
    }
}
