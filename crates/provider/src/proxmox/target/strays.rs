//! Volumes with the id of a VM of ours that its configuration does not name.
//!
//! Some were there before the VM: an earlier one had the id. They are somebody's, and are noted in the VM's description
//! when it is made, with the storages that could be looked at then. What else is found on those an import left that was cut
//! short; it is freed. Of a storage that was away then, or of another node, nobody knows whose a volume is: it stays.

use super::vm::configure;
use crate::proxmox::Proxmox;
use crate::proxmox::client::api::Options;
use crate::proxmox::client::vm::Located;
use crate::proxmox::config::{Bus, Drive, Slot};
use crate::{Error, Kind, Owner};

/// The serial number of a drive that only is one to be freed.
const STRAY: &str = "serial=vmferry-stray";
/// What the notes begin with: of the node and its storages that were looked at, and of the volumes that were there. Names
/// follow, with blanks between.
const SEEN: &str = "Storages looked at for volumes that had this id before, on node ";
const FOUND: &str = "Volumes that had this id before and are not this VM's: ";

/// What there was of an id before a VM of ours got it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Survey {
    node: String,
    storages: Vec<String>,
    volumes: Vec<String>,
}

impl Survey {
    /// Looks at all storages of a node that can be looked at.
    pub(super) async fn make(proxmox: &Proxmox, node: &str, vmid: u64) -> Result<Self, Error> {
        let mut survey = Self {
            node: node.to_owned(),
            ..Self::default()
        };
        for storage in proxmox.client.storages(node).await? {
            if !storage.holds("images") || !storage.is_usable() {
                continue;
            }
            let content = proxmox.client.content(node, &storage.name, "images").await?;
            let own = content.into_iter().filter(|volume| volume.vmid == Some(vmid));
            survey.volumes.extend(own.map(|volume| volume.volid));
            survey.storages.push(storage.name);
        }
        Ok(survey)
    }

    /// What a VM's description says of it; nothing where it does not.
    pub(super) fn of(have: &Options) -> Self {
        let description = have.get("description").map(String::as_str).unwrap_or_default();
        let noted = |note: &'static str| {
            description
                .lines()
                .filter_map(move |line| line.trim().strip_prefix(note))
        };
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        let seen = noted(SEEN).find_map(|line| line.split_once(':'));
        let (node, storages) = seen.unwrap_or_default();
        Self {
            node: node.to_owned(),
            storages: words(storages),
            volumes: noted(FOUND)
                .flat_map(str::split_whitespace)
                .map(str::to_owned)
                .collect(),
        }
    }

    /// Whether a volume that this node has now certainly was not there then.
    fn is_new(&self, node: &str, volume: &str) -> bool {
        let storage = volume.split_once(':').map_or("", |(storage, _)| storage);
        let was_seen = self.node == node && self.storages.iter().any(|seen| seen == storage);
        was_seen && !self.volumes.iter().any(|found| found == volume)
    }
}

/// What a VM of `owner` has as description.
pub(super) fn description(owner: &Owner, survey: &Survey) -> String {
    let mut lines = vec![format!("Brought here by vmferry. Migration UID: {}", owner.uid)];
    if !survey.storages.is_empty() {
        lines.push(format!("{SEEN}{}: {}", survey.node, survey.storages.join(" ")));
    }
    if !survey.volumes.is_empty() {
        lines.push(format!("{FOUND}{}", survey.volumes.join(" ")));
    }
    lines.join("\n\n")
}

/// Frees what an import left that was cut short, of a VM of ours that is stopped. It goes by the VM's configuration, so
/// that Proxmox VE itself sees to it that it is the VM's.
pub(super) async fn free(proxmox: &Proxmox, at: &mut Located, have: &Options) -> Result<(), Error> {
    for slot in half_freed(have) {
        configure(proxmox, at, &[("delete", slot), ("force", "1")]).await?;
    }
    let before = Survey::of(have);
    let now = Survey::make(proxmox, &at.node, at.vmid).await?;
    let strays = now.volumes.iter();
    let strays = strays.filter(|volume| before.is_new(&now.node, volume) && !names(have, volume));
    for volume in strays {
        tracing::info!(
            volume,
            vmid = at.vmid,
            "an import that was cut short left a volume; it is freed"
        );
        match free_one(proxmox, at, have, volume).await {
            // It is gone by now: the task that made it has tidied up.
            Err(_) if !Survey::make(proxmox, &at.node, at.vmid).await?.volumes.contains(volume) => {}
            freed => freed?,
        }
    }
    Ok(())
}

