//! The IP addresses of a guest, as its agent says them.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::Proxmox;
use super::client::Call;
use super::client::vm::{Located, parse_vmid};
use crate::addresses::reachable;
use crate::{Error, Kind, VmId};

/// How long the agent is waited for. Proxmox VE itself gives it up after some seconds.
const LIMIT: Duration = Duration::from_secs(8);

const ACTION: &str = "ask for the addresses of";

impl Proxmox {
    /// The addresses by which others reach a guest.
    pub(super) async fn guest_addresses(&self, vm: &VmId) -> Result<Vec<IpAddr>, Error> {
        let object = format!("VM {} on {}", vm.0, self.object());
        let asked = timeout(LIMIT, self.ask_agent(parse_vmid(&vm.0, &object)?));
        match asked.await {
            Ok(Ok(answer)) => Ok(told(&answer)),
            Ok(Err(error)) if has_no_agent(&error) => Ok(Vec::new()),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let detail = format!("no answer within {} s", LIMIT.as_secs());
                Err(Error::new(Kind::Busy, ACTION, object).detail(detail))
            }
        }
    }

    async fn ask_agent(&self, vmid: u64) -> Result<Value, Error> {
        let node = self.client.node_of(vmid).await?;
        let mut at = Located { vmid, node };
        let call = |at: &Located| {
            let id = at.vmid.to_string();
            let object = format!("VM {id} on node {}", at.node);
            let path = ["nodes", &at.node, "qemu", &id, "agent", "network-get-interfaces"];
            Call::get(&path, ACTION, object)
        };
        self.client.send_at(&mut at, call).await
    }
}

/// Whether an error says that there is no agent to be asked, or no guest that runs.
fn has_no_agent(error: &Error) -> bool {
    let text = error.to_string().to_ascii_lowercase();
    let says = |words: &str| text.contains(words);
    error.kind() == Kind::Failed && (says("no qemu guest agent") || says("is not running"))
}

/// The addresses in an answer of `guest-network-get-interfaces`.
fn told(answer: &Value) -> Vec<IpAddr> {
    let interfaces = list(answer, "result");
    let addresses = interfaces.flat_map(|interface| list(interface, "ip-addresses"));
    reachable(addresses.filter_map(|address| address["ip-address"].as_str()))
}

fn list<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> + use<'v> {
    value[name].as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_agents_answer_is_read() {
        // As of a Linux with a bridge that has no address, and of a Windows.
        let linux = json!({"result": [
            {"name": "lo", "hardware-address": "00:00:00:00:00:00", "ip-addresses": [
                {"ip-address": "127.0.0.1", "ip-address-type": "ipv4", "prefix": 8},
                {"ip-address": "::1", "ip-address-type": "ipv6", "prefix": 128},
            ], "statistics": {"rx-bytes": 84, "tx-bytes": 84}},
            {"name": "ens18", "hardware-address": "bc:24:11:00:00:01", "ip-addresses": [
                {"ip-address": "192.0.2.10", "ip-address-type": "ipv4", "prefix": 24},
                {"ip-address": "fe80::be24:11ff:fe00:1", "ip-address-type": "ipv6", "prefix": 64},
                {"ip-address": "2001:db8::10", "ip-address-type": "ipv6", "prefix": 64},
            ]},
            {"name": "docker0", "hardware-address": "02:42:00:00:00:01"},
        ]});
        let windows = json!({"result": [
            {"name": "Ethernet", "hardware-address": "bc:24:11:00:00:02", "ip-addresses": [
                {"ip-address": "fe80::1%4", "ip-address-type": "ipv6", "prefix": 64},
                {"ip-address": "169.254.3.4", "ip-address-type": "ipv4", "prefix": 16},
                {"ip-address": "198.51.100.3", "ip-address-type": "ipv4", "prefix": 24},
            ]},
            {"name": "Loopback Pseudo-Interface 1", "ip-addresses": [{"ip-address": "::1", "prefix": 128}]},
        ]});
        let texts = |answer: &Value| told(answer).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&linux), ["192.0.2.10", "2001:db8::10"]);
        assert_eq!(texts(&windows), ["198.51.100.3"]);
        for odd in [
            json!(null),
            json!([]),
            json!({"result": {"error": {}}}),
            json!({"result": [1, {"ip-addresses": 2}]}),
        ] {
            assert!(told(&odd).is_empty(), "{odd}");
        }
    }

    #[test]
    fn a_missing_agent_is_told_from_one_that_hangs() {
        let error = |kind, text: &str| Error::new(kind, ACTION, "VM 100").detail(text);
        for text in [
            "500 QEMU guest agent is not running",
            "500 No QEMU guest agent configured",
            "500 VM 100 is not running",
        ] {
            assert!(has_no_agent(&error(Kind::Failed, text)), "{text}");
        }
        assert!(!has_no_agent(&error(
            Kind::Busy,
            "500 VM 100 qmp command 'guest-ping' failed - got timeout"
        )));
        assert!(!has_no_agent(&error(
            Kind::Denied,
            "403 Permission check failed (/vms/100, VM.GuestAgent.Audit)"
        )));
        let frozen = "500 VM 100 qmp command 'guest-network-get-interfaces' failed - Command has been disabled: the agent is in frozen state";
        assert!(!has_no_agent(&error(Kind::Failed, frozen)));
    }
}
