//! Who may leave Pending: the limits, and the line before them.
//!
//! All that wait stand in one line, in the order in which they started. Whoever fits into every limit goes, also past one
//! that waits for another limit; of those that wait for the same one, the first goes first.
//!
//! The line is formed from what the store says and kept for a few seconds, only to spare the store: it may be lost at any
//! time. A step of a migration in Pending holds it until the step is recorded, so that no two take the last slot.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use vmferry_api::{Key, Phase, Provider, Time, VMMigration};

use crate::engine::Config;
use crate::failure::between;
use crate::host;
use crate::port::{Store, StoreError};
use crate::world::provider_key;

/// How long a line is gone by where nothing is known to have changed.
const KEPT: Duration = Duration::from_secs(10);

/// The longest wait of one that stands far behind.
const LONGEST: Duration = Duration::from_secs(30);

/// The line of one engine.
#[derive(Default)]
pub(crate) struct Admission {
    line: Arc<Mutex<Option<Line>>>,
    /// Whether a slot became free, or was taken, since the line was formed.
    moved: AtomicBool,
}

/// What becomes of a migration in Pending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// It may go.
    Go,
    /// It waits for a slot: for which one, and how many wait for the same before it.
    Wait(String, usize),
    /// It came after the line was formed.
    New,
}

/// The right to leave Pending. It ends when the step is recorded.
pub(crate) type Turn = OwnedMutexGuard<Option<Line>>;

impl Admission {
    /// Somebody took a slot or gave one back.
    pub(crate) fn moved(&self) {
        self.moved.store(true, Ordering::Release);
    }

    /// Where a migration stands, and the right to go by it.
    pub(crate) async fn place(
        &self,
        key: &Key,
        store: &dyn Store,
        config: &Config,
        now: &Time,
    ) -> Result<(Place, Turn), StoreError> {
        let mut line = Arc::clone(&self.line).lock_owned().await;
        let moved = self.moved.swap(false, Ordering::AcqRel);
        let usable = |line: &Line| {
            let age = between(&line.formed, now);
            let known = line.places.contains_key(key);
            !moved && age < if known { KEPT } else { config.poll }
        };
        if !line.as_ref().is_some_and(usable) {
            // Where the store fails, the next one who asks forms it.
            *line = None;
            *line = Some(form(store, config, now.clone()).await?);
        }
        let place = line.as_ref().and_then(|line| line.places.get(key)).cloned();
        Ok((place.unwrap_or(Place::New), line))
    }
}

/// How long to wait before asking again: the longer, the more are ahead.
pub(crate) fn wait(poll: Duration, ahead: usize) -> Duration {
    let times = u32::try_from(ahead).unwrap_or(u32::MAX).saturating_add(1);
    poll.saturating_mul(times).min(LONGEST.max(poll))
}

/// The line, as it was formed.
pub(crate) struct Line {
    formed: Time,
    places: HashMap<Key, Place>,
}

/// What there is a limit for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Seat {
    Any,
    Provider(Key),
    Host(String),
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("Waiting for a free slot"),
            Self::Provider(key) => write!(f, "Waiting for a free slot at Provider {key}"),
            Self::Host(host) => write!(f, "Waiting for a free slot at host {host}"),
        }
    }
}

/// Who sits where, and the last one who waits there.
#[derive(Default)]
struct Seats {
    taken: BTreeMap<Seat, Vec<Key>>,
    waiting: HashMap<Seat, (Key, usize)>,
}

impl Seats {
    fn take(&mut self, key: &Key, seats: Vec<Seat>) {
        for seat in seats {
            self.taken.entry(seat).or_default().push(key.clone());
        }
    }

    fn full(&self, seat: &Seat, config: &Config) -> bool {
        let taken = self.taken.get(seat).map_or(0, Vec::len);
        limit(seat, config).is_some_and(|limit| taken >= limit)
    }

    /// Puts a migration at the end of those that wait for this seat.
    fn queue(&mut self, key: &Key, seat: Seat, config: &Config) -> Place {
        let ahead = self.waiting.get(&seat).map_or(0, |(_, count)| *count);
        let limit = limit(&seat, config).unwrap_or_default();
        let who = match self.waiting.get(&seat) {
            Some((before, _)) => format!("behind {before}"),
            None => format!("taken by {}", names(self.taken.get(&seat).map_or(&[], Vec::as_slice))),
        };
        let text = format!("{seat}: at most {limit} at once, {who}");
        self.waiting.insert(seat, (key.clone(), ahead + 1));
        Place::Wait(text, ahead)
    }
}

fn limit(seat: &Seat, config: &Config) -> Option<usize> {
    let limit = match seat {
        Seat::Any => Some(config.max_concurrent),
        Seat::Provider(_) => config.max_per_provider,
        Seat::Host(_) => config.max_per_host,
    };
    limit.map(|limit| limit.max(1))
}

/// The first few names.
fn names(keys: &[Key]) -> String {
    const SHOWN: usize = 3;
    let mut shown: Vec<String> = keys.iter().take(SHOWN).map(ToString::to_string).collect();
    if keys.len() > SHOWN {
        shown.push(format!("{} more", keys.len() - SHOWN));
    }
    shown.join(", ")
}

