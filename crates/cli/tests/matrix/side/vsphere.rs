//! A vCenter or an ESXi host.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use vmferry_testkit::Format;
use vmferry_testkit::vsphere::{DiskSeed, Options, VmSeed, Vsphere};

use super::{Found, Seed, Side};

/// A server.
pub(super) fn start(esx: bool) -> Vsphere {
    Vsphere::with(&Options {
        esx,
        star: esx,
        ..Options::default()
    })
}

impl Side for Vsphere {
    fn provider(&self) -> Value {
        json!({ "type": "vsphere", "endpoint": self.endpoint() })
    }

    fn secret(&self) -> Option<Value> {
        Some(json!({ "username": self.user(), "password": self.password(), "ca.crt": self.ca() }))
    }

    fn hidden(&self) -> Option<String> {
        Some(self.password().to_owned())
    }

    fn seed(&self, seed: &Seed) {
        let mut vm = VmSeed::new(&seed.name);
        for (image, format) in &seed.disks {
            vm = vm.disk(DiskSeed::of(image, *format));
        }
        if let Some(mac) = &seed.mac {
            vm = vm.nic(mac, "vmxnet3", "VM Network");
        }
        if seed.running {
            vm = vm.running();
        }
        Vsphere::seed(self, &vm);
    }

    fn network(&self) -> Value {
        json!({ "name": "eth0", "network": "VM Network" })
    }

    fn found(&self, vm: &str) -> Found {
        let state = self.state();
        let vm = state.vm(vm).unwrap();
        Found {
            macs: vm.nics.iter().map(|nic| nic.mac.to_lowercase()).collect(),
            cpus: vm.cpus,
            memory: vm.memory_mib,
            running: vm.on,
        }
    }

    fn disks(&self, vm: &str) -> Vec<(PathBuf, Format)> {
        let state = self.state();
        let disks = state.vm(vm).unwrap().disks.iter();
        disks.map(|disk| (disk.content.clone(), Format::Raw)).collect()
    }

    fn everything(&self) -> Vec<String> {
        let state = self.state();
        let vms = state
            .vms
            .iter()
            .map(|vm| format!("vm {} snapshots {:?}", vm.name, vm.snapshots));
        let leases = state.leases.iter().map(|lease| format!("lease of {}", lease.vm));
        let files = state.files.iter().map(|file| format!("file {file}"));
        vms.chain(leases).chain(files).collect()
    }

    fn sessions(&self) -> u64 {
        self.state().sessions
    }

    fn is_moving(&self) -> bool {
        !self.state().leases.is_empty()
    }

    fn restart(&self) {
        Vsphere::restart(self, Duration::from_secs(1));
    }

    fn names(&self, vm: &str) -> Vec<String> {
        vec![format!("vm {vm} snapshots []"), format!("] {vm}/"), format!("] {vm}")]
    }
}