async fn free_one(proxmox: &Proxmox, at: &mut Located, have: &Options, volume: &str) -> Result<(), Error> {
    let slots = (0..Bus::Scsi.slots()).rev();
    let mut slots = slots.map(|number| Slot { bus: Bus::Scsi, number }.to_string());
    let slot = slots.find(|slot| !have.contains_key(slot)).ok_or_else(|| {
        let object = format!("volume {volume} on node {}", at.node);
        Error::new(Kind::Failed, "free", object)
            .detail(format!("VM {} has no free slot to take it by", at.vmid))
            .remedy(format!("pvesm free {volume}"))
    })?;
    configure(proxmox, at, &[(&slot, &format!("{volume},{STRAY}"))]).await?;
    configure(proxmox, at, &[("delete", &slot), ("force", "1")]).await
}

/// The slots of volumes that were being freed when a process was killed.
fn half_freed(have: &Options) -> impl Iterator<Item = &str> {
    let is_stray = |value: &str| value.split(',').any(|option| option == STRAY);
    have.iter()
        .filter(move |(_, value)| is_stray(value))
        .map(|(slot, _)| slot.as_str())
}

/// Whether a configuration has a volume, in use or not.
fn names(have: &Options, volume: &str) -> bool {
    have.iter()
        .filter_map(|(option, text)| Drive::parse(option, text))
        .any(|drive| drive.volume == volume)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(node: &str, storages: &[&str], volumes: &[&str]) -> Survey {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Survey {
            node: node.to_owned(),
            storages: owned(storages),
            volumes: owned(volumes),
        }
    }

    #[test]
    fn a_description_says_what_there_was_before() {
        let owner = Owner::new("0123abcd-4567-89ef-0000-000000000000");
        let have = |text: String| Options::from([("description".to_owned(), text)]);
        let both = ["a:9/vm-9-disk-0.raw", "b:vm-9-disk-1"];
        for volumes in [&both[..], &both[..1], &[]] {
            let made = survey("pve1", &["a", "b"], volumes);
            let text = description(&owner, &made);
            assert!(text.contains(&owner.uid), "{text}");
            assert_eq!(Survey::of(&have(text.clone())), made);
            let more = format!("{text}\n\nThe import failed and is tried again: UPID:x\n");
            assert_eq!(Survey::of(&have(more)), made);
        }
        assert_eq!(Survey::of(&Options::new()), Survey::default());
    }

    #[test]
    fn what_was_being_freed_is_known_again() {
        let have = Options::from([
            ("scsi0".to_owned(), "a:vm-9-disk-0,serial=vmferry-strays".to_owned()),
            ("scsi30".to_owned(), format!("a:vm-9-disk-1,{STRAY},size=8M")),
        ]);
        assert_eq!(half_freed(&have).collect::<Vec<_>>(), ["scsi30"]);
    }

    #[test]
    fn only_what_certainly_was_not_there_before_is_new() {
        let before = survey("pve1", &["a", "b"], &["a:vm-9-disk-0"]);
        assert!(before.is_new("pve1", "b:vm-9-disk-0"));
        assert!(!before.is_new("pve1", "a:vm-9-disk-0"), "it was there");
        assert!(!before.is_new("pve1", "c:vm-9-disk-0"), "the storage was away");
        assert!(!before.is_new("pve2", "b:vm-9-disk-0"), "it is another node's");
        assert!(!Survey::default().is_new("pve1", "b:vm-9-disk-0"), "nobody looked");
    }

    #[test]
    fn volumes_are_named_by_drives_in_use_or_not() {
        let have = Options::from([
            ("scsi0".to_owned(), "a:vm-9-disk-0,size=1G".to_owned()),
            ("unused0".to_owned(), "a:vm-9-disk-1".to_owned()),
            ("efidisk0".to_owned(), "file=a:vm-9-disk-2,efitype=4m".to_owned()),
        ]);
        for (volume, is_named) in [
            ("a:vm-9-disk-0", true),
            ("a:vm-9-disk-1", true),
            ("a:vm-9-disk-2", true),
            ("a:vm-9-disk-3", false),
            ("a:vm-9-disk", false),
        ] {
            assert_eq!(names(&have, volume), is_named, "{volume}");
        }
    }
}
