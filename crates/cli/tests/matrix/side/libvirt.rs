//! A libvirt host.

use std::path::PathBuf;

use serde_json::{Value, json};
use vmferry_testkit::{DiskSpec, Format, GuestSpec, Host, Kind as Mode, NicSpec, World};

use super::{Found, Seed, Side};

/// A host in system mode, with a network that VMs can be attached to.
pub(super) fn start(name: &str) -> Host {
    let host = Host::system(name);
    let xml = "<network><name>lan</name><forward mode='bridge'/><bridge name='br-lan'/></network>";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), xml).unwrap();
    host.virsh(["net-define", &file.path().display().to_string()]);
    host.virsh(["net-start", "lan"]);
    host
}

impl Side for Host {
    fn provider(&self) -> Value {
        // What listens within the system mode's own namespaces is reached by ssh.
        let endpoint = match self.kind() {
            Mode::Session => self.uri(),
            Mode::System => self.ssh_uri(),
        };
        json!({ "type": "libvirt", "endpoint": endpoint })
    }

    fn secret(&self) -> Option<Value> {
        (self.kind() == Mode::System).then(|| {
            let access = self.ssh();
            json!({ "ssh-privatekey": access.private_key(), "known_hosts": access.known_hosts() })
        })
    }

    fn seed(&self, seed: &Seed) {
        let mut spec = GuestSpec::micro(&seed.name);
        spec.marker.clone_from(&seed.name);
        spec.nics = seed.mac.iter().map(|mac| NicSpec::user(mac)).collect();
        for (image, format) in &seed.disks {
            let name = image.file_name().unwrap();
            let copy = self.pool_dir().join(name);
            std::fs::copy(image, &copy).unwrap();
            spec = spec.disk(DiskSpec::existing(copy, *format));
        }
        let guest = self.define(&spec);
        if seed.running {
            guest.start();
        }
    }

    fn network(&self) -> Value {
        json!({ "name": "eth0", "network": "lan" })
    }

    fn found(&self, vm: &str) -> Found {
        let guest = self.guest(vm);
        let xml = guest.xml();
        let between = |from: &str, to: &str| {
            let rest = xml.split_once(from).unwrap().1;
            rest.split_once(to).unwrap().0.to_owned()
        };
        let number = |text: String| text.rsplit('>').next().unwrap().parse::<u64>().unwrap();
        let macs = xml.split("<mac address='").skip(1);
        Found {
            macs: macs.map(|rest| rest[..17].to_lowercase()).collect(),
            cpus: number(between("<vcpu", "</vcpu>")),
            memory: number(between("<memory", "</memory>")) >> 10,
            running: guest.state() == "running",
        }
    }

    fn disks(&self, vm: &str) -> Vec<(PathBuf, Format)> {
        self.guest(vm).disks
    }

    fn everything(&self) -> Vec<String> {
        World::of(&[self], &[]).lines()
    }

    fn names(&self, vm: &str) -> Vec<String> {
        let files = self.guest(vm).disks.into_iter().map(|(path, _)| path);
        let files = files.map(|path| path.file_name().unwrap().to_string_lossy().into_owned());
        files.chain([vm.to_owned()]).collect()
    }
}
