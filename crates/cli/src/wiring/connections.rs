//! The connections to hypervisors, one for each Provider.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;
use vmferry_api::manifest::key_of;
use vmferry_api::{Key, Provider, Secret};
use vmferry_provider::Hypervisor;

/// How long a connection is kept that nobody asks for.
const KEPT: Duration = Duration::from_mins(10);

/// The place for one connection, which its first user opens.
pub type Slot = Arc<OnceCell<Arc<dyn Hypervisor>>>;

/// The connections of a process. One that is not asked for any more is closed when its last user is done.
#[derive(Default)]
pub struct Connections {
    slots: Mutex<HashMap<Key, Entry>>,
    /// Its seed is this process's own, so a fingerprint says nothing about a Secret.
    fingerprints: RandomState,
}

struct Entry {
    slot: Slot,
    fingerprint: u64,
    used: Instant,
}

impl Connections {
    /// The place for the connection of a Provider. One that was declared anew, or whose Secret has other values, is another
    /// one: what is under way goes on with the old connection, what comes next opens a new one.
    pub fn slot(&self, provider: &Provider, secret: Option<&Secret>) -> Slot {
        let fingerprint = self.fingerprint(provider, secret);
        let now = Instant::now();
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, entry| now.duration_since(entry.used) < KEPT);
        let anew = || Entry {
            slot: Slot::default(),
            fingerprint,
            used: now,
        };
        let entry = slots.entry(key_of(provider)).or_insert_with(anew);
        if entry.fingerprint != fingerprint {
            *entry = anew();
        }
        entry.used = now;
        Arc::clone(&entry.slot)
    }

    fn fingerprint(&self, provider: &Provider, secret: Option<&Secret>) -> u64 {
        let spec = serde_json::to_string(&provider.spec).unwrap_or_default();
        let values: Vec<(&str, &[u8])> = secret
            .and_then(|secret| secret.data.as_ref())
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.as_str(), value.0.as_slice()))
            .collect();
        self.fingerprints.hash_one((spec, secret.is_some(), values))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{declared, secret_of};
    use super::*;

    fn provider(endpoint: &str) -> Provider {
        let text = format!(
            "{{apiVersion: infra.virtrigaud.io/v1beta1, kind: Provider, metadata: {{name: p}}, \
             spec: {{type: libvirt, endpoint: '{endpoint}'}}}}"
        );
        declared(&text).providers.into_values().next().unwrap().object
    }

    #[test]
    fn a_connection_lasts_until_the_provider_or_the_values_of_its_secret_change() {
        let connections = Connections::default();
        let (old, new) = (
            secret_of(&json!({"password": "a"})),
            secret_of(&json!({"password": "b"})),
        );
        let (here, there) = (provider("qemu+ssh://here/system"), provider("qemu+ssh://there/system"));
        let first = connections.slot(&here, Some(&old));
        assert!(Arc::ptr_eq(&first, &connections.slot(&here, Some(&old))));
        let rotated = connections.slot(&here, Some(&new));
        assert!(!Arc::ptr_eq(&first, &rotated));
        assert!(Arc::ptr_eq(&rotated, &connections.slot(&here, Some(&new))));
        assert!(!Arc::ptr_eq(&rotated, &connections.slot(&here, None)));
        assert!(!Arc::ptr_eq(&rotated, &connections.slot(&there, Some(&new))));
        assert_eq!(connections.slots.lock().unwrap().len(), 1);
    }
}
