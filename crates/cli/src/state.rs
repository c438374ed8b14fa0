//! Where the state is, and which migration a name means.

use std::path::PathBuf;
use std::sync::Arc;

use vmferry_api::Key;
use vmferry_api::manifest::{DEFAULT_NAMESPACE, key_of};
use vmferry_local::{LocalStore, Observer, Record, StateDir};

use crate::args;
use crate::exit::Failure;

impl args::State {
    /// The directory that is meant.
    fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(dir) = &self.dir {
            return Ok(dir.clone());
        }
        let set = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        set("XDG_STATE_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| set("HOME").map(|home| home.join(".local/state")))
            .map(|base| base.join("vmferry"))
            .ok_or_else(|| Failure::bad_input("there is no state directory: HOME is not set; give one with --state"))
    }

    /// Opens it to work in.
    pub fn open(&self, observer: Arc<dyn Observer>) -> Result<LocalStore, Failure> {
        let dir = StateDir::open(self.path()?).map_err(Failure::bad_input)?;
        LocalStore::load(Arc::new(dir), Some(observer)).map_err(Failure::bad_input)
    }

    /// Opens it to look at, whoever works there.
    pub fn look(&self) -> Result<LocalStore, Failure> {
        let dir = StateDir::look(self.path()?).map_err(Failure::bad_input)?;
        LocalStore::load(Arc::new(dir), None).map_err(Failure::bad_input)
    }
}

impl args::Namespace {
    /// The migration that is meant by `NAME` or `NAMESPACE/NAME`.
    pub fn find(&self, store: &LocalStore, name: &str) -> Result<Record, Failure> {
        let (namespace, name) = match name.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (self.namespace.as_deref(), name),
        };
        let key = Key::new(namespace.unwrap_or(DEFAULT_NAMESPACE), name);
        store.record(&key).ok_or_else(|| {
            let known: Vec<String> = store
                .records()
                .iter()
                .take(20)
                .map(|record| key_of(&record.migration).to_string())
                .collect();
            let known = if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            };
            Failure::bad_input(format!(
                "there is no migration {key} in {}: known are {known}; another state directory is given with --state",
                store.dir().root().display()
            ))
        })
    }
}
