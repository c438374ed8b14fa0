//! A Proxmox VE cluster.

use std::path::PathBuf;

use serde_json::{Value, json};
use vmferry_testkit::Format;
use vmferry_testkit::proxmox::{Options, Proxmox, SeedDisk, SeedVm, Version};

use super::{Found, Seed, Side};

/// A cluster whose nodes have ssh.
pub(super) fn start() -> Proxmox {
    Proxmox::start(&Options::new(Version::V9).with_ssh())
}

impl Side for Proxmox {
    fn provider(&self) -> Value {
        let ssh = json!({ "user": "root", "port": self.ssh_port() });
        let defaults = json!({ "datastore": Self::LOCAL, "network": "vmbr0", "ssh": ssh });
        json!({ "type": "proxmox", "endpoint": self.url(), "defaults": defaults })
    }

    fn secret(&self) -> Option<Value> {
        let (id, secret) = Self::TOKEN;
        Some(json!({
            "token_id": id, "token_secret": secret, "ca.crt": self.ca(), "ssh-privatekey": self.ssh_key(),
            "known_hosts": self.known_hosts(),
        }))
    }

    fn hidden(&self) -> Option<String> {
        Some(Self::TOKEN.1.to_owned())
    }

    fn seed(&self, seed: &Seed) {
        let id = 100 + u32::try_from(self.vms().len()).unwrap();
        let mut vm = SeedVm::new(id, &seed.name);
        match &seed.mac {
            Some(mac) => vm = vm.set("net0", &format!("virtio={mac},bridge=vmbr0")),
            None => drop(vm.config.remove("net0")),
        }
        for (index, (image, format)) in seed.disks.iter().enumerate() {
            vm = vm.disk(SeedDisk::new(&format!("virtio{index}"), image, *format));
        }
        Self::seed(self, &vm);
        if seed.running {
            self.start_vm(id);
        }
    }

    fn network(&self) -> Value {
        json!({ "name": "eth0", "bridge": "vmbr0" })
    }

    fn found(&self, vm: &str) -> Found {
        let vm = self.vm(vm).unwrap();
        let number = |key: &str| vm.config.get(key).map_or(1, |text| text.parse::<u64>().unwrap());
        let nics = (0..8).filter_map(|index| vm.config.get(&format!("net{index}")));
        let mac = |nic: &String| nic.split(',').next().unwrap().split_once('=').unwrap().1.to_lowercase();
        Found {
            macs: nics.map(mac).collect(),
            cpus: number("cores") * number("sockets"),
            memory: number("memory"),
            running: vm.status == "running",
        }
    }

    fn disks(&self, vm: &str) -> Vec<(PathBuf, Format)> {
        let id = self.vm(vm).unwrap().id;
        let disks = Self::disks(self, id).into_iter();
        disks.map(|disk| (disk.path, disk.format)).collect()
    }

    fn everything(&self) -> Vec<String> {
        self.settle();
        self.inventory()
    }

    fn names(&self, vm: &str) -> Vec<String> {
        let id = self.vm(vm).unwrap().id;
        vec![
            format!("vm {id} {vm} snapshots []"),
            format!("vm-{id}-"),
            format!(":{id}/"),
            format!("{id}.qmp"),
            format!("guest={id}"),
        ]
    }

    fn received(&self) -> u64 {
        Self::received(self)
    }

    fn assert_proper(&self) {
        let violations = self.violations();
        assert!(
            violations.is_empty(),
            "requests that are not of the API: {violations:#?}"
        );
    }
}
