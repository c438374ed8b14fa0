//! The process of a container.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt as _;
use rustix::process::{Pid, Signal};

use super::api::{Node, namespace};
use super::environment::variables;
use super::expansion::expand;
use super::volumes::{Mount, mounts};

/// Makes the mounts (from, to, `ro` or `rw`) that only the process sees, and becomes the program, which dies with the node.
const START: &str = r#"
set -e
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /mnt
while [ "$1" != -- ]; do
    mkdir -p "$2"
    mount --bind "$1" "$2"
    [ "$3" = rw ] || mount -o remount,bind,ro "$2"
    shift 3
done
exec setpriv --pdeathsig KILL "$@""#;

/// A process with its group. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Process(Child);

/// Prepares and starts the container of a Pod, or says why it cannot start.
pub(super) async fn start(node: &Node, pod: &Pod) -> Result<Process, String> {
    let spec = pod.spec.as_ref().ok_or("it has no spec")?;
    let [container] = spec.containers.as_slice() else {
        return Err("this kubelet runs Pods of one container".to_owned());
    };
    if spec.init_containers.as_ref().is_some_and(|init| !init.is_empty()) {
        return Err("this kubelet runs no init containers".to_owned());
    }
    let (folder, variables) = (node.folder(pod), variables(node, pod, container).await?);
    let mounts = mounts(node, pod, container).await?;
    let words = program(node, container)
        .into_iter()
        .chain(container.args.clone().unwrap_or_default());
    let mut command = in_mounts(&mounts);
    command.args(words.map(|word| expand(&word, |name| variables.get(name).cloned())));
    spawn(command.env_clear().envs(&variables), &folder, pod)
        .map_err(|error| format!("cannot start {command:?}: {error}"))
}

/// The container's command, or the image's.
fn program(node: &Node, container: &Container) -> Vec<String> {
    let image = node.spec.entrypoint.display().to_string();
    let Some((program, arguments)) = container.command.as_deref().and_then(<[String]>::split_first) else {
        return vec![image];
    };
    // The image has it somewhere else than this machine.
    let is_image = Path::new(program).file_name() == node.spec.entrypoint.file_name();
    let program = if is_image { image } else { program.clone() };
    [&[program], arguments].concat()
}

fn in_mounts(mounts: &[Mount]) -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::getuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "--", "sh", "-c", START, "sh"]);
    for mount in mounts {
        let mode = if mount.read_only { "ro" } else { "rw" };
        command.arg(&mount.folder).args([&mount.at, mode]);
    }
    command.arg("--");
    command
}

fn spawn(command: &mut Command, folder: &Path, pod: &Pod) -> std::io::Result<Process> {
    fs::create_dir_all(folder.join("home"))?;
    fs::write(folder.join("name"), format!("{}/{}", namespace(pod), pod.name_any()))?;
    let log = File::create(folder.join("log"))?;
    command
        .current_dir(folder.join("home"))
        .stdin(Stdio::null())
        .stderr(log.try_clone()?)
        .stdout(log)
        .process_group(0);
    command.spawn().map(Process)
}

impl Process {
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The exit code once it has ended; for a signal 128 more than its number, as a shell has it.
    pub(super) fn exit_code(&mut self) -> Option<i32> {
        let status = self.0.try_wait().ok().flatten()?;
        status.code().or_else(|| status.signal().map(|signal| 128 + signal))
    }

    /// Sends a signal to the whole group.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(group) = Pid::from_raw(self.0.id().cast_signed()) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.0.wait();
    }
}
