//! The state of the world, and what can befall it.
//!
//! Every port call goes through [`World::call`]: there the jobs move on, the source's guest writes, and a planned mishap
//! happens. No call ever waits, except one that is to crash: it waits for ever, and the driver drops the step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use vmferry_api::{Key, Phase, Provider, Secret, VMMigration, VirtualMachine};
use vmferry_provider::{FrozenId, Hardware, Owner, PowerState, VmSpec, VolumeSpec};

use super::executor::FakeJob;
use super::manifests::{self, NS};
use crate::port::{Event, FailureKind};

/// A mishap at a port call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inject {
    /// The call fails, before or after it took effect.
    Fail { permanent: bool, after: bool },
    /// The process dies, before or after the call took effect. The jobs die with it, or not.
    Crash { after: bool, jobs_too: bool },
    /// The source VM is restarted: what was frozen does not hold any more.
    Restart,
    /// The whole objects in staging rot.
    Corrupt,
    /// The next import writes something else than it read, and its digest says so.
    WrongBytes,
    /// The executor loses its jobs.
    LoseJobs,
    /// The jobs under way fail.
    FailJobs(FailureKind),
    /// The migration is deleted.
    Delete,
    /// The user annotates the migration.
    Annotate(&'static str, &'static str),
}

/// A state frozen at the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FakeFrozen {
    pub owner: Owner,
    pub id: String,
    /// Whether it still holds; what is left of one that does not must be released all the same.
    pub holds: bool,
    pub kept: bool,
}

/// A staged object: of which frozen state, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FakeObject {
    pub frozen: String,
    pub content: u64,
    pub rotten: bool,
}

/// An upload under way: the frozen state of each part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FakeUpload {
    pub parts: Vec<String>,
}

/// A target volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FakeVolume {
    pub owner: Owner,
    pub spec: VolumeSpec,
    pub content: Option<u64>,
}

/// A target VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FakeVm {
    pub owner: Owner,
    pub spec: VmSpec,
    pub power: PowerState,
}

/// Everything.
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct State {
    pub now: i64,
    pub calls: u64,
    pub plan: BTreeMap<u64, Inject>,
    /// Names of the calls so far.
    pub trace: Vec<&'static str>,
    /// What should never have happened.
    pub violations: Vec<String>,

    pub migrations: BTreeMap<Key, VMMigration>,
    pub vms: BTreeMap<Key, VirtualMachine>,
    pub providers: BTreeMap<Key, Provider>,
    pub secrets: BTreeMap<Key, Secret>,
    pub events: Vec<Event>,

    /// The source VM, unless it was deleted: what it is made of, whether it runs.
    pub source: Option<(Hardware, PowerState)>,
    pub source_deleted: bool,
    /// What the guest writes: each disk's content is this plus its index.
    pub written: u64,
    pub frozen: Vec<FakeFrozen>,
    /// Contents of the disks of each state that was ever frozen.
    pub history: BTreeMap<String, Vec<u64>>,

    pub objects: BTreeMap<String, FakeObject>,
    pub uploads: BTreeMap<String, FakeUpload>,
    pub notes: BTreeMap<String, String>,
    /// Parts that were moved: a part that comes twice is work done again.
    pub moved: BTreeSet<(String, usize, String)>,

    pub volumes: BTreeMap<String, FakeVolume>,
    pub target_vms: BTreeMap<String, FakeVm>,
    pub boots: bool,

    pub jobs: BTreeMap<String, FakeJob>,
    pub wrong_bytes: bool,
    /// Whether the jobs stand still.
    pub paused: bool,
    /// Whether whoever is to start jobs has no time for it.
    pub busy: bool,
    /// Whether the namespace of the target's VirtualMachine is not there.
    pub no_namespace: bool,
}

impl State {
    pub(crate) fn violation(&mut self, text: impl Into<String>) {
        self.violations.push(text.into());
    }

    /// The guest writes, the jobs move.
    fn tick(&mut self) {
        if matches!(self.source, Some((_, PowerState::On))) {
            self.written += 100;
        }
        if !self.paused {
            self.run_jobs();
        }
    }

