//! All objects of a kind, as last seen or as this process last wrote them, whichever is newer.
//!
//! A watch lags behind what was written a moment ago. Whoever read the older state would act again on what is done, so an
//! answer to a write goes into the cache at once, and what the watch brings later is taken only where it is newer.
//! Objects that do not parse are kept by their metadata: one of them never hides the others.
//!
//! Architecture Invariant: no Secret is ever cached.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::serde::de::DeserializeOwned;
use kube::core::{DeserializeGuard, error_boundary::InvalidObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::watch as flag;
use vmferry_api::Key;
use vmferry_api::manifest::key_of;

use crate::watching::watching;

/// What can be cached: our own kinds, which live in namespaces.
pub trait Cached:
    Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Cached for K where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// What the watch brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An object is there. `by_user`: something other than its status is new.
    Applied {
        /// Which.
        key: Key,
        /// Whether anything but its status, labels and finalizers is new.
        by_user: bool,
    },
    /// An object is gone.
    Removed(Key),
    /// All objects were listed anew; any of those known before may be gone.
    Listed,
}

/// An object in the cache.
#[derive(Debug)]
pub(crate) enum Entry<K> {
    /// As it is.
    Valid(Arc<K>),
    /// Its metadata, and why it does not parse.
    Invalid(Arc<InvalidObject>),
}

impl<K> Clone for Entry<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Valid(object) => Self::Valid(Arc::clone(object)),
            Self::Invalid(object) => Self::Invalid(Arc::clone(object)),
        }
    }
}

impl<K: Cached> Entry<K> {
    fn of(guard: DeserializeGuard<K>) -> Self {
        match guard.0 {
            Ok(object) => Self::Valid(Arc::new(object)),
            Err(invalid) => Self::Invalid(Arc::new(invalid)),
        }
    }

    pub(crate) fn meta(&self) -> &vmferry_api::ObjectMeta {
        match self {
            Self::Valid(object) => object.meta(),
            Self::Invalid(invalid) => &invalid.metadata,
        }
    }

    /// Changes with everything that a user or the API server changes, and not with what a save changes.
    fn trigger(&self) -> u64 {
        let meta = self.meta();
        let mut hasher = DefaultHasher::new();
        (
            &meta.uid,
            meta.generation,
            meta.deletion_timestamp.is_some(),
            &meta.annotations,
            matches!(self, Self::Valid(_)),
        )
            .hash(&mut hasher);
        hasher.finish()
    }
}

struct State<K> {
    objects: HashMap<Key, Entry<K>>,
    /// UIDs of objects that this process saw disappear, which the watch may still bring once more.
    gone: HashMap<Key, String>,
    /// What is being listed, until the list is whole.
    listing: HashMap<Key, Entry<K>>,
}

/// All objects of a kind.
pub struct Cache<K> {
    state: RwLock<State<K>>,
    synced: flag::Sender<bool>,
}

impl<K: Cached> Default for Cache<K> {
    fn default() -> Self {
        Self {
            state: RwLock::new(State {
                objects: HashMap::new(),
                gone: HashMap::new(),
                listing: HashMap::new(),
            }),
            synced: flag::Sender::new(false),
        }
    }
}

