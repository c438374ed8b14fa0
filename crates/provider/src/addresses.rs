//! Which of a guest's IP addresses others reach it by.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// The most that are told. A guest may claim to have any number.
const MOST: usize = 64;

/// Of the addresses that a guest is said to have, those by which others may reach it: each once, in order, IPv4 first. Addresses of
/// the loopback, link-local ones and groups are left out, and so is what is no address.
pub(crate) fn reachable<T: AsRef<str>>(told: impl IntoIterator<Item = T>) -> Vec<IpAddr> {
    let found: BTreeSet<_> = told.into_iter().filter_map(|text| parse(text.as_ref())).collect();
    found.into_iter().take(MOST).collect()
}

fn parse(text: &str) -> Option<IpAddr> {
    // Behind a percent sign stands the interface that an IPv6 address is good on.
    let (address, _) = text.split_once('%').unwrap_or((text, ""));
    let address = address.trim().parse::<IpAddr>().ok()?.to_canonical();
    let is_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let is_nobodys = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    (!is_local && !is_nobodys).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_by_which_others_reach_it_are_told_once_and_in_order() {
        let told = [
            "2001:db8::5",
            "127.0.0.1",
            "::1",
            "192.0.2.10",
            "fe80::5054:ff:fe12:3456%eth0",
            "fe80::1",
            "169.254.7.7",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "192.0.2.9",
            "::ffff:192.0.2.10",
            " 10.0.0.1 ",
            "fd00::7",
            "",
            "not an address",
            "192.0.2.300",
        ];
        let found: Vec<_> = reachable(told).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1", "192.0.2.9", "192.0.2.10", "2001:db8::5", "fd00::7"]);
    }

    #[test]
    fn a_guest_that_claims_thousands_has_but_some_of_them() {
        let claimed = (0..5000_u32).map(|number| IpAddr::from((0x0a00_0000 + number).to_be_bytes()).to_string());
        assert_eq!(reachable(claimed).len(), MOST);
    }
}
