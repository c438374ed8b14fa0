//! What a host can run: `virConnectGetCapabilities`.

use super::render::Platform;
use super::tree::Element;
use crate::{Accel, Error, Firmware, Hardware, Kind};

/// What a host can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    guests: Vec<Guest>,
}

/// What a host can run of one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Guest {
    arch: String,
    /// `kvm`, `qemu`, …
    domains: Vec<String>,
    /// Machine types by their exact names and their aliases.
    machines: Vec<String>,
}

impl Capabilities {
    /// Reads the host's answer.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where it is not XML.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let root = Element::parse(text)
            .map_err(|error| Error::new(Kind::Invalid, "read", "the capabilities of the host").source(error))?;
        let full = root
            .all("guest")
            .filter(|guest| guest.text_at(&["os_type"]) == Some("hvm"));
        Ok(Self {
            guests: full
                .filter_map(|guest| guest.child("arch"))
                .filter_map(Guest::read)
                .collect(),
        })
    }

    /// On what a VM is put here: its own machine type where the host knows it, else the newest of the family, else the
    /// host's default; its own accelerator where the host has it.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] where the host cannot run its architecture.
    pub fn place(&self, hardware: &Hardware) -> Result<Platform, Error> {
        let guest = self
            .guests
            .iter()
            .find(|guest| guest.arch == hardware.arch)
            .ok_or_else(|| {
                let known: Vec<_> = self.guests.iter().map(|guest| guest.arch.as_str()).collect();
                Error::new(
                    Kind::Unsupported,
                    "run",
                    format!("a VM of architecture {}", hardware.arch),
                )
                .detail(format!("the host runs {}", known.join(", ")))
                .remedy("choose a target that has QEMU for it")
            })?;
        let has = |domain: &str| guest.domains.iter().any(|known| known == domain);
        let wanted = match hardware.accel {
            Some(Accel::Emulation) => "qemu",
            Some(Accel::Hardware) | None => "kvm",
        };
        let domain_type = if has(wanted) { wanted } else { "qemu" };
        let knows = |machine: &&str| guest.machines.iter().any(|known| known == machine);
        let own = hardware.machine.as_deref();
        // Another hypervisor names none. UEFI firmware is made for this one.
        let usual = || (own.is_none() && hardware.firmware != Firmware::Bios).then_some("q35");
        let machine = own
            .filter(knows)
            .or_else(|| own.and_then(family).filter(knows))
            .or_else(|| usual().filter(knows));
        Ok(Platform {
            domain_type,
            machine: machine.map(str::to_owned),
        })
    }
}

impl Guest {
    fn read(arch: &Element) -> Option<Self> {
        let domains = || arch.all("domain");
        let machines = arch
            .all("machine")
            .chain(domains().flat_map(|domain| domain.all("machine")));
        Some(Self {
            arch: arch.attr("name")?.to_owned(),
            domains: domains()
                .filter_map(|domain| domain.attr("type"))
                .map(str::to_owned)
                .collect(),
            machines: machines.map(|machine| machine.text().to_owned()).collect(),
        })
    }
}

/// The alias of a machine type's family, which every QEMU points at its newest member.
fn family(machine: &str) -> Option<&'static str> {
    const FAMILIES: [(&str, &str); 6] = [
        ("pc-q35-", "q35"),
        ("pc-i440fx-", "pc"),
        ("pc-", "pc"),
        ("virt-", "virt"),
        ("pseries-", "pseries"),
        ("s390-ccw-virtio-", "s390-ccw-virtio"),
    ];
    FAMILIES
        .iter()
        .find(|(prefix, _)| machine.starts_with(prefix))
        .map(|(_, alias)| *alias)
}