    /// The state of a source that is shut off, as it was when a migration that is Ready froze it.
    pub(super) fn offline_after_release(&self) -> Option<String> {
        let mut statuses = self
            .migrations
            .values()
            .filter_map(|migration| migration.status.as_ref());
        let id = statuses
            .find(|status| status.phase == Phase::Ready)?
            .snapshot_id
            .clone()?;
        let is_off = matches!(self.source, Some((_, PowerState::Off)));
        (is_off && id.starts_with(FrozenId::OFFLINE) && self.history[&id][0] == self.written).then_some(id)
    }

    fn befall(&mut self, inject: Inject) {
        match inject {
            Inject::Restart => {
                self.frozen
                    .iter_mut()
                    .filter(|frozen| !frozen.kept)
                    .for_each(|frozen| frozen.holds = false);
            }
            Inject::Corrupt => {
                for (key, object) in &mut self.objects {
                    object.rotten |= !is_foreign(key);
                }
            }
            Inject::WrongBytes => self.wrong_bytes = true,
            Inject::LoseJobs | Inject::Crash { jobs_too: true, .. } => self.jobs.clear(),
            Inject::FailJobs(kind) => {
                if matches!(kind, FailureKind::StagedCorrupt | FailureKind::FrozenStateGone) {
                    self.moved.clear();
                }
                self.jobs.values_mut().for_each(|job| job.fail(kind));
            }
            Inject::Delete => self.delete(&Key::new(NS, "m")),
            Inject::Annotate(name, value) => self.annotate(&Key::new(NS, "m"), name, value),
            Inject::Fail { .. } | Inject::Crash { jobs_too: false, .. } => {}
        }
    }
}

/// All fakes share one of these.
#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<State>>);

impl World {
    /// A world with VM `web` at Provider `a`, Provider `b`, and things of others with names like ours.
    pub(crate) fn new(disks: usize) -> Self {
        let mut state = State {
            now: 1_700_000_000,
            calls: 0,
            plan: BTreeMap::new(),
            trace: Vec::new(),
            violations: Vec::new(),
            migrations: BTreeMap::new(),
            vms: BTreeMap::from([(Key::new(NS, "web"), manifests::vm("web", "a"))]),
            providers: ["a", "b"]
                .map(|name| (Key::new(NS, name), manifests::provider(name)))
                .into(),
            secrets: BTreeMap::from([manifests::secret("login")]),
            events: Vec::new(),
            source: Some((manifests::hardware(disks, 2), PowerState::On)),
            source_deleted: false,
            written: 1000,
            frozen: Vec::new(),
            history: BTreeMap::new(),
            objects: BTreeMap::new(),
            uploads: BTreeMap::new(),
            notes: BTreeMap::new(),
            moved: BTreeSet::new(),
            volumes: BTreeMap::new(),
            target_vms: BTreeMap::new(),
            boots: true,
            jobs: BTreeMap::new(),
            wrong_bytes: false,
            paused: false,
            busy: false,
            no_namespace: false,
        };
        state.seed();
        Self(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// One port call: the world moves on, a planned mishap happens, the call takes effect or not.
    pub(crate) async fn call<T, E>(
        &self,
        name: &'static str,
        error: impl FnOnce(bool) -> E,
        act: impl FnOnce(&mut State) -> Result<T, E>,
    ) -> Result<T, E> {
        let inject = {
            let mut state = self.state();
            state.calls += 1;
            state.trace.push(name);
            state.tick();
            let calls = state.calls;
            let inject = state.plan.remove(&calls);
            if let Some(inject) = inject {
                state.befall(inject);
            }
            inject
        };
        match inject {
            Some(Inject::Fail { permanent, after }) => {
                if after {
                    let _ = act(&mut self.state());
                }
                Err(error(permanent))
            }
            Some(Inject::Crash { after, .. }) => {
                if after {
                    let _ = act(&mut self.state());
                }
                std::future::pending().await
            }
            _ => act(&mut self.state()),
        }
    }
}

/// Of somebody else: seeded, never to be touched.
pub(crate) fn is_foreign(name: &str) -> bool {
    name.contains("ffffffff")
}