async fn form(store: &dyn Store, config: &Config, formed: Time) -> Result<Line, StoreError> {
    let mut resources = Resources::new(store, config);
    let mut seats = Seats::default();
    let mut waiting = Vec::new();
    let migrations = store.migrations().await?.into_iter();
    for migration in migrations.filter(|migration| !config.bystanders.contains(&key(migration))) {
        match standing(&migration) {
            Standing::Waits(since) => waiting.push((since, key(&migration), migration)),
            Standing::Holds => {
                let taken = resources.seats(&migration).await?;
                seats.take(&key(&migration), taken);
            }
            Standing::Apart => {}
        }
    }
    waiting.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    let mut places = HashMap::with_capacity(waiting.len());
    for (_, key, migration) in waiting {
        // Who cannot go anyway is not worth a look at its Providers.
        let wanted = if seats.full(&Seat::Any, config) {
            vec![Seat::Any]
        } else {
            resources.seats(&migration).await?
        };
        let full = wanted.iter().find(|seat| seats.full(seat, config)).cloned();
        let place = if let Some(seat) = full {
            seats.queue(&key, seat, config)
        } else {
            seats.take(&key, wanted);
            Place::Go
        };
        places.insert(key, place);
    }
    Ok(Line { formed, places })
}

/// How a migration stands to the line.
enum Standing {
    /// In it, since then.
    Waits(Time),
    /// Past it, and not at its end.
    Holds,
    /// Neither: it has not begun, or has come to its end.
    Apart,
}

fn standing(migration: &VMMigration) -> Standing {
    let Some(status) = &migration.status else {
        return Standing::Apart;
    };
    let deleted = migration.metadata.deletion_timestamp.is_some();
    match (status.phase, &status.start_time) {
        _ if status.completion_time.is_some() => Standing::Apart,
        (Phase::Pending, Some(since)) if !deleted => Standing::Waits(since.clone()),
        (Phase::Pending, _) => Standing::Apart,
        _ => Standing::Holds,
    }
}

/// Namespace and name of a migration.
pub(crate) fn key(migration: &VMMigration) -> Key {
    let meta = &migration.metadata;
    Key::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

/// What migrations refer to, each looked up once.
struct Resources<'a> {
    store: &'a dyn Store,
    config: &'a Config,
    /// The host of each Provider; none where there is no such Provider.
    providers: HashMap<Key, Option<String>>,
    /// The Provider of each VirtualMachine.
    vms: HashMap<Key, Option<Key>>,
}

impl<'a> Resources<'a> {
    fn new(store: &'a dyn Store, config: &'a Config) -> Self {
        Self {
            store,
            config,
            providers: HashMap::new(),
            vms: HashMap::new(),
        }
    }

    /// The seats that a migration takes. What it refers to and is not there takes none: that is for Validating to say.
    async fn seats(&mut self, migration: &VMMigration) -> Result<Vec<Seat>, StoreError> {
        let mut seats = vec![Seat::Any];
        if self.config.max_per_provider.is_none() && self.config.max_per_host.is_none() {
            return Ok(seats);
        }
        let spec = migration.effective_spec();
        let own = key(migration).namespace;
        let target = &spec.target_provider_ref;
        let target = Key::new(target.namespace.clone().unwrap_or(own), &target.name);
        let source = self
            .provider_of(Key::new(&spec.source_namespace, &spec.source_name))
            .await?;
        for provider in source.into_iter().chain([target]) {
            if let Some(host) = self.host(&provider).await? {
                seats.push(Seat::Provider(provider));
                seats.push(Seat::Host(host));
            }
        }
        seats.sort();
        seats.dedup();
        Ok(seats)
    }

    async fn provider_of(&mut self, vm: Key) -> Result<Option<Key>, StoreError> {
        if let Some(known) = self.vms.get(&vm) {
            return Ok(known.clone());
        }
        let found = self.store.virtual_machine(&vm).await?;
        let provider = found.map(|found| provider_key(&vm, &found));
        self.vms.insert(vm, provider.clone());
        Ok(provider)
    }

    async fn host(&mut self, provider: &Key) -> Result<Option<String>, StoreError> {
        if let Some(known) = self.providers.get(provider) {
            return Ok(known.clone());
        }
        let found = self.store.provider(provider).await?;
        let host = found.map(|found: Provider| host::of(&found.spec.endpoint));
        self.providers.insert(provider.clone(), host.clone());
        Ok(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_far_behind_asks_less_often_but_not_never() {
        let poll = Duration::from_secs(1);
        let waits: Vec<_> = [0, 1, 9, 5000].map(|ahead| wait(poll, ahead).as_secs()).into();
        assert_eq!(waits, [1, 2, 10, 30]);
        assert_eq!(wait(Duration::from_mins(1), 3), Duration::from_mins(1));
    }

    #[test]
    fn only_a_few_are_named() {
        let keys: Vec<_> = ["a", "b", "c", "d", "e"].map(|name| Key::new("n", name)).into();
        assert_eq!(names(&keys[..2]), "n/a, n/b");
        assert_eq!(names(&keys), "n/a, n/b, n/c, 2 more");
    }
}
