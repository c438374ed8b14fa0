//! The addresses of guests.

use vmferry_testkit::vsphere::{VmSeed, Vsphere};

use super::{connect, esx, named};
use crate::{Hypervisor, Kind, VmId};

async fn told(vsphere: &super::VSphere, name: &str) -> Vec<String> {
    let vm = vsphere.find_vm(&named(name)).await.unwrap();
    let found = vsphere.addresses(&vm.id).await.unwrap();
    found.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn addresses_are_those_that_the_tools_of_a_running_guest_say() {
    for server in [Vsphere::start(), esx()] {
        let seed = |name: &str| {
            VmSeed::new(name)
                .nic("00:50:56:00:00:01", "vmxnet3", "VM Network")
                .addresses(&["192.0.2.10", "fe80::250:56ff:fe00:1"])
                .nic("00:50:56:00:00:02", "e1000e", "VM Network")
                .addresses(&["2001:db8::10", "192.0.2.9", "127.0.0.1"])
        };
        server.seed(&seed("runs").running());
        server.seed(&seed("off"));
        let mut bare = seed("without-tools").running();
        bare.tools = false;
        server.seed(&bare);
        server.seed(&VmSeed::new("without-nics").running());
        let vsphere = connect(&server).await;
        assert_eq!(
            told(&vsphere, "runs").await,
            ["192.0.2.9", "192.0.2.10", "2001:db8::10"]
        );
        for name in ["off", "without-tools", "without-nics"] {
            assert_eq!(told(&vsphere, name).await, [""; 0], "{name}");
        }
        let error = vsphere.addresses(&VmId("vm-99999".to_owned())).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
    }
}
