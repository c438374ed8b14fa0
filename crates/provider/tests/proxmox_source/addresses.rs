//! The addresses of guests.

use vmferry_provider::{Hypervisor as _, Kind, VmId};
use vmferry_testkit::proxmox::{SeedVm, Version};

use crate::{cluster, connect, two_disks};

#[tokio::test]
async fn addresses_are_those_that_the_agent_of_a_running_guest_says() {
    for version in [Version::V7_4, Version::V9] {
        let cluster = cluster(version);
        cluster.seed(&two_disks(&cluster, 100, "tells").set("agent", "1"));
        cluster.seed(&two_disks(&cluster, 101, "silent"));
        cluster.seed(&SeedVm::new(102, "off").set("agent", "1"));
        cluster.start_vm(100);
        cluster.start_vm(101);
        let proxmox = connect(&cluster).await;
        let told = async |id: &str| proxmox.addresses(&VmId(id.to_owned())).await;

        let found: Vec<_> = told("100").await.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.10"], "without the loopback's");
        assert!(told("101").await.unwrap().is_empty(), "no agent is no error");
        assert!(told("102").await.unwrap().is_empty(), "nor is a VM that is off");

        // One that hangs is: what it said before may still be so.
        cluster.agent_answers(100, false);
        let began = std::time::Instant::now();
        let error = told("100").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Busy, "{error}");
        assert!(began.elapsed() < std::time::Duration::from_secs(15));
        assert_eq!(told("999").await.unwrap_err().kind(), Kind::NotFound);
        assert_eq!(cluster.violations(), [""; 0]);
    }
}
