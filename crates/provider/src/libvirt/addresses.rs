//! The IP addresses of a guest: what its agent says, else what libvirt's own networks leased to it.

use std::net::IpAddr;
use std::time::Duration;

use virt::error::Error as VirtError;
use virt_sys as sys;

use super::Libvirt;
use super::conn::kind;
use crate::addresses::reachable;
use crate::{Error, Kind, VmId, VmSelector};
use vmferry_libvirt::{Teller, interface_addresses};

/// How long each of them is waited for. libvirt itself gives up an agent that hangs after five seconds.
const LIMIT: Duration = Duration::from_secs(8);

const ACTION: &str = "ask for the addresses of";

impl Libvirt {
    /// The addresses by which others reach a guest.
    pub(super) async fn guest_addresses(&self, vm: &VmId) -> Result<Vec<IpAddr>, Error> {
        let by_agent = self.told(vm, Teller::Agent).await;
        if by_agent.as_ref().is_ok_and(|told| !told.is_empty()) {
            return by_agent;
        }
        let leased = self.told(vm, Teller::Leases).await?;
        if leased.is_empty() { by_agent } else { Ok(leased) }
    }

    /// What one of them tells: nothing where it is not there.
    async fn told(&self, vm: &VmId, teller: Teller) -> Result<Vec<IpAddr>, Error> {
        let selector = VmSelector {
            id: Some(vm.0.clone()),
            name: vm.0.clone(),
        };
        let ask = self.with_domain(ACTION, &selector, move |_, domain| {
            match interface_addresses(domain, teller) {
                Err(error) if is_absent(teller, &error) => Ok(Vec::new()),
                answer => answer,
            }
        });
        let Ok(answer) = tokio::time::timeout(LIMIT, ask).await else {
            let detail = format!("no answer within {} s", LIMIT.as_secs());
            return Err(Error::new(Kind::Busy, ACTION, self.vm_object(&selector)).detail(detail));
        };
        answer.map(reachable)
    }
}

/// Whether an error says that there is nobody who could tell: no agent, no network of libvirt's, a domain that does not run.
fn is_absent(teller: Teller, error: &VirtError) -> bool {
    match (teller, error.code().to_raw()) {
        // One number for an agent that is not there and for one that hangs.
        (Teller::Agent, sys::VIR_ERR_AGENT_UNRESPONSIVE) => error.message().contains("not connected"),
        // The last one where the domain has no channel for an agent.
        (Teller::Agent, code) => [
            sys::VIR_ERR_OPERATION_INVALID,
            sys::VIR_ERR_NO_SUPPORT,
            sys::VIR_ERR_ARGUMENT_UNSUPPORTED,
        ]
        .contains(&code),
        // A domain may be attached to networks of which libvirt knows nothing any more.
        (Teller::Leases, _) => kind(error) != Kind::Unreachable,
    }
}
