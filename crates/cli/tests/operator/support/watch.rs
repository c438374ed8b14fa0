//! The migrations of a cluster, as they were last seen.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use futures::StreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt as _};
use tokio_util::sync::CancellationToken;
use vmferry_api::VMMigration;
use vmferry_testkit::kube::Cluster;

use super::Record;

/// Follows the migrations from a thread of its own until it is dropped.
#[derive(Debug)]
pub struct Watch {
    seen: Seen,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// Migrations by their name.
#[derive(Debug, Clone, Default)]
pub struct Seen(Arc<Mutex<BTreeMap<String, Record>>>);

impl Seen {
    /// A migration; none where none was seen.
    pub fn get(&self, name: &str) -> Option<Record> {
        self.lock().get(name).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, event: Event<VMMigration>) {
        match event {
            Event::Apply(migration) | Event::InitApply(migration) => {
                let record = Record(serde_json::to_value(&migration).unwrap());
                self.lock().insert(migration.name_any(), record);
            }
            Event::Delete(migration) => drop(self.lock().remove(&migration.name_any())),
            Event::Init | Event::InitDone => {}
        }
    }
}

impl Watch {
    pub fn start(cluster: &Cluster) -> Self {
        let (seen, stop, admin) = (Seen::default(), CancellationToken::new(), cluster.admin().clone());
        let (filled, stopped) = (seen.clone(), stop.clone());
        let follow = async move {
            let api: Api<VMMigration> = Api::all(admin.client().await);
            let mut events = pin!(watcher(api, watcher::Config::default()));
            while let Some(event) = events.next().await {
                // It goes on by itself after an error.
                if let Ok(event) = event {
                    filled.take(event);
                }
            }
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(stopped.run_until_cancelled(follow));
        });
        Self {
            seen,
            stop,
            thread: Some(thread),
        }
    }

    /// What was seen, for as long as it is followed.
    pub fn seen(&self) -> Seen {
        self.seen.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