impl<K: Cached> Cache<K> {
    /// An object that parses.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        match self.read().objects.get(key) {
            Some(Entry::Valid(object)) => Some(Arc::clone(object)),
            _ => None,
        }
    }

    /// All objects that parse.
    pub fn all(&self) -> Vec<Arc<K>> {
        let state = self.read();
        let valid = |entry: &Entry<K>| match entry {
            Entry::Valid(object) => Some(Arc::clone(object)),
            Entry::Invalid(_) => None,
        };
        state.objects.values().filter_map(valid).collect()
    }

    /// The names of all objects, of those that do not parse, too.
    pub fn keys(&self) -> Vec<Key> {
        self.read().objects.keys().cloned().collect()
    }

    pub(crate) fn entry(&self, key: &Key) -> Option<Entry<K>> {
        self.read().objects.get(key).cloned()
    }

    /// Takes the answer to a write, or to a read of this moment.
    pub fn wrote(&self, mut object: K) {
        object.managed_fields_mut().clear();
        let mut state = self.write();
        let key = key_of(&object);
        if state.gone.get(&key) == object.meta().uid.as_ref() && object.meta().uid.is_some() {
            return;
        }
        let entry = Entry::Valid(Arc::new(object));
        if state.objects.get(&key).is_none_or(|old| is_newer(&entry, old)) {
            state.objects.insert(key, entry);
        }
    }

    /// An object of this UID is known to be gone.
    pub fn forget(&self, key: &Key, uid: &str) {
        let mut state = self.write();
        let known = state.objects.get(key).is_some_and(|old| is_of(old, uid));
        if known {
            state.objects.remove(key);
            state.gone.insert(key.clone(), uid.to_owned());
        }
    }

    /// Waits until all objects were listed once.
    pub async fn synced(&self) {
        // It fails only where the cache itself is gone.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Whether all objects were listed once.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Watches forever, in one namespace or in all, and tells of every change.
    pub async fn run(&self, client: Client, namespace: Option<&str>, tell: impl Fn(Change) + Send) {
        let api: Api<DeserializeGuard<K>> = match namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        let prune = |object: &mut DeserializeGuard<K>| object.managed_fields_mut().clear();
        let events = watching(api, watcher::Config::default()).modify(prune);
        let events = events.inspect_err(|error| {
            let kind = K::kind(&());
            tracing::warn!(%kind, error = %watch_fault(error), "the watch was interrupted; it is taken up again");
        });
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            if let Ok(event) = event
                && let Some(change) = self.take(event)
            {
                tell(change);
            }
        }
    }

    /// Takes what the watch brings.
    fn take(&self, event: Event<DeserializeGuard<K>>) -> Option<Change> {
        let mut state = self.write();
        match event {
            Event::Init => {
                state.listing.clear();
                None
            }
            Event::InitApply(object) => {
                state.listing.insert(key_of(&object), Entry::of(object));
                None
            }
            Event::InitDone => {
                state.replace();
                drop(state);
                self.synced.send_replace(true);
                Some(Change::Listed)
            }
            Event::Apply(object) => state.apply(key_of(&object), Entry::of(object)),
            Event::Delete(object) => Some(state.remove(key_of(&object), &Entry::of(object))),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State<K>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<K>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Cached> State<K> {
    fn apply(&mut self, key: Key, entry: Entry<K>) -> Option<Change> {
        if self.gone.get(&key).is_some_and(|uid| is_of(&entry, uid)) {
            return None;
        }
        let old = self.objects.get(&key);
        if old.is_some_and(|old| !is_newer(&entry, old)) {
            return None;
        }
        let by_user = old.is_none_or(|old| old.trigger() != entry.trigger());
        self.objects.insert(key.clone(), entry);
        Some(Change::Applied { key, by_user })
    }

    fn remove(&mut self, key: Key, entry: &Entry<K>) -> Change {
        let uid = entry.meta().uid.as_deref().unwrap_or_default();
        if self.gone.get(&key).is_some_and(|gone| gone == uid) {
            self.gone.remove(&key);
        } else if self.objects.get(&key).is_some_and(|old| is_of(old, uid)) {
            self.objects.remove(&key);
        }
        Change::Removed(key)
    }

    /// The list takes the place of what is known, except for what is known better.
    fn replace(&mut self) {
        let mut listed = std::mem::take(&mut self.listing);
        let gone = std::mem::take(&mut self.gone);
        listed.retain(|key, entry| gone.get(key).is_none_or(|uid| !is_of(entry, uid)));
        for (key, entry) in &mut listed {
            if let Some(old) = self.objects.remove(key)
                && is_newer(&old, entry)
            {
                *entry = old;
            }
        }
        self.objects = listed;
    }
}

fn is_of<K: Cached>(entry: &Entry<K>, uid: &str) -> bool {
    entry.meta().uid.as_deref() == Some(uid)
}

/// Whether `new` is of a later version than `old`. Versions are numbers that grow, of all objects together; on a server
/// where they are not, what comes later is taken for newer.
fn is_newer<K: Cached>(new: &Entry<K>, old: &Entry<K>) -> bool {
    let version = |entry: &Entry<K>| entry.meta().resource_version.as_deref()?.parse::<u64>().ok();
    match (version(new), version(old)) {
        (Some(new), Some(old)) => new > old,
        _ => true,
    }
}

/// What went wrong with a watch, in short: the errors repeat each other.
fn watch_fault(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => error.to_string(),
        watcher::Error::WatchError(status) => status.message.clone(),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use vmferry_api::VirtualMachine;

    use super::*;

    fn object(name: &str, version: u64, more: &Value) -> DeserializeGuard<VirtualMachine> {
        let mut value = json!({
            "apiVersion": "infra.virtrigaud.io/v1beta1", "kind": "VirtualMachine",
            "metadata": {"name": name, "namespace": "n", "uid": "u", "generation": 1, "resourceVersion": version.to_string()},
            "spec": {"providerRef": {"name": "p"}}
        });
        for (field, new) in more.as_object().unwrap() {
            *value.pointer_mut(field).unwrap() = new.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    fn version(cache: &Cache<VirtualMachine>, name: &str) -> Option<String> {
        cache.get(&Key::new("n", name))?.resource_version()
    }

    fn filled() -> Cache<VirtualMachine> {
        let cache = Cache::default();
        assert!(!cache.is_synced());
        assert_eq!(cache.take(Event::Init), None);
        assert_eq!(cache.take(Event::InitApply(object("a", 10, &json!({})))), None);
        assert_eq!(version(&cache, "a"), None, "a list counts when it is whole");
        assert_eq!(cache.take(Event::InitDone), Some(Change::Listed));
        assert!(cache.is_synced());
        cache
    }

    #[test]
    fn what_this_process_wrote_is_not_taken_back_by_an_older_event() {
        let cache = filled();
        cache.wrote(object("a", 12, &json!({})).0.unwrap());
        assert_eq!(cache.take(Event::Apply(object("a", 11, &json!({})))), None);
        assert_eq!(version(&cache, "a").as_deref(), Some("12"));
        let change = cache.take(Event::Apply(object("a", 13, &json!({}))));
        let key = Key::new("n", "a");
        assert_eq!(change, Some(Change::Applied { key, by_user: false }));
        assert_eq!(version(&cache, "a").as_deref(), Some("13"));
        // A list that is older than what was written, and an older answer.
        cache.wrote(object("a", 20, &json!({})).0.unwrap());
        cache.wrote(object("a", 19, &json!({})).0.unwrap());
        cache.take(Event::Init);
        cache.take(Event::InitApply(object("a", 15, &json!({}))));
        cache.take(Event::InitDone);
        assert_eq!(version(&cache, "a").as_deref(), Some("20"));
    }

    #[test]
    fn what_is_known_to_be_gone_does_not_come_back() {
        let cache = filled();
        let key = Key::new("n", "a");
        cache.forget(&key, "another");
        assert!(cache.get(&key).is_some());
        cache.forget(&key, "u");
        assert_eq!(cache.take(Event::Apply(object("a", 14, &json!({})))), None);
        cache.wrote(object("a", 14, &json!({})).0.unwrap());
        assert!(cache.get(&key).is_none());
        let deleted = Event::Delete(object("a", 15, &json!({})));
        assert_eq!(cache.take(deleted), Some(Change::Removed(key.clone())));
        // Another one of that name is another one.
        let anew = object("a", 16, &json!({"/metadata/uid": "v"}));
        assert_eq!(
            cache.take(Event::Apply(anew)),
            Some(Change::Applied {
                key: key.clone(),
                by_user: true
            })
        );
        // A late deletion of the first one does not touch it.
        cache.take(Event::Delete(object("a", 15, &json!({}))));
        assert!(cache.get(&key).is_some());
    }

    #[test]
    fn only_what_is_not_ours_is_told_as_the_users() {
        let cache = filled();
        for (number, more, expected) in [
            (11, json!({"/spec/providerRef/name": "q"}), false),
            (12, json!({"/metadata/generation": 2}), true),
            (13, json!({"/metadata/generation": 2}), false),
            (14, json!({"/spec": 7}), true),
        ] {
            let change = cache.take(Event::Apply(object("a", number, &more)));
            let key = Key::new("n", "a");
            assert_eq!(change, Some(Change::Applied { key, by_user: expected }), "{number}");
        }
    }

    #[test]
    fn one_that_does_not_parse_hides_no_other() {
        let cache = filled();
        cache.take(Event::Apply(object("b", 11, &json!({"/spec": 7}))));
        assert_eq!(cache.all().len(), 1);
        assert_eq!(cache.keys().len(), 2);
        let key = Key::new("n", "b");
        assert!(cache.get(&key).is_none());
        assert!(matches!(cache.entry(&key), Some(Entry::Invalid(_))));
        cache.take(Event::Apply(object("b", 12, &json!({}))));
        assert!(cache.get(&key).is_some());
    }
}
