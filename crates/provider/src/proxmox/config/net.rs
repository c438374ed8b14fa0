//! Network interfaces: `net0: virtio=AA:BB:CC:DD:EE:FF,bridge=vmbr0,tag=5`.

use super::property::Properties;
use crate::{Nic, NicAttachment};

/// Options of an interface that are not its model.
const OPTIONS: &[&str] = &[
    "bridge",
    "firewall",
    "link_down",
    "mtu",
    "queues",
    "rate",
    "tag",
    "trunks",
    "host-managed",
];

/// Reads the value of `netN`. The attachment of one with a VLAN tag is the bridge's name, a dot and the tag: the form that a hint
/// has, too.
pub(crate) fn parse(index: usize, text: &str) -> Option<Nic> {
    let properties = Properties::parse(text);
    let (model, mac) = match properties.get("model") {
        Some(model) => (model, properties.get("macaddr")?),
        None => *properties.named().iter().find(|(name, _)| !OPTIONS.contains(name))?,
    };
    let attachment = match (properties.get("bridge"), properties.get("tag")) {
        (Some(bridge), Some(tag)) => NicAttachment::Bridge(format!("{bridge}.{tag}")),
        (Some(bridge), None) => NicAttachment::Bridge(bridge.to_owned()),
        (None, _) => NicAttachment::User,
    };
    Some(Nic {
        name: format!("eth{index}"),
        mac: mac.to_ascii_lowercase(),
        model: Some(model.to_owned()),
        attachment,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_spellings_are_read() {
        let nic = parse(1, "virtio=AA:BB:CC:DD:EE:FF,bridge=vmbr0,firewall=1,tag=5").unwrap();
        assert_eq!((nic.name.as_str(), nic.mac.as_str()), ("eth1", "aa:bb:cc:dd:ee:ff"));
        assert_eq!(nic.model.as_deref(), Some("virtio"));
        assert_eq!(nic.attachment, NicAttachment::Bridge("vmbr0.5".into()));
        let nic = parse(0, "model=e1000,macaddr=AA:BB:CC:DD:EE:FF").unwrap();
        assert_eq!(
            (nic.model.as_deref(), nic.attachment),
            (Some("e1000"), NicAttachment::User)
        );
        let nic = parse(0, "bridge=vnet1,e1000e=aa:bb:cc:dd:ee:ff").unwrap();
        assert_eq!(
            (nic.model.as_deref(), nic.attachment),
            (Some("e1000e"), NicAttachment::Bridge("vnet1".into()))
        );
        assert_eq!(parse(0, "bridge=vmbr0"), None);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in ".*") {
            let _ = parse(0, &text);
        }
    }
}
