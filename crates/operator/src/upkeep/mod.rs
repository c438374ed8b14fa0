//! The status of Providers and of the VirtualMachines that migrations touch.
//!
//! Where another operator of the API group runs, it keeps them, and this one only reads. Where none does, somebody has to say
//! whether a Provider answers and what became of a VM. Which of the two it is, each object says itself: by who wrote its
//! status before.

mod machines;
mod ownership;
mod providers;
mod write;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::{Api, Client};
use vmferry_api::{Key, Provider};
use vmferry_engine::port::{Connector, Store};
use vmferry_fault::Fault;
use vmferry_provider::{Hypervisor, Kind};

use crate::cache::Cached;
use crate::store::KubeStore;

/// How often one object is looked at.
const EVERY: Duration = Duration::from_mins(1);
/// How often it is seen which ones are due.
const TICK: Duration = Duration::from_secs(5);
/// How many hosts are asked at once.
const AT_ONCE: usize = 4;
/// How long one host may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Whether the operator writes the status of Providers and VirtualMachines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Upkeep {
    /// Where nobody else does.
    #[default]
    Auto,
    /// Of all.
    Manage,
    /// Of none.
    Read,
}

/// Keeps the status of Providers and VirtualMachines.
pub(crate) struct Keeper {
    client: Client,
    store: Arc<KubeStore>,
    connector: Arc<dyn Connector>,
    mode: Upkeep,
    looked: Mutex<HashMap<(&'static str, Key), Looked>>,
}

/// When an object was last looked at, and what it was then.
struct Looked {
    at: Instant,
    generation: Option<i64>,
}

impl Keeper {
    pub(crate) fn new(client: Client, store: Arc<KubeStore>, connector: Arc<dyn Connector>, mode: Upkeep) -> Self {
        Self {
            client,
            store,
            connector,
            mode,
            looked: Mutex::default(),
        }
    }

    /// Looks at each object once a minute, and at once when it was declared anew. Never ends.
    pub(crate) async fn run(&self) {
        if self.mode == Upkeep::Read {
            return std::future::pending().await;
        }
        loop {
            let providers = self.store.providers.all();
            let due = providers
                .into_iter()
                .filter(|provider| self.is_due("Provider", &**provider));
            let looks = futures::stream::iter(due).map(|provider| async move { self.provider(&provider).await });
            looks.buffer_unordered(AT_ONCE).collect::<()>().await;

            let machines = self.machines();
            let due = machines
                .into_iter()
                .filter(|(_, vm)| self.is_due("VirtualMachine", &**vm));
            let looks = futures::stream::iter(due).map(|(found, vm)| async move { self.machine(&vm, found).await });
            looks.buffer_unordered(AT_ONCE).collect::<()>().await;
            tokio::time::sleep(TICK).await;
        }
    }

    /// Whether it is time to look at an object; if so, it is taken for looked at.
    fn is_due<K: Cached>(&self, kind: &'static str, object: &K) -> bool {
        let key = vmferry_api::manifest::key_of(object);
        let generation = object.meta().generation;
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.retain(|_, looked| looked.at.elapsed() < 2 * EVERY);
        let last = looked.get(&(kind, key.clone()));
        if last.is_some_and(|last| last.at.elapsed() < EVERY && last.generation == generation) {
            return false;
        }
        let at = Instant::now();
        looked.insert((kind, key), Looked { at, generation });
        true
    }

    /// Connects to a Provider.
    async fn open(&self, key: &Key, provider: &Provider) -> Result<Arc<dyn Hypervisor>, Fault<Kind>> {
        let failed = |detail: String| Fault::new(Kind::Unreachable, "open", format!("Provider {key}")).detail(detail);
        let reference = provider.spec.credential_secret_ref.as_ref();
        let secret = match reference.and_then(|reference| Some((reference.name.as_deref()?, reference))) {
            None => None,
            Some((name, reference)) => {
                let namespace = reference.namespace.as_deref().unwrap_or(&key.namespace);
                let secret_key = Key::new(namespace, name);
                let secret = self.store.secret(&secret_key).await;
                let secret = secret.map_err(|error| failed(error.to_string()))?;
                Some(secret.ok_or_else(|| failed(format!("there is no Secret {secret_key}")))?)
            }
        };
        self.connector.hypervisor(provider, secret.as_ref()).await
    }

    fn api<K: Cached>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// A host that does not answer holds up the others no longer than this.
async fn limited<T>(
    what: &'static str,
    key: &Key,
    asked: impl Future<Output = Result<T, Fault<Kind>>>,
) -> Result<T, Fault<Kind>> {
    tokio::time::timeout(LIMIT, asked).await.unwrap_or_else(|_| {
        let text = format!("it did not answer within {} s", LIMIT.as_secs());
        Err(Fault::new(Kind::Unreachable, what, key.to_string()).detail(text))
    })
}

/// The reason of a condition, for what a host answered.
fn reason(kind: Kind) -> &'static str {
    match kind {
        Kind::NotFound => "NotFound",
        Kind::Unreachable => "HostUnreachable",
        Kind::Denied => "AuthenticationFailed",
        Kind::Untrusted => "HostKeyMismatch",
        Kind::Unsupported => "Unsupported",
        Kind::Invalid => "InvalidValue",
        _ => "HostFailed",
    }
}
