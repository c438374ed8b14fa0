//! Libvirt hosts.

mod process;

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command::{Must, run, try_run};
use process::HostProcess;

/// How a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Without privileges, for one user; reached by its unix socket.
    Session,
    /// As root, as a server has it; reached by unix socket, TCP and ssh.
    System,
}

/// A libvirt daemon of its own with a storage pool `default`. Dropped, it is gone with its guests and files; so is it when
/// this process is killed.
#[derive(Debug)]
pub struct Host {
    process: HostProcess,
    kind: Kind,
    label: String,
}

/// How to get into a host by ssh.
#[derive(Debug, Clone)]
pub struct Ssh {
    /// Folder of the files below.
    dir: PathBuf,
    /// Address and port, as in an URI.
    pub authority: String,
}

impl Ssh {
    fn read(&self, name: &str) -> String {
        let path = self.dir.join(name);
        std::fs::read_to_string(&path).must(format!("read {}", path.display()))
    }

    /// The private key that root@host accepts, in OpenSSH form.
    pub fn private_key(&self) -> String {
        self.read("id")
    }

    /// A private key that the host does not know.
    pub fn stranger_key(&self) -> String {
        self.read("stranger")
    }

    /// The host's key, in the form of a known_hosts file.
    pub fn known_hosts(&self) -> String {
        self.read("known_hosts")
    }

    /// Another host's key under this host's address: what an impostor would be found out by.
    pub fn impostor_hosts(&self) -> String {
        self.read("impostor_hosts")
    }

    /// The password of root, on this host only.
    pub fn password(&self) -> String {
        self.read("password")
    }
}

impl Host {
    /// Starts a session-mode host. `label` names it in messages.
    pub fn session(label: &str) -> Self {
        Self::start(Kind::Session, label)
    }

    /// Starts a system-mode host with TCP and ssh on an address of its own. Needs root. `label` names it in messages.
    pub fn system(label: &str) -> Self {
        Self::start(Kind::System, label)
    }

    fn start(kind: Kind, label: &str) -> Self {
        Self {
            process: HostProcess::start(kind),
            kind,
            label: label.to_owned(),
        }
    }

    /// What messages call it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// How it runs.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The folder with everything that is the host's.
    pub fn dir(&self) -> &Path {
        self.process.dir()
    }

    /// The folder of the pool `default`.
    pub fn pool_dir(&self) -> PathBuf {
        self.dir().join("pool")
    }

    /// The URI of its unix socket.
    pub fn uri(&self) -> String {
        let run = self.dir().join("run");
        match self.kind {
            Kind::Session => format!("qemu+unix:///session?socket={}/libvirt/libvirt-sock", run.display()),
            Kind::System => format!("qemu+unix:///system?socket={}/libvirt-sock", run.display()),
        }
    }

    /// The URI of its TCP port. System mode only.
    pub fn tcp_uri(&self) -> String {
        format!("qemu+tcp://{}/system", self.process.address())
    }

    /// Its URI by ssh as root. System mode only.
    pub fn ssh_uri(&self) -> String {
        format!("qemu+ssh://root@{}/system", self.ssh().authority)
    }

    /// How to get in by ssh. System mode only.
    pub fn ssh(&self) -> Ssh {
        Ssh {
            dir: self.dir().join("ssh"),
            authority: format!("{}:2222", self.process.address()),
        }
    }

    /// What a `virsh` command on this host says, trimmed. The command must succeed.
    #[track_caller]
    pub fn virsh<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        run(self.virsh_command().args(args)).trim().to_owned()
    }

    /// What a `virsh` command on this host says, or why it failed.
    pub fn try_virsh<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String, String> {
        try_run(self.virsh_command().args(args)).map(|said| said.trim().to_owned())
    }

    /// What each of several `virsh` commands says, trimmed, and nothing for one that fails: for the price of one, since it is
    /// the start of `virsh` that costs.
    #[track_caller]
    pub fn virsh_each(&self, commands: &[String]) -> Vec<String> {
        const END: &str = "== end of an answer ==";
        let script: Vec<String> = commands
            .iter()
            .map(|command| format!("{command}; echo '{END}'"))
            .collect();
        // It says so with its exit status where any of them failed.
        let output = self.virsh_command().arg(script.join("; ")).output().must("run virsh");
        let said = String::from_utf8_lossy(&output.stdout);
        let answers: Vec<String> = said.split(END).map(|answer| answer.trim().to_owned()).collect();
        assert!(
            answers.len() > commands.len(),
            "virsh on {} ended early: {said}",
            self.label
        );
        answers
    }

    /// `virsh`, connected to this host, for the caller to add arguments to.
    pub fn virsh_command(&self) -> Command {
        let mut command = Command::new("virsh");
        command.args(["-q", "-c", &self.uri()]).env("LC_ALL", "C");
        command
    }

    /// Hands a file over to the user that the host's guests run as.
    pub fn give(&self, path: &Path) {
        let Some(user) = self.guest_user() else { return };
        chown(path, Some(user), None).must(format!("give {} to user {user}", path.display()));
    }

    /// The user that guests run as, where it is not the one that runs this process.
    pub fn guest_user(&self) -> Option<u32> {
        use std::os::unix::fs::MetadataExt;
        let owner = std::fs::metadata(self.pool_dir()).must("look at the pool").uid();
        (owner != rustix::process::geteuid().as_raw()).then_some(owner)
    }

    /// Defines and starts one more storage pool in a new folder below [`dir`](Self::dir), and gives the folder.
    pub fn add_pool(&self, name: &str) -> PathBuf {
        let dir = self.dir().join(name);
        std::fs::create_dir(&dir).must(format!("make {}", dir.display()));
        self.give(&dir);
        let target = dir.display().to_string();
        self.virsh(["pool-define-as", name, "dir", "--target", &target]);
        self.virsh(["pool-start", name]);
        dir
    }

    /// Defines and starts a storage pool that has no room for more than `bytes`. System mode only.
    pub fn add_small_pool(&self, name: &str, bytes: u64) {
        let dir = self.add_pool(name);
        // A file system of its own, in the host's mount namespace only.
        let init = self
            .process
            .pids("host-init.sh")
            .first()
            .must("find the host's init")
            .to_string();
        run(Command::new("nsenter")
            .args(["--mount", "--target", &init, "mount", "-t", "tmpfs", "-o"])
            .arg(format!("size={bytes}"))
            .arg("tmpfs")
            .arg(dir));
        self.virsh(["pool-refresh", name]);
    }

    /// Kills the daemon, its guests and its ssh server at once, as a power cut would. The files stay until the drop.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills the daemon alone: guests run on, and nobody answers.
    pub fn kill_daemon(&self) {
        self.process.kill_daemon();
    }

    /// Starts the daemon again, and waits until it answers.
    #[track_caller]
    pub fn start_daemon(&self) {
        self.process.start_daemon(self.kind);
        crate::wait::wait_for("the daemon to answer", Duration::from_secs(30), || {
            self.try_virsh(["uri"]).ok()
        });
    }

    /// The command lines of all processes of the host, its own daemons included, in no order.
    pub fn processes(&self) -> Vec<String> {
        self.process.list()
    }

    /// Process ids of the host's processes whose command line contains `text`.
    pub fn pids(&self, text: &str) -> Vec<u32> {
        self.process.pids(text)
    }

    /// Waits until the host's guest of that name says `text` on its serial console, and gives the line.
    #[track_caller]
    pub fn console_line(&self, domain: &str, text: &str, limit: Duration) -> String {
        crate::console::line_with(self, domain, text, limit)
    }
}
