//! A folder with manifests and state, and the command run in it.

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use tempfile::TempDir;

/// Manifests that are well-formed. No host answers at the endpoints.
pub const GOOD: &str = "apiVersion: infra.virtrigaud.io/v1beta1
kind: VMMigration
metadata:
  name: web
spec:
  sourceName: web
  sourceNamespace: default
  targetProviderRef: {name: b}
  targetName: web-2
  storage: {type: nfs, path: /nonexistent/staging}
  retryPolicy: {maxAttempts: 0}
---
apiVersion: infra.virtrigaud.io/v1beta1
kind: Provider
metadata: {name: a}
spec: {type: libvirt, endpoint: 'qemu+unix:///system?socket=/nonexistent/a'}
---
apiVersion: infra.virtrigaud.io/v1beta1
kind: Provider
metadata: {name: b}
spec: {type: libvirt, endpoint: 'qemu+unix:///system?socket=/nonexistent/b', credentialSecretRef: {name: b}}
---
apiVersion: infra.virtrigaud.io/v1beta1
kind: VirtualMachine
metadata: {name: web}
spec: {providerRef: {name: a}}
---
apiVersion: v1
kind: Secret
metadata: {name: b}
stringData: {password: hunter2}
";

/// A folder of its own.
pub struct Bench {
    dir: TempDir,
}

/// What a command did.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Bench {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The command, with state in this folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::cargo_bin("vmferry").unwrap();
        command
            .current_dir(self.dir.path())
            .env_remove("VMFERRY_LOG")
            .env("VMFERRY_STATE", self.path("state"))
            .timeout(std::time::Duration::from_mins(1))
            .args(args);
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }

    /// Whether there is any state.
    pub fn has_state(&self) -> bool {
        fn files(path: &Path) -> usize {
            std::fs::read_dir(path).map_or(0, |entries| {
                entries
                    .map(|entry| entry.unwrap().path())
                    .map(|path| if path.is_dir() { files(&path) } else { 1 })
                    .sum()
            })
        }
        ["migrations", "providers", "virtualmachines", "events"]
            .iter()
            .any(|kind| files(&self.path("state").join(kind)) > 0)
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// Holds it to an exit code and to words on standard error.
    #[track_caller]
    pub fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in: {}", self.err);
        }
        assert!(
            !self.err.contains("hunter2") && !self.err.contains("panicked"),
            "{}",
            self.err
        );
    }

    #[track_caller]
    pub fn succeeded(&self) -> &str {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        &self.out
    }
}
