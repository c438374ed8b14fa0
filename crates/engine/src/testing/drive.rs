//! Drives migrations as a controller does: calls step again and again, after crashes with a new engine.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use vmferry_api::{Key, Phase, VMMigration};

use super::check::owner;
use super::manifests::{self, NS};
use super::world::World;
use crate::engine::{Config, Engine, Next, Ports};

/// More steps than any migration needs.
const MOST_STEPS: usize = 5000;

/// How a migration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Ready,
    Failed,
    Gone,
}

/// A world with an engine in it.
pub(crate) struct Drive {
    pub world: World,
    pub config: Config,
    engine: Engine,
    foreign: String,
}

impl Drive {
    pub(crate) fn new(world: World) -> Self {
        let config = Config::default();
        let foreign = world.state().foreign();
        Self {
            engine: engine(&world, &config),
            world,
            config,
            foreign,
        }
    }

    /// Adds migration `m` after `change`.
    pub(crate) fn add(&self, change: impl FnOnce(&mut VMMigration)) -> Key {
        self.add_as("m", 1, change)
    }

    pub(crate) fn add_as(&self, name: &str, number: u32, change: impl FnOnce(&mut VMMigration)) -> Key {
        let mut migration = manifests::migration(name, number);
        change(&mut migration);
        let key = Key::new(NS, name);
        self.world.state().migrations.insert(key.clone(), migration);
        key
    }

    /// One step; `None` where the process died in it.
    pub(crate) fn step(&mut self, key: &Key) -> Option<Next> {
        let before = self.world.state().migrations.get(key).cloned();
        let next = self.engine.step(key).now_or_never();
        self.world.state().check_step(key, before.as_ref());
        match next {
            Some(Ok(next)) => Some(next),
            Some(Err(_)) => Some(Next::After(Duration::from_secs(1))),
            None => {
                self.restart();
                None
            }
        }
    }

    /// The engine, for steps that overlap.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// A new engine over the same world, with the configuration as it is now.
    pub(crate) fn restart(&mut self) {
        self.engine = engine(&self.world, &self.config);
    }

    pub(crate) fn wait(&self, wait: Duration) {
        self.world.state().now += i64::try_from(wait.as_secs()).unwrap().max(1);
    }

    pub(crate) fn status(&self, key: &Key) -> vmferry_api::VMMigrationStatus {
        self.world.state().migrations[key].status.clone().unwrap_or_default()
    }

    pub(crate) fn phase(&self, key: &Key) -> Phase {
        self.status(key).phase
    }

    /// Steps until `stop` says so.
    pub(crate) fn until(&mut self, key: &Key, mut stop: impl FnMut(&Self) -> bool) {
        for _ in 0..MOST_STEPS {
            if stop(self) {
                return;
            }
            if let Some(Next::After(wait)) = self.step(key) {
                self.wait(wait);
            }
        }
        panic!("never came to it: {:#?}", self.status(key));
    }

    /// Steps until a migration ends, and checks what must hold then.
    pub(crate) fn run(&mut self, key: &Key) -> End {
        let mut last = self.world.state().migrations[key].clone();
        for step in 0..MOST_STEPS {
            let stored = self.world.state().migrations.get(key).cloned();
            last = stored.unwrap_or(last);
            let end = match self.step(key) {
                Some(Next::Done(Phase::Ready)) => End::Ready,
                Some(Next::Done(_)) => End::Failed,
                Some(Next::Gone) => End::Gone,
                Some(Next::After(wait)) => {
                    // Now and then it is called too early, as controllers do.
                    if step % 5 != 0 {
                        self.wait(wait);
                    }
                    continue;
                }
                Some(Next::Now) | None => continue,
            };
            let stored = self.world.state().migrations.get(key).cloned();
            let number = last.metadata.uid.clone().unwrap();
            let number = u32::from_str_radix(&number[..8], 16).unwrap();
            let state = self.world.state();
            assert_eq!(state.foreign(), self.foreign, "something of another's was touched");
            state.check_end(key, &owner(number), end, &stored.unwrap_or(last));
            return end;
        }
        panic!("no end after {MOST_STEPS} steps: {last:#?}");
    }
}

fn engine(world: &World, config: &Config) -> Engine {
    let world = Arc::new(world.clone());
    let ports = Ports {
        store: world.clone(),
        connector: world.clone(),
        executor: world.clone(),
        clock: world.clone(),
        events: world,
    };
    Engine::new(ports, config.clone())
}
