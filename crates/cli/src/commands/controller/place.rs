//! Where this process is: its cluster, its namespace, its name, its folder.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use kube::{Client, Config};
use tempfile::TempDir;

use crate::exit::Failure;

/// Where a pod finds its own namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// Where Linux says what this machine is called.
const HOST_NAME_FILE: &str = "/proc/sys/kernel/hostname";

/// A client of the cluster: that of KUBECONFIG, or the one that this pod runs in.
pub async fn client() -> Result<Client, Failure> {
    let config = Config::infer().await.map_err(|error| {
        Failure::bad_input(format!(
            "cannot find the cluster: {error}; set KUBECONFIG, or run it in a pod with a service account"
        ))
    })?;
    Client::try_from(config)
        .map_err(|error| Failure::bad_input(format!("cannot use the configuration of the cluster: {error}")))
}

/// The namespace for what belongs to the operator itself.
pub fn namespace(given: Option<&str>) -> String {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mounted = || std::fs::read_to_string(NAMESPACE_FILE).ok();
    let found = given
        .map(str::to_owned)
        .or_else(|| set("POD_NAMESPACE"))
        .or_else(mounted);
    found.map_or_else(|| "default".to_owned(), |name| name.trim().to_owned())
}

/// A name that no other replica has: a pod's is its own; any other gets a random part.
pub fn identity(given: Option<&str>) -> String {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(name) = given.map(str::to_owned).or_else(|| set("POD_NAME")) {
        return name;
    }
    let host = std::fs::read_to_string(HOST_NAME_FILE).unwrap_or_default();
    format!("{}-{:08x}", host.trim(), rand::random::<u32>())
}

/// The folder for sockets, removed with what this gives back unless it was given.
pub enum Runtime {
    Given(PathBuf),
    Own(TempDir),
}

impl Runtime {
    pub fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Own(folder) => folder.path(),
        }
    }
}

/// Makes the folder for sockets, for nobody else to look into.
pub fn runtime(given: Option<&Path>) -> Result<Runtime, Failure> {
    let failed = |path: &Path, error| {
        Failure::bad_input(format!(
            "cannot make the folder for sockets at {}: {error}; give another with --runtime-dir",
            path.display()
        ))
    };
    let Some(path) = given else {
        let private = std::fs::Permissions::from_mode(0o700);
        let mut folder = tempfile::Builder::new();
        let made = folder.prefix("vmferry-").permissions(private).tempdir();
        return made
            .map(Runtime::Own)
            .map_err(|error| failed(&std::env::temp_dir(), error));
    };
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map(|()| Runtime::Given(path.to_owned()))
        .map_err(|error| failed(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_looks_into_the_folder_for_sockets() {
        let parent = tempfile::tempdir().unwrap();
        for given in [None, Some(parent.path().join("sockets"))] {
            let folder = runtime(given.as_deref()).unwrap();
            let mode = folder.path().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", folder.path().display());
        }
    }
}
